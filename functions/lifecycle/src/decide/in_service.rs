//! An instance in service: the address belongs to it if it owns the target.

use perennial_shared::alert::Kind;
use perennial_shared::aws::auto_scaling::LifecycleState;

use super::{Action, Case};
use crate::world::{Member, RepositoryView};

pub(super) fn decide(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    let owns = repository.pointer.pointer().is_some_and(|p| p.owner.as_deref() == Some(&*member.id));
    if !owns || !member.running {
        return vec![];
    }
    let holder = case.world.endpoint.as_ref().and_then(|e| e.address()).and_then(|a| a.holder.as_deref());
    let rival = holder
        .and_then(|h| case.member(h))
        .filter(|m| m.id != member.id && m.state == LifecycleState::InService && m.alive);
    if let Some(rival) = rival {
        let alert = case.alert(Kind::TwoInstances, rival);
        return vec![Action::Tell(
            alert.with([format!("{} owns the data, {} holds the address", member.id, rival.id)]),
        )];
    }
    case.bring_endpoint(member, true).into_iter().collect()
}
