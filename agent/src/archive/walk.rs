//! A folder's entries in the order of the index: a folder before what is in it, names by their bytes.
//!
//! Memory: the names of the folders on the way down, nothing else.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use perennial_shared::archive::entry::{Entry, Kind, Time};
use perennial_shared::archive::path::RelPath;

use super::source::Source;

/// What a walk meets.
pub(super) enum Met {
    /// A folder or symbolic link, whole.
    Whole(Entry),
    /// A regular file, as it was a moment ago.
    File(RelPath, Metadata),
    /// A folder that is as it is in the parent.
    Kept(RelPath),
    /// Something that is not archived, and why.
    Skipped(String),
}

/// Walks a folder.
pub(super) struct Walk<'a> {
    source: &'a Source,
    /// Names still to visit, last first, of each folder on the way down.
    levels: Vec<(RelPath, Vec<OsString>)>,
    begun: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, levels: vec![], begun: false }
    }

    /// The next entry; a folder that cannot be read is an error, one that has just gone is not met.
    pub(super) fn next(&mut self) -> io::Result<Option<Met>> {
        if !self.begun {
            self.begun = true;
            return self.visit(RelPath::root());
        }
        while let Some((folder, names)) = self.levels.last_mut() {
            let Some(name) = names.pop() else {
                self.levels.pop();
                continue;
            };
            let path = folder.join(&name);
            if self.levels.len() == 1 && self.source.without.iter().any(|w| name == w.as_str()) {
                continue;
            }
            if let Some(met) = self.visit(path)? {
                return Ok(Some(met));
            }
        }
        Ok(None)
    }

    fn visit(&mut self, path: RelPath) -> io::Result<Option<Met>> {
        if self.source.kept.contains(&path) {
            return Ok(Some(Met::Kept(path)));
        }
        let full = path.under(&self.source.root);
        // The top may be a link to where the data is; of its modes and owner those of the folder count.
        let look = if path == RelPath::root() { fs::metadata(&full) } else { fs::symlink_metadata(&full) };
        let metadata = match look {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound && path != RelPath::root() => return Ok(None),
            Err(e) => return Err(named(&full, &e)),
        };
        let kind = metadata.file_type();
        if kind.is_dir() || path == RelPath::root() {
            match names(&full) {
                Ok(names) => self.levels.push((path.clone(), names)),
                Err(e) if e.kind() == io::ErrorKind::NotFound && path != RelPath::root() => return Ok(None),
                Err(e) => return Err(named(&full, &e)),
            }
            return Ok(Some(Met::Whole(entry(path, &metadata, Kind::Folder))));
        }
        if kind.is_file() {
            return Ok(Some(Met::File(path, metadata)));
        }
        if !kind.is_symlink() {
            return Ok(Some(Met::Skipped(format!("{path} is a socket, pipe or device and was left out"))));
        }
        match fs::read_link(&full) {
            Ok(to) => Ok(Some(Met::Whole(entry(path, &metadata, Kind::Link(to.into_os_string().into_vec()))))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(named(&full, &e)),
        }
    }
}

/// The names in a folder, in the reverse of their order.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<_> = fs::read_dir(folder)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// An entry of what the file system says.
pub(super) fn entry(path: RelPath, metadata: &Metadata, kind: Kind) -> Entry {
    Entry {
        path,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: mtime(metadata),
        kind,
    }
}

pub(super) fn mtime(metadata: &Metadata) -> Time {
    Time { seconds: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) }
}

pub(super) fn ctime(metadata: &Metadata) -> Time {
    Time { seconds: metadata.ctime(), nanos: u32::try_from(metadata.ctime_nsec()).unwrap_or(0) }
}

/// When the file was made; `None` where the file system does not say.
pub(super) fn born(metadata: &Metadata) -> Option<Time> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Time { seconds: i64::try_from(since.as_secs()).ok()?, nanos: since.subsec_nanos() })
}

/// The system's errors do not say which file.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
