//! Backups of an engine's files: the engine gives a consistent set of them, Perennial archives it and brings it back.
//!
//! A restore has steps, so that what is compared can still be taken back: [`FileBackup::install`] makes the data answer, in
//! place of the old or beside it; then it is compared with the manifest, and mended ([`FileBackup::mend`]); then [`FileBackup::commit`] makes it the only one, or
//! [`FileBackup::take_back`] leaves what was there before. Each may be called again after a crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::Manifest;
use perennial_shared::settings::Method;
use serde_json::Value;

use super::{EngineError, Progress};
use crate::archive::source::Source;

/// An engine whose files Perennial archives.
#[async_trait]
pub trait FileBackup: Send + Sync {
    /// A consistent set of files in which everything is that was acknowledged before the call. They stay as they are until
    /// [`FileBackup::release`].
    async fn capture(&self, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError>;

    /// Lets go of all that captures leave: links, copies, snapshots, a stopped process; also of what a killed run left.
    async fn release(&self) -> Result<(), EngineError>;

    /// Where the files of the restore called `tag` are put together; on the file system that they will stay on.
    async fn staging(&self, tag: &str) -> Result<PathBuf, EngineError>;

    /// A folder that may hold parts of the backup already, which are then not fetched.
    async fn local(&self) -> Option<PathBuf>;

    /// The folder of the engine's that an install makes a further copy of all staged files in, where it does and the folder is known.
    fn copies_into(&self) -> Option<&Path> {
        None
    }

    /// Makes good at once what an interrupted restore, of whichever backup, left that clients must not meet; what a person should know.
    async fn make_good(&self) -> Result<Vec<String>, EngineError> {
        Ok(vec![])
    }

    /// Everything that would make an install fail or lie, found out before something is changed; what a person should know.
    async fn check_install(&self, manifest: &Manifest) -> Result<Vec<String>, EngineError>;

    /// Whether an earlier [`FileBackup::install`] of the restore called `tag` put all of `staged` in place, so that the engine holds what it
    /// brought or what was made of that since.
    fn is_in_place(&self, tag: &str, staged: &Path) -> Result<bool, EngineError> {
        let _ = tag;
        Ok(!staged.exists())
    }

    /// Makes the staged files the engine's, and waits until it answers with them. What was there before is kept.
    async fn install(&self, wish: &InstallWish<'_>) -> Result<Installed, EngineError>;

    /// Makes good what is worse than it was at the backup though every file is what it was, as far as the engine can; what a person
    /// should know. Called when the data was compared, because what answers better than it did at the backup answers differently.
    async fn mend(&self, patience: Duration, progress: Progress<'_>) -> Vec<String> {
        let _ = (patience, progress);
        vec![]
    }

    /// Keeps what was installed and forgets what was there before; what a person should know.
    async fn commit(&self, installed: &Installed) -> Result<Vec<String>, EngineError>;

    /// Puts back what was there before; whether it is, or nothing was kept.
    async fn take_back(&self, installed: &Installed) -> Result<bool, EngineError>;
}

/// What a capture is asked to be.
#[derive(Clone, Copy)]
pub struct CaptureWish<'a> {
    /// The backup that the next increment builds on, with what [`CapturedFiles::remember`] said then, when this machine made it.
    pub parent: Option<(&'a BackupId, &'a Value)>,
    /// How long it may take.
    pub patience: Duration,
    /// Told how far it is.
    pub progress: Progress<'a>,
}

/// A consistent set of files.
#[derive(Debug, Clone, Default)]
pub struct CapturedFiles {
    /// How they were captured, as the manifest calls it.
    pub method: Option<Method>,
    /// The files.
    pub source: Source,
    /// Names of the collections in it, sorted.
    pub collections: Vec<String>,
    /// How long the engine did not answer, where it had to be stopped for the capture.
    pub paused: Option<Duration>,
    /// What a person should know.
    pub findings: Vec<String>,
    /// What the next capture wants to know of this one, once it is published.
    pub remember: Option<Value>,
}

/// What an install is asked to be.
#[derive(Clone, Copy)]
pub struct InstallWish<'a> {
    /// The restore's tag, as [`FileBackup::staging`] was told it.
    pub tag: &'a str,
    /// The files.
    pub staged: &'a Path,
    /// What they should be.
    pub manifest: &'a Manifest,
    /// How long it may take.
    pub patience: Duration,
    /// Told how far it is.
    pub progress: Progress<'a>,
}

/// A backup that the engine answers with, and that can still be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installed {
    /// The restore's tag.
    pub tag: String,
    /// The names that its collections have until it is committed, by the names that they had; absent where they are the same.
    pub names: BTreeMap<String, String>,
    /// What a person should know.
    pub findings: Vec<String>,
}

impl Installed {
    /// What a collection of the manifest is called now.
    pub fn name<'a>(&'a self, collection: &'a str) -> &'a str {
        self.names.get(collection).map_or(collection, String::as_str)
    }
}
