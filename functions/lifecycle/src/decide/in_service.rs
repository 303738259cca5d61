//! An instance in service: the address belongs to it if it owns the target.

use jiff::Timestamp;
use perennial_shared::alert::Kind;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::id::RunId;

use super::{Action, Case, Start};
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
    let warned = (case.world.warned.as_ref() == Some(&member.id)).then(|| last_minute_backup(case, repository, member));
    case.bring_endpoint(member, true).into_iter().chain(warned).collect()
}

/// EC2 takes the instance away in two minutes, or soon. It goes on serving, so this is an ordinary backup, not a final one. Warnings of the
/// same five minutes name the same run.
fn last_minute_backup(case: Case, repository: &RepositoryView, member: &Member) -> Action {
    let second = case.world.now.as_second();
    let at = Timestamp::from_second(second - second.rem_euclid(300)).unwrap_or(case.world.now);
    Action::Start(Start {
        run: RunId::scheduled(at),
        instance: member.id.clone(),
        backup_id: None,
        pointer_version: repository.pointer.version().map(ToString::to_string),
        generation: repository.pointer.pointer().map(|p| p.generation).unwrap_or_default(),
        replace: false,
    })
}
