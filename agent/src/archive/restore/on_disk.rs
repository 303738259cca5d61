//! What of a file is on the disk already: in the staging folder of an interrupted restore, or in the data that is replaced.
//!
//! Its files are open only while one file is planned. What is planned waits in a window of thousands of small files, and
//! a process may have no more than some hundred open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use perennial_shared::archive::chunk::{self, ChunkHash};
use perennial_shared::archive::entry::{self, Extent};

use super::Counters;
use super::write::Target;

/// Files that may have the chunks of one file that is brought back.
#[derive(Debug, Default)]
pub(super) struct OnDisk(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    file: File,
    length: u64,
    /// It is the very file that is being brought back.
    itself: bool,
}

impl OnDisk {
    /// One more file that may have chunks. What is not there, or cannot be read, has none.
    pub(super) fn add(&mut self, path: &Path, itself: bool) {
        let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(no_follow.bits().cast_signed()).open(path);
        let Ok(file) = opened else { return };
        if let Some(metadata) = file.metadata().ok().filter(fs::Metadata::is_file) {
            self.0.push(Candidate { file, length: metadata.len(), itself });
        }
    }

    /// The parts of an extent whose chunks are not on the disk, as (chunks to skip, extent). What another file on the disk
    /// has is copied, unless nothing is to be written.
    pub(super) fn missing(
        &self,
        target: &Target,
        file: &entry::File,
        first: u64,
        extent: &Extent,
        progress: &Counters,
        dry: bool,
    ) -> io::Result<Vec<(u32, Extent)>> {
        let Extent::Stored { hashes, .. } = extent else { return Ok(vec![]) };
        if self.0.is_empty() {
            return Ok(vec![(0, extent.clone())]);
        }
        let (mut missing, mut begin): (Vec<(u32, Extent)>, Option<u32>) = (vec![], None);
        let count = extent.chunks();
        for (n, hash) in (0..count).zip(hashes) {
            let offset = (first + u64::from(n)) * u64::from(file.chunk_size);
            let length = chunk::length(file.size, file.chunk_size, first + u64::from(n));
            if self.found(target, offset, length, *hash, dry)? {
                progress.found.fetch_add(u64::from(length), Ordering::Relaxed);
                progress.placed.fetch_add(u64::from(length), Ordering::Relaxed);
                if let Some(begin) = begin.take() {
                    missing.push((begin, extent.part(begin, n - begin, file.chunk_size)));
                }
            } else if begin.is_none() {
                begin = Some(n);
            }
        }
        if let Some(begin) = begin {
            missing.push((begin, extent.part(begin, count - begin, file.chunk_size)));
        }
        Ok(missing)
    }

    /// Whether a chunk is on the disk; it is in place when this returns true.
    fn found(&self, target: &Target, offset: u64, length: u32, hash: ChunkHash, dry: bool) -> io::Result<bool> {
        let mut bytes = vec![0; length as usize];
        for candidate in self.0.iter().filter(|c| c.length >= offset + u64::from(length)) {
            // What cannot be read on this disk is fetched.
            if candidate.file.read_exact_at(&mut bytes, offset).is_ok() && ChunkHash::of(&bytes) == hash {
                if !candidate.itself && !dry {
                    target.write(&bytes, offset)?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}
