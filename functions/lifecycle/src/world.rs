//! What can be seen of a target, as plain data.

use jiff::Timestamp;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ec2::Address;
use perennial_shared::aws::ssm::Command;
use perennial_shared::id::RunKind;
use perennial_shared::pointer::PointerState;
use perennial_shared::resolve::Resolution;
use perennial_shared::run::{Claim, Progress, RunResult};
use serde::{Deserialize, Serialize};

/// Everything a decision rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The clock.
    pub now: Timestamp,
    /// The group's members.
    pub members: Vec<Member>,
    /// The repository, or why it could not be read.
    pub repository: Result<RepositoryView, String>,
    /// The instance that EC2 is about to take away, when a warning of that woke the function. The only thing that cannot be read
    /// from the services later; the backup it causes is a courtesy, not a promise.
    pub warned: Option<String>,
    /// The stable address; `None` when the target has none in its settings.
    pub endpoint: Option<EndpointView>,
}

/// One instance of the group.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Instance id.
    pub id: String,
    /// Its lifecycle state.
    pub state: LifecycleState,
    /// Whether EC2 has it pending or running.
    pub alive: bool,
    /// Whether EC2 has it running.
    pub running: bool,
    /// Its primary network interface.
    pub interface: Option<String>,
    /// When it was launched.
    pub launched_at: Option<Timestamp>,
    /// Whether its SSM agent answers.
    pub online: bool,
    /// Its restores and final backups, oldest first.
    pub runs: Vec<Run>,
}

impl Member {
    /// Its runs of one kind, oldest first.
    pub fn runs_of(&self, kind: RunKind) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter().filter(move |r| r.claim.run.kind() == kind)
    }

    /// Whether a hook holds it.
    pub fn waits(&self) -> bool {
        matches!(self.state, LifecycleState::PendingWait | LifecycleState::TerminatingWait)
    }
}

/// One run, from all places that know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What it must do.
    pub claim: Claim,
    /// Its SSM command, if one was sent.
    pub command: Option<Command>,
    /// Its last sign of life.
    pub progress: Option<Progress>,
    /// How it ended.
    pub result: Option<RunResult>,
}

/// What the repository says.
#[derive(Debug, Clone, PartialEq)]
pub struct RepositoryView {
    /// What stands where the pointer should be.
    pub pointer: PointerState,
    /// What can be restored; read only while an instance waits to be restored.
    pub resolution: Option<Resolution>,
    /// Launches that were given up lately.
    pub given_up: Vec<GivenUp>,
}

/// A launch that was given up: the record `abandoned/<instance>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Instance id.
    pub instance: String,
    /// When.
    pub at: Timestamp,
    /// Whether the instance is kept for a person instead of being replaced.
    pub kept: bool,
}

/// What EC2 says about the stable address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointView {
    /// There is exactly one.
    Found(Address),
    /// There is none, and one may be allocated with this tag.
    MayAllocate {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
    },
    /// There is none, or more than one: a person must look.
    Wrong(String),
}

impl EndpointView {
    /// The address, if there is exactly one.
    pub fn address(&self) -> Option<&Address> {
        if let Self::Found(address) = self { Some(address) } else { None }
    }
}
