//! How a restore or final backup stands, from its claim, its command, its progress and its result.
//!
//! The result record outweighs SSM's status, because SSM's events and statuses can be late and the record is written by the one
//! who did the work. A command that ended without a record has failed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perennial_shared::aws::ssm::CommandStatus;
use perennial_shared::run::{RunError, RunResult};

use crate::world::Run;

/// Whoever claims a run sends its command at once. After this long without one, the claimer has died, and the next sends it.
const CLAIMER_GONE_AFTER: Duration = Duration::from_secs(60);

/// How long a command may take to reach a registered instance.
pub const DELIVERY: Duration = Duration::from_secs(300);

/// How a run stands.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState<'a> {
    /// Claimed, and the claimer is about to send the command.
    Claimed,
    /// Claimed, and nobody sent the command.
    Unsent,
    /// Under way.
    Running,
    /// Past its deadline, or without progress for too long.
    Overdue(String),
    /// Done.
    Succeeded(&'a RunResult),
    /// Ended without success.
    Failed(RunError),
}

/// How long a run may take and stand still.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the command being sent to the result.
    pub timeout: Duration,
    /// From one sign of progress to the next.
    pub stalled_after: Duration,
}

/// How `run` stands.
pub fn run_state(run: &Run, now: Timestamp, patience: Patience) -> RunState<'_> {
    if let Some(result) = &run.result {
        return match (&result.error, result.ok) {
            (_, true) => RunState::Succeeded(result),
            (Some(error), false) => RunState::Failed(error.clone()),
            (None, false) => RunState::Failed(error("NoReason", "the run failed and gave no reason".into())),
        };
    }
    let Some(command) = &run.command else {
        let fresh = since(now, run.claim.claimed_at) < CLAIMER_GONE_AFTER;
        return if fresh { RunState::Claimed } else { RunState::Unsent };
    };
    match command.status {
        CommandStatus::Open => overdue(run, command.requested_at, now, patience),
        CommandStatus::Success => {
            RunState::Failed(error("NoResult", "the command succeeded but left no result in the repository".into()))
        }
        CommandStatus::Failed => RunState::Failed(error(
            "CommandFailed",
            format!("SSM reports {} for command {}", command.detail, command.id),
        )),
    }
}

fn overdue(run: &Run, sent: Timestamp, now: Timestamp, patience: Patience) -> RunState<'static> {
    if since(now, sent) > patience.timeout + DELIVERY {
        return RunState::Overdue(format!("it did not end within {} s", patience.timeout.as_secs()));
    }
    // Until the first progress record the command may still be on its way.
    let quiet = run.progress.as_ref().map(|p| since(now, p.at)).unwrap_or_default();
    if quiet > patience.stalled_after {
        let stage = run.progress.as_ref().map_or("", |p| p.stage.as_str());
        return RunState::Overdue(format!("no progress for {} s while: {stage}", quiet.as_secs()));
    }
    RunState::Running
}

fn error(code: &str, message: String) -> RunError {
    RunError { code: code.into(), message }
}

/// Time from `then` to `now`; clocks that disagree count as no time.
fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then).max(SignedDuration::ZERO)).unwrap_or_default()
}
