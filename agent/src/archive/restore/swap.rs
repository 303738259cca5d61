//! The staged folder takes the target's place.
//!
//! Two renames in one folder, so each is atomic; between them nothing stands at the target's name. A crash in between is known by
//! its names: [`finish`] called again goes on where it ended. The old folder stays until [`forget_old`], or until [`undo`] puts it
//! back; a second try of the same restore never takes the first one's remains for it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::archive::walk::named;

/// The folders of one restore, side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the data belongs.
    pub target: PathBuf,
    /// Where it is put together.
    pub staging: PathBuf,
    /// Where what was there before is kept.
    pub old: PathBuf,
    /// What is on its way out: an earlier try of the same restore, or what was taken back.
    pub gone: PathBuf,
}

impl Places {
    /// For a restore called `tag` into `target`, which must be a folder that can be renamed.
    pub fn new(target: &Path, tag: &str) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the data folder has no name"))?.to_string_lossy();
        let parent = target.parent().ok_or_else(|| io::Error::other("the data folder is in no folder"))?;
        refuse_mount_point(target, parent)?;
        Ok(Self {
            target: target.to_owned(),
            staging: parent.join(format!(".{name}.perennial-new-{tag}")),
            old: parent.join(format!(".{name}.perennial-old-{tag}")),
            gone: parent.join(format!(".{name}.perennial-gone-{tag}")),
        })
    }
}

/// Where restores of other backups into the same place were put together that did not come to their end. Nothing of them is
/// anybody's data, and beside them the disk may have no room.
pub fn other_stagings(staging: &Path, tag: &str) -> io::Result<Vec<PathBuf>> {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let own = name(staging);
    let (Some(start), Some(parent)) = (own.strip_suffix(tag).filter(|s| !s.is_empty()), staging.parent()) else {
        return Ok(vec![]);
    };
    let mut found = vec![];
    let entries = match fs::read_dir(parent) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|e| named(parent, &e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| named(parent, &e))?.path();
        let other = name(&path);
        if other.starts_with(start) && other != own && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// A mount point cannot be renamed, which would be found out only at the end.
fn refuse_mount_point(target: &Path, parent: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (Ok(found), Ok(above)) = (fs::metadata(target), fs::metadata(parent)) else { return Ok(()) };
    if found.dev() == above.dev() {
        return Ok(());
    }
    let why = "is a mount point, which cannot be swapped for a restored folder; make `data_dir` a folder inside of it";
    Err(io::Error::other(format!("{} {why}", target.display())))
}

/// Puts the staged folder in the target's place. Safe to call again after a crash.
pub fn finish(places: &Places) -> io::Result<()> {
    let Places { target, staging, old, gone } = places;
    if !staging.exists() {
        return if target.exists() { Ok(()) } else { Err(io::Error::other(format!("{} is gone", staging.display()))) };
    }
    if target.exists() {
        // Where an old folder is kept already, an earlier try of this restore put the target there.
        rename(target, if old.exists() { emptied(gone)? } else { old })?;
    }
    crate::failpoint::reach("restore-swapping");
    rename(staging, target)?;
    forget(gone)
}

/// Puts back what was there before; what was restored is removed. Nothing happens where nothing is kept.
pub fn undo(places: &Places) -> io::Result<()> {
    let Places { target, old, gone, .. } = places;
    if !old.exists() {
        return Ok(());
    }
    if target.exists() {
        rename(target, emptied(gone)?)?;
    }
    rename(old, target)?;
    forget(gone)
}

/// Removes what was there before.
pub fn forget_old(places: &Places) -> io::Result<()> {
    forget(&places.gone)?;
    forget(&places.old)
}

/// A name that nothing stands at.
fn emptied(path: &Path) -> io::Result<&Path> {
    forget(path).map(|()| path)
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(path, &e)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|e| named(from, &e))?;
    // The rename itself is on the disk only when its folder is.
    let parent = to.parent().unwrap_or(Path::new("/"));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_can_be_interrupted_anywhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places::new(&folder.path().join("data"), "x").expect("places");
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path).expect("made");
            fs::write(path.join("f"), text).expect("written");
        };
        write(&places.target, "old");
        write(&places.staging, "new");
        fs::rename(&places.target, &places.old).expect("as a crash leaves it");
        finish(&places).expect("finished");
        finish(&places).expect("again");
        assert_eq!(fs::read_to_string(places.target.join("f")).expect("read"), "new");
        assert_eq!(fs::read_to_string(places.old.join("f")).expect("read"), "old");
        write(&places.staging, "newer");
        finish(&places).expect("a second try");
        assert_eq!(fs::read_to_string(places.old.join("f")).expect("read"), "old", "not the first try's");
        undo(&places).expect("taken back");
        undo(&places).expect("again");
        assert_eq!(fs::read_to_string(places.target.join("f")).expect("read"), "old");

        write(&places.staging, "newest");
        finish(&places).expect("finished");
        forget_old(&places).expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1, "nothing but the target");
    }
}
