//! What the index says of one file: what it was, and where its chunks are.

use serde::{Deserialize, Serialize};

use super::chunk::{self, ChunkHash};
use super::page::PageRef;
use super::path::{LONGEST, RelPath};

/// Chunks of a large file that stand in one page: their hashes are 32 KiB.
pub const CHUNKS_IN_PAGE: u32 = 2048;
/// A file with no more chunks than this keeps them in its entry.
pub const CHUNKS_INLINE: u64 = 64;

/// One file, folder or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where, below the archived folder.
    pub path: RelPath,
    /// Permission bits, without the file type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content was changed last.
    pub mtime: Time,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link and what it says.
    Link(Vec<u8>),
    /// A regular file.
    File(File),
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// A power of two from 2 KiB to 1 MiB.
    pub chunk_size: u32,
    /// Tells whether the file needs to be read again.
    pub identity: Identity,
    /// Where its chunks are.
    pub content: Content,
}

/// By what a file on the same machine is known to be unchanged, together with its size and mtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// When its inode was changed last.
    pub ctime: Time,
    /// Whether it was old enough when it was read. A file that changes again within the clock's tick looks unchanged.
    pub settled: bool,
}

/// Where a file's chunks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Here.
    Inline(Vec<Extent>),
    /// In pages of [`CHUNKS_IN_PAGE`] chunks each, but for the last.
    Paged(Vec<PageRef>),
}

/// Chunks that follow each other in a file, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// So many chunks of zeros that the file system does not store.
    Hole(u32),
    /// Chunks that follow each other in a frame too.
    Stored {
        /// The frame.
        frame: FrameRef,
        /// Where the first of them begins in the decompressed frame.
        at: u32,
        /// Their hashes.
        hashes: Vec<ChunkHash>,
    },
}

/// A frame of an object of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameRef {
    /// Number of the object in the manifest's table.
    pub object: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

impl Extent {
    /// Chunks.
    pub fn chunks(&self) -> u32 {
        match self {
            Self::Hole(chunks) => *chunks,
            Self::Stored { hashes, .. } => u32::try_from(hashes.len()).unwrap_or(u32::MAX),
        }
    }

    /// The part that holds `count` chunks from the `skip`-th on.
    #[must_use]
    pub fn part(&self, skip: u32, count: u32, chunk_size: u32) -> Self {
        match self {
            Self::Hole(_) => Self::Hole(count),
            Self::Stored { frame, at, hashes } => Self::Stored {
                frame: *frame,
                at: at + skip * chunk_size,
                hashes: hashes[skip as usize..(skip + count) as usize].to_vec(),
            },
        }
    }
}

/// Appends an extent; one that goes on where the last one ends becomes part of it, so that equal content has one spelling.
pub fn push(extents: &mut Vec<Extent>, next: Extent, chunk_size: u32) {
    match (extents.last_mut(), next) {
        (_, Extent::Hole(0)) => {}
        (Some(Extent::Hole(chunks)), Extent::Hole(more)) => *chunks += more,
        (
            Some(Extent::Stored { frame, at, hashes }),
            Extent::Stored { frame: next_frame, at: next_at, hashes: more },
        ) if *frame == next_frame
            && u64::from(*at) + hashes.len() as u64 * u64::from(chunk_size) == u64::from(next_at) =>
        {
            hashes.extend(more);
        }
        (_, Extent::Stored { hashes, .. }) if hashes.is_empty() => {}
        (_, next) => extents.push(next),
    }
}

impl Entry {
    /// Whoever can write to the repository could have written this, so what does not hold together is refused.
    pub fn check(&self) -> Result<(), String> {
        self.path.check()?;
        if self.mtime.nanos >= 1_000_000_000 || self.mode > 0o7777 {
            return Err(format!("{}: no such time or mode", self.path));
        }
        match &self.kind {
            Kind::Folder => Ok(()),
            _ if self.path.as_bytes().is_empty() => Err("the archived folder is not a folder".into()),
            Kind::Link(to) if to.is_empty() || to.len() >= LONGEST || to.contains(&0) => {
                Err(format!("{}: no such link can exist", self.path))
            }
            Kind::Link(_) => Ok(()),
            Kind::File(file) => file.check().map_err(|why| format!("{}: {why}", self.path)),
        }
    }
}

impl File {
    fn check(&self) -> Result<(), String> {
        if !chunk::is_valid_size(self.chunk_size) || i64::try_from(self.size).is_err() {
            return Err("no such chunk size or file size".into());
        }
        let chunks = chunk::count(self.size, self.chunk_size);
        match &self.content {
            Content::Inline(extents) => check_extents(extents, chunks, self.chunk_size),
            Content::Paged(pages) if pages.len() as u64 == chunks.div_ceil(u64::from(CHUNKS_IN_PAGE)) => Ok(()),
            Content::Paged(pages) => Err(format!("{chunks} chunks cannot be in {} pages", pages.len())),
        }
    }

    /// How many chunks page number `page` of its chunks must have.
    pub fn chunks_of_page(&self, page: usize) -> u64 {
        let before = page as u64 * u64::from(CHUNKS_IN_PAGE);
        chunk::count(self.size, self.chunk_size).saturating_sub(before).min(u64::from(CHUNKS_IN_PAGE))
    }
}

/// Extents must have exactly `chunks` chunks, and no chunk may lie outside of what a frame can be.
pub fn check_extents(extents: &[Extent], chunks: u64, chunk_size: u32) -> Result<(), String> {
    let mut sum = 0_u64;
    for extent in extents {
        sum += u64::from(extent.chunks());
        if let Extent::Stored { frame, at, hashes } = extent {
            // The last chunk of a file may be shorter, so this is one chunk generous.
            let end = u64::from(*at) + (hashes.len() as u64).saturating_sub(1) * u64::from(chunk_size);
            if end > super::frame::LARGEST as u64 || frame.offset.checked_add(u64::from(frame.length)).is_none() {
                return Err("a chunk lies outside of its frame".into());
            }
        }
    }
    if sum == chunks { Ok(()) } else { Err(format!("{sum} chunks are listed, the file has {chunks}")) }
}
