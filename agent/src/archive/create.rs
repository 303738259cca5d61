//! A folder becomes the objects of a backup: everything but the manifest.
//!
//! Promises: what it returns is in the store, whole, and names only objects that are. It publishes nothing. A crash leaves objects or
//! uploads below the backup's folder that no manifest names.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;

use perennial_shared::archive::chunk;
use perennial_shared::archive::frame::{Algorithm, Compression};
use perennial_shared::archive::index::Root;
use perennial_shared::archive::objects::{Objects, ReadError, Walk};
use perennial_shared::encryption::DataKey;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::{Archive, ArchiveObject, ObjectEntry};
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::assemble::{Assembled, Assembler};
use super::pool::{Pool, cores};
use super::produce::{BATCH, FromParent, Parent, Produced, Producer};
use super::source::Source;
use super::upload::{Destination, ObjectWriter, Pace, Resume, Stored};
use super::write::{self, Written};

/// A data object's name, without its number and what compression adds.
const DATA: &str = "data-";
/// The index object's name, without its number.
const INDEX: &str = "index-";

/// Batches of entries of the parent's index that are read ahead.
const AHEAD: usize = 4;

/// Why a folder did not become objects.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// This machine's files.
    #[error("{0}")]
    Local(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The parent's index.
    #[error("the parent's index: {0}")]
    Parent(#[from] ReadError),
    /// Another thread failed first; its error is the telling one.
    #[error("stopped, because another part of the backup failed")]
    Stopped,
}

/// What to archive, and how.
pub struct Request {
    /// The repository's store.
    pub store: Arc<dyn Store>,
    /// The backup's name.
    pub id: BackupId,
    /// What is archived.
    pub source: Source,
    /// The backup that an increment builds on.
    pub parent: Option<Archive>,
    /// How frames are compressed.
    pub compression: Compression,
    /// The smallest chunks.
    pub chunk_size: u32,
    /// The chain's key; absent when it is not encrypted.
    pub key: Option<DataKey>,
    /// How objects are sent.
    pub upload: UploadSettings,
    /// Bytes after which a data object is full and the next one is begun ([`super::upload::full_at`]).
    pub full_at: u64,
    /// Read files although they look unchanged.
    pub reread: bool,
    /// What is remembered of uploads across a crash.
    pub resume: Option<Arc<dyn Resume + Sync>>,
    /// Bytes of files that were passed, for whoever watches.
    pub passed: Arc<AtomicU64>,
}

/// A folder that was archived.
#[derive(Debug)]
pub struct Archived {
    /// The backup's own objects.
    pub objects: Vec<ObjectEntry>,
    /// The table of the chain's objects, with the backup's own at its end.
    pub table: Vec<ArchiveObject>,
    /// Top of the index.
    pub root: Root,
    /// Regular files in the index.
    pub files: u64,
    /// Sum of their sizes there, which are those that were read.
    pub data_bytes: u64,
    /// What they take on a disk, as they were met: without holes.
    pub disk_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of new chunks.
    pub new_bytes: u64,
    /// Bytes that an interrupted run had sent already.
    pub resumed_bytes: u64,
    /// What a person should know.
    pub findings: Vec<String>,
}

impl Archived {
    /// What its manifest says of it, but for the key that encrypts it.
    pub fn described(&self, id: &BackupId, parent: Option<&Archive>, because: &str) -> Archive {
        Archive {
            base: parent.map_or(id, |p| &p.base).clone(),
            position: parent.map_or(0, |p| p.position + 1),
            because: because.to_owned(),
            files: self.files,
            data_bytes: self.data_bytes,
            exact: true,
            disk_bytes: Some(self.disk_bytes),
            read_bytes: self.read_bytes,
            new_bytes: self.new_bytes,
            index: self.root.clone(),
            objects: self.table.clone(),
            key_id: None,
        }
    }
}

/// Archives a folder.
pub async fn archive(request: Request) -> Result<Archived, ArchiveError> {
    let handle = Handle::current();
    let pool = Pool::start(request.compression)?;
    let is_base = request.parent.is_none();
    let mut table = request.parent.as_ref().map_or_else(Vec::new, |p| p.objects.clone());
    let first = u32::try_from(table.len()).unwrap_or(u32::MAX);

    let (steps_out, steps) = sync_channel(2 * cores());
    let (placed_out, placed) = sync_channel(2 * cores());
    let pace = Pace::new(request.upload.bandwidth);
    let index = ObjectWriter::new(free_index(&request, &pace).await?, handle.clone());
    let begin_data = data_objects(&request, &pace, &handle);
    let parent = request.parent.as_ref().map(|p| parent(&request, p));
    let assembler = Assembler::new(pool.clone(), placed_out, is_base);

    let (key, full_at) = (request.key.clone(), request.full_at);
    let writing = spawn_blocking(move || write::run(&placed, first, index, begin_data, full_at, key.as_ref()));
    let assembling = spawn_blocking(move || assembler.run(&steps));
    let Request { source, chunk_size, reread, passed, .. } = request;
    let producing = spawn_blocking(move || {
        let (batch, batch_bytes, unchanged) = (vec![], 0, vec![]);
        let least_chunk = chunk_size.clamp(chunk::SMALLEST, chunk::LARGEST);
        let producer = Producer {
            source: &source,
            pool,
            out: steps_out,
            least_chunk,
            reread,
            parent,
            handle,
            passed,
            batch,
            batch_bytes,
            unchanged,
        };
        producer.run()
    });
    let (walked, framed, stored) = tokio::join!(producing, assembling, writing);
    let (produced, framed, written) = telling(joined(walked), joined(framed), joined(stored))?;

    let (mut findings, mut objects, mut resumed_bytes) = (produced.findings, vec![], 0);
    findings.extend(framed.findings);
    let Written { root, index, data } = written;
    let algorithm = request.compression.algorithm;
    let of_pages = index.into_iter().map(|stored| (stored, Algorithm::None));
    let of_frames = data.into_iter().map(|stored| (stored, algorithm));
    for (stored, compression) in of_pages.chain(of_frames) {
        resumed_bytes += stored.resumed;
        let (own, entry) = entries(&request.id, stored, compression);
        table.push(own);
        objects.push(entry);
    }
    Ok(Archived {
        objects,
        table,
        root,
        files: framed.files,
        data_bytes: framed.data_bytes,
        disk_bytes: produced.disk_bytes,
        read_bytes: framed.read_bytes,
        new_bytes: framed.new_bytes,
        resumed_bytes,
        findings,
    })
}

/// Begins data objects. Those of a base are one ordinary tar file, those of an increment chunks one after another.
fn data_objects(request: &Request, pace: &Pace, handle: &Handle) -> impl Fn(u32) -> ObjectWriter + Send + 'static {
    let tar = if request.parent.is_none() { ".tar" } else { ".chunks" };
    let suffix = format!("{tar}{}", request.compression.algorithm.suffix());
    let (to, handle) = (destination(request, pace, DATA), handle.clone());
    move |number| {
        let key = format!("{}{number}{suffix}", to.key);
        ObjectWriter::new(Destination { key, ..to.clone() }, handle.clone())
    }
}

/// Where the index goes. An interrupted run may have completed its own, which tells of the same chunks in other words:
/// by then a file has another ctime, or counts as settled. So that the data need not be another for it, the index gets
/// the next name.
async fn free_index(request: &Request, pace: &Pace) -> Result<Destination, StoreError> {
    let mut number = 0;
    loop {
        let to = destination(request, pace, &format!("{INDEX}{number}"));
        let may_stand = to.resume.as_ref().is_some_and(|r| r.parts(&to.key).is_some());
        if !may_stand || !to.stands().await? {
            return Ok(to);
        }
        number += 1;
    }
}

fn destination(request: &Request, pace: &Pace, name: &str) -> Destination {
    Destination {
        store: Arc::clone(&request.store),
        key: format!("backups/{}/{name}", request.id),
        settings: request.upload,
        pace: pace.clone(),
        resume: request.resume.clone(),
    }
}

/// Begins to read the parent's index.
fn parent(request: &Request, archive: &Archive) -> Parent {
    let objects = Objects::new(Arc::clone(&request.store), archive, request.key.clone());
    let mut walk = objects.walk(&archive.index);
    let (out, entries) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let batch = batch(&mut walk).await;
            let ended = batch.as_ref().map_or(true, Vec::is_empty);
            if out.send(batch).await.is_err() || ended {
                return;
            }
        }
    });
    Parent { objects, root: archive.index.clone(), moved: None, entries, ahead: VecDeque::new() }
}

/// The next entries of an index; none at its end.
async fn batch(walk: &mut Walk) -> Result<Vec<FromParent>, ReadError> {
    let mut batch = vec![];
    while batch.len() < BATCH
        && let Some(entry) = walk.next().await?
    {
        batch.push(FromParent { entry, pages: walk.take_pages() });
    }
    Ok(batch)
}

fn entries(id: &BackupId, stored: Stored, compression: Algorithm) -> (ArchiveObject, ObjectEntry) {
    let Stored { key, size, sha256, etag, .. } = stored;
    let key = key.rsplit('/').next().unwrap_or_default().to_owned();
    let own = ArchiveObject { backup_id: id.clone(), key: key.clone(), size, sha256: sha256.clone(), compression };
    (own, ObjectEntry { key, size, sha256, etag })
}

fn joined<T>(thread: Result<Result<T, ArchiveError>, tokio::task::JoinError>) -> Result<T, ArchiveError> {
    thread.unwrap_or_else(|e| Err(ArchiveError::Local(io::Error::other(e))))
}

/// All three, or the error that began it.
fn telling(
    produced: Result<Produced, ArchiveError>,
    assembled: Result<Assembled, ArchiveError>,
    written: Result<Written, ArchiveError>,
) -> Result<(Produced, Assembled, Written), ArchiveError> {
    match (produced, assembled, written) {
        (Ok(p), Ok(a), Ok(w)) => Ok((p, a, w)),
        (p, a, w) => {
            let errors = [w.err(), a.err(), p.err()].into_iter().flatten();
            let (stopped, telling): (Vec<_>, Vec<_>) = errors.partition(|e| matches!(e, ArchiveError::Stopped));
            Err(telling.into_iter().chain(stopped).next().unwrap_or(ArchiveError::Stopped))
        }
    }
}
