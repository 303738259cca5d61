//! What can be seen of a target, as plain data.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ec2::{Address, Attachment, Interface, Subnet};
use perennial_shared::aws::ssm::Command;
use perennial_shared::id::{Generation, RunKind};
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
    pub repository: Result<RepositoryView, String>,
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
    /// Whether it was sent a restore before, claimed in whichever repository.
    pub tried: bool,
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
    /// Why a launching instance waits although this holds nothing to restore: a replica may.
    pub withheld: Option<String>,
    /// The highest generation that a replica's pointer has: a take-over here must not stay behind one there.
    pub elsewhere: Generation,
    /// A replica's pointer that made one of the members the owner while this repository could not be read.
    pub returning: Option<Box<Pointer>>,
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
