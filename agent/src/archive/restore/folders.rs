//! Folders get their modes and times when everything in them is written, which would change both.
//!
//! The index is read once more for it: to remember all of its folders would take memory that grows with the data.

use std::fs::File;
use std::io;
use std::path::Path;

use perennial_shared::archive::entry::{Entry, Kind};
use tokio::runtime::Handle;

use super::write::give;
use super::{Request, RestoreError};
use crate::archive::walk::named;

/// Finishes every folder, each after those below it, because it may forbid to look into it.
pub(super) fn finish(request: &Request, handle: &Handle) -> Result<(), RestoreError> {
    let mut walk = request.objects.walk(&request.root);
    // The folders that the walk is in, the innermost last.
    let mut inside: Vec<Entry> = vec![];
    while let Some(entry) = handle.block_on(walk.next())? {
        while let Some(folder) = inside.pop_if(|folder| !entry.path.is_below(&folder.path)) {
            finish_one(&folder, &request.staging)?;
        }
        if matches!(entry.kind, Kind::Folder) && request.wants(entry.path.as_path()) {
            inside.push(entry);
        }
    }
    inside.iter().rev().try_for_each(|folder| finish_one(folder, &request.staging))?;
    Ok(())
}

fn finish_one(folder: &Entry, staging: &Path) -> io::Result<()> {
    let full = folder.path.under(staging);
    File::open(&full).and_then(|opened| give(&opened, folder)).map_err(|e| named(&full, &e))
}
