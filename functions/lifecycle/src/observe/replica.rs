//! Replicas, where the target's own repository has not what a launching instance needs.
//!
//! | seen | what follows |
//! |---|---|
//! | the repository cannot be read, or holds nothing to restore while a replica does | everything waits; after `restore.fall_over_after`, where that is set, a replica stands in: its backups, its claims, its pointer |
//! | the repository can be read, and a later take-over made a member of the group the owner in a replica | the owner is brought back to the repository's pointer |
//! | the repository lost its newest backup, and a replica has it whole | it can be restored: the agent fetches it from there |
//!
//! Promises: a replica stands in only where nobody else can be the owner. Its pointer is as old as its last copy, so any other member
//! that lives, is being restored or was restored already, and whoever has the address, may own the target and acknowledge writes; then
//! everything goes on waiting, and a person is told. An instance is restored by the claims of one repository only (its agent
//! sees to that), so it can become the owner in that one only. While a replica stands in, no backup is taken: what is newer than
//! its copies is in the repository only, and a second line of backups would have to be joined with that one.
//!
//! Nothing is decided against what a repository that could not be read may say: not that an instance owns nothing, and for a while not
//! that a newer backup is nowhere. Whether it can be read is seen anew each time; since when it cannot is kept where it
//! matters. A crash leaves nothing else.

mod offers;
mod outage;

use std::time::Duration;

use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::chain;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::pointer::{Pointer, PointerState};
use perennial_shared::repository::{Repository, RepositoryError};
use perennial_shared::resolve::{Resolution, resolve};
use perennial_shared::run::RunResult;
use perennial_shared::store::StoreError;

use self::outage::Outages;
use super::{Scene, Services};
use crate::world::{RepositoryView, Returning, StandIn, Wait};

/// An older backup is not taken for so long because a replica that may have a newer one cannot be read, where the settings say nothing.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What one repository does not give.
#[derive(Clone)]
struct Lack {
    /// Which one: the number of a replica, or the target's own.
    place: Option<usize>,
    /// A word for it.
    kind: &'static str,
    why: String,
}

impl Lack {
    fn unread(place: Option<usize>, repository: &Repository, error: &RepositoryError) -> Self {
        let why = format!("{} cannot be read: {}", repository.location(), chain(error));
        Self { place, kind: "unread", why }
    }

    fn empty(repository: &Repository) -> Self {
        Self { place: None, kind: "empty", why: format!("{} holds nothing to restore", repository.location()) }
    }
}

/// The target's own repository, else the replica that stands in for it, else why there is neither.
pub(super) async fn look(
    scene: &mut Scene,
    services: Services<'_>,
    patience: Option<Duration>,
) -> Result<RepositoryView, Wait> {
    let Services { repository, replicas, .. } = services;
    let own = scene.read(repository).await;
    let launching = scene.members.iter().any(|m| m.state == LifecycleState::PendingWait && m.alive);
    let (view, lack) = match own {
        Ok(view) => {
            let view = beside(scene, services, view, patience).await?;
            if !launching || view.returning.is_some() || has_backups(&view) || scene.has_owner(&view) {
                return Ok(view);
            }
            (Some(view), Lack::empty(repository))
        }
        Err(e) => {
            tracing::error!(error = %chain(&e), location = repository.location(), "cannot read the repository");
            let lack = Lack::unread(None, repository, &e);
            if !launching || !is_outage(&e) {
                return Err(wait(&[lack], &[]));
            }
            (None, lack)
        }
    };
    let offers = scene.offers(replicas, patience, &lack).await;
    if let Some((there, offered)) = offers.best {
        *scene = there;
        return Ok(offered);
    }
    let waits = wait(&[lack], &offers.reasons);
    match view {
        // Only where every replica was read and holds nothing, either, has there never been a backup.
        Some(view) => Ok(RepositoryView { withheld: (!offers.reasons.is_empty()).then_some(waits), ..view }),
        None => Err(waits),
    }
}

/// Everything that stands in the way, as one reason.
fn wait(lacks: &[Lack], reasons: &[Wait]) -> Wait {
    let mut kinds: Vec<&str> = lacks.iter().map(|l| l.kind).chain(reasons.iter().map(|w| &*w.kind)).collect();
    kinds.dedup();
    let why: Vec<&str> = lacks.iter().map(|l| &*l.why).chain(reasons.iter().map(|w| &*w.why)).collect();
    Wait { kind: kinds.join("-"), why: why.join("; ") }
}

/// A damaged record or object is no outage: what else is there may be newer than any copy.
fn is_outage(error: &RepositoryError) -> bool {
    use StoreError as S;
    matches!(error, RepositoryError::Store(S::Denied { .. } | S::Unavailable { .. } | S::Invalid { .. }))
}

fn has_backups(view: &RepositoryView) -> bool {
    view.resolution.as_ref().is_none_or(|r| !r.candidates.is_empty())
}

/// What the replicas add to a repository that was read. One that cannot be read stops what it may contradict: anything about a member that
/// may have come to own the target there, and for a while the restore of a backup that is older than one that was lost.
async fn beside(
    scene: &Scene,
    services: Services<'_>,
    mut view: RepositoryView,
    patience: Option<Duration>,
) -> Result<RepositoryView, Wait> {
    if view.resolution.is_none() && scene.others(&view).next().is_none() {
        return Ok(view);
    }
    let mut unread = Vec::new();
    for (number, replica) in services.replicas.iter().enumerate() {
        if let Err(e) = add(scene, services, number, &mut view).await {
            unread.push(Lack::unread(Some(number), replica, &e));
        }
    }
    if unread.is_empty() {
        return Ok(view);
    }
    let Wait { why, .. } = wait(&unread, &[]);
    if view.returning.is_none() && scene.may_be_owned_elsewhere(&view) {
        let why = format!("who owns the target cannot be told; {why}");
        return Err(Wait { kind: "doubt".into(), why });
    }
    tracing::warn!(why, "a replica is left out");
    if view.resolution.as_ref().is_some_and(|r| !r.candidates.is_empty() && lost(r).is_some()) {
        let since = Outages::of(services.repository, scene.now, &unread).await;
        let patience = patience.unwrap_or(PATIENCE).as_secs();
        if since.is_ok_and(|since| scene.now.duration_since(since).as_secs().unsigned_abs() >= patience) {
            return Ok(view);
        }
        let why = format!("the newest backup is lost or damaged, and a replica may have it, but {why}");
        view.withheld = Some(Wait { kind: "lost".into(), why });
    }
    Ok(view)
}

async fn add(
    scene: &Scene,
    services: Services<'_>,
    number: usize,
    view: &mut RepositoryView,
) -> Result<(), RepositoryError> {
    let replica = &services.replicas[number];
    if let PointerState::Present { pointer, .. } = replica.pointer().await? {
        view.elsewhere = view.elsewhere.max(pointer.generation);
        if returns(scene, &pointer, view) {
            view.returning = Some(Box::new(returning(services, number, *pointer).await?));
        }
    }
    if let Some(resolution) = &mut view.resolution {
        add_lost(replica, resolution).await?;
        if !resolution.candidates.is_empty() && view.returning.is_none() {
            Outages::are_over(replica).await?;
        }
    }
    Ok(())
}

/// Whether the owner in a replica's pointer came to be that after the owner in the repository's. Generations do not tell: a replica may
/// be some behind.
fn returns(scene: &Scene, there: &Pointer, view: &RepositoryView) -> bool {
    let newer = matches!(view.pointer, PointerState::Damaged { newer: true, .. });
    let own = view.returning.as_ref().map(|r| &r.pointer).or(view.pointer.pointer());
    let lives = there.owner.as_deref().is_some_and(|owner| scene.lives(owner));
    lives && !newer && own.is_none_or(|own| own.owner != there.owner && own.taken_over_at < there.taken_over_at)
}

async fn returning(services: Services<'_>, number: usize, pointer: Pointer) -> Result<Returning, RepositoryError> {
    let replica = &services.replicas[number];
    let outage = Outages::of_repository(replica).await?;
    let from = outage.map(|(since, why)| StandIn { number, location: replica.location(), since, why });
    let owner = pointer.owner.as_deref().unwrap_or_default();
    let mut restored: Option<RunResult> = None;
    for run in replica.runs(&format!("restore-{owner}-")).await? {
        let result = replica.result_of(&run).await?.filter(|r| r.ok);
        restored = restored.into_iter().chain(result).max_by_key(|r| r.finished_at);
    }
    Ok(Returning { pointer, from, restored })
}

/// A backup that the repository had and has no longer.
enum Lost<'a> {
    /// The pointer's.
    Named(&'a BackupId),
    /// Whichever the pointer named that is lost, too, if it is better than this one.
    Unknown(Option<&'a BackupId>),
}

fn lost(resolution: &Resolution) -> Option<Lost<'_>> {
    match (&resolution.pointer, resolution.pointer.backup_id()) {
        (_, Some(named)) => resolution.candidate(named).is_none().then_some(Lost::Named(named)),
        (PointerState::Present { .. }, None) => None,
        (_, None) => Some(Lost::Unknown(resolution.candidates.first().map(|c| &c.id))),
    }
}

/// What was lost, where a replica has it whole: older backups hold less.
async fn add_lost(replica: &Repository, resolution: &mut Resolution) -> Result<(), RepositoryError> {
    // A repository that holds nothing at all needs a replica that stands in for it.
    let Some(lost) = lost(resolution).filter(|l| !matches!(l, Lost::Unknown(None))) else { return Ok(()) };
    let there = resolve(replica).await?;
    let found = match lost {
        Lost::Named(id) => there.candidate(id),
        Lost::Unknown(best) => there.candidates.first().filter(|c| age(Some(&c.id)) > age(best)),
    };
    if let Some(found) = found {
        let id = &found.id;
        let where_it_is = format!("backup {id} is whole in {}, and will be restored from there", replica.location());
        resolution.candidates.insert(0, found.clone());
        resolution.problems.push(where_it_is);
    }
    Ok(())
}

/// By what the newer of two backups is told, of whichever repositories; those of boot scripts are older than ours.
fn age(id: Option<&BackupId>) -> Option<(Generation, jiff::Timestamp)> {
    id.and_then(|id| Some((id.generation()?, id.made_at()?)))
}

impl Scene {
    /// Members that live and are not the owner.
    fn others(&self, view: &RepositoryView) -> impl Iterator<Item = &crate::world::Member> {
        let owner = view.pointer.pointer().and_then(|p| p.owner.clone());
        self.members.iter().filter(move |m| m.alive && owner.as_deref() != Some(&*m.id))
    }

    /// Whether a member owns the target already: one that was started empty has no backup for a while.
    fn has_owner(&self, view: &RepositoryView) -> bool {
        view.pointer.pointer().and_then(|p| p.owner.as_deref()).is_some_and(|owner| self.lives(owner))
    }

    fn lives(&self, id: &str) -> bool {
        self.members.iter().any(|m| m.alive && m.id == id)
    }

    /// Whether a replica's pointer may have made a member the owner: one that serves or did, has the address, or was sent a restore that
    /// was claimed in no place that could be read.
    fn may_be_owned_elsewhere(&self, view: &RepositoryView) -> bool {
        let holder = self.living_holder();
        !self.has_owner(view)
            && self.others(view).any(|m| {
                !matches!(m.state, LifecycleState::Pending | LifecycleState::PendingWait)
                    || holder == Some(&*m.id)
                    || m.sent_elsewhere().next().is_some()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_what_keeps_everything_from_being_read() {
        type Make = fn(&str, &'static str, &'static str) -> StoreError;
        let rows: [(Make, bool); 6] = [
            (StoreError::denied, true),
            (StoreError::unavailable, true),
            (StoreError::invalid, true),
            (StoreError::corrupt, false),
            (StoreError::not_found, false),
            (StoreError::full, false),
        ];
        for (make, outage) in rows {
            let error = make("latest", "s3://bucket", "simulated");
            assert_eq!(is_outage(&error.into()), outage);
        }
        let why = "it is cut off".into();
        let damaged =
            RepositoryError::Damaged { location: "s3://bucket".into(), key: "abandoned/i-1.json".into(), why };
        assert!(!is_outage(&damaged));
    }
}
