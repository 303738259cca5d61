//! Bringing a backup back, and believing it only after it was counted and searched.
//!
//! Promises: nothing is put over data that somebody may want, unless told to; what cannot work is found out before anything is
//! changed; success means that the backup's objects have the hashes of the manifest, every collection its count, and sample
//! queries find what they found then. A crash leaves a marker on this machine; the same restore begun again goes on: it waits for an engine that is still at
//! work, keeps what is complete, and removes what is half there.

mod archived;
pub mod choose;
mod compare;
mod damage;
mod native;
pub mod room;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::resolve::Candidate;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::watch::Watch;

/// An engine on a fresh instance needs its time to start.
const READY: Duration = Duration::from_secs(600);

/// What a restore is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Delete what is in the engine first.
    pub replace: bool,
    /// Check everything and change nothing.
    pub dry_run: bool,
    /// Only files that match one of these globs, of a backup made of archives.
    pub include: Vec<String>,
    /// Into this folder instead of the data folder; the engine is not touched.
    pub to: Option<PathBuf>,
}

/// A finished restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// The backup.
    pub backup_id: String,
    /// Whether it was there already and only compared.
    pub already: bool,
    /// Whether nothing was changed, as asked for.
    pub dry_run: bool,
    /// Bytes of the backup in the repository.
    pub size_bytes: u64,
    /// Objects in all collections.
    pub objects: u64,
    /// When the data was captured; `None` for a backup without a manifest.
    pub captured_at: Option<Timestamp>,
    /// What was checked and compared, a line each.
    pub findings: Vec<String>,
    /// Seconds from begin to end.
    pub seconds: f64,
}

/// Restores `candidate`, as it was made. The caller holds the target's lock.
pub async fn restore(
    context: &Context,
    candidate: &Candidate,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    let engine = context.database().await?;
    if let Some((manifest, archive)) = candidate.manifest.as_ref().and_then(|m| Some((m, m.archive.as_ref()?))) {
        return archived::restore(context, engine.as_deref(), manifest, archive, wish, watch).await;
    }
    if let Some((engine, native)) = engine.as_deref().and_then(|e| Some((e, e.native()?))) {
        return native::restore(context, engine, native, candidate, wish, watch).await;
    }
    let message = format!(
        "backup {} is not made of archives, and a target with `engine: {}` restores nothing else",
        candidate.id,
        context.target.engine.word()
    );
    Err(Failure::new(Exit::Problems, "NotAnArchive", message))
}
