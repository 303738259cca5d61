//! An instance in its terminate hook: if it owns the target, its last writes must be in a backup before it goes.
//!
//! Where nothing but taking the address away keeps clients from writing, most of the data is backed up before that (live migration calls it
//! a pre-copy), and clients are cut off only for what changes meanwhile: the final backup is an increment of minutes, whatever the
//! schedule, and never a base.

use perennial_shared::alert::Kind;
use perennial_shared::aws::auto_scaling::LifecycleResult::{Abandon, Continue};
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::id::{RunId, RunKind};
use perennial_shared::metrics::Metric;
use perennial_shared::run::{RunError, RunResult};

use super::endpoint::Way;
use super::{Action, Case, Start, dated};
use crate::run_state::RunState;
use crate::world::{EndpointView, Member, RepositoryView, Run};

/// Final backups tried before the instance is kept for a person.
const ATTEMPTS: u32 = 2;

pub(super) fn decide(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    if case.owner(repository).as_ref() != Some(&member.id) {
        return vec![case.complete(member, Continue)];
    }
    if !member.alive {
        let alert = case.alert(Kind::OwnerLost, member).with([newest(repository)]);
        return vec![Action::Tell(alert), case.complete(member, Continue)];
    }
    if keeps_address(case, member) {
        return final_backup(case, repository, member);
    }
    let cancelled = match precopy(case, repository, member) {
        Precopy::GoesOn(actions) => return actions,
        Precopy::Ended(cancelled) => cancelled,
    };
    // Nothing may be acknowledged any more: the address goes before the backup begins.
    let next = match case.release_endpoint(member) {
        Way::Done => writes_go_on(case, member).into_iter().chain(final_backup(case, repository, member)).collect(),
        Way::Wait => vec![case.heartbeat(member)],
        Way::Next(action) => vec![case.heartbeat(member), action],
    };
    cancelled.into_iter().chain(next).collect()
}

/// How the backup before the final one stands.
enum Precopy {
    /// Clients stay connected.
    GoesOn(Vec<Action>),
    /// It is done, or is not waited for; one that is still running is cancelled.
    Ended(Option<Action>),
}

/// An ordinary backup of an owner that clients still reach. It promises nothing: one that fails or takes too long is not tried
/// again, and the final backup has more to do.
fn precopy(case: Case, repository: &RepositoryView, member: &Member) -> Precopy {
    let is_final = member.runs_of(RunKind::Final).next().is_some();
    if !case.has_address(member) || is_final || !member.online || !case.target.method.makes_increments() {
        return Precopy::Ended(None);
    }
    let Some(run) = member.runs_of(RunKind::Precopy).next_back() else {
        return Precopy::GoesOn(vec![case.heartbeat(member), start(repository, member, RunKind::Precopy, 1)]);
    };
    match case.state_of(run) {
        RunState::Claimed | RunState::Running => Precopy::GoesOn(vec![case.heartbeat(member)]),
        RunState::Unsent => Precopy::GoesOn(vec![case.heartbeat(member), Action::send(run, member)]),
        RunState::Overdue(_) => Precopy::Ended(Action::cancel(run, member)),
        RunState::Succeeded(_) | RunState::Failed(_) => Precopy::Ended(None),
    }
}

/// Whether clients may go on reading where they are: the final backup has the engine itself refuse writes before it begins. That
/// holds only while the backup is made or has been; when it cannot be, nobody refuses, and what is written then would be lost.
fn keeps_address(case: Case, member: &Member) -> bool {
    let made = |run: &Run| matches!(case.state_of(run), RunState::Succeeded(_));
    let last = member.runs_of(RunKind::Final).next_back();
    case.target.keeps_reads() && (must_be_waited_for(case, member) || last.is_some_and(made))
}

/// Tells a person that nothing refuses writes: the engine cannot, and there is no address that could be taken away. The backup is made
/// all the same: without it more would be lost.
fn writes_go_on(case: Case, member: &Member) -> Option<Action> {
    let why = match &case.world.endpoint {
        _ if case.target.keeps_reads() => return None,
        None => "the settings have no endpoint".to_owned(),
        Some(EndpointView::Wrong(why)) => why.clone(),
        Some(_) => return None,
    };
    let (engine, method) = (case.target.engine.word(), case.target.method.word());
    let details = [why, format!("{engine} refuses no writes while a backup is made by method {method}")];
    Some(Action::Tell(case.alert(Kind::WritesNotRefused, member).with(details)))
}

/// Whether clients can still reach this owner and nobody has its engine refuse writes: its address, which stayed for the final backup,
/// is on its way out.
pub(super) fn may_acknowledge(case: Case, owner: &Member) -> bool {
    let leaving = owner.alive && owner.state == LifecycleState::TerminatingWait;
    case.target.keeps_reads() && leaving && case.has_address(owner) && !keeps_address(case, owner)
}

fn final_backup(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    let Some(run) = member.runs_of(RunKind::Final).next_back() else { return begin(case, repository, member, 1) };
    let attempt = run.claim.run.attempt().unwrap_or(ATTEMPTS);
    match case.state_of(run) {
        RunState::Claimed | RunState::Running => vec![case.heartbeat(member)],
        RunState::Unsent if member.online => vec![case.heartbeat(member), Action::send(run, member)],
        RunState::Unsent => unreachable(case, member),
        RunState::Succeeded(result) => {
            vec![measure(result), case.complete(member, Continue)]
        }
        RunState::Overdue(why) => Action::cancel(run, member)
            .into_iter()
            .chain(failed(case, repository, member, attempt, &overdue(why)))
            .collect(),
        RunState::Failed(error) => failed(case, repository, member, attempt, &error),
    }
}

fn overdue(why: String) -> RunError {
    RunError { code: "Overdue".into(), message: why }
}

fn begin(case: Case, repository: &RepositoryView, member: &Member, attempt: u32) -> Vec<Action> {
    if !member.online {
        return unreachable(case, member);
    }
    vec![case.heartbeat(member), start(repository, member, RunKind::Final, attempt)]
}

fn start(repository: &RepositoryView, member: &Member, kind: RunKind, attempt: u32) -> Action {
    Action::Start(Start::backup(RunId::on_instance(kind, &member.id, attempt), repository, member))
}

/// It cannot be asked for a backup. No heartbeat: the hook's own time-out bounds the wait, and its default result (ABANDON) keeps the
/// instance where the group's policy retains it. Its successor does not wait for it.
fn unreachable(case: Case, member: &Member) -> Vec<Action> {
    let alert = case.alert(Kind::FinalBackupFailed, member);
    vec![Action::Tell(alert.with(["its SSM agent does not answer, so no final backup can be asked for"]))]
}

fn failed(case: Case, repository: &RepositoryView, member: &Member, attempt: u32, error: &RunError) -> Vec<Action> {
    // An engine that never held anything has nothing to lose.
    if error.code == "NothingToBackUp" && repository.pointer.backup_id().is_none() {
        return vec![case.complete(member, Continue)];
    }
    if attempt < ATTEMPTS {
        return begin(case, repository, member, attempt + 1);
    }
    let alert = case.alert(Kind::FinalBackupFailed, member);
    let alert = alert.with([format!("{}: {}", error.code, error.message), newest(repository)]);
    let measure = Action::Measure { values: vec![(Metric::BackupFailed, 1.0)] };
    vec![measure, Action::Tell(alert), case.complete(member, Abandon)]
}

#[allow(clippy::cast_precision_loss)] // a metric is a float
fn measure(result: &RunResult) -> Action {
    let size = result.size_bytes as f64;
    let values =
        vec![(Metric::BackupDuration, result.seconds()), (Metric::BackupSize, size), (Metric::BackupFailed, 0.0)];
    Action::Measure { values }
}

fn newest(repository: &RepositoryView) -> String {
    match repository.pointer.backup_id() {
        Some(id) => format!("newest backup: {}", dated(id)),
        None => "there is no backup".into(),
    }
}

/// Whether the successor of this owner has to wait for it: it may still publish a final backup.
pub(super) fn must_be_waited_for(case: Case, owner: &Member) -> bool {
    if !owner.alive || !owner.online {
        return false;
    }
    let Some(run) = owner.runs_of(RunKind::Final).next_back() else { return true };
    let last = run.claim.run.attempt().unwrap_or(ATTEMPTS) >= ATTEMPTS;
    match case.state_of(run) {
        RunState::Succeeded(_) => false,
        RunState::Failed(_) | RunState::Overdue(_) => !last,
        RunState::Claimed | RunState::Unsent | RunState::Running => true,
    }
}
