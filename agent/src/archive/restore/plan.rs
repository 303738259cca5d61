//! The planner: reads the index and says which chunks have to be fetched.
//!
//! It reads the index twice: files are written as they are planned, and none may be before all of them were added up.
//! Memory: a window of what is planned, whatever the size of the data.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perennial_shared::archive::entry::{CHUNKS_IN_PAGE, Content, Entry, Extent, File, Kind};
use perennial_shared::archive::objects::ReadError;
use perennial_shared::archive::page::PageRef;
use perennial_shared::archive::path::RelPath;
use perennial_shared::archive::plan::{self, Step, Wanted};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::on_disk::OnDisk;
use super::write::{self, Target};
use super::{Request, RestoreError};

/// What is planned together, and so the most that one request brings: chunks in the same frame but far apart in the walk are fetched twice.
const WINDOW: u64 = 64 << 20;
/// Chunks planned together, for folders of small files.
const WINDOW_CHUNKS: u64 = 16 << 10;
/// Pages of a file's chunks that are read together.
const PAGES: usize = 8;

/// One step of the plan.
pub(super) type Work = Step<Arc<Target>>;

/// A file that is being planned.
struct Planned<'a> {
    target: Arc<Target>,
    on_disk: OnDisk,
    file: &'a File,
}

pub(super) struct Planner {
    request: Request,
    handle: Handle,
    out: mpsc::Sender<Work>,
    dry: bool,
    /// Nothing was in the staging folder before.
    fresh: bool,
    window: Vec<Wanted<Arc<Target>>>,
    bytes: u64,
    chunks: u64,
}

impl Planner {
    pub(super) fn new(mut request: Request, handle: Handle, out: mpsc::Sender<Work>) -> Self {
        request.local = request.local.filter(|local| write::has_entries(local));
        Self { request, handle, out, dry: false, fresh: false, window: vec![], bytes: 0, chunks: 0 }
    }

    /// Writes nothing.
    pub(super) fn dry(self) -> Self {
        Self { dry: true, ..self }
    }

    /// Plans everything.
    pub(super) fn run(mut self) -> Result<(), RestoreError> {
        self.add_up()?;
        let mut walk = self.request.objects.walk(&self.request.root);
        while let Some(entry) = self.handle.block_on(walk.next())? {
            if !self.entry(entry)? {
                return Ok(());
            }
        }
        self.flush();
        Ok(())
    }

    /// Refuses an index with more files or bytes than the manifest says.
    fn add_up(&self) -> Result<(), RestoreError> {
        let Request { objects, root, tally, .. } = &self.request;
        let mut tally = *tally;
        let mut walk = objects.walk(root);
        while let Some(entry) = self.handle.block_on(walk.next())? {
            let Kind::File(file) = &entry.kind else { continue };
            tally.add(file);
            if let Some(why) = tally.excess() {
                return Err(ReadError::Damaged { key: objects.key(root.page.object), why }.into());
            }
        }
        Ok(())
    }

    /// Whether anybody still wants the plan.
    fn entry(&mut self, entry: Entry) -> Result<bool, RestoreError> {
        let wanted = self.request.wants(entry.path.as_path());
        if wanted {
            self.request.progress.entries.fetch_add(1, Ordering::Relaxed);
        }
        let full = entry.path.under(&self.request.staging);
        match &entry.kind {
            Kind::Folder if !self.dry && wanted => {
                self.make_parents(&full)?;
                let new = write::make_folder(&full)?;
                // The top comes first, and what is below a new one is new.
                self.fresh |= new && entry.path == RelPath::root();
            }
            Kind::Link(to) if !self.dry && wanted => {
                self.make_parents(&full)?;
                write::link(&entry, to, &full)?;
            }
            Kind::File(file) if wanted => {
                let file = file.clone();
                return self.file(entry, &file);
            }
            _ => {}
        }
        Ok(true)
    }

    /// With a selection, a folder is made when something in it is wanted.
    fn make_parents(&self, full: &Path) -> io::Result<()> {
        match (&self.request.include, full.parent()) {
            (Some(_), Some(parent)) if !self.dry => std::fs::create_dir_all(parent),
            _ => Ok(()),
        }
    }

    fn file(&mut self, entry: Entry, file: &File) -> Result<bool, RestoreError> {
        let full = entry.path.under(&self.request.staging);
        self.make_parents(&full)?;
        self.request.progress.files.fetch_add(1, Ordering::Relaxed);
        let local = self.request.local.as_ref().map(|root| entry.path.under(root));
        let (target, on_disk) = Target::prepare(entry, full, self.fresh, local, self.dry)?;
        let planned = Planned { target: Arc::new(target), on_disk, file };
        match &file.content {
            Content::Inline(extents) => {
                if !self.extents(&planned, 0, extents)? {
                    return Ok(false);
                }
            }
            Content::Paged(pages) => {
                for (n, group) in pages.chunks(PAGES).enumerate() {
                    if !self.pages(&planned, n * PAGES, group)? {
                        return Ok(false);
                    }
                }
            }
        }
        if !self.dry {
            planned.target.planned()?;
        }
        Ok(true)
    }

    fn pages(&mut self, planned: &Planned<'_>, first: usize, pages: &[PageRef]) -> Result<bool, RestoreError> {
        let found = self.handle.block_on(self.request.objects.chunks(planned.file, first, pages))?;
        for (n, extents) in found.iter().enumerate() {
            let chunk = (first + n) as u64 * u64::from(CHUNKS_IN_PAGE);
            if !self.extents(planned, chunk, extents)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Plans the chunks from number `first` on, but for those that are on the disk already.
    fn extents(&mut self, planned: &Planned<'_>, mut first: u64, extents: &[Extent]) -> Result<bool, RestoreError> {
        let Planned { target, on_disk, file } = planned;
        for extent in extents {
            let chunks = u64::from(extent.chunks());
            if matches!(extent, Extent::Hole(_)) {
                let bytes = bytes_of(file, first, chunks);
                self.request.progress.placed.fetch_add(bytes, Ordering::Relaxed);
            } else {
                for (skip, extent) in on_disk.missing(target, file, first, extent, &self.request.progress, self.dry)? {
                    if !self.want(planned, first + u64::from(skip), extent) {
                        return Ok(false);
                    }
                }
            }
            first += chunks;
        }
        Ok(true)
    }

    fn want(&mut self, planned: &Planned<'_>, first: u64, extent: Extent) -> bool {
        let Planned { target, file, .. } = planned;
        let bytes = bytes_of(file, first, u64::from(extent.chunks()));
        if self.dry {
            self.request.progress.placed.fetch_add(bytes, Ordering::Relaxed);
        }
        target.expect_piece();
        self.bytes += bytes;
        self.chunks += u64::from(extent.chunks());
        let (size, chunk_size) = (file.size, file.chunk_size);
        self.window.push(Wanted { file: Arc::clone(target), size, chunk_size, first, extent });
        if self.bytes >= WINDOW || self.chunks >= WINDOW_CHUNKS { self.flush() } else { true }
    }

    /// Hands the window over; `false` when nobody takes it, because another part failed.
    fn flush(&mut self) -> bool {
        (self.bytes, self.chunks) = (0, 0);
        let window = std::mem::take(&mut self.window);
        let steps = plan::steps(&window, WINDOW);
        steps.into_iter().all(|step| self.out.blocking_send(step).is_ok())
    }
}

fn bytes_of(file: &File, first: u64, chunks: u64) -> u64 {
    let (begin, each) = (first * u64::from(file.chunk_size), u64::from(file.chunk_size));
    (begin + chunks * each).min(file.size).saturating_sub(begin.min(file.size))
}

#[cfg(test)]
mod tests {
    use perennial_shared::archive::chunk;
    use perennial_shared::archive::entry::{Identity, Time};

    use super::*;

    #[test]
    fn the_last_chunk_may_be_short() {
        let identity = Identity { inode: 0, ctime: Time { seconds: 0, nanos: 0 }, settled: true };
        let file = File { size: 40_000, chunk_size: chunk::DEFAULT, identity, content: Content::Inline(vec![]) };
        assert_eq!((bytes_of(&file, 0, 2), bytes_of(&file, 2, 1), bytes_of(&file, 0, 3)), (32_768, 7232, 40_000));
    }
}
