//! The producer: walks the folder and the parent's index side by side and decides what has to be read.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use perennial_shared::archive::chunk;
use perennial_shared::archive::entry::{CHUNKS_IN_PAGE, Content, Entry, Extent, File, Kind};
use perennial_shared::archive::index::Root;
use perennial_shared::archive::objects::{Objects, ReadError};
use perennial_shared::archive::page::PageRef;
use perennial_shared::archive::path::RelPath;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::create::ArchiveError;
use super::moved::{DEAR, Moved};
use super::pool::{Pool, Ticket};
use super::read::{self, BLOCK, Block, Opened, Small};
use super::source::Source;
use super::walk::{Met, Walk};

/// Files that one job reads at most, and entries that go from thread to thread together: one by one, waking each other would cost
/// more than the work.
pub(super) const BATCH: usize = 128;
/// Pages of a changed file's chunks that are asked for together.
const PAGES: usize = 16;
/// The unit of `st_blocks`, whatever the file system (stat(2)).
const BLOCK_ON_DISK: u64 = 512;

/// What the assembler is to do next.
pub(super) enum Step {
    /// A folder or link.
    Whole(Entry),
    /// Files that are what they were.
    Reuse(Vec<Entry>),
    /// Pages of the parent's index that may come again.
    Remember(Vec<PageRef>),
    /// Small files, or their names where they are gone.
    Small(Ticket<Vec<io::Result<Result<Small, RelPath>>>>),
    /// A large file was met and is gone.
    Gone(RelPath),
    /// A large file begins; these stretches of it are stored.
    Begin(Entry, Vec<(u64, u64)>),
    /// Its next chunks.
    Block(Ticket<io::Result<Block>>),
    /// Its next chunks are zeros that are not stored.
    Hole(u32),
    /// It ends.
    End(Arc<Opened>),
    /// That was all. Without it the walk was cut short, and what came of it is not a backup.
    Done,
}

/// What the parent's index brings: entries, and the pages that they stood in.
pub(super) struct FromParent {
    pub(super) entry: Entry,
    pub(super) pages: Vec<PageRef>,
}

/// What was met on the way.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// Of the files as they were met; some may have grown or gone before they were read.
    bytes: u64,
    /// The same without holes.
    pub(super) disk_bytes: u64,
    pub(super) findings: Vec<String>,
}

pub(super) struct Producer<'a> {
    pub(super) source: &'a Source,
    pub(super) pool: Pool,
    pub(super) out: SyncSender<Step>,
    pub(super) least_chunk: u32,
    pub(super) reread: bool,
    pub(super) parent: Option<Parent>,
    pub(super) handle: Handle,
    /// Bytes of files that were passed, for whoever watches.
    pub(super) passed: Arc<AtomicU64>,
    /// Small files to read, and files that need not be read. One of the two is always empty.
    pub(super) batch: Vec<Job>,
    pub(super) batch_bytes: u64,
    pub(super) unchanged: Vec<Entry>,
}

/// The parent's index as it comes in.
pub(super) struct Parent {
    pub(super) objects: Objects,
    pub(super) root: Root,
    pub(super) moved: Option<Moved>,
    pub(super) entries: mpsc::Receiver<Result<Vec<FromParent>, ReadError>>,
    pub(super) ahead: VecDeque<FromParent>,
}

/// A small file to read.
pub(super) struct Job {
    path: RelPath,
    most: Option<u64>,
    chunk_size: u32,
    parent: Vec<Extent>,
}

impl Producer<'_> {
    pub(super) fn run(mut self) -> Result<Produced, ArchiveError> {
        let mut produced = Produced::default();
        let source = self.source;
        let mut walk = Walk::new(source);
        while let Some(met) = walk.next()? {
            match met {
                Met::Skipped(why) => produced.findings.push(why),
                Met::Whole(entry) => {
                    self.before(&entry.path)?;
                    self.flush()?;
                    self.send(Step::Whole(entry))?;
                }
                Met::Kept(folder) => self.keep(&folder, &mut produced)?,
                Met::File(path, metadata) => {
                    let before = self.before(&path)?;
                    let bytes = self.file(path, &metadata, before)?;
                    produced.bytes += bytes;
                    produced.disk_bytes += bytes.min(metadata.blocks() * BLOCK_ON_DISK);
                    self.passed.store(produced.bytes, Ordering::Relaxed);
                }
            }
        }
        self.flush()?;
        self.send(Step::Done)?;
        Ok(produced)
    }

    fn send(&self, step: Step) -> Result<(), ArchiveError> {
        self.out.send(step).map_err(|_| ArchiveError::Stopped)
    }

    /// The parent's entry for `path`; whatever stands before it there is gone now.
    fn before(&mut self, path: &RelPath) -> Result<Option<Entry>, ArchiveError> {
        loop {
            let Some(ahead) = self.ahead()? else { return Ok(None) };
            let pages = std::mem::take(&mut ahead.pages);
            if ahead.entry.path > *path {
                ahead.pages = pages;
                return Ok(None);
            }
            let found = self.parent.as_mut().and_then(|p| p.ahead.pop_front());
            let found = found.map(|f| f.entry).filter(|e| e.path == *path);
            if !pages.is_empty() {
                self.send(Step::Remember(pages))?;
            }
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The parent's next entry, which stays the next.
    fn ahead(&mut self) -> Result<Option<&mut FromParent>, ArchiveError> {
        let Some(parent) = &mut self.parent else { return Ok(None) };
        if parent.ahead.is_empty() {
            parent.ahead = parent.entries.blocking_recv().transpose()?.unwrap_or_default().into();
        }
        Ok(parent.ahead.front_mut())
    }

    /// Takes over a folder and all that is in it from the parent.
    fn keep(&mut self, folder: &RelPath, produced: &mut Produced) -> Result<(), ArchiveError> {
        let lost = || io::Error::other(format!("{folder} is said to be as it was, and the parent does not have it"));
        let own = self.before(folder)?.ok_or_else(lost)?;
        self.flush()?;
        self.send(Step::Whole(own))?;
        while let Some(next) = self.ahead()?.map(|a| a.entry.path.clone()).filter(|p| p.is_below(folder)) {
            let Some(entry) = self.before(&next)? else { break };
            if let Kind::File(file) = &entry.kind {
                produced.bytes += file.size;
                produced.disk_bytes += file.size;
                self.passed.store(produced.bytes, Ordering::Relaxed);
                self.reuse(entry)?;
            } else {
                self.flush()?;
                self.send(Step::Whole(entry))?;
            }
        }
        Ok(())
    }

    /// Decides what is to be done with a file, and tells its size.
    fn file(&mut self, path: RelPath, metadata: &Metadata, before: Option<Entry>) -> Result<u64, ArchiveError> {
        let most = self.source.lengths.get(&path).copied();
        let size = most.unwrap_or(metadata.len());
        if let Some(before) = &before
            && !self.reread
            && read::is_unchanged(metadata, size, before, self.source.ctime_is_ours)
        {
            self.reuse(before.clone())?;
            return Ok(size);
        }
        let before = before.and_then(|e| if let Kind::File(file) = e.kind { Some(file) } else { None });
        let before = match before {
            Some(file) if file.identity.inode == metadata.ino() => Some(file),
            other => self.elsewhere(metadata, size)?.or(other),
        };
        let chunk_size = before.as_ref().map_or_else(|| chunk::size_for(size, self.least_chunk), |f| f.chunk_size);
        if size > BLOCK {
            self.flush()?;
            return self.large(path, most, chunk_size, before);
        }
        let parent = match before {
            None => vec![],
            Some(before) => {
                let chunks = chunk::count(size, chunk_size).min(chunk::count(before.size, chunk_size));
                let count = u32::try_from(chunks).unwrap_or(u32::MAX);
                self.chunks_of(before).part(0, count)?
            }
        };
        self.flush_unchanged()?;
        self.batch.push(Job { path, most, chunk_size, parent });
        self.batch_bytes += size;
        if self.batch.len() == BATCH || self.batch_bytes >= BLOCK {
            self.flush()?;
        }
        Ok(size)
    }

    /// What the file was in the parent, where it stood elsewhere.
    fn elsewhere(&mut self, metadata: &Metadata, size: u64) -> Result<Option<File>, ArchiveError> {
        let Some(parent) = &mut self.parent else { return Ok(None) };
        if parent.moved.is_none() && size >= DEAR {
            let walk = parent.objects.walk(&parent.root);
            parent.moved = Some(self.handle.block_on(Moved::read(walk))?);
        }
        Ok(parent.moved.as_ref().and_then(|moved| moved.file(metadata)).cloned())
    }

    /// A file is what it was.
    fn reuse(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        self.flush_small()?;
        self.unchanged.push(entry);
        if self.unchanged.len() == BATCH { self.flush_unchanged() } else { Ok(()) }
    }

    /// Passes on what was met since.
    fn flush(&mut self) -> Result<(), ArchiveError> {
        self.flush_small()?;
        self.flush_unchanged()
    }

    fn flush_unchanged(&mut self) -> Result<(), ArchiveError> {
        if self.unchanged.is_empty() {
            return Ok(());
        }
        let unchanged = std::mem::take(&mut self.unchanged);
        self.send(Step::Reuse(unchanged))
    }

    /// Has the small files read that were met since.
    fn flush_small(&mut self) -> Result<(), ArchiveError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (batch, root) = (std::mem::take(&mut self.batch), self.source.root.clone());
        self.batch_bytes = 0;
        let ticket = self.pool.submit(move |_| {
            let read = |job: Job| {
                let small = read::small(&root, &job.path, job.most, job.chunk_size, &job.parent)?;
                Ok(small.ok_or(job.path))
            };
            batch.into_iter().map(read).collect()
        });
        self.send(Step::Small(ticket))
    }

    fn large(
        &mut self,
        path: RelPath,
        most: Option<u64>,
        chunk_size: u32,
        before: Option<File>,
    ) -> Result<u64, ArchiveError> {
        let Some(opened) = Opened::open(&self.source.root, path.clone(), most)? else {
            self.send(Step::Gone(path))?;
            return Ok(0);
        };
        let opened = Arc::new(opened);
        let stretches = opened.data(chunk_size)?;
        if let Some(File { content: Content::Paged(pages), .. }) = &before {
            self.send(Step::Remember(pages.clone()))?;
        }
        self.send(Step::Begin(opened.entry(chunk_size), stretches.clone()))?;
        let mut before = before.map(|b| self.chunks_of(b));
        let (chunks, each) = (chunk::count(opened.size, chunk_size), BLOCK / u64::from(chunk_size));
        let mut done = 0;
        for (offset, length) in stretches {
            let begin = offset / u64::from(chunk_size);
            let end = (offset + length).div_ceil(u64::from(chunk_size));
            self.holes(begin - done)?;
            done = begin;
            while done < end {
                // Blocks begin at multiples of their size, so that none crosses a page of the parent's chunks.
                let count = (each - done % each).min(end - done);
                self.block(&opened, chunk_size, done, count, before.as_mut())?;
                done += count;
            }
        }
        self.holes(chunks - done)?;
        let size = opened.size;
        self.send(Step::End(opened))?;
        Ok(size)
    }

    fn holes(&self, mut chunks: u64) -> Result<(), ArchiveError> {
        while chunks > 0 {
            let some = u32::try_from(chunks).unwrap_or(u32::MAX);
            self.send(Step::Hole(some))?;
            chunks -= u64::from(some);
        }
        Ok(())
    }

    fn block(
        &self,
        opened: &Arc<Opened>,
        chunk_size: u32,
        first: u64,
        count: u64,
        before: Option<&mut ChunksOf>,
    ) -> Result<(), ArchiveError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let parent = before.map_or(Ok(vec![]), |b| b.part(first, count))?;
        let opened = Arc::clone(opened);
        let ticket = self.pool.submit(move |_| read::block(&opened, chunk_size, first, count, &parent));
        self.send(Step::Block(ticket))
    }

    fn chunks_of(&self, file: File) -> ChunksOf {
        let objects = self.parent.as_ref().map(|p| p.objects.clone());
        ChunksOf { objects, handle: self.handle.clone(), file, first_page: 0, pages: vec![] }
    }
}

/// The chunks that a file had in the parent, read as they are needed.
struct ChunksOf {
    objects: Option<Objects>,
    handle: Handle,
    file: File,
    /// Number of the first page that is held.
    first_page: usize,
    pages: Vec<Vec<Extent>>,
}

impl ChunksOf {
    /// Extents of up to `count` chunks from number `first` on; fewer where the file was shorter. They may not cross a page.
    fn part(&mut self, first: u64, count: u32) -> Result<Vec<Extent>, ArchiveError> {
        let chunk_size = self.file.chunk_size;
        if let Content::Inline(extents) = &self.file.content {
            return Ok(part_of(extents, first, count, chunk_size));
        }
        let page = usize::try_from(first / u64::from(CHUNKS_IN_PAGE)).unwrap_or(usize::MAX);
        self.load(page)?;
        let within = first % u64::from(CHUNKS_IN_PAGE);
        let held = page.checked_sub(self.first_page).and_then(|n| self.pages.get(n));
        Ok(held.map_or_else(Vec::new, |extents| part_of(extents, within, count, chunk_size)))
    }

    fn load(&mut self, page: usize) -> Result<(), ArchiveError> {
        let Content::Paged(refs) = &self.file.content else { return Ok(()) };
        let held = (self.first_page..self.first_page + self.pages.len()).contains(&page);
        if held || page >= refs.len() {
            return Ok(());
        }
        let Some(objects) = &self.objects else { return Ok(()) };
        let wanted = &refs[page..refs.len().min(page + PAGES)];
        self.pages = self.handle.block_on(objects.chunks(&self.file, page, wanted))?;
        self.first_page = page;
        Ok(())
    }
}

/// The chunks `first..first + count` of extents, as far as there are any.
fn part_of(extents: &[Extent], first: u64, count: u32, chunk_size: u32) -> Vec<Extent> {
    let (mut at, mut found) = (0_u64, vec![]);
    let end = first + u64::from(count);
    for extent in extents {
        let next = at + u64::from(extent.chunks());
        let (from, to) = (first.max(at), end.min(next));
        if from < to {
            let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            found.push(extent.part(cut(from - at), cut(to - from), chunk_size));
        }
        at = next;
    }
    found
}
