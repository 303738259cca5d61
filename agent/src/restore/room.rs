//! Whether the engine's disk has room for a backup.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::context::Context;
use crate::engine::native::Description;
use crate::failure::{Exit, Failure};
use crate::units::bytes;

/// Fails when there is too little room; says how much there is. Room for a tenth more than the data is asked for.
pub(super) fn check(context: &Context, description: &Description) -> Result<Vec<String>, Failure> {
    let Some(folder) = &context.target.data_dir else { return Ok(vec![]) };
    Ok(vec![ask(folder, description.size_on_disk + description.size_on_disk / 10)?])
}

/// Fails where less than `needed` bytes are free below a folder; says how many are.
pub(super) fn ask(folder: &Path, needed: u64) -> Result<String, Failure> {
    let free = free_bytes(folder)?;
    if free >= needed {
        return Ok(format!("{} free at {}, {} needed", bytes(free), folder.display(), bytes(needed)));
    }
    let message = format!(
        "{} has {} free and the restore needs {} beside what is there; use a larger disk, or make room first",
        folder.display(),
        bytes(free),
        bytes(needed)
    );
    Err(Failure::new(Exit::Refused, "DiskTooSmall", message))
}

/// Whether two folders share one file system's room.
pub(super) fn same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    device(one).is_some_and(|dev| Some(dev) == device(other))
}

/// Bytes that may still be written below a folder.
pub fn free_bytes(folder: &Path) -> Result<u64, Failure> {
    let found = rustix::fs::statvfs(folder).map_err(|e| {
        let message = format!("{}: {e}; correct `data_dir` in the settings", folder.display());
        Failure::new(Exit::Usage, "DataFolderUnreadable", message)
    })?;
    Ok(found.f_bavail * found.f_frsize)
}
