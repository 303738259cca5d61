//! The one snapshot that is on the server for us, remembered before it is made.
//!
//! Its name is the server's and comes only with the answer: `<collection>-<peer>-<second>.snapshot`. A run that was killed while it
//! waited knows which snapshots were there before and when it asked. Ours is then the one new snapshot named after that second or one of the
//! next two; if there are several, or only others that are new, somebody else made one of them: none is deleted, and the next backup says
//! so. A server goes on with a snapshot that nobody waits for, so its end is waited for first.

use std::time::{Duration, Instant};

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

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It was never made, or is deleted already.
    Gone,
    /// It is this one.
    There(String),
    /// It is one of these or none of them.
    Unclear(Vec<String>),
}

/// Deletes the snapshot that an interrupted run left. Where it cannot be told from others it stays remembered, and what a person should
/// know comes back.
pub(super) async fn remove(client: &Client, scratch: &Scratch) -> Result<Option<String>, EngineError> {
    let Some(ours) = scratch.load::<Ours>(RECORD)? else { return Ok(None) };
    if ours.name.is_none() {
        wait_until_made(client, &ours.collection).await?;
    }
    let Some(listed) = listing(client, &ours.collection).await? else { return Ok(Some(out_of_reach(&ours))) };
    match fate(&ours, &listed) {
        Fate::Gone => {}
        Fate::There(name) => delete(client, &ours.collection, &name).await?,
        Fate::Unclear(candidates) => return Ok(Some(unclear(&ours, &candidates))),
    }
    forget(scratch)?;
    Ok(None)
}

fn fate(ours: &Ours, listed: &[Snapshot]) -> Fate {
    let names = |found: &[&Snapshot]| found.iter().map(|s| s.name.clone()).collect();
    if let Some(name) = &ours.name {
        let is_there = listed.iter().any(|s| s.name == *name);
        return if is_there { Fate::There(name.clone()) } else { Fate::Gone };
    }
    let expected = ours.asked_at..=ours.asked_at + SECONDS_LATER;
    let is_timely = |s: &&Snapshot| second_in(&s.name).is_some_and(|s| expected.contains(&s));
    let new: Vec<_> = listed.iter().filter(|s| !ours.before.contains(&s.name)).collect();
    let timely: Vec<_> = new.iter().copied().filter(is_timely).collect();
    match (&timely[..], &new[..]) {
        ([one], _) => Fate::There(one.name.clone()),
        ([], []) => Fate::Gone,
        ([], others) => Fate::Unclear(names(others)),
        (several, _) => Fate::Unclear(names(several)),
    }
}

fn unclear(Ours { collection, .. }: &Ours, candidates: &[String]) -> String {
    format!(
        "an interrupted backup had asked for a snapshot of {collection}, and whether it is one of these cannot be told: {}; none was \
         deleted, delete those that nobody needs (DELETE /collections/{collection}/snapshots/NAME)",
        candidates.join(", ")
    )
}

/// The engine keeps the snapshots of a deleted collection, and gives no access to them.
fn out_of_reach(Ours { collection, .. }: &Ours) -> String {
    format!(
        "an interrupted backup had asked for a snapshot of {collection}, which is no collection any more; if it was made, its file is \
         still in the folder {collection} of the engine's snapshots, delete it there"
    )
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
        let there = |name: &str| Fate::There(name.into());
        assert_eq!(fate(&ours(Some(later)), &listed(&[before, mine, later])), there(later));
        assert_eq!(fate(&ours(Some("gone")), &listed(&[mine])), Fate::Gone);
        assert_eq!(fate(&ours(None), &listed(&[before, mine, later])), there(mine));
        assert_eq!(fate(&ours(None), &listed(&[before])), Fate::Gone, "never made");
    }

    #[test]
    fn what_may_be_somebody_else_s_is_named_and_not_deleted() {
        let unclear = |names: &[&str]| Fate::Unclear(names.iter().map(|n| (*n).to_owned()).collect());
        let [one, other] = ["d-1-2026-11-21-10-00-00.snapshot", "d-1-2026-11-21-10-00-01.snapshot"];
        let later = "d-1-2026-11-21-10-00-07.snapshot";
        assert_eq!(fate(&ours(None), &listed(&[one, other, later])), unclear(&[one, other]), "both are timely");
        assert_eq!(fate(&ours(None), &listed(&[later, "nightly.snapshot"])), unclear(&[later, "nightly.snapshot"]));
    }

    #[test]
    fn the_second_is_in_the_name_or_said() {
        let said = Snapshot { creation_time: Some("2026-11-21T10:00:00".into()), ..listed(&["x"])[0].clone() };
        assert_eq!(said.second(), Some(ours(None).asked_at));
        assert_eq!(listed(&["d-1-2026-11-21-10-00-00.snapshot"])[0].second(), said.second());
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
