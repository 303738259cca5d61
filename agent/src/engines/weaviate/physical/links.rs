//! The capture folder: hard links and copies of Weaviate's files as they were in one instant.
//!
//! Nearly all of the work is done while the engine runs: [`Links::prepare`] links what it finds. What changed until the freeze is
//! told by a folder's own times, and in one that changed by the inode of each name, which its list already has. So
//! [`Links::settle`] touches only what is new, measures what grows, and copies what is changed in place. A link holds its inode, so that no other file can have the number meanwhile. What
//! is linked and no longer there at the freeze is dropped afterwards: nobody has to wait for that.

use std::collections::{BTreeMap, HashMap};
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
    folders: Vec<OsString>,
    /// When its list of names was last changed, if the list says all that there is to do in it.
    stamp: Option<Stamp>,
}

#[derive(Debug)]
struct Held {
    look: u32,
    treatment: Treatment,
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
            let Some(metadata) = if_there(&path, fs::metadata(&path), still)? else { continue };
            let stamp = stamp(&metadata);
            let mut known = match self.folders.remove(&folder) {
                Some(mut known) if still && known.stamp.is_some() && known.stamp == stamp => {
                    self.take_again(&path, &folder.under(&self.to), &mut known)?;
                    folders.extend(known.folders.iter().map(|name| folder.join(name)));
                    self.folders.insert(folder, known);
                    continue;
                }
                Some(known) => known,
                None => {
                    self.make(&folder, &metadata)?;
                    Folder::default()
                }
            };
            let entries = if_there(&path, fs::read_dir(&path), still)?;
            (known.look, known.stamp) = (self.look, stamp);
            known.folders.clear();
            let mut scratch = vec![];
            for entry in entries.into_iter().flatten() {
                let entry = at(&path, entry)?;
                let (name, kind) = (entry.file_name(), at(&path, entry.file_type())?);
                if kind.is_dir() {
                    if !name.to_str().is_some_and(layout::is_scratch) {
                        folders.push(folder.join(&name));
                        known.folders.push(name);
                    }
                } else if !kind.is_file() {
                    let why = "is no regular file; Perennial does not follow it, so its data would be missing";
                    return Err(io::Error::other(format!("{}: {why}", entry.path().display())));
                } else if let treatment @ (Treatment::Link | Treatment::Grow | Treatment::Copy) =
                    layout::of_file(&folder, &name)
                {
                    self.take(&folder, &mut known, &entry, name, treatment, still)?;
                } else {
                    scratch.extend(name.into_string().ok());
                }
            }
            if !scratch.is_empty() {
                known.stamp = None;
            }
            let switching = still && !scratch.is_empty() && {
                let met = known.files.iter().filter(|(_, held)| held.look == self.look);
                let met = met.filter_map(|(name, _)| name.to_str().map(ToOwned::to_owned));
                layout::is_switching(&met.chain(scratch).collect())
            };
            self.folders.insert(folder, known);
            if switching {
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

    /// Has the capture hold a file. What was held before and is the same file costs next to nothing.
    fn take(
        &self,
        folder: &RelPath,
        known: &mut Folder,
        entry: &DirEntry,
        name: OsString,
        treatment: Treatment,
        still: bool,
    ) -> io::Result<()> {
        if treatment == Treatment::Copy && !still && !layout::is_counter(&name) {
            known.stamp = None;
            return Ok(());
        }
        let place = |name: &OsStr| folder.join(name).under(&self.to);
        if let Some(held) = known.files.get_mut(&name) {
            if self.hold(held, entry, treatment, still, &|| place(&name))? {
                held.look = self.look;
            }
            return Ok(());
        }
        let mut held = Held { look: 0, treatment, inode: 0, length: None, stamp: None };
        if self.hold(&mut held, entry, treatment, still, &|| place(&name))? {
            held.look = self.look;
        }
        known.files.insert(name, held);
        Ok(())
    }

    /// The same for all of a folder whose list is what it was.
    fn take_again(&self, from: &Path, to: &Path, known: &mut Folder) -> io::Result<()> {
        let last = std::mem::replace(&mut known.look, self.look);
        for (name, held) in known.files.iter_mut().filter(|(_, held)| held.look == last) {
            held.look = self.look;
            if held.treatment == Treatment::Link {
                continue;
            }
            let path = from.join(name);
            let metadata = at(&path, fs::metadata(&path))?;
            if held.treatment == Treatment::Grow {
                held.length = Some(metadata.len());
            } else {
                copy(held, &metadata, &path, &to.join(name))?;
            }
        }
        Ok(())
    }

    /// Whether it is held now; not where it has just gone.
    fn hold(
        &self,
        held: &mut Held,
        entry: &DirEntry,
        treatment: Treatment,
        still: bool,
        to: &dyn Fn() -> PathBuf,
    ) -> io::Result<bool> {
        if treatment == Treatment::Copy {
            let Some(metadata) = if_there(&self.from, entry.metadata(), still)? else { return Ok(false) };
            let path = entry.path();
            return Ok(if_there(&path, copy(held, &metadata, &path, &to()), still)?.is_some());
        }
        if held.inode != entry.ino() {
            let to = to();
            if held.inode != 0 {
                at(&to, fs::remove_file(&to))?;
                held.inode = 0;
            }
            if if_there(&to, fs::hard_link(entry.path(), &to), still)?.is_none() {
                return Ok(false);
            }
            // Asked of the link, because the name may have got another file since the folder's list was read.
            held.inode = at(&to, fs::symlink_metadata(&to))?.ino();
        }
        if still && treatment == Treatment::Grow {
            held.length = Some(at(&self.from, entry.metadata())?.len());
        }
        Ok(true)
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

/// Copies a file that is not known to be what it was when it was copied before.
fn copy(held: &mut Held, metadata: &Metadata, from: &Path, to: &Path) -> io::Result<()> {
    let stamp = stamp(metadata);
    if held.stamp.is_none() || held.stamp != stamp {
        fs::copy(from, to)?;
        held.stamp = stamp;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn what_changed_between_the_looks_is_as_it_is_in_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("data"), folder.path().join("capture"));
        let (bucket, log) = (from.join("doc/s/lsm/objects"), from.join("doc/s/main.hnsw.commitlog.d"));
        fs::create_dir_all(&bucket).expect("made");
        fs::create_dir_all(&log).expect("made");
        fs::create_dir_all(from.join("gone/s")).expect("made");
        let write = |path: &Path, text: &str| fs::write(path, text).expect("written");
        write(&bucket.join("segment-1.db"), "one");
        write(&bucket.join("segment-2.db"), "two");
        write(&bucket.join("segment-3.wal"), "abc");
        write(&log.join("17"), "log");
        write(&from.join("doc/s/indexcount"), "1");
        write(&from.join("gone/s/indexcount"), "1");
        write(&from.join("schema.db"), "before");

        let mut links = Links::new(&from, &to, Arc::default()).expect("made");
        links.prepare().expect("linked");
        // A segment is cleaned under its own name, one is written out and its log is not yet removed, a collection goes.
        fs::remove_file(bucket.join("segment-1.db")).expect("removed");
        write(&bucket.join("segment-2.new"), "cleaned");
        fs::rename(bucket.join("segment-2.new"), bucket.join("segment-2.db")).expect("renamed");
        write(&bucket.join("segment-3.wal"), "abcdef");
        write(&bucket.join("segment-3.db"), "half of a pair");
        write(&bucket.join("segment-4.db.tmp"), "scratch");
        write(&log.join("17"), "longer log");
        write(&from.join("doc/s/indexcount"), "2");
        write(&from.join("schema.db"), "after");
        fs::remove_dir_all(from.join("gone")).expect("removed");
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(links.settle(soon).expect("looked at"), Seen::Whole);
        let lengths = links.finish().expect("finished");

        let bucket = to.join("doc/s/lsm/objects");
        let mut names: Vec<_> = fs::read_dir(&bucket).expect("read").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["segment-2.db", "segment-3.wal"]);
        assert_eq!(text(&bucket.join("segment-2.db")).as_deref(), Some("cleaned"));
        assert_eq!(text(&to.join("doc/s/indexcount")).as_deref(), Some("2"));
        assert_eq!(text(&to.join("schema.db")).as_deref(), Some("after"));
        assert!(!to.join("gone").exists());
        let lengths: Vec<_> = lengths.iter().map(|(path, length)| (path.to_string(), *length)).collect();
        let of = |path: &str, length| (path.to_owned(), length);
        assert_eq!(lengths, [of("doc/s/lsm/objects/segment-3.wal", 6), of("doc/s/main.hnsw.commitlog.d/17", 10)]);
    }

    #[test]
    fn a_look_is_given_up_when_it_takes_too_long_or_a_bucket_is_between_two_states() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("data"), folder.path().join("capture"));
        fs::create_dir(&from).expect("made");
        for name in ["segment-2.db", "segment-1_2.db.tmp"] {
            fs::write(from.join(name), "x").expect("written");
        }
        let mut links = Links::new(&from, &to, Arc::default()).expect("made");
        links.prepare().expect("linked");
        links.settle(Instant::now()).expect_err("no time");
        let soon = || Instant::now() + Duration::from_secs(60);
        assert_eq!(links.settle(soon()).expect("looked at"), Seen::Switching(from.clone()));
        fs::rename(from.join("segment-1_2.db.tmp"), from.join("segment-2.db")).expect("switched");
        assert_eq!(links.settle(soon()).expect("looked at"), Seen::Whole);
        std::os::unix::fs::symlink("/etc", from.join("elsewhere")).expect("linked");
        links.settle(soon()).expect_err("what is elsewhere would be missing");
    }
}
