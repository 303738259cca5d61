//! Any history of deaths, replacements, backups, lost replies, doubled and concurrent invocations: the promises hold after every step, and
//! when the faults end the target serves again.

mod support;

use std::sync::Arc;
use std::time::Duration;

use perennial_shared::aws::AwsErrorKind;
use perennial_shared::repository::Repository;
use perennial_shared::run::RunError;
use perennial_shared::settings::Engine;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::memory::MemoryStore;
use proptest::prelude::*;
use support::{Death, Kind, World};

#[derive(Debug, Clone)]
enum Step {
    Group,
    Tick,
    /// Two invocations at the same time, as after a doubled event.
    TwoTicks,
    /// An invocation that dies at this operation on the repository, the operation done or not.
    TickDies(usize, bool),
    /// An invocation in which this AWS call fails.
    TickFails(&'static str),
    /// An invocation in which this AWS call is done and its reply lost.
    TickLoses(&'static str),
    /// From now on EC2 needs so many looks to attach or detach an interface; guests let go of it, or do not.
    Network(u32, bool),
    Agent(Option<Death>),
    AgentFails(bool),
    Write,
    Backup(Option<Death>),
    Kill,
    /// The instance in service is stopped, and keeps its address until EC2 ends it.
    Stop,
    EndStopped,
    Terminate,
    /// The agents of all instances stop answering, or answer again.
    Online(bool),
    Pass(i64),
    /// From now on the repository cannot be read, or can again; only of a target with a replica.
    Away(bool),
    /// The same of the replica.
    ReplicaAway(bool),
    /// A restore is claimed, in the replica or not, by a function that does not know what happened meanwhile.
    LateClaim(bool),
}

const CALLS: [&str; 16] = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:RecordLifecycleActionHeartbeat",
    "autoscaling:CompleteLifecycleAction",
    "ec2:DescribeAddresses",
    "ec2:AssociateAddress",
    "ec2:DisassociateAddress",
    "ec2:DescribeNetworkInterfaces",
    "ec2:AttachNetworkInterface",
    "ec2:DetachNetworkInterface",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
    "ec2:DescribeSubnets",
    "ssm:SendCommand",
    "ssm:ListCommandInvocations",
    "sns:Publish",
];

const CALLS_THAT_CHANGE: [&str; 7] = [
    "autoscaling:CompleteLifecycleAction",
    "ec2:AssociateAddress",
    "ec2:DisassociateAddress",
    "ec2:AttachNetworkInterface",
    "ec2:DetachNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::ElasticIp), Just(Kind::NetworkInterface), Just(Kind::PrivateIp)]
}

/// By whom writes are refused during a final backup: by taking the address away, at once or after a backup that went before, or by the
/// engine.
fn method() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("native"), Just("physical"), Just("read-only"), Just("aof")]
}

/// A target with or without a replica.
fn target() -> impl Strategy<Value = (Kind, &'static str, bool)> {
    (kind(), method(), any::<bool>())
}

/// One with a replica begins in service, with a backup that the replica has, too.
async fn world((kind, method, replica): (Kind, &'static str, bool), fall_over_after: Option<Duration>) -> World {
    let mut world = World::with_method(kind, method);
    if replica {
        world.replica = Some(Arc::new(MemoryStore::default()));
        world.target.restore.fall_over_after = fall_over_after;
        world.settle().await;
        world.write();
        take(&mut world, Step::Backup(None)).await;
        world.pass(1);
    }
    world
}

fn death() -> impl Strategy<Value = Option<Death>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Death::Anything)),
        1 => Just(Some(Death::Manifest)),
        1 => Just(Some(Death::Pointer)),
        1 => Just(Some(Death::Result)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Group),
        6 => Just(Step::Tick),
        2 => Just(Step::TwoTicks),
        3 => (0_usize..30, any::<bool>()).prop_map(|(at, done)| Step::TickDies(at, done)),
        2 => proptest::sample::select(&CALLS[..]).prop_map(Step::TickFails),
        2 => proptest::sample::select(&CALLS_THAT_CHANGE[..]).prop_map(Step::TickLoses),
        1 => (prop_oneof![4 => 0_u32..4, 1 => Just(20)], any::<bool>()).prop_map(|(slow, deaf)| Step::Network(slow, deaf)),
        5 => death().prop_map(Step::Agent),
        1 => any::<bool>().prop_map(Step::AgentFails),
        5 => Just(Step::Write),
        2 => death().prop_map(Step::Backup),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => Just(Step::EndStopped),
        1 => Just(Step::Terminate),
        1 => any::<bool>().prop_map(Step::Online),
        2 => (1_i64..120).prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::Away),
        1 => any::<bool>().prop_map(Step::ReplicaAway),
        1 => any::<bool>().prop_map(Step::LateClaim),
    ]
}

async fn take(world: &mut World, step: Step) {
    match step {
        Step::Group => drop(world.group_step()),
        Step::Tick => drop(world.tick_on(&world.reachable()).await),
        Step::TwoTicks => {
            let (one, two) = (world.reachable(), world.reachable());
            drop(tokio::join!(world.tick_on(&one), world.tick_on(&two)));
        }
        Step::TickDies(at, done) => {
            let fault = if done { Fault::After } else { Fault::Before };
            let store = Arc::new(FaultyStore::crash(world.reachable().shared_store(), at, fault));
            drop(world.tick_on(&Repository::new(store, Engine::Weaviate)).await);
        }
        Step::TickFails(call) => {
            world.aws.fail_next(call, AwsErrorKind::Unavailable);
            drop(world.tick_on(&world.reachable()).await);
            world.aws.state().faults.clear();
        }
        Step::TickLoses(call) => {
            world.aws.lose_next(call);
            drop(world.tick_on(&world.reachable()).await);
            world.aws.state().lost.clear();
        }
        Step::Network(slow, deaf) => {
            let mut all = world.aws.state();
            (all.slow, all.deaf) = (slow, deaf);
        }
        Step::Agent(death) => world.agent(Ok(death)).await,
        Step::AgentFails(blames_backup) => {
            let code = if blames_backup { "RestoreDiffers" } else { "EngineUnreachable" };
            world.agent(Err(RunError { code: code.into(), message: "simulated".into() })).await;
        }
        Step::Write => world.write(),
        Step::Backup(death) if !world.away => {
            world.scheduled_backup(death).await;
            if world.replica.is_some() && !world.replica_away && death.is_none() {
                world.copy_to_replica().await;
            }
        }
        Step::Backup(_) => {} // there is nowhere to put it
        Step::Away(away) => world.away = away && world.replica.is_some(),
        Step::ReplicaAway(away) => world.replica_away = away,
        Step::LateClaim(in_replica) => world.late_claim(in_replica).await,
        Step::Kill => world.kill(),
        Step::Stop => drop(world.stop()),
        Step::EndStopped => world.end_stopped(),
        Step::Terminate => world.terminate(),
        Step::Online(online) => world.aws.state().machines.values_mut().for_each(|m| m.online = online && m.running),
        Step::Pass(seconds) => world.pass(seconds),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_after_every_step(target in target(), steps in proptest::collection::vec(step(), 1..80)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let mut world = world(target, Some(Duration::from_secs(60))).await;
            let mut generation = 0;
            for step in steps {
                take(&mut world, step).await;
                world.pass(1); // backups of one second would share a name
                world.check().await;
                let pointer = world.repository().pointer().await.expect("read");
                let current = pointer.pointer().map_or(0, |p| p.generation.0);
                assert!(current >= generation, "the generation went back");
                generation = current;
            }
            // Somebody who was told that replacing stopped has repaired the cause and ends what was kept.
            for machine in world.aws.state().machines.values_mut() {
                machine.online = machine.running;
            }
            (world.away, world.replica_away) = (false, false);
            world.pass(7200);
            world.settle_with_operator().await;
        });
    }

    /// Nobody is killed: whatever else goes wrong, every acknowledged row is there in the end.
    #[test]
    fn planned_replacements_lose_nothing(target in target(), steps in proptest::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
            let mut world = world(target, None).await;
            world.settle().await;
            for step in steps {
                // A lost agent or two failed final backups are told to a person and keep the instance; no row can be promised then.
                let deaf = world.away && matches!(step, Step::Agent(_));
                if !deaf && !matches!(step, Step::Kill | Step::Stop | Step::Online(_) | Step::AgentFails(_) | Step::Agent(Some(_))) {
                    take(&mut world, step).await;
                    world.pass(1);
                }
            }
            (world.away, world.replica_away) = (false, false);
            world.settle().await;
            let served = world.served().expect("served");
            let lost: Vec<_> = world.acknowledged.difference(served).collect();
            assert!(lost.is_empty(), "lost {lost:?}");
        });
    }
}
