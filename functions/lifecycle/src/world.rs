//! What can be seen of a target, as plain data.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ec2::{Address, Attachment, Interface, Subnet};
use perennial_shared::aws::ssm::{Command, CommandStatus};
use perennial_shared::id::{Generation, RunId, RunKind};
use perennial_shared::pointer::{Pointer, PointerState};
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
    pub repository: Result<RepositoryView, Wait>,
    /// The instance that EC2 is about to take away, when a warning of that woke the function. The only thing that cannot be read
    /// from the services later; the backup it causes is a courtesy, not a promise.
    pub warned: Option<String>,
    /// The stable address; `None` when the target has none in its settings.
    pub endpoint: Option<EndpointView>,
}

/// One instance of the group.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // facts that do not follow from each other
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
    /// Its availability zone.
    pub zone: Option<String>,
    /// The subnet of its primary interface; read only where the address is a private one.
    pub subnet: Option<Subnet>,
    /// When it was launched.
    pub launched_at: Option<Timestamp>,
    /// Whether its SSM agent answers.
    pub online: bool,
    /// The restores that were sent to it, claimed in whichever repository; read only while it waits.
    pub sent: Vec<Command>,
    /// Its restores and the backups before its end; those of one kind oldest first.
    pub runs: Vec<Run>,
}

impl Member {
    /// Its runs of one kind, oldest first.
    pub fn runs_of(&self, kind: RunKind) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter().filter(move |r| r.claim.run.kind() == kind)
    }

    /// The restores sent to it that another repository has the claims of: its agent takes none from this one then.
    pub fn sent_elsewhere(&self) -> impl Iterator<Item = &Command> {
        self.sent.iter().filter(|c| !self.runs.iter().any(|r| r.claim.run.as_str() == c.comment))
    }

    /// Whether a restore may be changing what it holds, wherever that was claimed. A result outweighs SSM's status, which can be late.
    pub fn is_being_restored(&self) -> bool {
        let ended = |c: &Command| self.runs.iter().any(|r| r.claim.run.as_str() == c.comment && r.result.is_some());
        self.sent.iter().any(|c| c.status == CommandStatus::Open && !ended(c))
    }

    /// The number of its next restore. Claims of two repositories never have the same name, because its commands are counted, too.
    pub fn next_restore(&self) -> u32 {
        let claimed = self.runs_of(RunKind::Restore).filter_map(|r| r.claim.run.attempt());
        let sent = self.sent.iter().filter_map(|c| c.comment.parse::<RunId>().ok()?.attempt());
        1 + claimed.chain(sent).max().unwrap_or(0)
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

/// What the repository says, or the replica that stands in for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RepositoryView {
    /// What stands where the pointer should be.
    pub pointer: PointerState,
    /// What can be restored; read only while an instance waits to be restored.
    pub resolution: Option<Resolution>,
    /// Launches that were given up lately.
    pub given_up: Vec<GivenUp>,
    /// The replica that this was read from; `None` is the target's own repository.
    pub stand_in: Option<StandIn>,
    /// Why nothing is restored from it yet: a replica may have what it lacks.
    pub withheld: Option<Wait>,
    /// The highest generation that a replica's pointer has: a take-over here must not stay behind one there.
    pub elsewhere: Generation,
    /// How one of the members came to be the owner in a replica, while this repository had nothing to give.
    pub returning: Option<Box<Returning>>,
}

/// Why everything waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Words for the kind of reason, letters and `-`: a person is told anew when they change.
    pub kind: String,
    /// The reason.
    pub why: String,
}

/// An owner that a replica's pointer has and the repository's has not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Returning {
    /// The replica's pointer.
    pub pointer: Pointer,
    /// The replica, and why it stood in, where it still knows.
    pub from: Option<StandIn>,
    /// How the owner's restore ended.
    pub restored: Option<RunResult>,
}

/// A replica that a launching instance is restored from, because the target's own repository has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandIn {
    /// Which of the replicas in the settings, from 0.
    pub number: usize,
    /// Where it is.
    pub location: String,
    /// Since when the repository has nothing to give.
    pub since: Timestamp,
    /// What is wrong with it.
    pub why: String,
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
    /// There is exactly one Elastic IP.
    ElasticIp(Address),
    /// There is exactly one network interface.
    NetworkInterface(InterfaceView),
    /// A private address; it needs nobody to have it.
    PrivateIp {
        /// The address.
        address: Ipv4Addr,
        /// The interface that has it.
        on: Option<Interface>,
    },
    /// There is no Elastic IP, and one may be allocated with this tag.
    MayAllocate {
        /// Tag key.
        key: String,
        /// Tag value.
        value: String,
    },
    /// There is none, or more than one: a person must look.
    Wrong(String),
}

/// A network interface that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceView {
    /// The interface.
    pub interface: Interface,
    /// Where it must be attached.
    pub device_index: u32,
    /// Whether EC2 has the instance that it is attached to pending or running.
    pub holder_alive: bool,
    /// Since when its present attachment is being ended.
    pub detaching_since: Option<Timestamp>,
}

impl InterfaceView {
    /// Its attachment and the instance, unless a service of AWS holds it.
    pub fn held(&self) -> Option<(&Attachment, &str)> {
        let attachment = self.interface.attachment.as_ref()?;
        Some((attachment, attachment.instance.as_deref()?))
    }
}

/// An attachment that is being ended: the record `endpoint/<attachment>.json`. EC2 does not tell since when, and force must wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detaching {
    /// The interface.
    pub interface: String,
    /// The instance that loses it.
    pub instance: String,
    /// When it was first asked for.
    pub at: Timestamp,
}

impl Detaching {
    /// Where the record of an attachment stands.
    pub fn key(attachment: &str) -> String {
        format!("endpoint/{attachment}.json")
    }
}

impl EndpointView {
    /// The instance that clients reach, or may already or still reach, at the address.
    pub fn holder(&self) -> Option<&str> {
        match self {
            Self::ElasticIp(address) => address.holder.as_deref(),
            Self::NetworkInterface(view) => view.held().map(|(_, instance)| instance),
            Self::PrivateIp { on, .. } => on.as_ref()?.attachment.as_ref()?.instance.as_deref(),
            Self::MayAllocate { .. } | Self::Wrong(_) => None,
        }
    }

    /// What clients connect to.
    pub fn ip(&self) -> Option<String> {
        match self {
            Self::ElasticIp(address) => Some(address.ip.clone()),
            Self::NetworkInterface(view) => Some(view.interface.ip.clone()),
            Self::PrivateIp { address, .. } => Some(address.to_string()),
            Self::MayAllocate { .. } | Self::Wrong(_) => None,
        }
    }
}
