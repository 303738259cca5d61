//! The files of an index, added up and held against what its manifest says of them. Pure.
//!
//! A hole, and a chunk that many files share, cost an index next to nothing, so a small one can list more than any disk
//! holds. Each page is vouched for by the root's hash; that the sum is the one that was captured, only the manifest
//! tells.

use super::entry::File;
use crate::manifest::Archive;

/// A capture that is not [`Archive::exact`] counted a file of up to this size as it was met, and took it as it was
/// read: by then it may have grown up to this size. It counted every larger one as it was read.
const GREW_TO: u64 = 1 << 20;

/// A sum, and what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    said_files: u64,
    said_bytes: u64,
    exact: bool,
    files: u64,
    bytes: u64,
    /// Bytes of the files that the capture counted as it read them.
    counted: u64,
}

impl Tally {
    /// Of a backup; nothing is added up yet.
    pub fn of(archive: &Archive) -> Self {
        let Archive { files: said_files, data_bytes: said_bytes, exact, .. } = *archive;
        Self { said_files, said_bytes, exact, files: 0, bytes: 0, counted: 0 }
    }

    /// One more file of the index.
    pub fn add(&mut self, file: &File) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(file.size);
        if self.exact || file.size > GREW_TO {
            self.counted = self.counted.saturating_add(file.size);
        }
    }

    /// What is wrong, once there is more than the manifest says.
    pub fn excess(&self) -> Option<String> {
        let is_more = self.files > self.said_files || self.counted > self.said_bytes;
        let Self { files, bytes, said_files, said_bytes, .. } = self;
        is_more.then(|| {
            format!(
                "it lists {files} files with {bytes} bytes or more, the manifest says {said_files} with {said_bytes}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::chunk;
    use crate::archive::entry::{Content, Identity, Time};

    /// Whether an index with files of these sizes is one file or byte too many for a manifest.
    fn is_refused(sizes: &[u64], said_files: u64, said_bytes: u64, exact: bool) -> bool {
        let mut tally = Tally { said_files, said_bytes, exact, files: 0, bytes: 0, counted: 0 };
        for size in sizes {
            let identity = Identity { inode: 0, ctime: Time { seconds: 0, nanos: 0 }, settled: true };
            tally.add(&File { size: *size, chunk_size: chunk::SMALLEST, identity, content: Content::Inline(vec![]) });
        }
        tally.excess().is_some()
    }

    #[test]
    fn no_file_and_no_byte_is_added() {
        for exact in [true, false] {
            assert!(!is_refused(&[], 0, 0, exact));
            assert!(!is_refused(&[5 << 20, 7], 2, (5 << 20) + 7, exact));
            assert!(is_refused(&[5 << 20, 7], 1, (5 << 20) + 7, exact), "a file too many");
            assert!(is_refused(&[5 << 20, 7], 2, (5 << 20) - 1, exact), "a byte too many");
            assert!(is_refused(&[u64::MAX, u64::MAX], 2, u64::MAX - 1, exact), "no sum wraps around");
            assert!(!is_refused(&[5 << 20, 7], 9, 9 << 20, exact), "files that had gone when they were to be read");
        }
    }

    #[test]
    fn what_grew_between_two_looks_is_no_excess_where_it_was_counted_before() {
        let grown = [1 << 20, 1 << 20, 3 << 20];
        assert!(!is_refused(&grown, 3, 3 << 20, false));
        assert!(is_refused(&grown, 3, 3 << 20, true));
        assert!(is_refused(&grown, 3, (3 << 20) - 1, false), "the larger file was counted as it was read");
        assert!(is_refused(&[(1 << 20) + 1], 1, 0, false), "no file grew as far");
    }
}
