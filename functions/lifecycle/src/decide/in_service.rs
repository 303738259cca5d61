//! An instance in service: the address belongs to it if it owns the target.

use jiff::Timestamp;
use perennial_shared::id::RunId;

use super::endpoint::Way;
use super::{Action, Case, Start};
use crate::world::{Member, RepositoryView};

pub(super) fn decide(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    let owns = repository.pointer.pointer().is_some_and(|p| p.owner.as_deref() == Some(&*member.id));
    if !owns || !member.running {
        return vec![];
    }
    let warned = (case.world.warned.as_ref() == Some(&member.id)).then(|| last_minute_backup(case, repository, member));
    let address = match case.bring_endpoint(member) {
        Way::Next(action) => Some(action),
        Way::Done | Way::Wait => None,
    };
    address.into_iter().chain(warned).collect()
}

/// EC2 takes the instance away in two minutes, or soon. It goes on serving, so this is an ordinary backup, not a final one. Warnings of the
/// same five minutes name the same run.
fn last_minute_backup(case: Case, repository: &RepositoryView, member: &Member) -> Action {
    let second = case.world.now.as_second();
    let at = Timestamp::from_second(second - second.rem_euclid(300)).unwrap_or(case.world.now);
    Action::Start(Start::backup(RunId::scheduled(at), repository, member))
}
