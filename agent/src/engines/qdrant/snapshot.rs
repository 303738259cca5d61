//! One collection's snapshot: made on the server, fetched while it is taken apart, deleted again.
//!
//! The server's checksum is compared with the bytes that arrived; what differs is made once more. Two snapshots of a collection
//! within a second have one name, and the second replaces the first; one of the whole server takes those of its second away with it. So ours
//! are made one after the other, at least 1.1 s after our last, also a killed run's or one of another collection, and after the newest that
//! the server lists, of the collection and of itself. What remains is somebody else's of the same collection, made in the very second of ours:
//! ours is then found out by its checksum or its absence, theirs goes when ours is deleted.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use super::client::{Client, Request, is_absent};
use super::left_over::{self, Ours, Snapshot};
use super::scratch::{Scratch, blocking};
use super::unpack::{self, Arrived, Incoming};
use crate::engine::{EngineError, Progress, Step};
use crate::failpoint;

const APART: Duration = Duration::from_millis(1100);
/// When our last one was asked for, or was there.
const LAST: &str = "last-snapshot";
/// Pieces of a download that wait to be written.
const WAITING: usize = 16;

/// Makes snapshots one after the other.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    turn: Mutex<()>,
}

/// What is needed to make one.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) collection: &'a str,
    /// Where it is taken apart; not there yet.
    pub(super) folder: &'a Path,
    pub(super) deadline: Instant,
    pub(super) progress: Progress<'a>,
}

impl Snapshots {
    /// A snapshot's files; `None` if there is no such collection any more. What a person should know comes with them.
    pub(super) async fn fetch(
        &self,
        client: &Client,
        scratch: &Scratch,
        wanted: Wanted<'_>,
    ) -> Result<Option<Vec<String>>, EngineError> {
        let first = self.once(client, scratch, wanted).await;
        let Err(EngineError::Damaged { what, why }) = first else { return first };
        let folder = wanted.folder.to_path_buf();
        blocking(&folder, |folder| std::fs::remove_dir_all(folder)).await?;
        let again = self.once(client, scratch, wanted).await?;
        let said = format!("{what} had to be made twice: {why}");
        Ok(again.map(|findings| findings.into_iter().chain([said]).collect()))
    }

    async fn once(
        &self,
        client: &Client,
        scratch: &Scratch,
        wanted: Wanted<'_>,
    ) -> Result<Option<Vec<String>>, EngineError> {
        let _turn = self.turn.lock().await;
        let Some(before) = wait_for_room(client, scratch, wanted.collection).await? else { return Ok(None) };
        let mut ours = Ours {
            collection: wanted.collection.into(),
            before: before.into_iter().map(|s| s.name).collect(),
            asked_at: Timestamp::now().as_second(),
            name: None,
        };
        left_over::remember(scratch, &ours)?;
        scratch.store(LAST, &Timestamp::now())?;
        failpoint::reach("qdrant-snapshot-asked");
        let patience = wanted.deadline.saturating_duration_since(Instant::now());
        let path = ["collections", wanted.collection, "snapshots"];
        let made = client.change(Request::post(&path, json!({})).query(&[("wait", "true")]).within(patience)).await;
        scratch.store(LAST, &Timestamp::now())?;
        let made: Snapshot = match made {
            Err(e) if is_absent(&e) => {
                left_over::forget(scratch)?;
                return Ok(None);
            }
            Err(e) if e.is_absence() && Instant::now() >= wanted.deadline => {
                let outcome = "what the engine goes on making is deleted when it is done".into();
                let id = format!("a snapshot of {}", wanted.collection);
                return Err(EngineError::TimedOut { what: "backup", id, waited: patience, outcome });
            }
            made => made?,
        };
        ours.name = Some(made.name.clone());
        left_over::remember(scratch, &ours)?;
        failpoint::reach("qdrant-snapshot-made");
        let arrived = download(client, &made.name, wanted).await;
        left_over::delete(client, wanted.collection, &made.name).await?;
        left_over::forget(scratch)?;
        is_whole(&made, &arrived?).map(Some)
    }
}

/// Waits until the next snapshot has a second of its own, as far as can be seen; the collection's snapshots.
async fn wait_for_room(
    client: &Client,
    scratch: &Scratch,
    collection: &str,
) -> Result<Option<Vec<Snapshot>>, EngineError> {
    let Some(listed) = left_over::listing(client, collection).await? else { return Ok(None) };
    let of_all: Vec<Snapshot> = client.read(Request::get(&["snapshots"])).await?;
    let ours = scratch.load::<Timestamp>(LAST)?;
    let theirs = listed.iter().chain(&of_all).filter_map(Snapshot::second).map(|second| second * 1000);
    let last = theirs.chain(ours.map(Timestamp::as_millisecond)).max();
    tokio::time::sleep(wait_after(last, Timestamp::now())).await;
    Ok(Some(listed))
}

/// How long to wait after the last one, of which the milliseconds are given.
fn wait_after(last: Option<i64>, now: Timestamp) -> Duration {
    let since = last.map_or(i64::MAX, |last| now.as_millisecond() - last);
    // A clock that is ahead of this machine's is not waited for.
    APART.saturating_sub(Duration::from_millis(u64::try_from(since).unwrap_or(0)))
}

/// Streams a snapshot into its folder; never stored whole.
async fn download(client: &Client, name: &str, wanted: Wanted<'_>) -> Result<Arrived, EngineError> {
    let path = ["collections", wanted.collection, "snapshots", name];
    let mut response = client.open(Request::get(&path)).await?;
    let (to, from) = mpsc::channel(WAITING);
    let folder = wanted.folder.to_path_buf();
    let unpacking = tokio::task::spawn_blocking(move || unpack::collection(Incoming::new(from), &folder));
    let state = format!("fetching {}", wanted.collection);
    let mut done = 0;
    let failed = loop {
        match client.piece(&mut response).await {
            Ok(Some(piece)) => {
                done += piece.len() as u64;
                (wanted.progress)(Step { state: &state, done: Some(done) });
                // Nobody takes it: the unpacking has failed and says why.
                if to.send(Ok(piece)).await.is_err() {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(e) => {
                let _ = to.send(Err(std::io::Error::other("the download failed"))).await;
                break Some(e);
            }
        }
    };
    drop(to);
    let unpacked = unpacking.await.unwrap_or_else(|e| Err(e.into()));
    match failed {
        Some(e) => Err(e),
        None => unpacked.map_err(|e| unpack_error(name, wanted.folder, &e)),
    }
}

/// An archive that makes no sense is damaged; anything else is about this disk.
fn unpack_error(name: &str, folder: &Path, error: &std::io::Error) -> EngineError {
    match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::Other => {
            EngineError::Damaged { what: format!("the snapshot {name}"), why: error.to_string() }
        }
        _ => EngineError::files(folder, error),
    }
}

fn is_whole(made: &Snapshot, arrived: &Arrived) -> Result<Vec<String>, EngineError> {
    let damaged = |why: String| EngineError::Damaged { what: format!("the snapshot {}", made.name), why };
    if arrived.bytes != made.size {
        return Err(damaged(format!("{} bytes arrived, the engine says {}", arrived.bytes, made.size)));
    }
    match &made.checksum {
        Some(checksum) if checksum.eq_ignore_ascii_case(&arrived.sha256) => Ok(vec![]),
        Some(checksum) => Err(damaged(format!("it arrived as {}, the engine says {checksum}", arrived.sha256))),
        None => Ok(vec![format!("the engine gave no checksum of {}; only its size was compared", made.name)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_stand_apart() {
        let now = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).expect("a time");
        assert_eq!(wait_after(Some(1_000_000), now(300)), Duration::from_millis(800));
        assert_eq!(wait_after(Some(1_000_000), now(1100)), Duration::ZERO);
        assert_eq!(wait_after(Some(1_000_000), now(-90_000)), APART, "another clock");
        assert_eq!(wait_after(None, now(0)), Duration::ZERO);
    }
}
