//! Files that stand elsewhere than in the parent: renamed, moved, or rotated as logs are. A file keeps its inode number on the way.
//!
//! A number that is free is given to the next file that is made, and that one is told by the time it was made: later than the parent saw
//! the one before. What is found is only where to look for the same chunks: each is compared by its hash. Looking means to read the parent's index a second time, so it is begun by a file
//! that would be dear to store again, and it remembers no more than [`MOST`] files, the first ones, of a few chunks at least.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use perennial_shared::archive::entry::{File, Kind};
use perennial_shared::archive::objects::{ReadError, Walk};

use super::walk;

/// A new file of this size has the parent's index read.
pub(super) const DEAR: u64 = 1 << 20;
/// Smaller files are not worth a place in memory.
const LEAST: u64 = 64 << 10;
/// Files that are remembered; each takes about 1 KiB.
const MOST: usize = 32 << 10;

/// The parent's files by their inode numbers.
#[derive(Debug, Default)]
pub(super) struct Moved(HashMap<u64, File>);

impl Moved {
    /// Reads the index.
    pub(super) async fn read(mut walk: Walk) -> Result<Self, ReadError> {
        let mut files = HashMap::new();
        while files.len() < MOST
            && let Some(entry) = walk.next().await?
        {
            if let Kind::File(file) = entry.kind
                && file.size >= LEAST
            {
                files.insert(file.identity.inode, file);
            }
        }
        Ok(Self(files))
    }

    /// What the file was in the parent, wherever it stood.
    pub(super) fn file(&self, metadata: &Metadata) -> Option<&File> {
        let born = walk::born(metadata)?;
        self.0.get(&metadata.ino()).filter(|file| born <= file.identity.ctime)
    }
}
