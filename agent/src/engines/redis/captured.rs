//! The folder in which a capture stands until it is archived: names of files that the server itself will not change any more.
//!
//! It is beside the data folder, on its file system, so that a hard link is enough and nothing is copied; where the data folder is the
//! top of a file system, or nothing may be written beside it, it is inside of it, under a name that the server does not look at. A crash
//! leaves the folder, and the next capture or [`Captured::remove`] takes it away.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::layout::beside;
use crate::engine::EngineError;

/// The name inside of the data folder. A restore does not carry it over.
pub(super) const INSIDE: &str = ".perennial-capture";

/// An empty folder to capture into.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) folder: PathBuf,
}

impl Captured {
    /// Removes what earlier captures left and makes an empty folder, with the mode of the data folder: a restore gives it that mode.
    pub(super) fn begin(data_dir: &Path) -> Result<Self, EngineError> {
        Self::remove(data_dir)?;
        let found = fs::metadata(data_dir).map_err(|e| data_folder(data_dir, &e))?;
        let [outside, inside] = places(data_dir);
        let above = outside.parent().and_then(|p| fs::metadata(p).ok());
        let same = above.is_some_and(|above| above.dev() == found.dev());
        let make = |folder: &Path| DirBuilder::new().mode(0o700).create(folder);
        let folder = if same && make(&outside).is_ok() {
            outside
        } else {
            make(&inside).map_err(|e| EngineError::files(&inside, &e))?;
            inside
        };
        let mode = fs::Permissions::from_mode(found.mode() & 0o7777 | 0o700);
        fs::set_permissions(&folder, mode).map_err(|e| EngineError::files(&folder, &e))?;
        Ok(Self { folder })
    }

    /// Removes what captures left.
    pub(super) fn remove(data_dir: &Path) -> Result<(), EngineError> {
        for folder in places(data_dir) {
            match fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(EngineError::files(&folder, &e)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn places(data_dir: &Path) -> [PathBuf; 2] {
    [beside(data_dir, "capture"), data_dir.join(INSIDE)]
}

pub(super) fn data_folder(path: &Path, error: &io::Error) -> EngineError {
    let why = format!(
        "{error}; is this the server's machine, and does `data_dir` in the settings name its data folder as this program sees it?"
    );
    EngineError::Files { path: path.display().to_string(), why }
}

/// A second name for a file; a copy where the system allows no link, as it does for files of others when we are not root.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => fs::copy(from, to).map(|_| ()),
        Ok(()) => Ok(()),
    }
}
