//! One test for each thing that goes wrong, and after each: the promises hold, and the pointer names a backup that restores.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use lifecycle::decide::Action;
use perennial_shared::aws::AwsErrorKind;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ssm::CommandStatus;
use perennial_shared::repository::Repository;
use perennial_shared::run::RunError;
use perennial_shared::settings::{self, EmptyRepository, Engine};
use perennial_shared::store::faulty::{Fault, FaultyStore};
use support::{KEEP_READS, Kind, Rows, World, replacing, serving, serving_increments, serving_reads, state_of, told};

for_every_kind! {
    a_dead_instance_comes_back_with_its_data_then_its_address
    a_planned_replacement_refuses_writes_and_loses_nothing
    an_engine_that_refuses_writes_itself_is_read_until_its_successor_serves
    an_address_that_stayed_goes_when_the_final_backup_cannot_be_made
    clients_stay_until_most_of_the_final_backup_is_made
    clients_are_cut_off_when_what_goes_before_the_final_backup_comes_to_nothing
    doubled_and_late_events_change_nothing
    a_hook_for_an_instance_that_has_gone_is_left_alone
    an_agent_that_registers_after_minutes_is_waited_for
    an_agent_that_never_registers_is_given_up
    a_command_that_fails_times_out_or_is_never_delivered_is_tried_again
    a_command_that_hangs_is_cancelled_and_counted_as_failed
    a_claimer_that_died_is_replaced_by_the_next_invocation
    a_bad_backup_gives_way_to_the_next_older_one_on_the_same_instance
    an_engine_that_does_not_start_does_not_cost_a_newer_backup
    after_three_given_up_launches_in_an_hour_the_instance_is_kept
    a_repository_that_cannot_be_read_is_not_taken_for_an_empty_one
    an_empty_repository_starts_empty_only_if_the_settings_say_so
    a_truncated_pointer_falls_back_to_the_newest_manifest_and_is_made_whole
    a_pointer_of_a_newer_version_is_never_overwritten
    a_backup_deleted_behind_the_pointer_gives_way_and_the_pointer_names_what_was_restored
    a_second_instance_waits_while_the_owner_is_in_service
    of_two_launching_instances_one_is_restored
    a_final_backup_published_meanwhile_is_restored_before_the_take_over
    a_failed_final_backup_keeps_the_instance_and_tells_a_person
    an_address_that_went_astray_is_put_back
    a_warning_that_the_owner_is_taken_away_starts_one_backup
}

fn failure(code: &str) -> RunError {
    RunError { code: code.into(), message: "simulated".into() }
}

async fn a_dead_instance_comes_back_with_its_data_then_its_address(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.tick().await;
    assert_eq!(world.aws.holder(), None, "the address waits for the data");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    assert_eq!(world.aws.holder(), Some(new));
    assert!(told(&world, "replacement instance restored and serving") && told(&world, "lost without a final backup"));
}

async fn a_planned_replacement_refuses_writes_and_loses_nothing(kind: Kind) {
    let mut world = serving(kind).await;
    world.terminate();
    let new = world.group_step().expect("a replacement");
    world.tick().await;
    assert_eq!(world.aws.holder(), None, "the address is released before the final backup");
    world.write();
    assert_eq!(world.acknowledged.len(), 4);
    assert!(
        world.repository().runs(&format!("restore-{new}-")).await.expect("read").is_empty(),
        "it waits for the final backup"
    );
    world.settle().await;
    assert_eq!(world.served(), Some(&world.acknowledged));
}

async fn an_engine_that_refuses_writes_itself_is_read_until_its_successor_serves(kind: Kind) {
    for method in KEEP_READS {
        let mut world = serving_reads(kind, method).await;
        let old = world.aws.holder().expect("held");
        world.terminate();
        let new = world.group_step().expect("a replacement");
        world.tick().await;
        assert_eq!(world.aws.holder(), Some(old.clone()), "reads go on");
        world.write();
        assert_eq!(world.acknowledged.len(), 5, "nothing refuses writes before the backup has begun");
        world.agent(Ok(None)).await;
        world.write();
        assert_eq!((world.acknowledged.len(), world.served().is_some()), (5, true), "the engine refuses");
        assert!(world.aws.holder() == Some(old), "the address stays until the instance goes");
        world.settle().await;
        assert_eq!((world.aws.holder(), world.served()), (Some(new), Some(&world.acknowledged)));
    }
}

async fn an_address_that_stayed_goes_when_the_final_backup_cannot_be_made(kind: Kind) {
    // Its agent does not answer.
    for method in KEEP_READS {
        let mut world = serving_reads(kind, method).await;
        let old = world.aws.holder().expect("held");
        world.terminate();
        world.aws.state().machines.get_mut(&old).expect("there").online = false;
        world.group_step().expect("a replacement");
        world.tick().await;
        world.check().await;
        assert_eq!(world.aws.holder(), None, "nobody there refuses writes");
        world.settle().await;
    }

    // It fails as often as it is tried.
    for method in KEEP_READS {
        let mut world = serving_reads(kind, method).await;
        let old = world.aws.holder().expect("held");
        world.terminate();
        for attempt in 1..=2 {
            world.tick().await;
            assert_eq!(world.aws.holder(), Some(old.clone()), "attempt {attempt}");
            world.agent(Err(failure("EngineFailed"))).await;
        }
        world.tick().await;
        assert_eq!(world.aws.holder(), None);
        world.tick().await;
        assert_eq!(state_of(&world, &old), Some(LifecycleState::TerminatingRetained));
        world.settle().await;
        assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    }
}

async fn clients_stay_until_most_of_the_final_backup_is_made(kind: Kind) {
    let mut world = serving_increments(kind).await;
    let old = world.aws.holder().expect("held");
    let runs = async |world: &World| {
        let of = async |kind: &str| world.repository().runs(&format!("{kind}-{old}-")).await.expect("read").len();
        (of("precopy").await, of("final").await)
    };
    world.terminate();
    let new = world.group_step().expect("a replacement");
    for _ in 0..2 {
        world.tick().await;
        world.write();
        assert_eq!((world.aws.holder(), runs(&world).await), (Some(old.clone()), (1, 0)), "clients stay");
    }
    world.agent(Ok(None)).await;
    world.write();
    let acknowledged = world.acknowledged.len();
    assert_eq!(acknowledged, 7);
    world.pass(1);
    world.tick().await;
    world.write();
    assert_eq!((world.aws.holder(), runs(&world).await, world.acknowledged.len()), (None, (1, 1), acknowledged));
    let restored = format!("restore-{new}-");
    assert!(world.repository().runs(&restored).await.expect("read").is_empty(), "it waits for the final backup");
    world.settle().await;
    assert_eq!((world.aws.holder(), world.served()), (Some(new), Some(&world.acknowledged)));
}

async fn clients_are_cut_off_when_what_goes_before_the_final_backup_comes_to_nothing(kind: Kind) {
    // Its agent does not answer: neither backup can be made.
    let mut world = serving_increments(kind).await;
    let old = world.aws.holder().expect("held");
    world.terminate();
    world.aws.state().machines.get_mut(&old).expect("there").online = false;
    world.tick().await;
    assert_eq!(world.aws.holder(), None);

    // It fails, once; the final one is made all the same.
    let mut world = serving_increments(kind).await;
    world.terminate();
    world.tick().await;
    world.agent(Err(failure("EngineFailed"))).await;
    world.tick().await;
    assert_eq!(world.aws.holder(), None);
    world.settle().await;
    assert_eq!(world.served(), Some(&world.acknowledged));

    // It hangs.
    let mut world = serving_increments(kind).await;
    let old = world.aws.holder().expect("held");
    world.terminate();
    world.tick().await;
    world.pass(8 * 3600);
    world.tick().await;
    assert_eq!(world.aws.holder(), None);
    let first = {
        let all = world.aws.state();
        all.commands.iter().find(|(_, c)| c.comment == format!("precopy-{old}-1")).expect("sent").1.clone()
    };
    assert_eq!((first.status, first.detail.as_str()), (CommandStatus::Failed, "Cancelled"));
    world.settle().await;
    assert_eq!(world.served(), Some(&world.acknowledged));
}

#[tokio::test]
async fn where_nothing_refuses_writes_before_a_final_backup_a_person_is_told() {
    for (engine, refuses) in [
        ("engine: qdrant", false),
        ("engine: weaviate, method: native", false),
        ("engine: weaviate, method: physical", false),
        ("engine: redis", true),
    ] {
        for (backup, ends) in [(Ok(None), None), (Err(failure("Failed")), Some(LifecycleState::TerminatingRetained))] {
            let (mut world, old) = serving_without_endpoint(engine).await;
            world.terminate();
            world.group_step().expect("a replacement");
            for _ in 0..3 {
                world.tick().await;
                world.agent(backup.clone()).await;
                world.pass(1);
            }
            assert_eq!(state_of(&world, &old), ends, "{engine}: the final backup is tried all the same");
            let about: Vec<_> = world.subjects().into_iter().filter(|s| s.contains("may be lost")).collect();
            assert_eq!(about.len(), usize::from(!refuses), "{engine}: {about:?}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_ec2_does_not_show_is_as_good_as_none() {
    let mut world = serving(Kind::ElasticIp).await;
    world.aws.state().addresses.clear();
    world.terminate();
    world.tick().await;
    let all = world.aws.state();
    let (_, body) = all.mail.iter().find(|(subject, _)| subject.contains("may be lost")).expect("told");
    assert!(body.contains("there is no Elastic IP eipalloc-1") && body.contains("set an endpoint"), "{body}");
}

/// In service, of a target whose clients find it by themselves; its id.
async fn serving_without_endpoint(engine: &str) -> (World, String) {
    let mut world = World::new(Kind::ElasticIp);
    let text = format!(
        "{{name: docs, {engine}, data_dir: /data, repository: 's3://bucket/prefix', auto_scaling: {{group: docs}}, \
         restore: {{empty_repository: allow}}}}"
    );
    world.target = settings::parse("test", &text).expect("settings");
    let first = world.group_step().expect("launched");
    for _ in 0..2 {
        world.tick().await;
        world.agent(Ok(None)).await;
        world.pass(1);
    }
    world.tick().await;
    assert_eq!(state_of(&world, &first), Some(LifecycleState::InService));
    (world, first)
}

async fn doubled_and_late_events_change_nothing(kind: Kind) {
    let (mut world, _) = replacing(kind).await;
    for _ in 0..3 {
        world.tick().await;
    }
    assert_eq!(
        world.aws.state().orders.iter().filter(|o| o.run.as_str().starts_with("restore-i-00000000000000002")).count(),
        1
    );
    world.settle().await;
    let generation = world.repository().pointer().await.expect("read").pointer().expect("there").generation;
    let mails = world.subjects().len();
    for _ in 0..3 {
        assert!(world.tick().await.is_empty(), "nothing is left to do");
    }
    assert_eq!(world.repository().pointer().await.expect("read").pointer().expect("there").generation, generation);
    assert_eq!(world.subjects().len(), mails);
}

async fn a_hook_for_an_instance_that_has_gone_is_left_alone(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.aws.kill(&new);
    world.tick().await;
    world.check().await;
    assert!(!world.aws.state().heartbeats.contains_key(&new));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn an_agent_that_registers_after_minutes_is_waited_for(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.aws.state().machines.get_mut(&new).expect("there").online = false;
    for _ in 0..10 {
        world.tick().await;
        world.pass(60);
    }
    assert!(world.aws.state().heartbeats[&new] >= 10 && state_of(&world, &new) == Some(LifecycleState::PendingWait));
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new));
}

async fn an_agent_that_never_registers_is_given_up(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.aws.state().machines.get_mut(&new).expect("there").online = false;
    world.pass(16 * 60);
    world.tick().await;
    assert_eq!(state_of(&world, &new), Some(LifecycleState::Terminating));
    assert!(told(&world, "given up"));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn a_command_that_fails_times_out_or_is_never_delivered_is_tried_again(kind: Kind) {
    for detail in ["Failed", "ExecutionTimedOut", "DeliveryTimedOut", "Undeliverable"] {
        let (mut world, new) = replacing(kind).await;
        world.tick().await;
        world.aws.end_command(&format!("restore-{new}-1"), CommandStatus::Failed, detail);
        world.settle().await;
        assert_eq!(world.aws.holder(), Some(new), "{detail}");
        assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])), "{detail}");
        assert!(told(&world, "a restore failed"), "{detail}");
    }
}

async fn a_command_that_hangs_is_cancelled_and_counted_as_failed(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.tick().await;
    world.pass(3 * 3600);
    world.tick().await;
    let first = world
        .aws
        .state()
        .commands
        .iter()
        .find(|(_, c)| c.comment == format!("restore-{new}-1"))
        .expect("sent")
        .1
        .clone();
    assert_eq!((first.status, first.detail.as_str()), (CommandStatus::Failed, "Cancelled"));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn a_claimer_that_died_is_replaced_by_the_next_invocation(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    world.aws.fail_next("ssm:SendCommand", AwsErrorKind::Unavailable);
    assert!(world.tick_on(&world.repository()).await.is_err());
    assert_eq!(world.aws.state().orders.len(), 1, "only the first launch's");
    world.tick().await;
    assert_eq!(world.aws.state().orders.len(), 1, "the claimer may still be at it");
    world.pass(61);
    world.tick().await;
    assert_eq!(world.aws.state().orders.len(), 2);
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new));
}

async fn a_bad_backup_gives_way_to_the_next_older_one_on_the_same_instance(kind: Kind) {
    let mut world = serving(kind).await;
    world.scheduled_backup(None).await;
    world.kill();
    let new = world.group_step().expect("a replacement");
    world.tick().await;
    world.agent(Err(failure("RestoreDiffers"))).await;
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new));
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])), "the older backup");
    world.check().await;
}

async fn an_engine_that_does_not_start_does_not_cost_a_newer_backup(kind: Kind) {
    let (mut world, _) = replacing(kind).await;
    world.tick().await;
    world.agent(Err(failure("EngineUnreachable"))).await;
    world.tick().await;
    let orders = world.aws.state().orders.clone();
    let claim = world.repository().claim_of(&orders.last().expect("sent").run).await.expect("read").expect("there");
    assert_eq!((claim.replace, claim.backup_id.is_some()), (true, true));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn after_three_given_up_launches_in_an_hour_the_instance_is_kept(kind: Kind) {
    let (mut world, _) = replacing(kind).await;
    for _ in 0..12 {
        world.group_step();
        world.tick().await;
        world.agent(Err(failure("EngineUnreachable"))).await;
        world.pass(60);
    }
    assert_eq!(world.abandoned(), 2, "the third is kept");
    assert!(told(&world, "replacing stopped"));
    let kept = world
        .aws
        .state()
        .machines
        .iter()
        .find(|(_, m)| m.state == Some(LifecycleState::PendingWait))
        .expect("kept")
        .0
        .clone();
    world.pass(3 * 3600);
    world.tick().await;
    assert_eq!(state_of(&world, &kept), Some(LifecycleState::PendingWait), "it stays kept after the hour");
    world.settle_with_operator().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn a_repository_that_cannot_be_read_is_not_taken_for_an_empty_one(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    for step in 0..6 {
        let broken = Arc::new(FaultyStore::crash(world.store.clone(), step, Fault::Before));
        drop(world.event_on(&Repository::new(broken, Engine::Weaviate)).await);
        world.check().await;
    }
    assert!(world.aws.state().heartbeats[&new] > 0, "the hook is kept open");
    assert!(told(&world, "the backups cannot be read"));
    assert!(
        !told(&world, "empty database")
            || world.subjects().iter().filter(|s| s.contains("empty database")).count() == 1
    );
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn an_empty_repository_starts_empty_only_if_the_settings_say_so(kind: Kind) {
    let mut world = World::new(kind);
    world.target.restore.empty_repository = EmptyRepository::Refuse;
    let first = world.group_step().expect("launched");
    for _ in 0..3 {
        world.tick().await;
        world.agent(Ok(None)).await;
    }
    assert_eq!((world.aws.holder(), state_of(&world, &first)), (None, Some(LifecycleState::PendingWait)));
    assert!(told(&world, "nothing to restore") && world.aws.state().orders.is_empty());
    world.target.restore.empty_repository = EmptyRepository::Allow;
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::new()));
    assert!(told(&world, "started for the first time"));
}

async fn a_truncated_pointer_falls_back_to_the_newest_manifest_and_is_made_whole(kind: Kind) {
    let (mut world, _) = replacing(kind).await;
    let key = world.repository().pointer_key();
    world.store.put(&key, Bytes::from_static(b"{\"format\": 1, \"backup_id")).await.expect("stored");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    let pointer = world.repository().pointer().await.expect("read");
    assert!(pointer.pointer().is_some_and(|p| p.generation.0 >= 2), "{pointer:?}");
}

async fn a_pointer_of_a_newer_version_is_never_overwritten(kind: Kind) {
    let (mut world, new) = replacing(kind).await;
    let key = world.repository().pointer_key();
    world.store.put(&key, Bytes::from_static(b"{\"format\": 2}")).await.expect("stored");
    for _ in 0..3 {
        drop(world.tick_on(&world.repository()).await);
        world.agent(Ok(None)).await;
        world.pass(61);
    }
    assert_eq!(world.store.get(&key).await.expect("there").body, Bytes::from_static(b"{\"format\": 2}"));
    assert_eq!(world.aws.holder(), None);
    assert_eq!(state_of(&world, &new), Some(LifecycleState::PendingWait));
}

async fn a_backup_deleted_behind_the_pointer_gives_way_and_the_pointer_names_what_was_restored(kind: Kind) {
    let mut world = serving(kind).await;
    world.scheduled_backup(None).await;
    let named = world.repository().pointer().await.expect("read").backup_id().cloned().expect("named");
    world.store.delete(&format!("backups/{named}/n/chunk-1")).await.expect("deleted");
    world.tampered = true;
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    assert!(told(&world, "a backup is damaged"));
    world.tampered = false;
    world.check().await;
}

async fn a_second_instance_waits_while_the_owner_is_in_service(kind: Kind) {
    let mut world = serving(kind).await;
    let owner = world.aws.holder();
    let second = world.launch();
    world.tick().await;
    world.tick().await;
    assert_eq!((world.aws.holder(), state_of(&world, &second)), (owner, Some(LifecycleState::PendingWait)));
    assert!(told(&world, "two instances"));
    assert!(world.repository().runs(&format!("restore-{second}-")).await.expect("read").is_empty());
    world.terminate();
    world.settle().await;
    assert_eq!((world.aws.holder(), world.served()), (Some(second), Some(&world.acknowledged)));
}

async fn of_two_launching_instances_one_is_restored(kind: Kind) {
    let (mut world, first) = replacing(kind).await;
    let second = world.launch();
    for _ in 0..3 {
        world.tick().await;
        world.agent(Ok(None)).await;
    }
    assert_eq!(world.aws.holder(), Some(first));
    assert_eq!(state_of(&world, &second), Some(LifecycleState::PendingWait));
    world.check().await;
}

async fn a_final_backup_published_meanwhile_is_restored_before_the_take_over(kind: Kind) {
    let mut world = serving(kind).await;
    world.terminate();
    let old = world.aws.holder().expect("held");
    let new = world.group_step().expect("a replacement");
    // The old owner cannot be reached, so nobody waits for it; then it publishes all the same.
    world.aws.state().machines.get_mut(&old).expect("there").online = false;
    world.tick().await;
    world.agent(Ok(None)).await;
    world.aws.state().machines.get_mut(&old).expect("there").online = true;
    world.aws.set(&old, Some(LifecycleState::InService));
    world.scheduled_backup(None).await;
    world.aws.set(&old, Some(LifecycleState::TerminatingWait));
    world.settle().await;
    assert_eq!((world.aws.holder(), world.served()), (Some(new), Some(&world.acknowledged)));
}

async fn a_failed_final_backup_keeps_the_instance_and_tells_a_person(kind: Kind) {
    let mut world = serving(kind).await;
    let old = world.aws.holder().expect("held");
    world.terminate();
    for _ in 0..3 {
        world.tick().await;
        world.agent(Err(failure("EngineFailed"))).await;
    }
    assert_eq!(state_of(&world, &old), Some(LifecycleState::TerminatingRetained));
    assert!(told(&world, "the final backup failed"));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn an_address_that_went_astray_is_put_back(kind: Kind) {
    let world = serving(kind).await;
    let owner = world.aws.holder();
    world.aws.lead_astray();
    assert_eq!(world.aws.holder(), None);
    let done = world.tick().await;
    assert!(done.iter().any(|a| matches!(a, Action::Endpoint { .. })));
    assert_eq!(world.aws.holder(), owner);
}

async fn a_warning_that_the_owner_is_taken_away_starts_one_backup(kind: Kind) {
    let world = serving(kind).await;
    let owner = world.aws.holder().expect("held");
    let before = world.aws.state().orders.len();
    world.warn(&owner).await;
    world.warn(&owner).await;
    world.warn("i-0somebodyelse00000").await;
    let orders = world.aws.state().orders.clone();
    assert_eq!(orders.len(), before + 1);
    assert!(orders.last().is_some_and(|o| o.run.as_str().starts_with("backup-") && o.instance == owner));
}
