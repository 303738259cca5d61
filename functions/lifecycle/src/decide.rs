//! What to do about the world. Pure: no clock, no call, no randomness.
//!
//! The order of the promises decides every case. An instance never gets the address before its data agrees with the backup; the
//! pointer is taken over before the address moves, so that the old owner cannot publish any more; a terminating owner
//! loses the address before its final backup, so that nothing is acknowledged after it, unless that backup has the engine refuse writes.
//! Before it loses it, most of the data is backed up, so that clients are cut off for a short time.

pub mod endpoint;
mod in_service;
mod launching;
mod terminating;

use perennial_shared::alert::{Alert, Kind};
use perennial_shared::aws::auto_scaling::{LifecycleResult, LifecycleState};
use perennial_shared::id::{BackupId, Generation, RunId};
use perennial_shared::metrics::Metric;
use perennial_shared::pointer::Pointer;
use perennial_shared::run::RunResult;
use perennial_shared::settings::{AutoScaling, Target};

use self::endpoint::Step;
use crate::run_state::{Patience, RunState, run_state};
use crate::world::{EndpointView, Member, RepositoryView, Returning, Run, StandIn, Wait, World};

/// One thing to do. Each may be repeated without harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep a waiting hook open.
    Heartbeat {
        /// Lifecycle hook.
        hook: String,
        /// Instance.
        instance: String,
    },
    /// Claim a run, and send its command if the claim was won.
    Start(Start),
    /// Send the command of a run whose claimer died.
    Send {
        /// The run.
        run: RunId,
        /// Instance.
        instance: String,
    },
    /// Ask SSM to stop a command.
    Cancel {
        /// Command id.
        command: String,
        /// Instance.
        instance: String,
    },
    /// Make the instance the owner, under the generation after the claim's, if the pointer is still the one that was restored.
    TakeOver {
        /// The restore that succeeded.
        run: RunId,
        /// Instance.
        instance: String,
    },
    /// Make the owner of a replica's pointer the owner of the repository's, which can be read again.
    Return {
        /// The replica's pointer.
        pointer: Box<Pointer>,
    },
    /// One step of bringing the address to an instance, or of taking it away.
    Endpoint {
        /// Instance that gets or loses it.
        instance: String,
        /// The step.
        step: Step,
    },
    /// Record that a launch is given up.
    GiveUp {
        /// Instance.
        instance: String,
        /// Whether the instance is kept for a person instead of being replaced.
        kept: bool,
    },
    /// End a lifecycle action.
    Complete {
        /// Lifecycle hook.
        hook: String,
        /// Instance.
        instance: String,
        /// How.
        result: LifecycleResult,
    },
    /// Tell a person.
    Tell(Alert),
    /// Publish metrics.
    Measure {
        /// Their values.
        values: Vec<(Metric, f64)>,
    },
}

impl Action {
    /// Sends the command of a run that a member waits for.
    fn send(run: &Run, member: &Member) -> Self {
        Self::Send { run: run.claim.run.clone(), instance: member.id.clone() }
    }

    /// Stops the command of a run, if one was sent.
    fn cancel(run: &Run, member: &Member) -> Option<Self> {
        run.command.as_ref().map(|c| Self::Cancel { command: c.id.clone(), instance: member.id.clone() })
    }
}

/// A run to claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The run's name.
    pub run: RunId,
    /// Instance.
    pub instance: String,
    /// The backup to restore; `None` for making one and for starting empty.
    pub backup_id: Option<BackupId>,
    /// Version of the pointer on which the decision rests.
    pub pointer_version: Option<String>,
    /// Generation on which the decision rests.
    pub generation: Generation,
    /// Whether what an earlier attempt left may be removed.
    pub replace: bool,
}

impl Start {
    /// A backup of the owner, of the target as it stands.
    fn backup(run: RunId, repository: &RepositoryView, owner: &Member) -> Self {
        Self {
            run,
            instance: owner.id.clone(),
            backup_id: None,
            pointer_version: repository.pointer.version().map(ToString::to_string),
            generation: repository.pointer.pointer().map(|p| p.generation).unwrap_or_default(),
            replace: false,
        }
    }
}

/// The settings and the world, for the rules.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) target: &'a Target,
    pub(crate) group: &'a AutoScaling,
    pub(crate) world: &'a World,
}

/// What to do.
pub fn decide(target: &Target, group: &AutoScaling, world: &World) -> Vec<Action> {
    let case = Case { target, group, world };
    let repository = match &world.repository {
        Ok(repository) => repository,
        Err(why) => return case.blind(why),
    };
    if let Some(returning) = &repository.returning {
        return case.return_owner(repository, returning);
    }
    let mut actions = Vec::new();
    // A replica stands in for launches only: whoever else is to be looked after waits for the repository.
    let members = world.members.iter();
    for member in members.filter(|m| repository.stand_in.is_none() || m.state == LifecycleState::PendingWait) {
        actions.extend(match member.state {
            LifecycleState::PendingWait => launching::decide(case, repository, member),
            LifecycleState::TerminatingWait => terminating::decide(case, repository, member),
            LifecycleState::InService => in_service::decide(case, repository, member),
            _ => vec![],
        });
    }
    actions
}

impl<'a> Case<'a> {
    /// Without the repository nothing can be decided: keep everything waiting and tell somebody, anew when the reason is another one.
    fn blind(self, wait: &Wait) -> Vec<Action> {
        let waiting = self.world.members.iter().filter(|m| m.waits() && m.alive);
        waiting
            .flat_map(|m| [self.heartbeat(m), Action::Tell(self.waits(Kind::RepositoryUnreadable, m, wait))])
            .collect()
    }

    /// The repository is back: whoever came to own the target meanwhile owns it there, too, before anything else is decided. A person is
    /// told first: once it is done nobody knows of it.
    fn return_owner(self, repository: &RepositoryView, returning: &Returning) -> Vec<Action> {
        let Returning { pointer, from, restored } = returning;
        let owner = pointer.owner.as_deref().unwrap_or_default();
        let name = |id: Option<&BackupId>| id.map_or_else(|| "none".to_owned(), dated);
        let mut details = vec![
            format!(
                "{owner} owns the target by a replica's pointer, which names backup {}",
                name(pointer.backup_id.as_ref())
            ),
            format!("the repository's own pointer named backup {}", name(repository.pointer.backup_id())),
        ];
        details.extend(from.iter().flat_map(stand_in_lines));
        // One that serves already was measured then.
        let launching = self.member(owner).filter(|m| m.state == LifecycleState::PendingWait);
        let values = restored.as_ref().zip(launching).map(|(result, member)| self.recovery(member, result));
        let place = format!("instance {owner} of group {}", self.group.group);
        let alert = Alert::new(Kind::RepositoryBack, &self.target.name, &place, self.world.now);
        let alert = alert.once_for(&format!("{owner}-{}", pointer.generation.0)).with(details);
        let measured = values.map(|values| Action::Measure { values });
        let actions = std::iter::once(Action::Tell(alert)).chain(measured);
        actions.chain([Action::Return { pointer: Box::new(pointer.clone()) }]).collect()
    }

    /// What is measured when an instance was restored and is about to serve.
    pub(crate) fn recovery(self, member: &Member, result: &RunResult) -> Vec<(Metric, f64)> {
        let mut values = vec![(Metric::RestoreDuration, result.seconds()), (Metric::RestoreFailed, 0.0)];
        if let Some(launched) = member.launched_at {
            values.push((Metric::RecoveryDuration, self.world.now.duration_since(launched).as_secs_f64()));
        }
        values
    }

    pub(crate) fn hook(self, member: &Member) -> &'a str {
        if member.state == LifecycleState::PendingWait { &self.group.launch_hook } else { &self.group.terminate_hook }
    }

    pub(crate) fn heartbeat(self, member: &Member) -> Action {
        Action::Heartbeat { hook: self.hook(member).into(), instance: member.id.clone() }
    }

    pub(crate) fn complete(self, member: &Member, result: LifecycleResult) -> Action {
        Action::Complete { hook: self.hook(member).into(), instance: member.id.clone(), result }
    }

    /// An alert about a member, sent once for it.
    pub(crate) fn alert(self, kind: Kind, member: &Member) -> Alert {
        let place = format!("instance {} of group {}", member.id, self.group.group);
        Alert::new(kind, &self.target.name, &place, self.world.now).once_for(&member.id)
    }

    /// An alert that a member waits, sent once for it and each kind of reason.
    pub(crate) fn waits(self, kind: Kind, member: &Member, wait: &Wait) -> Alert {
        self.alert(kind, member).once_for(&format!("{}-{}", member.id, wait.kind)).with([&wait.why])
    }

    /// Who owns the target: the pointer says; before the first backup, whoever holds the address.
    pub(crate) fn owner(self, repository: &RepositoryView) -> Option<String> {
        if let Some(pointer) = repository.pointer.pointer().filter(|p| p.owner.is_some()) {
            return pointer.owner.clone();
        }
        self.world.endpoint.as_ref()?.holder().map(Into::into)
    }

    pub(crate) fn member(self, id: &str) -> Option<&'a Member> {
        self.world.members.iter().find(|m| m.id == id)
    }

    /// Whether clients reach this member, or may still or already, at the address.
    pub(crate) fn has_address(self, member: &Member) -> bool {
        self.world.endpoint.as_ref().and_then(EndpointView::holder) == Some(&*member.id)
    }

    /// How a run stands.
    pub(crate) fn state_of(self, run: &Run) -> RunState<'_> {
        let timeout = self.target.timeout_of(run.claim.run.kind());
        run_state(run, self.world.now, Patience { timeout, stalled_after: self.target.restore.stalled_after })
    }
}

fn stand_in_lines(replica: &StandIn) -> [String; 2] {
    let since = replica.since.strftime("%Y-%m-%d %H:%M:%S UTC");
    [
        format!("restored from the replica {}, because since {since}: {}", replica.location, replica.why),
        "backups that were not copied to the replica are not in it, and none is taken until the repository is back"
            .into(),
    ]
}

/// A backup as a person reads it: since when writes are not in it, where its id tells.
fn dated(id: &BackupId) -> String {
    id.made_at().map_or_else(|| id.to_string(), |at| format!("{id}, begun {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")))
}
