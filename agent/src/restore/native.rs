//! Bringing back a backup that the engine wrote itself.
//!
//! Promises: what cannot work is found out before anything is changed; success means that the backup's objects have the hashes of the
//! manifest. A crash leaves a marker on this machine; the same restore begun again waits for an engine that is still at work, keeps
//! what is complete, and removes what is half there.

use std::pin::pin;
use std::time::{Duration, Instant};

use perennial_shared::manifest::Manifest;
use perennial_shared::resolve::Candidate;

use super::{READY, Restored, Wish, compare, damage, room};
use crate::context::Context;
use crate::engine::native::{Description, Place};
use crate::engine::{Engine, EngineError, NativeBackup, Step};
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::state::{Reached, RestoreMarker, State};
use crate::watch::{Progress, Watch, alive};

/// Restores `candidate` by the engine.
pub(super) async fn restore(
    context: &Context,
    engine: &dyn Engine,
    native: &dyn NativeBackup,
    candidate: &Candidate,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    if wish.to.is_some() || !wish.include.is_empty() {
        let message =
            "--include and --to are for backups made of archives; the engine's own is restored by the engine, whole";
        return Err(Failure::new(Exit::Usage, "NotAnArchive", message));
    }
    let begun = Instant::now();
    let work = Work {
        context,
        engine,
        native,
        candidate,
        manifest: candidate.manifest.as_ref(),
        place: context.place(&candidate.parent, candidate.id.as_str())?,
        state: context.state()?,
        wish,
        watch,
        deadline: begun + context.target.restore.timeout,
    };
    let mut restored = work.run().await?;
    restored.seconds = begun.elapsed().as_secs_f64();
    Ok(restored)
}

struct Work<'a> {
    context: &'a Context,
    engine: &'a dyn Engine,
    native: &'a dyn NativeBackup,
    candidate: &'a Candidate,
    manifest: Option<&'a Manifest>,
    place: Place,
    state: State,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    deadline: Instant,
}

/// What must happen before the engine's restore.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It is all there.
    Nothing,
    /// It is all there, from a run that ended before the backup's bytes were compared.
    Compare,
    /// An engine that a killed run left at work is waited for.
    Wait,
    /// These collections go, then the backup comes.
    Install {
        /// Collections to delete.
        remove: Vec<String>,
    },
}

impl Work<'_> {
    async fn run(&self) -> Result<Restored, Failure> {
        self.ready().await?;
        self.say("reading the backup's description");
        let description = damage::description(self.context, self.native, self.candidate).await?;
        let mut findings = room::check(self.context, &description)?;
        let plan = self.plan(&description).await?;
        if self.wish.dry_run {
            return self.dry_run(&description, &plan, findings).await;
        }
        match &plan {
            Plan::Nothing => findings.push("the backup was in the engine already".into()),
            Plan::Compare => {
                self.compare_bytes().await?;
                findings.push("an interrupted run had brought the backup into the engine".into());
            }
            Plan::Wait => self.install(&description).await?,
            Plan::Install { remove } => self.replace(&description, remove, &mut findings).await?,
        }
        failpoint::reach("restore-installed");
        let comparing = compare::with_manifest(self.engine, self.manifest);
        let compared = alive(self.watch, "counting and asking sample queries", comparing).await?;
        findings.extend(compared.findings);
        alive(self.watch, "warming up", self.warm_up(&description)).await?;
        self.remember(&description, Reached::Finished)?;
        failpoint::reach("restore-finished");
        Ok(self.restored(plan == Plan::Nothing, compared.objects, findings))
    }

    fn say(&self, stage: &str) {
        self.watch.see(&Progress::stage(stage));
    }

    async fn ready(&self) -> Result<(), Failure> {
        let ready = self.engine.wait_until_ready(READY.min(self.time_left()));
        Ok(alive(self.watch, "waiting for the engine", ready).await?)
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn restored(&self, already: bool, objects: u64, findings: Vec<String>) -> Restored {
        Restored {
            backup_id: self.candidate.id.to_string(),
            already,
            dry_run: self.wish.dry_run,
            size_bytes: self.manifest.map_or(0, |m| m.size_bytes),
            objects,
            captured_at: self.manifest.map(|m| m.started_at),
            findings,
            seconds: 0.0,
        }
    }

    /// Looks at the engine and decides. Refuses data that is not ours to remove.
    async fn plan(&self, description: &Description) -> Result<Plan, Failure> {
        if self.native.installing(&self.place).await? {
            return Ok(Plan::Wait);
        }
        let marker = self.state.last_restore()?.filter(|m| m.engine == self.context.target.url);
        self.stop_another(marker.as_ref()).await?;
        let present = self.engine.collections().await?;
        if present.is_empty() {
            return Ok(Plan::Install { remove: vec![] });
        }
        let reached = marker.filter(|m| m.backup_id == self.candidate.id).map(|m| m.reached);
        let unfinished = reached == Some(Reached::Changing);
        // What was restored once may have been changed where nobody looks: who says `--replace` gets the backup's.
        let may_be_there = unfinished || (reached == Some(Reached::Finished) && !self.wish.replace);
        if may_be_there
            && present == description.collections
            && compare::is_already(self.engine, self.manifest).await.is_some()
        {
            return Ok(if unfinished { Plan::Compare } else { Plan::Nothing });
        }
        let remains = unfinished && compare::are_remains(self.engine, self.manifest).await?;
        if remains || self.wish.replace {
            return Ok(Plan::Install { remove: present });
        }
        let message = format!(
            "the database is not empty: it has {}. Nothing was changed; `--replace` deletes it all and restores the backup",
            present.join(", ")
        );
        Err(Failure::new(Exit::Refused, "NotEmpty", message))
    }

    /// A killed run of ours may have left the engine at work on another backup. That one is no longer wanted.
    async fn stop_another(&self, marker: Option<&RestoreMarker>) -> Result<(), Failure> {
        let Some(other) = marker.filter(|m| m.reached != Reached::Finished && m.backup_id != self.candidate.id) else {
            return Ok(());
        };
        let place = self.context.place(&other.parent, other.backup_id.as_str())?;
        if self.wish.dry_run || !self.native.installing(&place).await? {
            return Ok(());
        }
        let stage = format!("stopping the restore of {}, which an interrupted run left in the engine", other.backup_id);
        Ok(alive(self.watch, &stage, self.native.cancel_install(&place)).await?)
    }

    async fn dry_run(
        &self,
        description: &Description,
        plan: &Plan,
        mut findings: Vec<String>,
    ) -> Result<Restored, Failure> {
        match plan {
            Plan::Nothing | Plan::Compare => findings.push("the backup is in the engine already".into()),
            Plan::Wait => findings.push("the engine is restoring this backup now; it would be waited for".into()),
            Plan::Install { remove } if remove.is_empty() => {
                self.native.check_install(description).await?;
                findings.push("the database is empty and nothing is in the way".into());
            }
            Plan::Install { remove } => {
                self.native.check_suits(description).await?;
                findings.push(format!("would delete {}", remove.join(", ")));
            }
        }
        findings.push(format!("would restore {}", description.collections.join(", ")));
        let objects = self.manifest.map_or(0, |m| m.collections.iter().map(|c| c.count_after).sum());
        Ok(self.restored(*plan == Plan::Nothing, objects, findings))
    }

    /// Removes what is in the way, then installs. The marker comes first, so that a crash in here is known as ours.
    async fn replace(
        &self,
        description: &Description,
        remove: &[String],
        findings: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if remove.is_empty() {
            self.native.check_install(description).await?;
        } else {
            self.native.check_suits(description).await?;
        }
        self.remember(description, Reached::Begun)?;
        failpoint::reach("restore-remembered");
        if !remove.is_empty() {
            self.say("deleting what is in the engine");
            self.native.remove_collections(remove).await?;
            findings.push(format!("deleted {}", remove.join(", ")));
            failpoint::reach("restore-removed");
            self.native.check_install(description).await?;
        }
        self.remember(description, Reached::Changing)?;
        self.forget_older_install(findings).await?;
        self.install(description).await
    }

    /// The engine keeps its record of the last restore beside the backup, and an old one can stand in the way of the next.
    async fn forget_older_install(&self, findings: &mut Vec<String>) -> Result<(), Failure> {
        let Some(record) = self.native.install_record_key() else { return Ok(()) };
        let key = format!("{}{}/{record}", self.candidate.parent, self.candidate.id);
        // An instance's role may well lack the right to delete; the engine's record is in the way only rarely.
        if let Err(e) = self.context.repository.store().delete(&key).await {
            findings.push(format!("could not delete {record}: {e}"));
        }
        Ok(())
    }

    /// The engine's restore, while the backup's bytes are hashed: engines unpack damaged objects without a word when the damage
    /// falls between what they check, and counts do not show it. Tried twice when the bytes are good: most failures are the network's.
    async fn install(&self, description: &Description) -> Result<(), Failure> {
        let (mut comparing, mut installing) = (pin!(self.compare_bytes()), pin!(self.engine_restore(description)));
        let first = tokio::select! {
            compared = &mut comparing => { compared?; installing.await }
            installed = &mut installing => { comparing.await?; installed }
        };
        let why = match first {
            Err(e @ (EngineError::Failed { .. } | EngineError::Abandoned { .. })) => e,
            result => return Ok(result?),
        };
        self.say(&format!("the backup's bytes are good; trying again ({why})"));
        self.ready().await?; // it may have failed because the engine went away
        let present = self.engine.collections().await?;
        self.native.remove_collections(&present).await?;
        self.forget_older_install(&mut vec![]).await?;
        Ok(self.engine_restore(description).await?)
    }

    async fn engine_restore(&self, description: &Description) -> Result<(), EngineError> {
        let total = (description.size_on_disk > 0).then_some(description.size_on_disk);
        let told = |step: Step<'_>| {
            failpoint::reach("restore-installing");
            let stage = format!("the engine restores backup {} ({})", self.candidate.id, step.state.to_lowercase());
            self.watch.see(&Progress { stage, done: step.done.unwrap_or(0), total });
        };
        self.native.install(&self.place, description, self.time_left(), &told).await
    }

    /// Hashes the backup's objects. What came of damaged ones is removed from the engine again; where nobody can tell, it stays for
    /// the next run.
    async fn compare_bytes(&self) -> Result<(), Failure> {
        match damage::look_for(self.context, self.candidate, self.time_left()).await {
            Err(e) if e.code == "BackupDamaged" => Err(self.take_back(e).await),
            result => result,
        }
    }

    async fn take_back(&self, why: Failure) -> Failure {
        let taking = async {
            if self.native.installing(&self.place).await? {
                self.native.cancel_install(&self.place).await?;
            }
            let present = self.engine.collections().await?;
            self.native.remove_collections(&present).await
        };
        match alive(self.watch, "the backup is not what its manifest says; removing what came of it", taking).await {
            Ok(()) => why,
            Err(e) => Failure { message: format!("{}; what came of it could not be removed: {e}", why.message), ..why },
        }
    }

    /// The first searches of a collection load what later ones find in memory.
    async fn warm_up(&self, description: &Description) -> Result<(), Failure> {
        for collection in &description.collections {
            self.engine.samples(collection, 1).await?;
        }
        Ok(())
    }

    fn remember(&self, description: &Description, reached: Reached) -> Result<(), Failure> {
        self.state.remember(&RestoreMarker {
            backup_id: self.candidate.id.clone(),
            parent: self.candidate.parent.clone(),
            engine: self.context.target.url.clone(),
            collections: description.collections.clone(),
            reached,
        })
    }
}
