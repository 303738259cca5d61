//! Carrying out a decision. Every step may be repeated: what is done already counts as done.

mod endpoint;

use jiff::Timestamp;
use perennial_shared::alert::{self, Unnoted};
use perennial_shared::aws::auto_scaling::LifecycleAction;
use perennial_shared::aws::sns::SnsApi;
use perennial_shared::aws::ssm::Order;
use perennial_shared::aws::{AwsError, AwsErrorKind};
use perennial_shared::id::{BackupId, Generation, RunId};
use perennial_shared::metrics;
use perennial_shared::pointer::{Pointer, PointerState, nonce};
use perennial_shared::repository::{Claimed, PointerError, Repository, RepositoryError};
use perennial_shared::resolve::resolve;
use perennial_shared::run::Claim;
use perennial_shared::settings::{AutoScaling, Target};
use perennial_shared::verify::sha256_hex;

use crate::decide::{Action, Start};
use crate::observe::Services;
use crate::run_state::DELIVERY;
use crate::world::GivenUp;

/// A step that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// AWS refused or did not answer.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The repository refused or did not answer.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The pointer could not be moved.
    #[error(transparent)]
    Pointer(#[from] PointerError),
}

/// Everything that acting needs.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// The services.
    pub services: Services<'a>,
    /// How a person is told.
    pub sns: &'a dyn SnsApi,
    /// SNS topic for alerts.
    pub topic: &'a str,
    /// The target.
    pub target: &'a Target,
    /// Its group.
    pub group: &'a AutoScaling,
    /// What becomes of an alert that would be repeated and cannot be noted anywhere.
    pub unnoted: Unnoted,
    /// The clock of this round.
    pub now: Timestamp,
}

impl Actor<'_> {
    /// Does one thing. Whether the world may look different afterwards.
    pub async fn act(self, action: &Action) -> Result<bool, ActError> {
        let Services { auto_scaling, ssm, repository, .. } = self.services;
        match action {
            Action::Heartbeat { hook, instance } => {
                gone_is_done(auto_scaling.heartbeat(&self.waiting(hook, instance)).await)?;
                return Ok(false);
            }
            Action::Start(start) => return self.start(start).await,
            Action::Send { run, instance } => self.send(run, instance).await?,
            Action::Cancel { command, instance } => gone_is_done(ssm.cancel(command, instance).await)?,
            Action::TakeOver { run, instance } => return self.take_over(repository, run, instance).await,
            Action::Return { pointer } => return self.return_owner(repository, pointer).await,
            Action::Endpoint { instance, step } => self.endpoint(instance, step).await?,
            Action::GiveUp { instance, kept } => {
                let record = GivenUp { instance: instance.clone(), at: self.now, kept: *kept };
                repository.create_record(&format!("abandoned/{instance}.json"), &record).await?;
                return Ok(false);
            }
            Action::Complete { hook, instance, result } => {
                gone_is_done(auto_scaling.complete(&self.waiting(hook, instance), *result).await)?;
            }
            Action::Tell(alert) => {
                let places: Vec<_> = std::iter::once(repository).chain(self.services.replicas).collect();
                let sent = alert::send_noted_in(&places, alert, self.topic, self.sns, self.unnoted).await?;
                if sent {
                    tracing::warn!(subject = alert.subject(), details = ?alert.details, "alert");
                }
                return Ok(false);
            }
            Action::Measure { values } => {
                metrics::emit(&self.target.name, values);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn waiting(self, hook: &str, instance: &str) -> LifecycleAction {
        LifecycleAction { group: self.group.group.clone(), hook: hook.into(), instance: instance.into() }
    }

    /// Claims first: of two functions that decided the same, one sends the command.
    async fn start(self, start: &Start) -> Result<bool, ActError> {
        let claim = Claim {
            run: start.run.clone(),
            target: self.target.name.clone(),
            instance: start.instance.clone(),
            backup_id: start.backup_id.clone(),
            pointer_version: start.pointer_version.clone(),
            generation: start.generation,
            replace: start.replace,
            claimed_at: self.now,
            nonce: nonce(),
        };
        match self.services.repository.claim(&claim).await? {
            Claimed::Won => {
                self.send(&start.run, &start.instance).await?;
                Ok(true)
            }
            Claimed::Lost(_) => Ok(false),
        }
    }

    async fn send(self, run: &RunId, instance: &str) -> Result<(), ActError> {
        let order = Order {
            document: self.group.document.clone(),
            instance: instance.into(),
            target: self.target.name.clone(),
            run: run.clone(),
            execution: self.target.timeout_of(run.kind()),
            delivery: DELIVERY,
        };
        let command = self.services.ssm.send(&order).await?;
        tracing::info!(%run, instance, command, "command sent");
        Ok(())
    }

    /// Succeeds only on the very pointer that was restored from. When it moved meanwhile nothing is changed, and the next round
    /// sees the newer backup.
    async fn take_over(self, repository: &Repository, run: &RunId, instance: &str) -> Result<bool, ActError> {
        let Some(claim) = repository.claim_of(run).await? else { return Ok(false) };
        let seen = repository.pointer().await.map_err(PointerError::Store)?;
        if seen.version().map(perennial_shared::store::Version::as_str) != claim.pointer_version.as_deref() {
            return Ok(true);
        }
        let generation = claim.generation.next();
        let pointer = self.taken_over(repository, claim.backup_id.as_ref(), &seen, instance, generation).await?;
        tracing::info!(%run, instance, generation = generation.0, "taking over");
        move_to(repository, &seen, &pointer).await
    }

    /// The owner that a replica's pointer was given becomes the repository's own.
    async fn return_owner(self, repository: &Repository, there: &Pointer) -> Result<bool, ActError> {
        let seen = repository.pointer().await.map_err(PointerError::Store)?;
        let owner = there.owner.as_deref().unwrap_or_default();
        let mut here = seen.pointer().map(|p| p.generation.next()).unwrap_or_default();
        let mut named = there.backup_id.clone();
        if seen.pointer().is_none() {
            // A lost pointer may have named a newer one, and backups to come rank before those that are there.
            let resolution = resolve(repository).await.map_err(RepositoryError::Store)?;
            here = here.max(resolution.generation().next());
            named = resolution.candidates.first().map(|c| c.id.clone()).or(named);
        }
        let generation = there.generation.max(here);
        let pointer = self.taken_over(repository, named.as_ref(), &seen, owner, generation).await?;
        move_to(repository, &seen, &pointer).await
    }

    /// The pointer after the take-over: it names the backup that was restored, which is not always the one it named.
    async fn taken_over(
        self,
        repository: &Repository,
        restored: Option<&BackupId>,
        seen: &PointerState,
        instance: &str,
        generation: Generation,
    ) -> Result<Pointer, ActError> {
        let base = seen
            .pointer()
            .cloned()
            .unwrap_or_else(|| Pointer::first(&self.target.name, self.target.engine.word(), Some(instance), self.now));
        let named = match restored {
            Some(id) if base.backup_id.as_ref() != Some(id) => {
                let resolution = resolve(repository).await.map_err(RepositoryError::Store)?;
                let found = resolution.candidate(id);
                if let Some(manifest) = found.and_then(|c| c.manifest.as_ref()) {
                    // Of the bytes as they are stored: printing a manifest again may change a digit.
                    let stored = repository.manifest_bytes(id).await?;
                    Pointer { manifest_sha256: Some(sha256_hex(&stored)), ..base.naming(manifest, self.now) }
                } else {
                    // A boot script made it, or only a replica has it: named it keeps an older one from being taken for the newest.
                    let parent = found.map_or("backups/", |c| &c.parent);
                    base.naming_bare(id, &format!("{}/{parent}{id}", repository.location()), self.now)
                }
            }
            _ => base,
        };
        Ok(named.owned_by(instance, generation, self.now))
    }
}

/// The pointer that another one moved meanwhile is looked at again in the next round.
async fn move_to(repository: &Repository, seen: &PointerState, pointer: &Pointer) -> Result<bool, ActError> {
    match repository.set_pointer(seen, pointer).await {
        Ok(_) | Err(PointerError::Moved) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// What is no longer there has been done before, by an earlier delivery of the same event.
fn gone_is_done(done: Result<(), AwsError>) -> Result<(), AwsError> {
    match done {
        Err(e) if e.kind == AwsErrorKind::NotFound => {
            tracing::info!(error = %e, "nothing left to do");
            Ok(())
        }
        other => other,
    }
}
