//! A backup's objects become a folder again.
//!
//! ```text
//! planner thread   reads the index, looks at what is on the disk already, plans windows of wanted chunks   plan, on_disk
//! fetchers         bring ranges of objects, several at a time
//! blocking pool    decompresses, checks every chunk, writes                                                 write
//! at the end       modes and times of folders, and all of it onto the disk                                  folders
//! ```
//!
//! Promises: everything is written into a staging folder beside the target, every chunk is checked by its hash before
//! it is written, and the target is touched only by [`swap`], after all of it is on the disk. An index that lists more
//! files or bytes than its manifest says is refused before anything is written. A crash leaves the staging folder; the same restore
//! begun again keeps the chunks in it that are right and fetches the rest.

mod folders;
mod on_disk;
mod plan;
pub mod swap;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt};
use globset::GlobSet;
use perennial_shared::archive::index::Root;
use perennial_shared::archive::objects::{Objects, ReadError};
use perennial_shared::archive::tally::Tally;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use plan::{Planner, Work};

/// Requests in flight. With [`plan::LARGEST_FETCH`] this bounds the memory: 6 times 16 MiB, and a frame for each.
const FETCHES: usize = 6;

/// Why a folder was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// This machine's files.
    #[error("{0}")]
    Local(#[from] std::io::Error),
    /// The backup, or the way to it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What to bring back, and where.
#[derive(Clone)]
pub struct Request {
    /// The chain's objects.
    pub objects: Objects,
    /// Top of the backup's index.
    pub root: Root,
    /// What its files may add up to.
    pub tally: Tally,
    /// A folder that is made, or was left by an interrupted restore of the same.
    pub staging: PathBuf,
    /// A folder whose chunks are taken where they are right.
    pub local: Option<PathBuf>,
    /// Only paths that match; all when absent.
    pub include: Option<GlobSet>,
    /// How far it is.
    pub progress: Arc<Counters>,
}

/// How far a restore is.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of files that are in place.
    pub placed: AtomicU64,
    /// Bytes that were fetched.
    pub fetched: AtomicU64,
    /// Bytes that were found on the disk.
    pub found: AtomicU64,
    /// Requests for data.
    pub requests: AtomicU64,
    /// Files.
    pub files: AtomicU64,
    /// Files, folders and links.
    pub entries: AtomicU64,
}

/// Fills the staging folder. When it returns, all of it is on the disk.
pub async fn stage(request: &Request) -> Result<(), RestoreError> {
    let (out, work) = mpsc::channel::<Work>(FETCHES);
    let planner = Planner::new(request.clone(), Handle::current(), out);
    let planning = tokio::task::spawn_blocking(move || planner.run());
    ReceiverStream::new(work)
        // Each in a task of its own: receiving is a core's work, too.
        .map(|work| tokio::spawn(bring(request.objects.clone(), Arc::clone(&request.progress), work)))
        .buffer_unordered(FETCHES)
        .map(|done| done.map_err(std::io::Error::other)?)
        .try_collect::<()>()
        .await?;
    planning.await.map_err(std::io::Error::other)??;
    let (request, handle) = (request.clone(), Handle::current());
    let finishing = tokio::task::spawn_blocking(move || {
        folders::finish(&request, &handle)?;
        Ok(write::sync_all(&request.staging)?)
    });
    finishing.await.map_err(std::io::Error::other)?
}

/// Fetches what one step needs and writes it.
async fn bring(objects: Objects, progress: Arc<Counters>, work: Work) -> Result<(), RestoreError> {
    let fetch = &work.fetch;
    let range = || objects.range(fetch.object, fetch.offset, fetch.length);
    let bytes = match range().await {
        Err(e) if e.is_damage() => range().await,
        fetched => fetched,
    }?;
    progress.fetched.fetch_add(fetch.length, Ordering::Relaxed);
    progress.requests.fetch_add(1, Ordering::Relaxed);
    let mut writing = JoinSet::new();
    for share in shares(work) {
        let (objects, bytes, progress) = (objects.clone(), bytes.clone(), Arc::clone(&progress));
        let handle = Handle::current();
        writing.spawn_blocking(move || write::frames(&objects, &handle, &bytes, share, &progress));
    }
    while let Some(written) = writing.join_next().await {
        written.map_err(std::io::Error::other)??;
    }
    Ok(())
}

/// A step in two halves: the last one of a restore is work for more than one core.
fn shares(mut work: Work) -> [Work; 2] {
    let second = work.frames.split_off(work.frames.len() / 2);
    [Work { fetch: work.fetch.clone(), frames: second }, work]
}

impl Request {
    fn wants(&self, path: &Path) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.is_match(path))
    }
}

/// What a restore would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Estimate {
    /// Files, folders and links.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Bytes to fetch.
    pub fetch_bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// Bytes that are on the disk already.
    pub found_bytes: u64,
}

/// Plans without fetching data or writing anything.
pub async fn estimate(request: &Request) -> Result<Estimate, RestoreError> {
    let (out, mut work) = mpsc::channel::<Work>(FETCHES);
    let planner = Planner::new(request.clone(), Handle::current(), out).dry();
    let planning = tokio::task::spawn_blocking(move || planner.run());
    let mut estimate = Estimate::default();
    while let Some(work) = work.recv().await {
        estimate.fetch_bytes += work.fetch.length;
        estimate.requests += 1;
    }
    planning.await.map_err(std::io::Error::other)??;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let progress = &request.progress;
    Ok(Estimate {
        entries: of(&progress.entries),
        files: of(&progress.files),
        bytes: of(&progress.placed),
        found_bytes: of(&progress.found),
        ..estimate
    })
}
