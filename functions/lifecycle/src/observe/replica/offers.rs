//! What the replicas have for an instance that waits to be restored, and which of them stands in.

use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ssm::CommandStatus;
use perennial_shared::id::{Generation, RunKind};
use perennial_shared::pointer::Pointer;
use perennial_shared::repository::Repository;

use super::outage::Outages;
use super::{Lack, age, has_backups};
use crate::observe::Scene;
use crate::world::{EndpointView, Member, RepositoryView, StandIn, Wait};

/// What all replicas have.
#[derive(Default)]
pub(super) struct Offers {
    /// The best of those that stand in, and the scene as it tells it.
    pub(super) best: Option<(Scene, RepositoryView)>,
    /// Why others do not, or could not be read.
    pub(super) reasons: Vec<Wait>,
}

/// What makes one replica better than another: that an instance was restored from it already, or is being so, then the newest backup.
fn worth(scene: &Scene, view: &RepositoryView) -> (bool, bool, Option<(Generation, Timestamp)>) {
    let begun = scene.members.iter().any(|m| m.runs_of(RunKind::Restore).next().is_some());
    let newest = view.resolution.as_ref().and_then(|r| r.candidates.first());
    (scene.has_owner(view), begun, age(newest.map(|c| &c.id)))
}

impl Scene {
    /// `lacking` is what the repository does not give. A replica that cannot be read is another such lack: it may have a newer backup, so
    /// none stands in before that one was away for as long, too.
    pub(super) async fn offers(&self, replicas: &[Repository], patience: Option<Duration>, lacking: &Lack) -> Offers {
        let (mut read, mut unread) = (Vec::new(), Vec::new());
        for (number, replica) in replicas.iter().enumerate() {
            let mut there = self.clone();
            match there.read(replica).await {
                Ok(view) if has_backups(&view) => read.push((number, there, view)),
                Ok(_) => {}
                Err(e) => unread.push(Lack::unread(Some(number), replica, &e)),
            }
        }
        let reasons = unread.iter().map(|l| Wait { kind: l.kind.into(), why: l.why.clone() }).collect();
        let mut offers = Offers { best: None, reasons };
        let lacks: Vec<Lack> = std::iter::once(lacking.clone()).chain(unread).collect();
        for (number, there, view) in read {
            match there.stand_in(&replicas[number], number, &view, patience, &lacks).await {
                Ok(stand_in) => {
                    let view = RepositoryView { stand_in: Some(stand_in), ..view };
                    if offers.best.as_ref().is_none_or(|(scene, best)| worth(&there, &view) > worth(scene, best)) {
                        offers.best = Some((there, view));
                    }
                }
                Err(reason) => offers.reasons.push(reason),
            }
        }
        offers
    }

    /// That a replica stands in, or why not.
    async fn stand_in(
        &self,
        replica: &Repository,
        number: usize,
        view: &RepositoryView,
        patience: Option<Duration>,
        lacks: &[Lack],
    ) -> Result<StandIn, Wait> {
        let location = replica.location();
        let waits = |kind: &str, why: String| Wait { kind: kind.into(), why: format!("{location} {why}") };
        let Some(patience) = patience else {
            return Err(waits("unset", "has backups, and stands in where restore.fall_over_after is set".into()));
        };
        let since = Outages::of(replica, self.now, lacks).await;
        let since =
            since.map_err(|e| waits("unwritable", format!("cannot stand in: {}", perennial_shared::aws::chain(&e))))?;
        if let Some(hindrance) = self.another_owner(view.pointer.pointer()) {
            return Err(waits("owner", format!("does not stand in, because {hindrance}")));
        }
        let waited = self.now.duration_since(since);
        if waited.as_secs().unsigned_abs() < patience.as_secs() {
            let then = since + patience;
            return Err(waits("soon", format!("stands in from {}", then.strftime("%Y-%m-%d %H:%M:%S UTC"))));
        }
        let why = lacks.iter().map(|l| &*l.why).collect::<Vec<_>>().join("; ");
        Ok(StandIn { number, location, since, why })
    }

    /// Why somebody else than the replica's owner may own the target by now, or come to, and acknowledge writes.
    fn another_owner(&self, pointer: Option<&Pointer>) -> Option<String> {
        let mut living = self.members.iter().filter(|m| m.alive);
        if let Some(other) = living.find(|m| m.state != LifecycleState::PendingWait) {
            return Some(format!("{} lives and may own the target", other.id));
        }
        let owner = pointer.and_then(|p| p.owner.as_deref());
        if let Some(holder) = self.living_holder().filter(|holder| owner != Some(holder)) {
            return Some(format!("{holder} has the address and may serve"));
        }
        let mut others = self.members.iter().filter(|m| m.alive && owner != Some(&*m.id));
        others.find_map(restored_elsewhere)
    }

    /// Who has the address, member or not, unless it is known to be dead.
    pub(super) fn living_holder(&self) -> Option<&str> {
        let endpoint = self.endpoint.as_ref()?;
        if matches!(endpoint, EndpointView::NetworkInterface(view) if !view.holder_alive) {
            return None;
        }
        endpoint.holder().filter(|id| self.lives(id) || self.members.iter().all(|m| m.id != *id))
    }
}

/// A restore of a member, claimed in another repository, that may make it the owner there. One that failed cannot.
fn restored_elsewhere(member: &Member) -> Option<String> {
    member.sent_elsewhere().find_map(|command| match command.status {
        CommandStatus::Success => Some(format!("{} was restored from another repository already", member.id)),
        CommandStatus::Open => Some(format!("{} is being restored from another repository", member.id)),
        CommandStatus::Failed => None,
    })
}
