//! Reading the world. Changes nothing.
//!
//! The repository is read last and as a whole or not at all: half a view would be taken for an empty one. An AWS call that fails
//! fails the observation, and the next tick tries again; only a repository that cannot be read is handed on as such, so that
//! waiting hooks are kept open meanwhile, until a replica stands in.

mod endpoint;
mod replica;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perennial_shared::aws::AwsError;
use perennial_shared::aws::auto_scaling::{AutoScalingApi, LifecycleState};
use perennial_shared::aws::ec2::Ec2Api;
use perennial_shared::aws::ssm::{Command, SsmApi};
use perennial_shared::id::{RunId, RunKind};
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::{Repository, RepositoryError};
use perennial_shared::resolve::resolve;
use perennial_shared::settings::{AutoScaling, Endpoint, Target};

use crate::world::{Detaching, EndpointView, GivenUp, Member, RepositoryView, Run, World};

/// Launches given up before this long ago are of no interest to the circuit breaker.
const GIVEN_UP_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// The services, and the one target this function looks after.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// Auto Scaling.
    pub auto_scaling: &'a dyn AutoScalingApi,
    /// EC2.
    pub ec2: &'a dyn Ec2Api,
    /// Systems Manager.
    pub ssm: &'a dyn SsmApi,
    /// The target's repository.
    pub repository: &'a Repository,
    /// Its replicas, in the order of the settings.
    pub replicas: &'a [Repository],
    /// Time between two looks at an address that is on its way.
    pub pause: Duration,
}

impl Services<'_> {
    /// Claims, pointer and records are changed where they were read: in the repository, or in the replica that stands in for it.
    #[must_use]
    pub fn acting_on(self, world: &World) -> Self {
        let stand_in = world.repository.as_ref().ok().and_then(|r| r.stand_in.as_ref());
        let repository = stand_in.and_then(|s| self.replicas.get(s.number)).unwrap_or(self.repository);
        Self { repository, ..self }
    }
}

/// Reads everything that a decision about `target` rests on.
pub async fn observe(
    services: Services<'_>,
    target: &Target,
    group: &AutoScaling,
    now: Timestamp,
) -> Result<World, AwsError> {
    let found = services.auto_scaling.members(&group.group).await?;
    let ids: Vec<String> = found.iter().map(|m| m.instance.clone()).collect();
    let instances = services.ec2.instances(&ids).await?;
    let mut members = Vec::new();
    let mut commands = Vec::new();
    for member in found {
        let instance = instances.iter().find(|i| i.id == member.instance);
        let waits = matches!(
            member.state,
            LifecycleState::PendingWait | LifecycleState::TerminatingWait | LifecycleState::Terminating
        );
        let alive = instance.is_some_and(|i| i.alive);
        let online = waits && alive && services.ssm.online(&member.instance).await?;
        if waits && alive {
            commands.extend(services.ssm.commands(&member.instance, &group.document).await?);
        }
        let subnet = match (&target.endpoint, instance.and_then(|i| i.subnet.as_deref())) {
            (Some(Endpoint::PrivateIp(_)), Some(id)) => Some(services.ec2.subnet(id).await?),
            _ => None,
        };
        members.push(Member {
            sent: commands.iter().filter(|c| is_restore_of(c, &member.instance)).cloned().collect(),
            subnet,
            zone: instance.and_then(|i| i.zone.clone()),
            alive,
            running: instance.is_some_and(|i| i.running),
            interface: instance.and_then(|i| i.interface.clone()),
            launched_at: instance.and_then(|i| i.launched_at),
            online,
            runs: vec![],
            id: member.instance,
            state: member.state,
        });
    }
    let vpc = instances.iter().find_map(|i| i.vpc.as_deref());
    let endpoint = match &target.endpoint {
        Some(which) => Some(endpoint::look(services.ec2, which, &instances, vpc).await?),
        None => None,
    };
    let mut scene = Scene { members, endpoint, commands, now };
    let repository = replica::look(&mut scene, services, target.restore.fall_over_after).await;
    let Scene { members, endpoint, .. } = scene;
    Ok(World { now, members, repository, warned: None, endpoint })
}

/// Whether this command restores the instance, or did.
fn is_restore_of(command: &Command, instance: &str) -> bool {
    let of_it = |run: RunId| run.kind() == RunKind::Restore && run.as_str().contains(instance);
    command.comment.parse().is_ok_and(of_it)
}

/// What the services say, before a repository completes it.
#[derive(Clone)]
struct Scene {
    members: Vec<Member>,
    endpoint: Option<EndpointView>,
    commands: Vec<Command>,
    now: Timestamp,
}

impl Scene {
    /// Reads one repository: what it says of the members' runs and of the address replaces what another one said before.
    async fn read(&mut self, repository: &Repository) -> Result<RepositoryView, RepositoryError> {
        if let Some(EndpointView::NetworkInterface(view)) = &mut self.endpoint
            && let Some(attachment) = view.interface.attachment.as_ref()
        {
            let record = repository.record::<Detaching>(&Detaching::key(&attachment.id)).await?;
            view.detaching_since = record.map(|r| r.at);
        }
        for member in &mut self.members {
            member.runs.clear();
        }
        for member in self.members.iter_mut().filter(|m| m.waits()) {
            for kind in [RunKind::Restore, RunKind::Precopy, RunKind::Final] {
                for run in repository.runs(&format!("{}-{}-", kind.word(), member.id)).await? {
                    member.runs.extend(read_run(repository, &run, &self.commands).await?);
                }
            }
            member.runs.sort_by_key(|r| r.claim.run.attempt());
        }
        let restoring = self.members.iter().any(|m| m.state == LifecycleState::PendingWait);
        let (pointer, resolution) = if restoring {
            let resolution = resolve(repository).await?;
            (resolution.pointer.clone(), Some(resolution))
        } else {
            (repository.pointer().await?, None)
        };
        let given_up = if restoring { given_up(repository, self.now).await? } else { vec![] };
        if let PointerState::Damaged { why, .. } = &pointer {
            tracing::error!(why, "the pointer is damaged");
        }
        Ok(RepositoryView { pointer, resolution, given_up, ..RepositoryView::default() })
    }
}

async fn read_run(repository: &Repository, run: &RunId, commands: &[Command]) -> Result<Option<Run>, RepositoryError> {
    let Some(claim) = repository.claim_of(run).await? else { return Ok(None) };
    Ok(Some(Run {
        claim,
        command: commands.iter().filter(|c| c.comment == run.as_str()).max_by_key(|c| c.requested_at).cloned(),
        progress: repository.progress_of(run).await?,
        result: repository.result_of(run).await?,
    }))
}

/// Read whole each time: launches are given up seldom, and the records' own time is the clock that counts here.
async fn given_up(repository: &Repository, now: Timestamp) -> Result<Vec<GivenUp>, RepositoryError> {
    let mut found = Vec::new();
    for meta in repository.store().list("abandoned/").await? {
        let record = repository.record::<GivenUp>(&meta.key).await?;
        found.extend(record.filter(|r| r.kept || now.duration_since(r.at) < GIVEN_UP_WINDOW));
    }
    Ok(found)
}
