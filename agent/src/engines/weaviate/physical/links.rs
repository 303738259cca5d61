//! The capture folder: hard links and copies of Weaviate's files as they were in one instant.
//!
//! Nearly all of the work is done while the engine runs: [`Links::prepare`] links what it finds. What changed until the freeze is
//! told by the inode of each name, which a folder's list already has, so [`Links::settle`] touches only what is new, measures what
//! grows, and copies what is changed in place. A link holds its inode, so that no other file can have the number meanwhile. What
//! is linked and no longer there at the freeze is dropped afterwards: nobody has to wait for that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use perennial_shared::archive::path::RelPath;

use super::layout::{self, Treatment};

/// A file that was changed this recently may be changed again within the same tick of its clock.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// What a look at the files while the engine stood still gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All of them, as the engine could start with them.
    Whole,
    /// A bucket was between two states.
    Switching(PathBuf),
}

/// A capture folder that is being filled.
#[derive(Debug)]
pub(super) struct Links {
    from: PathBuf,
    to: PathBuf,
    /// Whose the data folder is, when what is made here would be another's.
    owner: Option<(u32, u32)>,
    folders: HashMap<RelPath, Folder>,
    /// Counts the looks, so that what was not met in the last one is known.
    look: u32,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Folder {
    look: u32,
    files: HashMap<OsString, Held>,
}

#[derive(Debug, Default)]
struct Held {
    look: u32,
    inode: u64,
    /// Of a file that grows: its length in the freeze.
    length: Option<u64>,
    /// Of a copy: when its source was last changed, if that was long enough ago to tell a later change.
    stamp: Option<Stamp>,
}

type Stamp = (u64, u64, i64, i64, i64, i64);

impl Links {
    /// An empty folder `to` for the files of `from`. It gives up when `stop` is set.
    pub(super) fn new(from: &Path, to: &Path, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let found = at(from, fs::metadata(from))?;
        let is_ours =
            (found.uid(), found.gid()) == (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = (rustix::process::geteuid().is_root() && !is_ours).then(|| (found.uid(), found.gid()));
        Ok(Self { from: from.into(), to: to.into(), owner, folders: HashMap::new(), look: 0, stop })
    }

    /// Links and copies what can be while the engine runs.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        self.walk(None).map(|_| ())
    }

    /// Makes the folder what the engine's files are now. The engine must stand still, until `deadline` at most.
    pub(super) fn settle(&mut self, deadline: Instant) -> io::Result<Seen> {
        self.walk(Some(deadline))
    }

    fn walk(&mut self, deadline: Option<Instant>) -> io::Result<Seen> {
        self.look += 1;
        let mut folders = vec![RelPath::root()];
        while let Some(folder) = folders.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("the capture was told to stop"));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                let why = "its files could not be caught within the time that the engine may stand still; nothing was changed";
                return Err(io::Error::other(format!("{}: {why}", self.from.display())));
            }
            let path = folder.under(&self.from);
            let still = deadline.is_some();
            let Some(entries) = if_there(&path, fs::read_dir(&path), still)? else { continue };
            if !self.folders.contains_key(&folder) {
                let Some(metadata) = if_there(&path, fs::metadata(&path), still)? else { continue };
                self.make(&folder, &metadata)?;
            }
            let mut known = self.folders.remove(&folder).unwrap_or_default();
            known.look = self.look;
            let mut names = BTreeSet::new();
            for entry in entries {
                let entry = at(&path, entry)?;
                let (name, kind) = (entry.file_name(), at(&path, entry.file_type())?);
                if kind.is_dir() {
                    if !name.to_str().is_some_and(layout::is_scratch) {
                        folders.push(folder.join(&name));
                    }
                } else if kind.is_file() {
                    let treatment = layout::of_file(&folder, &name);
                    if treatment != Treatment::Skip {
                        self.take(&folder, &mut known, &entry, &name, treatment, still)?;
                    }
                    names.extend(name.into_string().ok());
                } else {
                    let why = "is no regular file; Perennial does not follow it, so its data would be missing";
                    return Err(io::Error::other(format!("{}: {why}", entry.path().display())));
                }
            }
            self.folders.insert(folder, known);
            if still && layout::is_switching(&names) {
                return Ok(Seen::Switching(path));
            }
        }
        Ok(Seen::Whole)
    }

    fn make(&self, folder: &RelPath, like: &Metadata) -> io::Result<()> {
        let path = folder.under(&self.to);
        let mode = like.mode() & 0o7777;
        at(&path, fs::DirBuilder::new().mode(mode | 0o700).create(&path))?;
        at(&path, fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o700)))?;
        self.give(&path)
    }

    /// What is made here belongs to whom the data belongs to.
    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => at(path, chown(path, Some(user), Some(group))),
            None => Ok(()),
        }
    }

    fn take(
        &self,
        folder: &RelPath,
        known: &mut Folder,
        entry: &DirEntry,
        name: &OsStr,
        treatment: Treatment,
        still: bool,
    ) -> io::Result<()> {
        let held = known.files.entry(name.to_owned()).or_default();
        let to = || folder.join(name).under(&self.to);
        if treatment == Treatment::Copy {
            if !still && !layout::is_counter(name) {
                return Ok(());
            }
            let path = entry.path();
            let Some(metadata) = if_there(&path, fs::metadata(&path), still)? else { return Ok(()) };
            let stamp = stamp(&metadata);
            if held.stamp.is_none() || held.stamp != stamp {
                if if_there(&path, fs::copy(&path, to()), still)?.is_none() {
                    return Ok(());
                }
                held.stamp = stamp;
            }
        } else {
            if held.inode != entry.ino() {
                let to = to();
                if held.inode != 0 {
                    at(&to, fs::remove_file(&to))?;
                    held.inode = 0;
                }
                if if_there(&to, fs::hard_link(entry.path(), &to), still)?.is_none() {
                    return Ok(());
                }
                // Asked of the link, because the name may have got another file since the folder's list was read.
                held.inode = at(&to, fs::symlink_metadata(&to))?.ino();
            }
            if still && treatment == Treatment::Grow {
                held.length = Some(at(&self.to, fs::metadata(entry.path()))?.len());
            }
        }
        held.look = self.look;
        Ok(())
    }

    /// The engine runs again: drops what was no longer there, and of each pair the one that the engine would not believe. The
    /// lengths of the files that grow.
    pub(super) fn finish(self) -> io::Result<BTreeMap<RelPath, u64>> {
        let mut lengths = BTreeMap::new();
        for (path, folder) in &self.folders {
            let place = path.under(&self.to);
            if folder.look != self.look {
                remove_all(&place)?;
                continue;
            }
            let (met, gone): (Vec<_>, Vec<_>) = folder.files.iter().partition(|(_, held)| held.look == self.look);
            let names = met.iter().filter_map(|(name, _)| name.to_str().map(ToOwned::to_owned)).collect();
            let superseded = layout::superseded(&names);
            for name in gone.iter().map(|(name, _)| name.as_os_str()).chain(superseded.iter().map(OsStr::new)) {
                remove(&place.join(name))?;
            }
            for (name, held) in met {
                if held.stamp.is_some() || held.inode == 0 {
                    self.give(&place.join(name))?;
                }
                lengths.extend(held.length.map(|length| (path.join(name), length)));
            }
        }
        Ok(lengths)
    }
}

/// `None` while it is too early to tell a change from this one.
fn stamp(found: &Metadata) -> Option<Stamp> {
    let changed = found.ctime().max(found.mtime());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = u64::try_from(changed).is_ok_and(|changed| Duration::from_secs(changed) + SETTLES_AFTER < now);
    settled.then(|| (found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}

/// What the system said of `path`; `None` where it has just gone, which cannot be while the engine stands still.
fn if_there<T>(path: &Path, result: io::Result<T>, still: bool) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound && !still => Ok(None),
        result => at(path, result).map(Some),
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => at(path, result),
    }
}

/// Removes a folder and all in it; none is fine.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => at(path, result),
    }
}
