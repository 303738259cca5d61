//! Whether the engine's disk has room for a backup.

use std::path::Path;

use crate::context::Context;
use crate::engine::native::Description;
use crate::failure::{Exit, Failure};
use crate::units::bytes;

/// Fails when there is too little room; says how much there is. Room for a tenth more than the data is asked for.
pub(super) fn check(context: &Context, description: &Description) -> Result<Vec<String>, Failure> {
    let Some(folder) = &context.target.data_dir else { return Ok(vec![]) };
    let free = free_bytes(folder)?;
    let needed = description.size_on_disk + description.size_on_disk / 10;
    if free < needed {
        let message = format!(
            "{} has {} free and the backup needs {}; use an instance with a larger disk",
            folder.display(),
            bytes(free),
            bytes(needed)
        );
        return Err(Failure::new(Exit::Refused, "DiskTooSmall", message));
    }
    Ok(vec![format!("{} free at {}, {} needed", bytes(free), folder.display(), bytes(needed))])
}

/// Bytes that may still be written below a folder.
pub fn free_bytes(folder: &Path) -> Result<u64, Failure> {
    let found = rustix::fs::statvfs(folder).map_err(|e| {
        let message = format!("{}: {e}; correct `data_dir` in the settings", folder.display());
        Failure::new(Exit::Usage, "DataFolderUnreadable", message)
    })?;
    Ok(found.f_bavail * found.f_frsize)
}
