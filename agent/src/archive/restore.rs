//! A backup's objects become a folder again.
//!
//! ```text
//! planner thread   reads the index, looks at what is on the disk already, plans windows of wanted chunks   plan, on_disk
//! fetchers         bring ranges of objects, several at a time; each decompresses what has arrived, checks   write
//!                  every chunk, and writes it
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

use globset::GlobSet;
use perennial_shared::archive::index::Root;
use perennial_shared::archive::objects::{Objects, ReadError};
use perennial_shared::archive::tally::Tally;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::pool::cores;
use plan::{Planner, Work};

/// Steps that wait for a request.
const PLANNED: usize = 6;

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

/// Requests in flight on this machine. A connection to S3 brings some 90 MB a second at most, and a core checks and writes some 500;
/// more connections than the cores keep up with push each other's bytes out of the caches.
pub fn fetches() -> usize {
    (cores() + 2).min(32)
}

/// Fills the staging folder. When it returns, all of it is on the disk, or nothing more is begun in it.
pub async fn stage(request: &Request) -> Result<(), RestoreError> {
    let (out, work) = mpsc::channel::<Work>(PLANNED);
    let planner = Planner::new(request.clone(), Handle::current(), out);
    let planning = tokio::task::spawn_blocking(move || planner.run());
    let brought = bring_all(request, work).await;
    let all_planned = planning.await;
    brought?;
    joined(all_planned)?;
    let (request, handle) = (request.clone(), Handle::current());
    let finishing = tokio::task::spawn_blocking(move || {
        folders::finish(&request, &handle)?;
        Ok(write::sync_all(&request.staging)?)
    });
    joined(finishing.await)
}

/// Does what is planned. When it returns, nothing of it is still being done.
async fn bring_all(request: &Request, mut work: mpsc::Receiver<Work>) -> Result<(), RestoreError> {
    let mut bringing = JoinSet::new();
    let brought = bring_each(request, &mut work, &mut bringing).await;
    bringing.shutdown().await;
    brought
}

/// Several steps at a time; each in a task of its own, so that all cores are used. This bounds the memory, too: each task holds one frame.
async fn bring_each(
    request: &Request,
    work: &mut mpsc::Receiver<Work>,
    bringing: &mut JoinSet<Result<(), RestoreError>>,
) -> Result<(), RestoreError> {
    let at_once = fetches();
    while let Some(step) = work.recv().await {
        bringing.spawn(bring(request.objects.clone(), Arc::clone(&request.progress), step));
        if bringing.len() == at_once
            && let Some(done) = bringing.join_next().await
        {
            joined(done)?;
        }
    }
    while let Some(done) = bringing.join_next().await {
        joined(done)?;
    }
    Ok(())
}

/// Fetches what one step needs, and writes it frame by frame as it arrives.
///
/// A frame is checked and written here and not on a thread of its own: a millisecond's work, on memory that this core has just
/// received and the next frame is received into. Handed to another core it is fetched out of that core's cache, and put into memory
/// that nobody had touched before, which costs a tenth more.
async fn bring(objects: Objects, progress: Arc<Counters>, step: Work) -> Result<(), RestoreError> {
    let mut arriving = objects.arriving(&step.fetch)?;
    progress.requests.fetch_add(1, Ordering::Relaxed);
    for (frame, pieces) in step.frames {
        let stored = arriving.take(frame.offset, u64::from(frame.length)).await?;
        progress.fetched.fetch_add(u64::from(frame.length), Ordering::Relaxed);
        write::frame(&objects, frame, stored, &pieces).await?;
        let placed: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        progress.placed.fetch_add(placed, Ordering::Relaxed);
    }
    Ok(())
}

/// What a task came to.
fn joined(done: Result<Result<(), RestoreError>, JoinError>) -> Result<(), RestoreError> {
    done.map_err(std::io::Error::other)?
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
    let (out, mut work) = mpsc::channel::<Work>(PLANNED);
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
