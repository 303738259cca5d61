//! The index of a backup made of archives, read from its first entry to its last, with the memory of a few pages.
//!
//! Every page is checked by its hash, every entry by the format's rules, and every frame that a file has a part in must
//! lie within its object; and there may be no more files and bytes than the manifest says. What is to be read of the
//! data comes out on the way.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::plan::{Planner, Step};
use super::report::{Damages, blamed};
use crate::archive::entry::{CHUNKS_IN_PAGE, Content, Entry, Extent, File, FrameRef, Kind};
use crate::archive::frame;
use crate::archive::index::Root;
use crate::archive::objects::{Objects, ReadError};
use crate::archive::path::RelPath;
use crate::archive::plan::Wanted;
use crate::archive::tally::Tally;

/// Pages of a file's chunks that are read together.
const PAGES: usize = 8;
/// Compressed and encrypted, a frame is this much larger than its content at most.
const OVERHEAD: usize = 128 << 10;

/// Reads an index.
pub(super) struct Structure {
    pub(super) objects: Objects,
    pub(super) root: Root,
    /// What the files may add up to.
    pub(super) tally: Tally,
    /// Sizes of the objects.
    pub(super) sizes: Vec<u64>,
    pub(super) deadline: Option<Instant>,
    pub(super) planner: Planner,
    pub(super) out: mpsc::Sender<Step>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Regular files.
    pub(super) files: u64,
    /// What is wrong with the index.
    pub(super) damage: Damages,
    /// Why the index was not read to its end.
    pub(super) ended: Option<String>,
    /// Whether it was, and every page of it was right.
    pub(super) complete: bool,
}

/// Why reading stopped.
enum Stop {
    /// The walk cannot go on.
    Read(ReadError),
    Late,
    /// Nobody takes the steps any more.
    Unwanted,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Structure {
    /// Reads it, and sends what is to be fetched.
    pub(super) async fn run(mut self) -> Seen {
        let mut seen = Seen { complete: true, ..Seen::default() };
        match self.walk(&mut seen).await {
            Ok(()) => {}
            Err(Stop::Unwanted) => seen.complete = false,
            Err(Stop::Late) => seen.end(format!("time ran out: the index was read for {} files only", seen.files)),
            Err(Stop::Read(e)) => match blamed(e) {
                Ok((key, why)) => seen.damage(&key, why),
                Err(doubt) => seen.end(doubt),
            },
        }
        if let Some(why) = self.tally.excess() {
            seen.damage(&self.objects.key(self.root.page.object), why);
        }
        if !send_all(self.planner.finish(), &self.out).await {
            seen.complete = false;
        }
        seen
    }

    async fn walk(&mut self, seen: &mut Seen) -> Result<(), Stop> {
        let mut walk = self.objects.walk(&self.root);
        while let Some(entry) = walk.next().await? {
            if self.deadline.is_some_and(|d| Instant::now() >= d) {
                return Err(Stop::Late);
            }
            let Entry { path, kind: Kind::File(file), .. } = entry else { continue };
            seen.files += 1;
            self.tally.add(&file);
            self.file(path, &file, seen).await?;
        }
        Ok(())
    }

    async fn file(&mut self, path: RelPath, file: &File, seen: &mut Seen) -> Result<(), Stop> {
        let path = Arc::new(path);
        let pages = match &file.content {
            Content::Inline(extents) => return self.extents(&path, file, 0, extents, seen).await,
            Content::Paged(pages) => pages,
        };
        for (n, group) in pages.chunks(PAGES).enumerate() {
            let first = n * PAGES;
            let found = match self.objects.chunks(file, first, group).await {
                Ok(found) => found,
                Err(e) if e.is_damage() => {
                    // The other files can still be looked at.
                    if let Ok((key, why)) = blamed(e) {
                        seen.damage(&key, format!("{why} ({path})"));
                    }
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            for (page, extents) in (first..).zip(found) {
                let chunk = page as u64 * u64::from(CHUNKS_IN_PAGE);
                self.extents(&path, file, chunk, &extents, seen).await?;
            }
        }
        Ok(())
    }

    async fn extents(
        &mut self,
        path: &Arc<RelPath>,
        file: &File,
        mut first: u64,
        extents: &[Extent],
        seen: &mut Seen,
    ) -> Result<(), Stop> {
        for extent in extents {
            if let Extent::Stored { frame, .. } = extent {
                if let Some(why) = self.misplaced(frame) {
                    seen.damage(&self.objects.key(self.root.page.object), format!("{why} ({path})"));
                } else if self.planner.wants(frame) {
                    let (size, chunk_size, extent) = (file.size, file.chunk_size, extent.clone());
                    let wanted = Wanted { file: Arc::clone(path), size, chunk_size, first, extent };
                    if let Some((frame, piece)) = wanted.into_piece() {
                        self.planner.add(frame, piece);
                    }
                }
            }
            first += u64::from(extent.chunks());
        }
        if send_all(self.planner.take(), &self.out).await { Ok(()) } else { Err(Stop::Unwanted) }
    }

    /// Why there can be no such frame.
    fn misplaced(&self, frame: &FrameRef) -> Option<String> {
        let FrameRef { object, offset, length } = *frame;
        let Some(size) = self.sizes.get(object as usize) else {
            return Some(format!("a file has a part in object {object}, which the manifest does not name"));
        };
        let end = offset.saturating_add(u64::from(length));
        if end > *size || length as usize > frame::LARGEST + OVERHEAD {
            let key = self.objects.key(object);
            return Some(format!("a file has a part in the frame at {offset} of {key}, where none can be"));
        }
        None
    }
}

/// Whether somebody took them.
pub(super) async fn send_all(steps: Vec<Step>, out: &mpsc::Sender<Step>) -> bool {
    for step in steps {
        if out.send(step).await.is_err() {
            return false;
        }
    }
    true
}

impl Seen {
    fn damage(&mut self, key: &str, what: String) {
        self.complete = false;
        self.damage.add(key, what);
    }

    fn end(&mut self, why: String) {
        self.complete = false;
        self.ended = Some(why);
    }
}
