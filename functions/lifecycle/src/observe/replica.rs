//! Replicas, where the target's own repository has not what a launching instance needs.
//!
//! | seen | what follows |
//! |---|---|
//! | the repository cannot be read, or holds nothing to restore while a replica does | everything waits; after `restore.fall_over_after`, where that is set, a replica stands in: its backups, its claims, its pointer |
//! | the repository can be read, and a later take-over made a member of the group the owner in a replica | the owner is brought back to the repository's pointer |
//! | the pointer's backup is gone from the repository, and whole in a replica | it can be restored: the agent fetches it from there |
//!
//! Promises: a replica stands in only where nobody else can be the owner. Its pointer is as old as its last copy, so any other member
//! that lives or was restored already, and whoever has the address, may own the target and acknowledge writes; then
//! everything goes on waiting, and a person is told. While a replica stands in, no backup is taken: what is newer than
//! its copies is in the repository only, and a second line of backups would have to be joined with that one.
//!
//! Whether the repository can be read is seen anew each time; since when it cannot is kept in the replica. A crash leaves nothing else.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::chain;
use perennial_shared::aws::ssm::{Command, CommandStatus};
use perennial_shared::id::Generation;
use perennial_shared::pointer::{Pointer, PointerState};
use perennial_shared::repository::{Repository, RepositoryError};
use perennial_shared::resolve::{Resolution, resolve};
use serde::{Deserialize, Serialize};

use super::{Scene, Services, is_restore_of};
use crate::world::{EndpointView, RepositoryView, StandIn};

/// Since when the repository has nothing to give, as a replica remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outage {
    /// Absent: it is over.
    since: Option<Timestamp>,
    /// When that was last so.
    seen: Timestamp,
    /// Whether it could not be read; else it held nothing, which is a matter of its own.
    unreadable: bool,
}

impl Outage {
    const KEY: &'static str = "outage.json";
    /// Ticks come each minute. After this long without one that saw it, another outage begins.
    const FORGOTTEN: SignedDuration = SignedDuration::from_mins(5);

    /// Records that it lasts, and tells since when.
    async fn lasts(replica: &Repository, now: Timestamp, unreadable: bool) -> Result<Timestamp, RepositoryError> {
        let known = replica.record::<Self>(Self::KEY).await?;
        let same = known.filter(|o| o.unreadable == unreadable && now.duration_since(o.seen) < Self::FORGOTTEN);
        let since = same.and_then(|o| o.since).unwrap_or(now);
        replica.put_record(Self::KEY, &Self { since: Some(since), seen: now, unreadable }).await?;
        Ok(since)
    }

    /// Records that it is over, where one was recorded.
    async fn is_over(replica: &Repository, now: Timestamp) -> Result<(), RepositoryError> {
        match replica.record::<Self>(Self::KEY).await? {
            Some(Self { since: Some(_), unreadable, .. }) => {
                Ok(replica.put_record(Self::KEY, &Self { since: None, seen: now, unreadable }).await?)
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

/// What all replicas have.
#[derive(Default)]
struct Offers {
    /// The one with the newest backup, and the scene as it tells it.
    best: Option<(Scene, RepositoryView)>,
    /// Why none of these stands in, or could be read.
    reasons: Vec<String>,
}

/// The target's own repository, else the replica that stands in for it, else why there is neither.
pub(super) async fn look(
    scene: &mut Scene,
    services: Services<'_>,
    patience: Option<Duration>,
) -> Result<RepositoryView, String> {
    let Services { repository, replicas, .. } = services;
    let own = scene.read(repository).await;
    let launching = scene.members.iter().any(|m| m.state == LifecycleState::PendingWait && m.alive);
    let (view, lack) = match own {
        Ok(view) => {
            let view = beside(scene, replicas, view, patience.is_some()).await?;
            if !launching || view.returning.is_some() || has_backups(&view) || scene.has_owner(&view) {
                return Ok(view);
            }
            let why = format!("{} holds nothing to restore", repository.location());
            (Some(view), Lack { why, unreadable: false })
        }
        Err(e) => {
            tracing::error!(error = %chain(&e), location = repository.location(), "cannot read the repository");
            // A damaged record is no outage: what else is there may be newer than any copy.
            if !launching || !matches!(e, RepositoryError::Store(_)) {
                return Err(chain(&e));
            }
            (None, Lack { why: chain(&e), unreadable: true })
        }
    };
    let Offers { best, reasons } = scene.offers(replicas, patience, &lack).await;
    if let Some((there, offered)) = best {
        *scene = there;
        return Ok(offered);
    }
    let why = std::iter::once(lack.why).chain(reasons.iter().cloned()).collect::<Vec<_>>().join("; ");
    match view {
        // Only where every replica was read and holds nothing, either, has there never been a backup.
        Some(view) => Ok(RepositoryView { withheld: (!reasons.is_empty()).then_some(why), ..view }),
        None => Err(why),
    }
}

fn has_backups(view: &RepositoryView) -> bool {
    view.resolution.as_ref().is_none_or(|r| !r.candidates.is_empty())
}

/// What is wrong with the repository.
struct Lack {
    why: String,
    /// Whether it could not be read; else it holds nothing.
    unreadable: bool,
}

/// What makes one replica better than another: that an instance was restored from it already, then the newest backup.
fn worth(scene: &Scene, view: &RepositoryView) -> (bool, Option<(Generation, Timestamp)>) {
    let newest = view.resolution.as_ref().and_then(|r| r.candidates.first());
    let made = newest.and_then(|c| Some((c.id.generation()?, c.id.made_at()?)));
    (scene.has_owner(view), made)
}

impl Scene {
    /// What the replicas have for an instance that waits for the repository.
    async fn offers(&self, replicas: &[Repository], patience: Option<Duration>, lack: &Lack) -> Offers {
        let mut offers = Offers::default();
        for (number, replica) in replicas.iter().enumerate() {
            let mut there = self.clone();
            match there.offer(replica, number, patience, lack).await {
                Ok(Offer::StandsIn(view)) => {
                    if offers.best.as_ref().is_none_or(|(scene, best)| worth(&there, &view) > worth(scene, best)) {
                        offers.best = Some((there, *view));
                    }
                }
                Ok(Offer::Waits(reason)) => offers.reasons.push(reason),
                Ok(Offer::Nothing) => {}
                Err(e) => offers.reasons.push(format!("{} cannot be read: {}", replica.location(), chain(&e))),
            }
        }
        offers
    }

    async fn offer(
        &mut self,
        replica: &Repository,
        number: usize,
        patience: Option<Duration>,
        lack: &Lack,
    ) -> Result<Offer, RepositoryError> {
        let since = Outage::lasts(replica, self.now, lack.unreadable).await?;
        // Runs of the same names were claimed in the repository before.
        let (before, commands) = std::mem::take(&mut self.commands).into_iter().partition(|c| c.requested_at < since);
        self.commands = commands;
        let view = self.read(replica).await?;
        if !has_backups(&view) {
            return Ok(Offer::Nothing);
        }
        let location = replica.location();
        if let Some(hindrance) = self.another_owner(view.pointer.pointer(), &before) {
            return Ok(Offer::Waits(format!("{location} does not stand in, because {hindrance}")));
        }
        let Some(patience) = patience else {
            let advice = "has backups, and stands in where restore.fall_over_after is set";
            return Ok(Offer::Waits(format!("{location} {advice}")));
        };
        let waited = self.now.duration_since(since);
        if waited.as_secs().unsigned_abs() < patience.as_secs() {
            let then = since + patience;
            return Ok(Offer::Waits(format!("{location} stands in from {}", then.strftime("%Y-%m-%d %H:%M:%S UTC"))));
        }
        let stand_in = Some(StandIn { number, location, since, why: lack.why.clone() });
        Ok(Offer::StandsIn(Box::new(RepositoryView { stand_in, ..view })))
    }

    /// Whether a member owns the target already: one that was started empty has no backup for a while.
    fn has_owner(&self, view: &RepositoryView) -> bool {
        view.pointer.pointer().and_then(|p| p.owner.as_deref()).is_some_and(|owner| self.lives(owner))
    }

    fn lives(&self, id: &str) -> bool {
        self.members.iter().any(|m| m.alive && m.id == id)
    }

    /// Why somebody else than the replica's owner may own the target by now, and acknowledge writes. `before` are the commands that were
    /// sent while the repository could be read.
    fn another_owner(&self, pointer: Option<&Pointer>, before: &[Command]) -> Option<String> {
        let mut living = self.members.iter().filter(|m| m.alive);
        if let Some(other) = living.find(|m| m.state != LifecycleState::PendingWait) {
            return Some(format!("{} lives and may own the target", other.id));
        }
        let owner = pointer.and_then(|p| p.owner.as_deref());
        if let Some(holder) = self.living_holder().filter(|holder| owner != Some(holder)) {
            return Some(format!("{holder} has the address and may serve"));
        }
        let mut others = self.members.iter().filter(|m| m.alive && owner != Some(&*m.id));
        let restored = |id: &str| before.iter().any(|c| c.status == CommandStatus::Success && is_restore_of(c, id));
        let other = others.find(|m| restored(&m.id))?;
        Some(format!("{} was restored from the repository already", other.id))
    }

    /// Who has the address, member or not, unless it is known to be dead.
    fn living_holder(&self) -> Option<&str> {
        let endpoint = self.endpoint.as_ref()?;
        if matches!(endpoint, EndpointView::NetworkInterface(view) if !view.holder_alive) {
            return None;
        }
        endpoint.holder().filter(|id| self.lives(id) || self.members.iter().all(|m| m.id != *id))
    }
}

/// What the replicas add to a repository that was read. One that cannot be read adds nothing, and stops nothing but what would be
/// decided about a member that may have come to own the target there.
async fn beside(
    scene: &Scene,
    replicas: &[Repository],
    mut view: RepositoryView,
    may_stand_in: bool,
) -> Result<RepositoryView, String> {
    let owner = view.pointer.pointer().and_then(|p| p.owner.clone());
    let others = || scene.members.iter().filter(|m| m.alive && owner.as_deref() != Some(&*m.id));
    if view.resolution.is_none() && others().next().is_none() {
        return Ok(view);
    }
    let may_be_served = others().any(|m| !matches!(m.state, LifecycleState::Pending | LifecycleState::PendingWait));
    let doubtful = may_stand_in && may_be_served && !scene.has_owner(&view);
    for replica in replicas {
        if let Err(e) = add(scene, replica, &mut view).await {
            let why = format!("{} cannot be read: {}", replica.location(), chain(&e));
            if doubtful {
                return Err(format!("who owns the target cannot be told; {why}"));
            }
            tracing::warn!(why, "a replica is left out");
        }
    }
    Ok(view)
}

async fn add(scene: &Scene, replica: &Repository, view: &mut RepositoryView) -> Result<(), RepositoryError> {
    let PointerState::Present { pointer, .. } = replica.pointer().await? else { return Ok(()) };
    view.elsewhere = view.elsewhere.max(pointer.generation);
    if returns(scene, &pointer, view) {
        view.returning = Some(pointer);
    }
    if let Some(resolution) = &mut view.resolution {
        add_lost(replica, resolution).await?;
        if !resolution.candidates.is_empty() {
            Outage::is_over(replica, scene.now).await?;
        }
    }
    Ok(())
}

/// Whether the owner in a replica's pointer came to be that after the owner in the repository's. Generations do not tell: a replica may
/// be some behind.
fn returns(scene: &Scene, there: &Pointer, view: &RepositoryView) -> bool {
    let newer = matches!(view.pointer, PointerState::Damaged { newer: true, .. });
    let own = view.returning.as_deref().or(view.pointer.pointer());
    let lives = there.owner.as_deref().is_some_and(|owner| scene.lives(owner));
    lives && !newer && own.is_none_or(|own| own.owner != there.owner && own.taken_over_at < there.taken_over_at)
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
