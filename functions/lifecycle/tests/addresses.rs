//! What is different about each kind of address: where it can go, what it takes to move it, and what a person is told.

mod support;

use std::net::Ipv4Addr;

use lifecycle::decide::Action;
use lifecycle::decide::endpoint::Step;
use perennial_shared::aws::auto_scaling::LifecycleState;
use perennial_shared::aws::ec2::{Attachment, AttachmentState};
use perennial_shared::aws::fake::OTHER_ZONE;
use perennial_shared::settings::{ElasticIp, Endpoint};
use support::{Kind, Rows, World, replacing, serving, state_of, told};

for_every_kind! {
    an_address_that_a_stopped_instance_keeps_reaches_its_successor
}

fn steps(done: &[Action]) -> Vec<&Step> {
    done.iter().filter_map(|a| if let Action::Endpoint { step, .. } = a { Some(step) } else { None }).collect()
}

fn attach(world: &World, instance: &str, device_index: u32) {
    world.aws.state().interfaces[0].0.attachment = Some(Attachment {
        id: "eni-attach-by-hand".into(),
        instance: Some(instance.into()),
        device_index,
        state: AttachmentState::Attached,
        delete_on_termination: false,
    });
}

fn body(world: &World, subject: &str) -> String {
    let all = world.aws.state();
    let found = all.mail.iter().find(|(s, _)| s.contains(subject));
    found.unwrap_or_else(|| panic!("no mail about {subject:?}: {:?}", all.mail)).1.clone()
}

#[tokio::test]
async fn an_address_that_does_not_exist_is_allocated_only_if_the_settings_allow_it() {
    for allocate in [false, true] {
        let mut world = World::new(Kind::ElasticIp);
        world.aws.state().addresses.clear();
        let tag = ElasticIp::Tag { key: "Name".into(), value: "docs-eip".into(), allocate };
        world.target.endpoint = Some(Endpoint::ElasticIp(tag));
        let first = world.group_step().expect("launched");
        for _ in 0..4 {
            world.tick().await;
            world.agent(Ok(None)).await;
        }
        let expected = if allocate {
            (Some(first.clone()), LifecycleState::InService)
        } else {
            (None, LifecycleState::PendingWait)
        };
        assert_eq!((world.aws.holder(), state_of(&world, &first).expect("a member")), expected);
        assert_eq!(told(&world, "the address could not be moved"), !allocate);
        assert!(world.aws.state().addresses.len() <= 1, "never two");
    }
}

#[tokio::test]
async fn an_instance_where_the_address_cannot_go_is_not_restored_and_a_person_is_told_what_to_do() {
    for (kind, named) in [(Kind::NetworkInterface, "eu-central-1a"), (Kind::PrivateIp, "subnet-2 (10.0.2.0/24)")] {
        let (mut world, new) = replacing(kind).await;
        world.aws.state().machines.get_mut(&new).expect("there").zone = OTHER_ZONE;
        let orders = world.aws.state().orders.len();
        for _ in 0..5 {
            world.tick().await;
            world.pass(61);
        }
        assert_eq!(
            state_of(&world, &new),
            Some(LifecycleState::PendingWait),
            "kept: the next might be launched there too"
        );
        assert_eq!(world.aws.state().orders.len(), orders);
        assert_eq!(world.aws.holder(), None);
        let mails = world.subjects().iter().filter(|s| s.contains("where the address cannot go")).count();
        assert_eq!(mails, 1, "{:?}", world.subjects());
        let body = body(&world, "where the address cannot go");
        assert!(body.contains(named) && body.contains("Pin the group") && body.contains(&new), "{body}");
        // Somebody pins the group and ends the instance.
        world.aws.set(&new, Some(LifecycleState::TerminatingWait));
        world.settle().await;
        assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])), "{kind:?}");
    }
}

#[tokio::test]
async fn an_instance_that_is_out_of_reach_does_not_keep_one_waiting_that_is_not() {
    let (mut world, wrong) = replacing(Kind::NetworkInterface).await;
    world.aws.state().machines.get_mut(&wrong).expect("there").zone = OTHER_ZONE;
    let right = world.launch();
    for _ in 0..4 {
        world.tick().await;
        world.agent(Ok(None)).await;
    }
    assert_eq!(world.aws.holder(), Some(right));
}

#[tokio::test]
async fn an_interface_is_detached_attached_and_never_forced_while_the_guest_lets_go() {
    let mut world = serving(Kind::NetworkInterface).await;
    let old = world.aws.holder();
    world.aws.state().slow = 3;
    world.terminate();
    let done = world.tick().await;
    assert!(matches!(steps(&done)[..], [Step::Detach { force: false, .. }]), "{done:?}");
    assert!(world.aws.state().orders.iter().any(|o| o.run.as_str().starts_with("final-")), "in the same invocation");
    world.settle().await;
    assert_ne!(world.aws.holder(), old);
    assert_eq!((world.served(), world.aws.state().forced.len()), (Some(&world.acknowledged), 0));
}

#[tokio::test]
async fn a_guest_that_does_not_let_go_has_a_minute_before_it_is_forced() {
    let mut world = serving(Kind::NetworkInterface).await;
    world.aws.state().deaf = true;
    world.terminate();
    world.tick().await;
    world.write();
    assert_eq!(world.acknowledged.len(), 5, "while it is being detached clients may still reach it");
    world.pass(59);
    world.tick().await;
    assert!(world.aws.state().forced.is_empty(), "not yet");
    let final_backup = |w: &World| w.aws.state().orders.iter().any(|o| o.run.as_str().starts_with("final-"));
    assert!(!final_backup(&world), "what it acknowledges now would be missing");
    world.pass(2);
    world.tick().await;
    assert_eq!(world.aws.state().forced.len(), 1);
    assert!(final_backup(&world));
    world.settle().await;
    assert_eq!(world.served(), Some(&world.acknowledged));
}

async fn an_address_that_a_stopped_instance_keeps_reaches_its_successor(kind: Kind) {
    let mut world = serving(kind).await;
    let old = world.stop().expect("in service");
    let new = world.group_step().expect("a replacement");
    let done = world.tick().await;
    assert!(steps(&done).is_empty(), "the data first: {done:?}");
    assert_eq!((world.aws.holder(), state_of(&world, &old)), (Some(old), None), "it left its group, not EC2");
    world.agent(Ok(None)).await;
    let done = world.tick().await;
    match (kind, &steps(&done)[..]) {
        (Kind::ElasticIp, [Step::Associate { .. }])
        | (Kind::NetworkInterface, [Step::Detach { force: false, .. }, Step::Attach { .. }])
        | (Kind::PrivateIp, [Step::Assign { .. }]) => {}
        (_, other) => panic!("{other:?}"),
    }
    assert_eq!((world.aws.holder(), world.served()), (Some(new.clone()), Some(&Rows::from([1, 2, 3]))));
    world.end_stopped();
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new), "the end of the old one takes nothing away");
}

#[tokio::test]
async fn an_interface_that_a_dead_instance_does_not_let_go_is_forced_after_a_minute() {
    for left_its_group in [true, false] {
        let mut world = serving(Kind::NetworkInterface).await;
        let old = world.stop().expect("in service");
        world.aws.state().deaf = true;
        let new = if left_its_group { world.group_step().expect("a replacement") } else { world.launch() };
        world.tick().await;
        assert_eq!(state_of(&world, &old).is_none(), left_its_group);
        world.agent(Ok(None)).await;
        let done = world.tick().await;
        assert!(matches!(steps(&done)[..], [Step::Detach { force: false, .. }]), "{done:?}");
        world.pass(59);
        let done = world.tick().await;
        assert!(steps(&done).is_empty(), "not yet: {done:?}");
        world.pass(2);
        let done = world.tick().await;
        assert!(matches!(steps(&done)[..], [Step::Detach { force: true, .. }, Step::Attach { .. }]), "{done:?}");
        assert_eq!((world.aws.holder(), world.served()), (Some(new), Some(&Rows::from([1, 2, 3]))));
    }
}

#[tokio::test]
async fn an_interface_is_never_forced_from_an_instance_that_may_serve() {
    let (mut world, new) = replacing(Kind::NetworkInterface).await;
    // Somebody attached it to an instance outside the group.
    world.aws.add("i-0foreign", LifecycleState::InService);
    world.aws.set("i-0foreign", None);
    attach(&world, "i-0foreign", 1);
    world.aws.state().deaf = true;
    world.tick().await;
    world.agent(Ok(None)).await;
    for _ in 0..5 {
        world.tick().await;
        world.pass(61);
    }
    assert!(world.aws.state().forced.is_empty());
    assert_eq!(state_of(&world, &new), Some(LifecycleState::PendingWait));
    assert!(body(&world, "the address could not be moved").contains("i-0foreign"));
    world.aws.kill("i-0foreign");
    world.settle().await;
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

#[tokio::test]
async fn an_attachment_whose_reply_was_lost_is_not_made_twice() {
    let (mut world, new) = replacing(Kind::NetworkInterface).await;
    world.tick().await;
    world.agent(Ok(None)).await;
    world.aws.lose_next("ec2:AttachNetworkInterface");
    assert!(world.tick_on(&world.repository()).await.is_err());
    assert_eq!(world.aws.holder(), Some(new.clone()));
    let done = world.tick().await;
    assert!(steps(&done).is_empty(), "{done:?}");
    assert_eq!(state_of(&world, &new), Some(LifecycleState::InService));
}

#[tokio::test]
async fn an_interface_outlives_its_instance() {
    let mut world = serving(Kind::NetworkInterface).await;
    let owner = world.aws.holder();
    if let Some(attachment) = &mut world.aws.state().interfaces[0].0.attachment {
        attachment.delete_on_termination = true;
    }
    let done = world.tick().await;
    assert!(matches!(steps(&done)[..], [Step::Keep { .. }]), "{done:?}");
    world.kill();
    world.settle().await;
    assert_ne!(world.aws.holder(), owner);
    assert_eq!(world.served(), Some(&Rows::from([1, 2, 3])));
}

#[tokio::test]
async fn an_interface_that_the_launch_template_attached_is_taken_away_until_the_data_is_there() {
    let (mut world, new) = replacing(Kind::NetworkInterface).await;
    attach(&world, &new, 1);
    let done = world.tick().await;
    assert!(matches!(steps(&done)[..], [Step::Detach { force: false, .. }]), "{done:?}");
    assert_eq!(world.aws.holder(), None);
    world.settle().await;
    assert_eq!((world.aws.holder(), world.served()), (Some(new), Some(&Rows::from([1, 2, 3]))));
}

#[tokio::test]
async fn a_primary_interface_cannot_be_the_address_and_a_person_is_told() {
    let (world, new) = replacing(Kind::NetworkInterface).await;
    attach(&world, &new, 0);
    world.tick().await;
    assert!(world.aws.state().orders.iter().all(|o| o.instance != new), "clients reach it: nothing is restored there");
    assert!(body(&world, "the address could not be moved").contains("take it out of the launch template"));
}

#[tokio::test]
async fn an_interface_at_another_place_of_its_instance_is_left_there_and_told() {
    let world = serving(Kind::NetworkInterface).await;
    let owner = world.aws.holder().expect("held");
    attach(&world, &owner, 2);
    let done = world.tick().await;
    assert!(steps(&done).is_empty(), "{done:?}");
    assert!(body(&world, "the address could not be moved").contains("set endpoint.device_index: 2"));
}

#[tokio::test]
async fn an_interface_that_does_not_exist_is_told_and_waited_for() {
    let (mut world, new) = replacing(Kind::NetworkInterface).await;
    let gone = world.aws.state().interfaces.remove(0);
    for _ in 0..3 {
        world.tick().await;
        world.agent(Ok(None)).await;
    }
    assert_eq!(state_of(&world, &new), Some(LifecycleState::PendingWait));
    assert!(body(&world, "the address could not be moved").contains("there is no network interface eni-1"));
    world.aws.state().interfaces.push(gone);
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new));
}

#[tokio::test]
async fn a_private_address_that_became_somebodys_own_is_told() {
    let (mut world, new) = replacing(Kind::PrivateIp).await;
    // In the fake every interface's own address is this one.
    let address = Ipv4Addr::new(10, 0, 1, 4);
    world.target.endpoint = Some(Endpoint::PrivateIp(address));
    world.aws.state().private.insert(address, "eni-i-0other".into());
    for _ in 0..3 {
        world.tick().await;
        world.agent(Ok(None)).await;
    }
    assert_eq!(state_of(&world, &new), Some(LifecycleState::PendingWait));
    assert!(body(&world, "the address could not be moved").contains("reserve the address in its subnet"));
}

#[tokio::test]
async fn an_address_is_never_taken_from_an_instance_in_service() {
    for kind in [Kind::ElasticIp, Kind::NetworkInterface, Kind::PrivateIp] {
        let world = serving(kind).await;
        let owner = world.aws.holder().expect("held");
        let other = "i-0other";
        world.aws.add(other, LifecycleState::InService);
        world.aws.lead_astray();
        match kind {
            Kind::ElasticIp => world.aws.state().addresses[0].0.holder = Some(other.into()),
            Kind::NetworkInterface => attach(&world, other, 1),
            Kind::PrivateIp => {
                world.aws.state().private.insert(Ipv4Addr::new(10, 0, 1, 50), format!("eni-{other}"));
            }
        }
        let done = world.tick().await;
        assert!(steps(&done).is_empty(), "{kind:?}: {done:?}");
        assert!(body(&world, "two instances").contains(&owner), "{kind:?}");
    }
}

#[tokio::test]
async fn a_step_that_aws_refuses_is_told_with_its_own_words() {
    let (mut world, new) = replacing(Kind::NetworkInterface).await;
    world.tick().await;
    world.agent(Ok(None)).await;
    world.aws.fail_next("ec2:AttachNetworkInterface", perennial_shared::aws::AwsErrorKind::Denied);
    assert!(world.tick_on(&world.repository()).await.is_err());
    assert!(body(&world, "the address could not be moved").contains("ec2:AttachNetworkInterface failed: Denied"));
    world.settle().await;
    assert_eq!(world.aws.holder(), Some(new));
}

#[tokio::test]
async fn an_instance_that_dies_just_before_it_gets_the_address_is_no_reason_to_call_somebody() {
    for (kind, call, code) in [
        (Kind::ElasticIp, "ec2:AssociateAddress", "InvalidInstanceID"),
        (Kind::NetworkInterface, "ec2:AttachNetworkInterface", "IncorrectState"),
        (Kind::PrivateIp, "ec2:AssignPrivateIpAddresses", "InvalidNetworkInterfaceID.NotFound"),
    ] {
        let (mut world, new) = replacing(kind).await;
        world.tick().await;
        world.agent(Ok(None)).await;
        world.aws.fail_next_with(call, code);
        world.tick().await;
        assert!(!told(&world, "the address could not be moved"), "{kind:?}");
        world.settle().await;
        assert_eq!(world.aws.holder(), Some(new), "{kind:?}");
    }
}
