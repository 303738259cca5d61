//! Events of other services and failed deliveries, as one e-mail a person can act on.
//!
//! Everything Perennial itself finds out is told by the function that found it. What is left are the group's own notices, commands
//! that failed without the lifecycle function hearing of it, and messages in the dead-letter queue.

use jiff::Timestamp;
use perennial_shared::alert::{Alert, Kind};
use perennial_shared::event::{Command, DeadLetter, Event, Notice};

/// What to tell about an event; nothing for an event that is nobody's concern.
pub fn alerts(target: &str, event: &Event, now: Timestamp) -> Vec<Alert> {
    match event {
        Event::Notice(notice) => vec![about_notice(target, notice, now)],
        Event::Command(command) => about_command(target, command, now).into_iter().collect(),
        Event::DeadLetters(letters) => letters.iter().map(|letter| about_letter(target, letter, now)).collect(),
        _ => vec![],
    }
}

fn about_notice(target: &str, notice: &Notice, now: Timestamp) -> Alert {
    let kind = if notice.what.ends_with("Unsuccessful") { Kind::GroupFailed } else { Kind::GroupNotice };
    let place = match notice.instance.as_str() {
        "" => format!("group {}", notice.group),
        instance => format!("instance {instance} of group {}", notice.group),
    };
    let alert = Alert::new(kind, target, &place, notice.at.unwrap_or(now)).once_for(&notice.id);
    let lines = [&notice.what, &notice.message, &notice.cause];
    alert.with(lines.into_iter().filter(|l| !l.is_empty()))
}

/// Both notifications of one failed command, for the command and for its invocation, make the same alert.
fn about_command(target: &str, command: &Command, now: Timestamp) -> Option<Alert> {
    if matches!(command.status.as_str(), "Pending" | "InProgress" | "Delayed" | "Success" | "Cancelling") {
        return None;
    }
    let place =
        command.instance_id.as_ref().map_or_else(|| "an instance of the group".into(), |i| format!("instance {i}"));
    let alert = Alert::new(Kind::CommandFailed, target, &place, now).once_for(&command.command_id);
    Some(alert.with([
        format!("command {} of document {}: {}", command.command_id, command.document_name, command.status),
        show_command(command),
    ]))
}

fn show_command(command: &Command) -> String {
    let instance = command.instance_id.as_ref().map_or("INSTANCE", String::as_str);
    format!("aws ssm get-command-invocation --command-id {} --instance-id {instance}", command.command_id)
}

fn about_letter(target: &str, letter: &DeadLetter, now: Timestamp) -> Alert {
    let place = if letter.target.is_empty() { "the dead-letter queue" } else { &letter.target };
    let alert = Alert::new(Kind::DeadLetter, target, place, now).once_for(&letter.id);
    let why = if letter.why.is_empty() { "no reason was given" } else { &letter.why };
    alert.with([format!("reason: {why}"), format!("event: {}", letter.body)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(file: &str) -> Vec<Alert> {
        let path = format!("../../events/{file}.json");
        let text = std::fs::read_to_string(&path).expect(&path);
        let event = Event::parse(&serde_json::from_str(&text).expect("JSON")).expect("a known event");
        alerts("docs", &event, "2026-11-21T11:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn a_failed_launch_says_why_in_auto_scalings_words() {
        let alert = &told("launch-unsuccessful")[0];
        assert_eq!(alert.kind, Kind::GroupFailed);
        assert!(alert.body().contains("sufficient c8gd.xlarge capacity"), "{}", alert.body());
        assert_eq!(told("launch-successful")[0].kind, Kind::GroupNotice);
        assert_eq!(told("terminate-unsuccessful")[0].kind, Kind::GroupFailed);
    }

    #[test]
    fn a_failed_command_is_told_once_however_often_ssm_tells_it() {
        let (invocation, whole) = (told("command-invocation-failed"), told("command-status-failed"));
        assert_eq!(invocation[0].key, whole[0].key);
        assert!(invocation[0].body().contains("aws ssm get-command-invocation --command-id"));
        assert!(told("command-invocation-success").is_empty());
    }

    #[test]
    fn a_dead_letter_says_what_failed_and_why() {
        let alert = &told("dead-letter")[0];
        assert!(
            alert.place.contains("perennial-docs-backup") && alert.body().contains("access denied"),
            "{}",
            alert.body()
        );
        let alert = &told("dead-letter-rule")[0];
        assert!(
            alert.body().contains("NO_PERMISSIONS") && alert.place.contains("perennial-docs-lifecycle"),
            "{}",
            alert.body()
        );
        assert!(told("dead-letter-schedule")[0].body().contains("reason"));
    }

    #[test]
    fn events_of_no_concern_are_not_mailed() {
        assert!(told("unknown-event").is_empty());
        assert!(told("launch-lifecycle-action").is_empty());
    }
}
