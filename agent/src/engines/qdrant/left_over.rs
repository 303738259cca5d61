//! The one snapshot that is on the server for us, remembered before it is made.
//!
//! Its name is the server's and comes only with the answer: `<collection>-<peer>-<second>.snapshot`. A run that was killed while it
//! waited knows which snapshots were there before and when it asked. Ours is then the one new snapshot named after that second or one of the
//! next two; if there are several, somebody else made one of them and none is deleted. A server goes on with a snapshot that nobody
//! waits for, so its end is waited for first.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::client::{Client, Request};
use super::scratch::Scratch;
use crate::engine::EngineError;

const RECORD: &str = "snapshot.json";
/// From the request to the second in the name.
const SECONDS_LATER: i64 = 2;
/// A snapshot that nobody waits for is waited for this long before a look is taken again at the next backup.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(300);

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ours {
    pub(super) collection: String,
    /// Snapshots of the collection that were there before.
    pub(super) before: Vec<String>,
    /// When it was asked for, in seconds.
    pub(super) asked_at: i64,
    /// Its name, once it is known.
    pub(super) name: Option<String>,
}

/// A snapshot, as the server lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) creation_time: Option<String>,
    pub(super) size: u64,
    /// SHA-256; absent where the server keeps its snapshots in S3.
    pub(super) checksum: Option<String>,
}

impl Snapshot {
    /// The second it was made in: that in its name, or else the one that the server says, which can be one earlier.
    pub(super) fn second(&self) -> Option<i64> {
        let said = || self.creation_time.as_deref().and_then(|t| second_of(t, "%Y-%m-%dT%H:%M:%S"));
        second_in(&self.name).or_else(said)
    }
}

fn second_in(name: &str) -> Option<i64> {
    let stem = name.strip_suffix(".snapshot")?;
    second_of(stem.get(stem.len().checked_sub(19)?..)?, "%Y-%m-%d-%H-%M-%S")
}

fn second_of(text: &str, format: &str) -> Option<i64> {
    Some(DateTime::strptime(format, text).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The snapshots of a collection; `None` when there is no such collection.
pub(super) async fn listing(client: &Client, collection: &str) -> Result<Option<Vec<Snapshot>>, EngineError> {
    client.find(Request::get(&["collections", collection, "snapshots"])).await
}

/// Deletes a snapshot; one that is gone already is fine.
pub(super) async fn delete(client: &Client, collection: &str, name: &str) -> Result<(), EngineError> {
    client.change_if_there(Request::delete(&["collections", collection, "snapshots", name])).await.map(|_| ())
}

/// Remembers that one will be made.
pub(super) fn remember(scratch: &Scratch, ours: &Ours) -> Result<(), EngineError> {
    scratch.store(RECORD, ours)
}

/// Says that it is gone.
pub(super) fn forget(scratch: &Scratch) -> Result<(), EngineError> {
    scratch.forget(RECORD)
}

/// Deletes the snapshot that an interrupted run left.
pub(super) async fn remove(client: &Client, scratch: &Scratch) -> Result<(), EngineError> {
    let Some(ours) = scratch.load::<Ours>(RECORD)? else { return Ok(()) };
    if ours.name.is_none() {
        wait_until_made(client, &ours.collection).await?;
    }
    let listed = listing(client, &ours.collection).await?.unwrap_or_default();
    if let Some(name) = which(&ours, &listed) {
        delete(client, &ours.collection, &name).await?;
    }
    forget(scratch)
}

/// Which of the listed ones is ours.
fn which(ours: &Ours, listed: &[Snapshot]) -> Option<String> {
    if let Some(name) = &ours.name {
        return listed.iter().any(|s| s.name == *name).then(|| name.clone());
    }
    let expected = ours.asked_at..=ours.asked_at + SECONDS_LATER;
    let is_new =
        |s: &&Snapshot| !ours.before.contains(&s.name) && second_in(&s.name).is_some_and(|s| expected.contains(&s));
    let mut found = listed.iter().filter(is_new);
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one.name.clone()),
        _ => None,
    }
}

async fn wait_until_made(client: &Client, collection: &str) -> Result<(), EngineError> {
    let begun = Instant::now();
    while is_being_made(client, collection).await? {
        if begun.elapsed() > PATIENCE {
            let id = format!("a snapshot of {collection} that an interrupted backup asked for");
            return Err(EngineError::Busy { what: "snapshot", id });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Whether a snapshot of a collection is being made right now, by whomever.
pub(super) async fn is_being_made(client: &Client, collection: &str) -> Result<bool, EngineError> {
    let metrics = client.text(Request::get(&["metrics"])).await?;
    Ok(counts_running(&metrics, collection))
}

fn counts_running(metrics: &str, collection: &str) -> bool {
    let label = format!("id=\"{}\"", collection.replace('\\', r"\\").replace('"', "\\\""));
    let running = metrics.lines().filter(|l| l.starts_with("snapshot_creation_running{") && l.contains(&label));
    running.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).any(|count| count > 0.0)
}

/// How long to wait so that the next snapshot is not named as one of `listed`, nor made in the second of another of the server's.
pub(super) fn wait_after(listed: &[Snapshot], now: Timestamp) -> Duration {
    const APART: Duration = Duration::from_millis(1100);
    let Some(last) = listed.iter().filter_map(Snapshot::second).max() else { return Duration::ZERO };
    let since = now.as_millisecond() - last * 1000;
    let wait = i64::try_from(APART.as_millis()).unwrap_or(0) - since;
    // A clock that is ahead of this machine's is not waited for.
    Duration::from_millis(u64::try_from(wait.max(0)).unwrap_or(0)).min(APART)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<Snapshot> {
        let one = |n: &&str| Snapshot { name: (*n).into(), creation_time: None, size: 1, checksum: None };
        names.iter().map(one).collect()
    }

    fn ours(name: Option<&str>) -> Ours {
        let asked_at = second_in("d-1-2026-11-21-10-00-00.snapshot").expect("a time");
        Ours {
            collection: "d".into(),
            before: vec!["d-1-2026-11-21-09-59-59.snapshot".into()],
            asked_at,
            name: name.map(Into::into),
        }
    }

    #[test]
    fn ours_is_found_by_its_name_or_as_the_only_one_of_its_second() {
        let before = "d-1-2026-11-21-09-59-59.snapshot";
        let (mine, later) = ("d-1-2026-11-21-10-00-01.snapshot", "d-1-2026-11-21-10-00-07.snapshot");
        assert_eq!(which(&ours(Some(later)), &listed(&[before, mine, later])).as_deref(), Some(later));
        assert_eq!(which(&ours(Some("gone")), &listed(&[mine])), None);
        assert_eq!(which(&ours(None), &listed(&[before, mine, later])).as_deref(), Some(mine));
        assert_eq!(which(&ours(None), &listed(&[before, later])), None, "never made");
        let two = ["d-1-2026-11-21-10-00-00.snapshot", mine];
        assert_eq!(which(&ours(None), &listed(&two)), None, "one of them is somebody else's");
        assert_eq!(which(&ours(None), &listed(&["nightly.snapshot"])), None);
    }

    #[test]
    fn snapshots_stand_apart() {
        let now = |ms: i64| Timestamp::from_millisecond(ours(None).asked_at * 1000 + ms).expect("a time");
        let last = listed(&["d-1-2026-11-21-09-00-00.snapshot", "d-1-2026-11-21-10-00-00.snapshot"]);
        assert_eq!(wait_after(&last, now(300)), Duration::from_millis(800));
        assert_eq!(wait_after(&last, now(1100)), Duration::ZERO);
        assert_eq!(wait_after(&last, now(-90_000)), Duration::from_millis(1100));
        assert_eq!(wait_after(&[], now(0)), Duration::ZERO);
        let said = Snapshot { creation_time: Some("2026-11-21T10:00:00".into()), ..listed(&["x"])[0].clone() };
        assert_eq!(said.second(), Some(ours(None).asked_at));
    }

    #[test]
    fn the_metrics_tell_whether_one_is_being_made() {
        let metrics = "# TYPE snapshot_creation_running gauge\nsnapshot_creation_running{id=\"a\"} 1\n\
                       snapshot_creation_running{id=\"d\"} 0\nsnapshot_recovery_running{id=\"d\"} 1\n";
        assert!(counts_running(metrics, "a"));
        assert!(!counts_running(metrics, "d"));
        assert!(!counts_running("", "d"));
    }
}
