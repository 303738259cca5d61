//! Which backup a restore starts from, and whether there is any.

use perennial_shared::id::BackupId;
use perennial_shared::resolve::{Candidate, Resolution};

use crate::failure::{Exit, Failure};

/// The best candidate, or the one asked for.
pub fn candidate<'a>(resolution: &'a Resolution, id: Option<&BackupId>) -> Result<&'a Candidate, Failure> {
    let found = match id {
        Some(id) => resolution.candidate(id),
        None => resolution.candidates.first(),
    };
    found.ok_or_else(|| match id {
        Some(id) => none(&format!("there is no complete backup {id}"), "NoSuchBackup", resolution),
        None => none("there is no backup that could be restored", "NothingToRestore", resolution),
    })
}

fn none(what: &str, code: &'static str, resolution: &Resolution) -> Failure {
    let exit = if resolution.problems.is_empty() { Exit::Failed } else { Exit::Problems };
    let why =
        if resolution.problems.is_empty() { String::new() } else { format!(": {}", resolution.problems.join("; ")) };
    Failure::new(exit, code, format!("{what}{why}; `perennial backup list` shows what there is"))
}
