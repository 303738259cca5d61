//! Every event in `events/`, as AWS sends it, is read as what it is.

use std::collections::BTreeSet;

use perennial_shared::event::Event;
use serde_json::{Value, json};

fn events() -> Vec<(String, Value)> {
    let files = std::fs::read_dir("../events").expect("the folder of events").map(|f| f.expect("an entry").path());
    let json = files.filter(|p| p.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        (name.clone(), serde_json::from_str(&text).expect(&name))
    })
    .collect()
}

/// The kind of an event and a name in it.
fn gist(event: &Event) -> (&'static str, String) {
    match event {
        Event::Lifecycle(l) => ("lifecycle", format!("{} {} -> {}", l.lifecycle_transition, l.origin, l.destination)),
        Event::Command(c) => ("command", format!("{} {}", c.status, c.instance_id.as_deref().unwrap_or("-"))),
        Event::Warning { instance, .. } => ("warning", instance.clone()),
        Event::Notice(n) => ("notice", n.what.clone()),
        Event::Schedule { what, at } => ("schedule", format!("{what} {}", at.is_some())),
        Event::ObjectCreated { key, .. } => ("object", key.clone()),
        Event::DeadLetters(letters) => ("dead letters", letters.len().to_string()),
        Event::Unknown { what } => ("unknown", what.clone()),
    }
}

#[test]
fn each_file_is_read_as_what_it_is() {
    let wanted = [
        ("backup-schedule", "schedule", "backup true"),
        ("command-invocation-failed", "command", "Failed i-"),
        ("command-invocation-success", "command", "Success i-"),
        ("command-status-failed", "command", "Failed -"),
        ("dead-letter", "dead letters", "1"),
        ("dead-letter-rule", "dead letters", "1"),
        ("dead-letter-schedule", "dead letters", "1"),
        ("launch-lifecycle-action", "lifecycle", "autoscaling:EC2_INSTANCE_LAUNCHING EC2 -> AutoScalingGroup"),
        ("launch-lifecycle-action-warm-pool", "lifecycle", "autoscaling:EC2_INSTANCE_LAUNCHING EC2 -> WarmPool"),
        ("launch-successful", "notice", "EC2 Instance Launch Successful"),
        ("launch-unsuccessful", "notice", "EC2 Instance Launch Unsuccessful"),
        ("rebalance-recommendation", "warning", "i-"),
        ("s3-manifest-created", "object", "docs/backups/"),
        ("spot-interruption-warning", "warning", "i-"),
        ("terminate-lifecycle-action", "lifecycle", "autoscaling:EC2_INSTANCE_TERMINATING AutoScalingGroup -> EC2"),
        ("terminate-successful", "notice", "EC2 Instance Terminate Successful"),
        ("terminate-unsuccessful", "notice", "EC2 Instance Terminate Unsuccessful"),
        ("tick", "schedule", "tick true"),
        ("unknown-event", "unknown", "EC2"),
        ("verify-schedule", "schedule", "verify true"),
    ];
    let found = events();
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, wanted.iter().map(|(name, ..)| *name).collect::<BTreeSet<_>>());
    for (name, kind, text) in wanted {
        let value = &found.iter().find(|(n, _)| n == name).expect(name).1;
        let gist = gist(&Event::parse(value).expect(name));
        assert_eq!(gist.0, kind, "{name}");
        assert!(gist.1.starts_with(text), "{name}: {gist:?}");
    }
}

#[test]
fn an_event_without_its_fields_is_an_error_and_an_odd_one_is_unknown() {
    let bare = json!({"detail-type": "EC2 Instance-launch Lifecycle Action", "detail": {}});
    assert!(Event::parse(&bare).expect_err("no fields").to_string().contains("AutoScalingGroupName"));
    for odd in [json!(null), json!([1]), json!({}), json!({"detail-type": 7}), json!("text")] {
        assert!(matches!(Event::parse(&odd), Ok(Event::Unknown { .. })), "{odd}");
    }
}
