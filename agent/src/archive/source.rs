//! What is archived: a folder, and what its owner promises about the files in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use perennial_shared::archive::path::RelPath;

/// A folder to archive.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The folder.
    pub root: PathBuf,
    /// Files of which only so many first bytes belong to the capture: append-only files that go on growing.
    pub lengths: BTreeMap<RelPath, u64>,
    /// Whether files keep their inode, size and mtime only while they keep their content, whatever their ctime says: hard links made for
    /// a capture change the ctime of what they link.
    pub ctime_is_ours: bool,
    /// Folders, empty here, whose content is what it is in the parent: nobody has to copy what did not change. Only for increments.
    pub kept: Vec<RelPath>,
    /// Names directly below the root that are left out.
    pub without: Vec<String>,
}

impl Source {
    /// All of a folder.
    pub fn folder(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }
}
