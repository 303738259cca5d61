//! An instance in its launch hook: data, then ownership, then the address, then CONTINUE.

use jiff::SignedDuration;
use perennial_shared::alert::Kind;
use perennial_shared::aws::auto_scaling::LifecycleResult::{Abandon, Continue};
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::id::{BackupId, RunId, RunKind};
use perennial_shared::metrics::Metric;
use perennial_shared::resolve::Resolution;
use perennial_shared::run::RunError;
use perennial_shared::settings::EmptyRepository;

use super::endpoint::Way;
use super::{Action, Case, Start, dated, stand_in_lines, terminating};
use crate::run_state::RunState;
use crate::world::{EndpointView, Member, RepositoryView, Run};

/// Launches given up within [`BREAKER_WINDOW`] after which the next one is kept instead of replaced: together three failures.
const BREAKER: usize = 2;
const BREAKER_WINDOW: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn decide(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    if !member.alive {
        return vec![]; // its group will notice; there is nothing to keep open
    }
    if let Some(why) = case.out_of_reach(member) {
        let alert = case.alert(Kind::AddressOutOfReach, member).with([why]);
        return vec![case.heartbeat(member), Action::Tell(alert)];
    }
    if let Some(wait) = someone_else(case, repository, member) {
        return wait;
    }
    if repository.pointer.pointer().is_some_and(|p| p.owner.as_deref() == Some(&*member.id)) {
        return serve(case, repository, member);
    }
    // Clients must not reach it before its data is there, whoever gave it the address (a launch template can attach an interface).
    match case.release_endpoint(member) {
        Way::Done => restore(case, repository, member),
        Way::Wait => vec![case.heartbeat(member)],
        Way::Next(action) => vec![case.heartbeat(member), action],
    }
}

/// What to do instead, while another instance owns the target or is nearer to owning it.
fn someone_else(case: Case, repository: &RepositoryView, member: &Member) -> Option<Vec<Action>> {
    if let Some(owner) = case.owner(repository).filter(|o| *o != member.id).and_then(|o| case.member(&o)) {
        let blocked = match owner.state {
            LifecycleState::InService if owner.alive => Some(true),
            LifecycleState::Terminating | LifecycleState::TerminatingWait
                if terminating::must_be_waited_for(case, owner) || terminating::may_acknowledge(case, owner) =>
            {
                Some(false)
            }
            _ => None,
        };
        if let Some(rival) = blocked {
            let alert = || {
                case.alert(Kind::TwoInstances, member).with([format!("{} owns the target and is in service", owner.id)])
            };
            return Some(std::iter::once(case.heartbeat(member)).chain(rival.then(|| Action::Tell(alert()))).collect());
        }
    }
    // Of several that wait, the one that began first goes on; the pointer would let only one win in any case.
    let begun = |m: &Member| (m.runs_of(RunKind::Restore).next().is_none(), m.launched_at, m.id.clone());
    let launching = case.world.members.iter().filter(|m| m.state == LifecycleState::PendingWait && m.alive);
    let first = launching.filter(|m| case.out_of_reach(m).is_none()).min_by_key(|m| begun(m))?;
    if first.id == member.id {
        return None;
    }
    let alert = case.alert(Kind::TwoInstances, member).with([format!("{} is being restored", first.id)]);
    Some(vec![case.heartbeat(member), Action::Tell(alert)])
}

/// It owns the target: the address, then into service. But what it holds stays what it is only if no restore is under way: one that was
/// sent since it became the owner changes nothing, one from before might.
fn serve(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    if member.is_being_restored() {
        return vec![case.heartbeat(member)];
    }
    match case.bring_endpoint(member) {
        Way::Done => {}
        Way::Wait => return vec![case.heartbeat(member)],
        Way::Next(action) => return vec![case.heartbeat(member), action],
    }
    let done =
        member.runs_of(RunKind::Restore).rev().find_map(|run| Some((run, run.result.as_ref().filter(|r| r.ok)?)));
    let mut actions = Vec::new();
    if let Some((run, result)) = done {
        let kind = if run.claim.backup_id.is_some() { Kind::Recovered } else { Kind::StartedEmpty };
        let mut details = vec![backup_line(run), format!("restore took {:.1} s", result.seconds())];
        let values = case.recovery(member, result);
        if let Some(launched) = member.launched_at {
            let recovery = case.world.now.duration_since(launched);
            details.push(format!("{} s from launch to serving", recovery.as_secs()));
        }
        if let Some(ip) = case.world.endpoint.as_ref().and_then(EndpointView::ip) {
            details.push(format!("address {ip} now leads to {}", member.id));
        }
        details.extend(repository.stand_in.iter().flat_map(stand_in_lines));
        details.extend(result.findings.iter().cloned());
        actions.push(Action::Measure { values });
        actions.push(Action::Tell(case.alert(kind, member).with(details)));
    }
    actions.push(case.complete(member, Continue));
    actions
}

fn backup_line(run: &Run) -> String {
    match &run.claim.backup_id {
        Some(id) => format!("restored from backup {}; it holds nothing newer", dated(id)),
        None => "started with an empty database".into(),
    }
}

fn restore(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    if let Some(command) = member.sent_elsewhere().next() {
        return replaced(case, member, &command.comment);
    }
    let Some(run) = member.runs_of(RunKind::Restore).next_back() else { return begin(case, repository, member) };
    match case.state_of(run) {
        RunState::Claimed | RunState::Running => vec![case.heartbeat(member)],
        RunState::Unsent if member.online => vec![case.heartbeat(member), Action::send(run, member)],
        RunState::Unsent => wait_for_agent(case, repository, member),
        RunState::Succeeded(_)
            if run.claim.pointer_version.as_deref()
                == repository.pointer.version().map(perennial_shared::store::Version::as_str) =>
        {
            vec![case.heartbeat(member), Action::TakeOver { run: run.claim.run.clone(), instance: member.id.clone() }]
        }
        // The predecessor published meanwhile: its newer backup is the one to have.
        RunState::Succeeded(_) => claim(case, repository, member, &[]),
        RunState::Overdue(why) => {
            let error = RunError { code: "Overdue".into(), message: why };
            Action::cancel(run, member).into_iter().chain(failed(case, repository, member, &error)).collect()
        }
        RunState::Failed(error) => failed(case, repository, member, &error),
    }
}

/// Another repository's claim began to restore it, and it takes none from this one: a new instance does. No failure, so it does not
/// count as one.
fn replaced(case: Case, member: &Member, run: &str) -> Vec<Action> {
    let why = format!(
        "{run} was claimed in another repository, which does not tell any more: a new instance is restored from here"
    );
    vec![Action::Tell(case.alert(Kind::LaunchAbandoned, member).with([why])), case.complete(member, Abandon)]
}

fn begin(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    if member.online { claim(case, repository, member, &[]) } else { wait_for_agent(case, repository, member) }
}

/// SSM needs minutes to know a new instance; past the settings' time it is taken for broken.
fn wait_for_agent(case: Case, repository: &RepositoryView, member: &Member) -> Vec<Action> {
    let waited = member.launched_at.map_or(SignedDuration::ZERO, |at| case.world.now.duration_since(at));
    let most = case.group.registration_timeout;
    if waited.as_secs().unsigned_abs() <= most.as_secs() {
        return vec![case.heartbeat(member)];
    }
    let message = format!("its SSM agent did not register within {} s of its launch", most.as_secs());
    give_up(case, repository, member, &RunError { code: "NeverRegistered".into(), message })
}

/// Claims the next restore: the best backup that is not in `refused`.
fn claim(case: Case, repository: &RepositoryView, member: &Member, refused: &[&BackupId]) -> Vec<Action> {
    if let Some(wait) = &repository.withheld {
        let alert = case.waits(Kind::NothingToRestore, member, wait);
        return vec![case.heartbeat(member), Action::Tell(alert)];
    }
    let Some(resolution) = &repository.resolution else { return vec![case.heartbeat(member)] };
    let Some(backup_id) = choose(case, resolution, refused) else {
        let alert = case.alert(Kind::NothingToRestore, member).with(resolution.problems.clone());
        return vec![case.heartbeat(member), Action::Tell(alert)];
    };
    let attempt = member.next_restore();
    let start = Start {
        run: RunId::on_instance(RunKind::Restore, &member.id, attempt),
        instance: member.id.clone(),
        backup_id,
        pointer_version: resolution.pointer.version().map(ToString::to_string),
        generation: resolution.generation().max(repository.elsewhere),
        replace: attempt > 1,
    };
    let mut actions = vec![case.heartbeat(member), Action::Start(start)];
    if !resolution.problems.is_empty() {
        actions.push(Action::Tell(case.alert(Kind::BackupDamaged, member).with(resolution.problems.clone())));
    }
    actions
}

/// `Some(None)` starts empty; `None` means that there is nothing that may be done.
#[allow(clippy::option_option)] // three outcomes, told apart in one place
fn choose(case: Case, resolution: &Resolution, refused: &[&BackupId]) -> Option<Option<BackupId>> {
    if resolution.empty {
        return (case.target.restore.empty_repository == EmptyRepository::Allow).then_some(None);
    }
    let best = resolution.candidates.iter().find(|c| !refused.contains(&&c.id));
    best.map(|c| Some(c.id.clone()))
}

fn failed(case: Case, repository: &RepositoryView, member: &Member, error: &RunError) -> Vec<Action> {
    let failures: Vec<(&Run, RunError)> = member
        .runs_of(RunKind::Restore)
        .filter_map(|run| match case.state_of(run) {
            RunState::Failed(error) => Some((run, error)),
            RunState::Overdue(why) => Some((run, RunError { code: "Overdue".into(), message: why })),
            _ => None,
        })
        .collect();
    let refused: Vec<&BackupId> =
        failures.iter().filter(|(_, e)| e.blames_backup()).filter_map(|(r, _)| r.claim.backup_id.as_ref()).collect();
    let more = repository.resolution.as_ref().is_some_and(|r| choose(case, r, &refused).is_some());
    if failures.len() >= case.target.restore.attempts as usize || !more {
        return give_up(case, repository, member, error);
    }
    let number = failures.len();
    let alert = case.alert(Kind::RestoreFailed, member).once_for(&format!("{}-{number}", member.id));
    let alert = alert.with([format!("attempt {number}: {}: {}", error.code, error.message)]);
    let mut actions = claim(case, repository, member, &refused);
    actions.push(Action::Measure { values: vec![(Metric::RestoreFailed, 1.0)] });
    actions.push(Action::Tell(alert));
    actions
}

/// Replaces the instance, unless that has been tried too often: then it is kept for a person, for good.
fn give_up(case: Case, repository: &RepositoryView, member: &Member, error: &RunError) -> Vec<Action> {
    let mine = repository.given_up.iter().find(|g| g.instance == member.id);
    let recent = repository.given_up.iter().filter(|g| case.world.now.duration_since(g.at) < BREAKER_WINDOW);
    let others = recent.filter(|g| g.instance != member.id).count();
    let kept = mine.map_or(others >= BREAKER, |g| g.kept);
    let reason = format!("{}: {}", error.code, error.message);
    let record = Action::GiveUp { instance: member.id.clone(), kept };
    if kept {
        let others = format!("{others} other launches were given up within an hour");
        let alert = case.alert(Kind::ReplacementStopped, member).with([reason, others]);
        return vec![record, case.heartbeat(member), Action::Tell(alert)];
    }
    let alert = case.alert(Kind::LaunchAbandoned, member).with([reason]);
    let measure = Action::Measure { values: vec![(Metric::RestoreFailed, 1.0)] };
    vec![record, measure, Action::Tell(alert), case.complete(member, Abandon)]
}
