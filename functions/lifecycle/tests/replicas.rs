//! A repository that cannot be read, or lost what it had, while an instance waits to be restored: what a replica is taken for, and
//! above all when it is not.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lifecycle::decide::Action;
use perennial_shared::aws::auto_scaling::{LifecycleResult, LifecycleState};
use perennial_shared::repository::Repository;
use perennial_shared::settings::EmptyRepository;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::memory::MemoryStore;
use support::{Kind, Rows, World, broken, serving, serving_reads, state_of, told};

for_every_kind! {
    a_replica_stands_in_after_a_while_and_the_repository_gets_its_owner_back
    an_owner_that_lives_is_waited_for
    an_instance_that_was_restored_from_the_repository_is_not_restored_from_an_older_copy
    short_outages_do_not_add_up
    a_repository_that_is_back_before_the_take_over_is_restored_from
    what_was_acknowledged_while_a_replica_stood_in_stays
    a_second_outage_does_not_leave_the_generations_behind
    an_emptied_repository_is_not_a_first_launch
    a_replica_that_cannot_be_read_may_hold_backups
    a_backup_that_only_a_replica_has_is_restored_before_an_older_one
    a_replica_that_is_a_take_over_behind_gives_its_owner_back_too
    an_owner_by_a_replica_takes_its_final_backup_when_the_repository_is_back
    without_leave_no_replica_stands_in
    of_two_replicas_the_one_with_the_newer_backup_stands_in
    an_emptied_repository_keeps_no_owner_from_its_final_backup
    a_first_launch_is_no_outage
    a_restore_that_is_under_way_keeps_every_other_repository_waiting
    one_failed_read_of_the_better_replica_is_no_reason_to_take_the_other
    an_owner_does_not_serve_while_a_restore_is_under_way
    an_owner_by_a_replica_that_waits_is_not_restored_over
    an_owner_by_a_replica_is_known_whatever_the_settings_say_now
    missed_ticks_do_not_stop_a_replica_for_ever
    an_older_backup_is_not_taken_because_a_replica_was_not_read_once
    what_was_lost_with_the_pointer_is_looked_for_in_the_replicas
    a_returned_owner_s_backups_rank_before_those_of_a_lost_pointer
    an_emptied_repository_s_recovery_is_told_and_measured
    a_person_is_told_once_and_anew_for_another_reason
    without_any_store_a_person_is_told_once_an_hour
}

/// In service with rows 1 to 3 in a backup that a replica has, too, and row 4 in none.
async fn with_replica(mut world: World) -> World {
    world.replica = Some(Arc::new(MemoryStore::default()));
    world.target.restore.fall_over_after = Some(Duration::from_secs(15 * 60));
    world.copy_to_replica().await;
    world
}

/// The instance dies, and the repository cannot be read any more; the id of the one that waits now.
fn both_gone(world: &mut World) -> String {
    world.kill();
    world.away = true;
    world.group_step().expect("a replacement")
}

/// Ticks for some minutes, with an agent that does what it is told.
async fn minutes(world: &mut World, minutes: u32) {
    for _ in 0..minutes {
        for machine in world.aws.state().machines.values_mut() {
            machine.online = machine.running;
        }
        world.tick().await;
        world.check().await;
        world.agent(Ok(None)).await;
        world.pass(60);
    }
}

/// Until the next command was sent and done.
async fn until_ordered(world: &mut World) {
    let orders = world.aws.state().orders.len();
    for _ in 0..40 {
        minutes(world, 1).await;
        if world.aws.state().orders.len() > orders {
            return;
        }
    }
    panic!("nothing is ordered");
}

async fn owner(repository: &Repository) -> Option<String> {
    repository.pointer().await.expect("read").pointer().and_then(|p| p.owner.clone())
}

fn waits(world: &World, id: &str) -> bool {
    state_of(world, id) == Some(LifecycleState::PendingWait)
}

async fn a_replica_stands_in_after_a_while_and_the_repository_gets_its_owner_back(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    let orders = world.aws.state().orders.len();
    let new = both_gone(&mut world);
    minutes(&mut world, 14).await;
    assert!(
        waits(&world, &new) && world.aws.state().orders.len() == orders,
        "nothing is done for a quarter of an hour"
    );
    assert!(told(&world, "the backups cannot be read"));
    minutes(&mut world, 6).await;
    assert_eq!((world.in_service(), world.aws.holder()), (Some(new.clone()), Some(new.clone())));
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    let body = world.aws.state().mail.iter().find(|(s, _)| s.contains("restored and serving")).expect("told").1.clone();
    assert!(body.contains("from the replica") && body.contains("were not copied to the replica"), "{body}");

    world.away = false;
    let done = world.tick().await;
    let at = |wanted: fn(&Action) -> bool| done.iter().position(wanted).expect("it was done");
    let told_first = at(|a| matches!(a, Action::Tell(_))) < at(|a| matches!(a, Action::Return { .. }));
    assert!(told_first, "once it is done nobody knows of it: {done:?}");
    assert_eq!(owner(&world.repository()).await.as_deref(), Some(&*new));
    assert!(told(&world, "backups go to the repository again"));
    assert!(world.tick().await.is_empty(), "and that was all");

    world.write();
    world.scheduled_backup(None).await;
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 5])), "the next one is restored from the repository");
}

async fn an_owner_that_lives_is_waited_for(kind: Kind) {
    for world in [serving(kind).await, serving_reads(kind, "aof").await] {
        let mut world = with_replica(world).await;
        world.terminate();
        world.away = true;
        let new = world.group_step().expect("a replacement");
        minutes(&mut world, 60).await;
        assert!(waits(&world, &new), "its predecessor's last rows are in no backup yet");
        let told = world.aws.state().mail.iter().any(|(_, body)| body.contains("lives and may own the target"));
        assert!(told, "and a person hears why");
        world.away = false;
        world.settle().await;
        assert_eq!(world.served(), Some(&world.acknowledged));
    }
}

async fn an_instance_that_was_restored_from_the_repository_is_not_restored_from_an_older_copy(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.scheduled_backup(None).await; // row 4, which the replica has not
    world.kill();
    let new = world.group_step().expect("a replacement");
    world.aws.state().machines.get_mut(&new).expect("there").online = true;
    world.tick().await;
    world.agent(Ok(None)).await;
    world.pass(1);
    world.away = true;
    minutes(&mut world, 60).await;
    assert!(waits(&world, &new));
    world.away = false;
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));
}

async fn short_outages_do_not_add_up(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.target.auto_scaling.as_mut().expect("a group").registration_timeout = Duration::from_secs(24 * 3600);
    let orders = world.aws.state().orders.len();
    let new = both_gone(&mut world);
    for _ in 0..3 {
        minutes(&mut world, 10).await;
        world.away = false;
        world.aws.state().machines.get_mut(&new).expect("there").online = false;
        world.tick().await;
        world.away = true;
    }
    assert!(waits(&world, &new));
    assert_eq!(world.aws.state().orders.len(), orders, "no restore was begun");
}

async fn a_repository_that_is_back_before_the_take_over_is_restored_from(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.scheduled_backup(None).await; // row 4, which the replica has not
    both_gone(&mut world);
    until_ordered(&mut world).await;
    world.away = false;
    let done = world.tick().await;
    let replaced = |a: &Action| matches!(a, Action::Complete { result: LifecycleResult::Abandon, .. });
    assert!(done.iter().any(replaced), "its agent takes no claim of this repository: {done:?}");
    let counts = |a: &Action| matches!(a, Action::Start(_) | Action::GiveUp { .. });
    assert!(!done.iter().any(counts), "nothing failed: {done:?}");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));
}

async fn what_was_acknowledged_while_a_replica_stood_in_stays(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    let new = both_gone(&mut world);
    while world.aws.holder().as_ref() != Some(&new) {
        minutes(&mut world, 1).await;
    }
    world.write();
    world.away = false;
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 5])));
    assert_eq!(world.in_service(), Some(new));
}

async fn a_second_outage_does_not_leave_the_generations_behind(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    for _ in 0..2 {
        both_gone(&mut world);
        minutes(&mut world, 30).await;
    }
    world.kill();
    world.away = false;
    world.settle().await;
    let generation = async |r: Repository| r.pointer().await.expect("read").pointer().expect("a pointer").generation;
    let (own, copy) = (generation(world.repository()).await, generation(world.replica_repository().expect("it")).await);
    assert!(own > copy, "{own:?} {copy:?}");
}

async fn an_emptied_repository_is_not_a_first_launch(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    assert_eq!(world.target.restore.empty_repository, EmptyRepository::Allow);
    world.kill();
    world.store = Arc::new(MemoryStore::default());
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    assert_eq!(owner(&world.repository()).await, world.in_service(), "the repository is the target's own again");
    world.write();
    world.scheduled_backup(None).await;
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 5])));
}

async fn a_replica_that_cannot_be_read_may_hold_backups(kind: Kind) {
    let mut world = World::new(kind);
    let store: Arc<MemoryStore> = Arc::default();
    world.replica = Some(Arc::new(FaultyStore::crash(store.clone(), 0, Fault::Before)));
    let new = world.group_step().expect("launched");
    minutes(&mut world, 5).await;
    assert!(waits(&world, &new), "nobody knows that there was never a backup");
    world.replica = Some(store);
    world.settle().await;
    assert!(told(&world, "started for the first time"));
}

async fn a_backup_that_only_a_replica_has_is_restored_before_an_older_one(kind: Kind) {
    let mut world = serving(kind).await;
    world.scheduled_backup(None).await;
    let mut world = with_replica(world).await;
    let newest = world.repository().pointer().await.expect("read").backup_id().expect("a backup").clone();
    for meta in world.store.list(&format!("backups/{newest}/")).await.expect("listed") {
        world.store.delete(&meta.key).await.expect("deleted");
    }
    world.tampered = true;
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));
    assert!(told(&world, "damaged"));
}

async fn a_replica_that_is_a_take_over_behind_gives_its_owner_back_too(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.kill();
    world.settle().await; // the repository is a generation ahead now
    let new = both_gone(&mut world);
    minutes(&mut world, 20).await;
    assert_eq!(world.in_service(), Some(new.clone()));
    world.away = false;
    world.tick().await;
    assert_eq!(owner(&world.repository()).await.as_deref(), Some(&*new));
    world.write();
    let written = world.served().expect("served").clone();
    world.terminate();
    world.settle().await;
    assert_eq!(world.served(), Some(&written), "its final backup counted");
}

async fn an_owner_by_a_replica_takes_its_final_backup_when_the_repository_is_back(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    both_gone(&mut world);
    minutes(&mut world, 20).await;
    world.write();
    let written = world.served().expect("served").clone();
    world.terminate();
    minutes(&mut world, 2).await;
    // The replica does not answer at first: nobody knows then whether it is the owner.
    let replica = world.replica.take().expect("a replica");
    world.replica = Some(Arc::new(FaultyStore::crash(replica.clone(), 0, Fault::Before)));
    world.away = false;
    world.tick().await;
    world.replica = Some(replica);
    world.settle().await;
    assert_eq!(world.served(), Some(&written));
}

async fn without_leave_no_replica_stands_in(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.target.restore.fall_over_after = None;
    let new = both_gone(&mut world);
    minutes(&mut world, 60).await;
    assert!(waits(&world, &new));
    let told = world.aws.state().mail.iter().any(|(_, body)| body.contains("where restore.fall_over_after is set"));
    assert!(told, "a person hears what would do it");
    let written = world.replica.as_ref().expect("a replica").list("outage.json").await.expect("listed");
    assert!(written.is_empty(), "a replica that never stands in may be for reading only");
    world.away = false;
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

async fn of_two_replicas_the_one_with_the_newer_backup_stands_in(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.older_replica = world.replica.replace(Arc::new(MemoryStore::default()));
    world.scheduled_backup(None).await; // row 4
    world.copy_to_replica().await;
    both_gone(&mut world);
    minutes(&mut world, 20).await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));
}

async fn an_emptied_repository_keeps_no_owner_from_its_final_backup(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.store = Arc::new(MemoryStore::default());
    world.terminate();
    world.group_step().expect("a replacement");
    world.settle().await;
    assert_eq!(world.served(), Some(&world.acknowledged));
}

/// A repository that held nothing yet was never away.
async fn a_first_launch_is_no_outage(kind: Kind) {
    let mut world = World::new(kind);
    world.replica = Some(Arc::new(MemoryStore::default()));
    world.target.restore.fall_over_after = Some(Duration::from_secs(60));
    world.settle().await;
    world.write();
    world.scheduled_backup(None).await;
    world.copy_to_replica().await;
    let new = both_gone(&mut world);
    world.aws.state().machines.get_mut(&new).expect("there").online = true;
    let done = world.tick().await;
    assert!(!done.iter().any(|a| matches!(a, Action::Start(_))), "it began a minute ago: {done:?}");
}

/// One tick while the replica cannot be read.
async fn tick_without_replica(world: &mut World) -> Vec<Action> {
    let replica = world.replica.take().expect("a replica");
    world.replica = Some(broken(replica.clone()));
    let done = world.tick().await;
    world.replica = Some(replica);
    done
}

fn changes(done: &[Action]) -> bool {
    done.iter().any(|a| !matches!(a, Action::Heartbeat { .. } | Action::Tell(_)))
}

fn online(world: &World, id: &str, online: bool) {
    world.aws.state().machines.get_mut(id).expect("there").online = online;
}

fn mails(world: &World, words: &str) -> usize {
    world.aws.state().mail.iter().filter(|(subject, body)| subject.contains(words) || body.contains(words)).count()
}

/// Minutes in which no agent does anything.
async fn idle_minutes(world: &mut World, minutes: u32) {
    for _ in 0..minutes {
        world.tick().await;
        world.check().await;
        world.pass(60);
    }
}

/// As [`with_replica`], and then a backup of row 4 that only the repository has, or of two replicas only the second.
async fn with_two_replicas(kind: Kind) -> World {
    let mut world = with_replica(serving(kind).await).await;
    world.older_replica = world.replica.replace(Arc::new(MemoryStore::default()));
    world.scheduled_backup(None).await;
    world.copy_to_replica().await;
    world.target.auto_scaling.as_mut().expect("a group").registration_timeout = Duration::from_secs(24 * 3600);
    world
}

async fn a_restore_that_is_under_way_keeps_every_other_repository_waiting(kind: Kind) {
    let mut world = with_two_replicas(kind).await;
    world.target.restore.timeout = Duration::from_secs(24 * 3600);
    world.kill();
    let new = world.group_step().expect("a replacement");
    online(&world, &new, true);
    let orders = world.aws.state().orders.len();
    world.tick().await;
    assert_eq!(world.aws.state().orders.len(), orders + 1, "the repository's restore");
    world.away = true;
    idle_minutes(&mut world, 60).await;
    assert_eq!(world.aws.state().orders.len(), orders + 1, "no replica's");
    assert!(mails(&world, "is being restored from another repository") > 0);
    world.away = false;
    world.settle().await;
    assert_eq!((world.in_service(), world.served()), (Some(new), Some(&Rows::from([1, 2, 3, 4]))));
}

async fn one_failed_read_of_the_better_replica_is_no_reason_to_take_the_other(kind: Kind) {
    let mut world = with_two_replicas(kind).await;
    let new = both_gone(&mut world);
    online(&world, &new, false);
    idle_minutes(&mut world, 20).await;
    online(&world, &new, true);
    let done = tick_without_replica(&mut world).await;
    assert!(!changes(&done), "the older one must not be taken: {done:?}");
    world.pass(60);
    let orders = world.aws.state().orders.len();
    let done = world.tick().await;
    assert_eq!(world.aws.state().orders.len(), orders + 1, "the newer one stands in: {done:?}");
    let done = tick_without_replica(&mut world).await;
    assert!(!changes(&done), "its restore is under way: {done:?}");
    minutes(&mut world, 3).await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));

    // One that stays away is not waited for.
    let new = both_gone(&mut world);
    let replica = world.replica.take().expect("a replica");
    world.replica = Some(broken(replica));
    minutes(&mut world, 14).await;
    assert!(waits(&world, &new));
    minutes(&mut world, 6).await;
    assert_eq!(world.aws.holder(), Some(new));
}

/// Somebody who did not know of the take-over claimed a restore and sent it.
async fn an_owner_does_not_serve_while_a_restore_is_under_way(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.scheduled_backup(None).await; // row 4, which the replica has not
    let new = taken_over_in_replica(&mut world).await;
    let holds = world.engines.get(&new).cloned();
    let seen = world.repository().pointer().await.expect("read");
    let late = world.claim(&world.repository(), &new, 7, seen.backup_id().cloned()).await;
    world.away = false;
    idle_minutes(&mut world, 3).await;
    assert_eq!(owner(&world.repository()).await.as_ref(), Some(&new));
    assert!(waits(&world, &new), "its data may be changing");
    world.agent(Ok(None)).await;
    assert!(world.repository().result_of(&late).await.expect("read").is_some_and(|r| !r.ok), "it was refused");
    world.settle().await;
    assert_eq!(world.served(), holds.as_ref());
}

/// It took over in the replica, and the function died.
async fn taken_over_in_replica(world: &mut World) -> String {
    let new = both_gone(world);
    until_ordered(world).await;
    let replica = world.replica_repository().expect("a replica");
    let seen = replica.pointer().await.expect("read");
    let pointer = seen.pointer().expect("a pointer").clone();
    let generation = pointer.generation.next();
    replica.set_pointer(&seen, &pointer.owned_by(&new, generation, world.now)).await.expect("taken over");
    new
}

async fn an_owner_by_a_replica_that_waits_is_not_restored_over(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.scheduled_backup(None).await; // row 4, which the replica has not
    let new = taken_over_in_replica(&mut world).await;
    world.away = false;
    let done = tick_without_replica(&mut world).await;
    assert!(!changes(&done), "nobody can tell what it owns: {done:?}");
    world.settle().await;
    assert_eq!((world.in_service(), world.served()), (Some(new), Some(&Rows::from([1, 2, 3]))));
}

async fn an_owner_by_a_replica_is_known_whatever_the_settings_say_now(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    both_gone(&mut world);
    minutes(&mut world, 20).await;
    world.write();
    let written = world.served().expect("served").clone();
    world.terminate();
    world.target.restore.fall_over_after = None;
    world.away = false;
    let done = tick_without_replica(&mut world).await;
    assert!(!changes(&done), "its final backup is not made yet: {done:?}");
    world.settle().await;
    assert_eq!(world.served(), Some(&written));
}

async fn missed_ticks_do_not_stop_a_replica_for_ever(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    let new = both_gone(&mut world);
    until_ordered(&mut world).await;
    world.pass(600);
    minutes(&mut world, 20).await;
    assert_eq!(world.in_service(), Some(new), "what it was restored from is this very replica");
}

/// Removes the repository's newest backup, which the replica has.
async fn lose_newest(world: &mut World) {
    let newest = world.repository().pointer().await.expect("read").backup_id().expect("a backup").clone();
    for meta in world.store.list(&format!("backups/{newest}/")).await.expect("listed") {
        world.store.delete(&meta.key).await.expect("deleted");
    }
    world.tampered = true;
}

/// Row 4 is in a backup that the repository loses, and its instance is gone; the id of the next.
async fn newest_only_in_replica(kind: Kind) -> (World, String) {
    let mut world = serving(kind).await;
    world.scheduled_backup(None).await;
    let mut world = with_replica(world).await;
    lose_newest(&mut world).await;
    world.kill();
    let new = world.group_step().expect("a replacement");
    online(&world, &new, false);
    world.tick().await;
    online(&world, &new, true);
    (world, new)
}

async fn an_older_backup_is_not_taken_because_a_replica_was_not_read_once(kind: Kind) {
    let (mut world, _) = newest_only_in_replica(kind).await;
    let done = tick_without_replica(&mut world).await;
    assert!(!changes(&done), "the replica may have it: {done:?}");
    assert!(mails(&world, "a replica may have it") > 0);
    // Its pointer may be lost, too.
    let replica = world.replica_repository().expect("a replica");
    replica.store().delete(&replica.pointer_key()).await.expect("deleted");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));

    let (mut world, new) = newest_only_in_replica(kind).await;
    let replica = world.replica.take().expect("a replica");
    world.replica = Some(broken(replica));
    minutes(&mut world, 14).await;
    assert!(waits(&world, &new));
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])), "it is not waited for without end");
}

async fn what_was_lost_with_the_pointer_is_looked_for_in_the_replicas(kind: Kind) {
    let (mut world, _) = newest_only_in_replica(kind).await;
    let own = world.repository();
    own.store().delete(&own.pointer_key()).await.expect("deleted");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])));
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3, 4])), "and the next one's, before it has a backup");
}

async fn a_returned_owner_s_backups_rank_before_those_of_a_lost_pointer(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    for _ in 0..2 {
        world.kill();
        world.settle().await; // generations that the replica does not know of
    }
    world.scheduled_backup(None).await;
    both_gone(&mut world);
    minutes(&mut world, 20).await;
    world.write();
    let written = world.served().expect("served").clone();
    let own = world.repository();
    for round in 0..2 {
        own.store().delete(&own.pointer_key()).await.expect("deleted");
        world.tampered = true;
        world.away = false;
        if round == 0 {
            world.tick().await;
            world.scheduled_backup(None).await;
        }
    }
    world.replica = None;
    world.kill();
    world.settle().await;
    assert_eq!(world.served(), Some(&written));
}

async fn an_emptied_repository_s_recovery_is_told_and_measured(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.kill();
    world.store = Arc::new(MemoryStore::default());
    let mut done = vec![];
    for _ in 0..25 {
        world.group_step();
        world.aws.state().machines.values_mut().for_each(|m| m.online = m.running);
        done.extend(world.tick().await);
        world.agent(Ok(None)).await;
        world.pass(60);
    }
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
    let mail =
        world.aws.state().mail.iter().find(|(s, _)| s.contains("restored from a replica")).expect("told").1.clone();
    for words in ["holds nothing to restore", "were not copied to the replica"] {
        assert!(mail.contains(words), "{mail}");
    }
    let measured = |a: &&Action| matches!(a, Action::Measure { values } if values.len() == 3);
    assert_eq!(done.iter().filter(measured).count(), 1, "{done:?}");
}

async fn a_person_is_told_once_and_anew_for_another_reason(kind: Kind) {
    let mut world = with_replica(serving(kind).await).await;
    world.target.auto_scaling.as_mut().expect("a group").registration_timeout = Duration::from_secs(24 * 3600);
    both_gone(&mut world);
    idle_minutes(&mut world, 12).await;
    assert_eq!(mails(&world, "the backups cannot be read"), 1);
    world.target.restore.fall_over_after = None;
    idle_minutes(&mut world, 12).await;
    assert_eq!(mails(&world, "the backups cannot be read"), 2);
    assert_eq!(mails(&world, "where restore.fall_over_after is set"), 1);

    // The same of a repository that was emptied, in which the mail is noted.
    let mut world = with_replica(serving(kind).await).await;
    world.target.restore.fall_over_after = None;
    world.kill();
    world.store = Arc::new(MemoryStore::default());
    let new = world.group_step().expect("a replacement");
    online(&world, &new, true);
    idle_minutes(&mut world, 3).await;
    assert_eq!(mails(&world, "there is nothing to restore"), 1);
    world.target.restore.fall_over_after = Some(Duration::from_secs(15 * 60));
    idle_minutes(&mut world, 3).await;
    assert_eq!(mails(&world, "there is nothing to restore"), 2);
    assert_eq!(mails(&world, "stands in from"), 1);
}

async fn without_any_store_a_person_is_told_once_an_hour(kind: Kind) {
    let mut world = serving(kind).await;
    world.target.auto_scaling.as_mut().expect("a group").registration_timeout = Duration::from_secs(24 * 3600);
    both_gone(&mut world);
    let told_before = mails(&world, "the backups cannot be read");
    world.event_on(&world.reachable()).await.expect("reconciled");
    assert_eq!(mails(&world, "the backups cannot be read"), told_before + 1, "at once when something happens");
    idle_minutes(&mut world, 180).await;
    assert_eq!(mails(&world, "the backups cannot be read"), told_before + 4);
}
