//! Replicas, where the target's own repository has not what a launching instance needs.
//!
//! | seen | what follows |
//! |---|---|
//! | the repository cannot be read, or holds nothing to restore while a replica does | for `restore.fall_over_after` everything waits; then that replica stands in: its backups, its claims, its pointer |
//! | the repository is back, and a replica made a member of the group the owner meanwhile | the owner is brought back to the repository's pointer |
//! | the pointer's backup is gone from the repository, and whole in a replica | it can be restored: the agent fetches it from there |
//!
//! Promises: a replica stands in only where nobody else can be the owner. A replica's pointer is as old as its last copy, so any other
//! instance that lives, that has the address, or that was restored already, may own the target and acknowledge writes; then
//! everything goes on waiting, and a person is told. While a replica stands in, no backup is taken: what is newer than
//! its copies is in the repository only, and a second line of backups would have to be joined with that one.
//!
//! Whether the repository can be read is seen anew each time; since when it cannot is kept in the replica. A crash leaves nothing else.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::chain;
use perennial_shared::aws::ssm::{Command, CommandStatus};
use perennial_shared::id::{RunId, RunKind};
use perennial_shared::pointer::{Pointer, PointerState};
use perennial_shared::repository::{Repository, RepositoryError};
use perennial_shared::resolve::{Resolution, resolve};
use serde::{Deserialize, Serialize};

use super::{Scene, Services};
use crate::world::{RepositoryView, StandIn};

/// Since when the repository has nothing to give, as a replica remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outage {
    /// Absent: it is over.
    since: Option<Timestamp>,
    /// When that was last so.
    seen: Timestamp,
}

impl Outage {
    const KEY: &'static str = "outage.json";
    /// Ticks come each minute. After this long without one that saw it, another outage begins.
    const FORGOTTEN: SignedDuration = SignedDuration::from_mins(5);

    /// Records that it lasts, and tells since when.
    async fn lasts(replica: &Repository, now: Timestamp) -> Result<Timestamp, RepositoryError> {
        let known = replica.record::<Self>(Self::KEY).await?;
        let fresh = known.filter(|o| now.duration_since(o.seen) < Self::FORGOTTEN);
        let since = fresh.and_then(|o| o.since).unwrap_or(now);
        replica.put_record(Self::KEY, &Self { since: Some(since), seen: now }).await?;
        Ok(since)
    }

    /// Records that it is over, where one was recorded.
    async fn is_over(replica: &Repository, now: Timestamp) -> Result<(), RepositoryError> {
        match replica.record::<Self>(Self::KEY).await? {
            Some(Self { since: Some(_), .. }) => {
                Ok(replica.put_record(Self::KEY, &Self { since: None, seen: now }).await?)
            }
            _ => Ok(()),
        }
    }
}

/// What a replica has for a launching instance.
enum Offer {
    /// It stands in.
    StandsIn(Box<RepositoryView>),
    /// Not now, and why.
    Waits(String),
    /// It holds nothing to restore.
    Nothing,
}

/// The target's own repository, else the replica that stands in for it, else why there is neither.
pub(super) async fn look(
    scene: &mut Scene,
    services: Services<'_>,
    patience: Duration,
) -> Result<RepositoryView, String> {
    let Services { repository, replicas, .. } = services;
    let own = scene.read(repository).await;
    if let Err(e) = &own {
        tracing::error!(error = %chain(e), location = repository.location(), "cannot read the repository");
    }
    let own = own.map_err(|e| chain(&e));
    let launching = scene.members.iter().any(|m| m.state == LifecycleState::PendingWait && m.alive);
    let why = match &own {
        Ok(view) if has_backups(view) || !launching || scene.has_owner(view) => {
            return Ok(beside(scene, replicas, own?).await);
        }
        Err(_) if !launching => return own,
        Ok(_) => format!("{} holds nothing to restore", repository.location()),
        Err(why) => why.clone(),
    };
    let mut unread = Vec::new();
    for (number, replica) in replicas.iter().enumerate() {
        let mut there = scene.clone();
        match there.offer(replica, number, patience, &why).await {
            Ok(Offer::StandsIn(view)) => {
                *scene = there;
                return Ok(*view);
            }
            Ok(Offer::Waits(reason)) => return Err(format!("{why}; {reason}")),
            Ok(Offer::Nothing) => {}
            Err(e) => unread.push(format!("{} cannot be read: {}", replica.location(), chain(&e))),
        }
    }
    // Only where every replica was read, too, has there never been a backup.
    if unread.is_empty() { own } else { Err(format!("{why}; {}", unread.join("; "))) }
}

fn has_backups(view: &RepositoryView) -> bool {
    view.resolution.as_ref().is_none_or(|r| !r.candidates.is_empty())
}

impl Scene {
    /// What this replica has for an instance that waits for the repository, which fails for this reason.
    async fn offer(
        &mut self,
        replica: &Repository,
        number: usize,
        patience: Duration,
        why: &str,
    ) -> Result<Offer, RepositoryError> {
        let since = Outage::lasts(replica, self.now).await?;
        // Runs of the same names were claimed in the repository before.
        let (before, commands) = std::mem::take(&mut self.commands).into_iter().partition(|c| c.requested_at < since);
        self.commands = commands;
        let view = self.read(replica).await?;
        if !has_backups(&view) {
            return Ok(Offer::Nothing);
        }
        if let Some(hindrance) = self.another_owner(view.pointer.pointer(), &before) {
            return Ok(Offer::Waits(format!("a replica does not stand in, because {hindrance}")));
        }
        let location = replica.location();
        let waited = self.now.duration_since(since);
        if waited.as_secs().unsigned_abs() < patience.as_secs() {
            let then = since + patience;
            return Ok(Offer::Waits(format!("{location} stands in from {}", then.strftime("%Y-%m-%d %H:%M:%S UTC"))));
        }
        let stand_in = Some(StandIn { number, location, since, why: why.into() });
        Ok(Offer::StandsIn(Box::new(RepositoryView { stand_in, ..view })))
    }

    /// Whether a member owns the target already: one that was started empty has no backup for a while.
    fn has_owner(&self, view: &RepositoryView) -> bool {
        let owner = view.pointer.pointer().and_then(|p| p.owner.as_deref());
        self.members.iter().any(|m| m.alive && owner == Some(&*m.id))
    }

    /// Why somebody else than the replica's owner may own the target by now, and acknowledge writes. `before` are the commands that were
    /// sent while the repository could be read.
    fn another_owner(&self, pointer: Option<&Pointer>, before: &[Command]) -> Option<String> {
        let mut living = self.members.iter().filter(|m| m.alive);
        if let Some(other) = living.find(|m| m.state != LifecycleState::PendingWait) {
            return Some(format!("{} lives and may own the target", other.id));
        }
        let owner = pointer.and_then(|p| p.owner.as_deref());
        let others = || self.members.iter().filter(|m| m.alive && owner != Some(&*m.id));
        let holder = self.endpoint.as_ref().and_then(|e| e.holder());
        if let Some(other) = others().find(|m| holder == Some(&*m.id)) {
            return Some(format!("{} has the address and may serve", other.id));
        }
        let restored = |id: &str| before.iter().any(|c| restored(c, id));
        others().find(|m| restored(&m.id)).map(|m| format!("{} was restored from the repository already", m.id))
    }
}

/// Whether this command restored the instance.
fn restored(command: &Command, instance: &str) -> bool {
    let of_it = |run: RunId| run.kind() == RunKind::Restore && run.as_str().contains(instance);
    command.status == CommandStatus::Success && command.comment.parse().is_ok_and(of_it)
}

/// What the replicas add to a repository that was read. One that cannot be read adds nothing, and stops nothing.
async fn beside(scene: &Scene, replicas: &[Repository], mut view: RepositoryView) -> RepositoryView {
    let owner = view.pointer.pointer().and_then(|p| p.owner.as_deref());
    let stranger = scene.members.iter().any(|m| m.state == LifecycleState::InService && owner != Some(&*m.id));
    if view.resolution.is_none() && !stranger {
        return view;
    }
    for replica in replicas {
        if let Err(e) = add(scene, replica, &mut view).await {
            tracing::warn!(error = %chain(&e), location = replica.location(), "cannot read a replica");
        }
    }
    view
}

async fn add(scene: &Scene, replica: &Repository, view: &mut RepositoryView) -> Result<(), RepositoryError> {
    let PointerState::Present { pointer, .. } = replica.pointer().await? else { return Ok(()) };
    let here = view.pointer.pointer().map(|p| p.generation).unwrap_or_default();
    let is_member = |id: &str| scene.members.iter().any(|m| m.id == id && m.alive);
    if pointer.generation > here.max(view.elsewhere) && pointer.owner.as_deref().is_some_and(is_member) {
        view.returning = Some(pointer.clone());
    }
    view.elsewhere = view.elsewhere.max(pointer.generation);
    if let Some(resolution) = &mut view.resolution {
        Outage::is_over(replica, scene.now).await?;
        add_lost(replica, resolution).await?;
    }
    Ok(())
}

/// The pointer's backup, where only a replica has it whole: older ones hold less.
async fn add_lost(replica: &Repository, resolution: &mut Resolution) -> Result<(), RepositoryError> {
    let Some(named) = resolution.pointer.backup_id().filter(|id| resolution.candidate(id).is_none()) else {
        return Ok(());
    };
    if let Some(found) = resolve(replica).await?.candidate(named) {
        let where_it_is = format!("backup {named} is whole in {}, and will be restored from there", replica.location());
        resolution.candidates.insert(0, found.clone());
        resolution.problems.push(where_it_is);
    }
    Ok(())
}
