//! Backups that the engine writes into the repository and restores from there, by itself.

use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::manifest::Sample;

use super::{EngineError, Progress};

/// An engine that writes and restores its backups itself.
#[async_trait]
pub trait NativeBackup: Send + Sync {
    /// Writes a backup of everything to `place` and waits until it is whole. One that takes longer than `patience` is
    /// cancelled. What a failed one leaves behind is for retention: its id is never used again.
    async fn capture(&self, place: &Place, patience: Duration, progress: Progress<'_>)
    -> Result<Captured, EngineError>;

    /// Cancels a capture and waits until the engine has let go of it; one that has ended already is fine.
    async fn cancel_capture(&self, place: &Place) -> Result<(), EngineError>;

    /// What a backup holds, from the engine's own description of it: the object of [`NativeBackup::description_key`].
    fn describe(&self, description: &[u8]) -> Result<Description, EngineError>;

    /// Key of the engine's own description of a backup, below the backup's folder.
    fn description_key(&self) -> &'static str;

    /// Further descriptions that say which objects a backup must have, below its folder.
    fn part_keys(&self, description: &Description) -> Vec<String>;

    /// The keys that the part described by `part` must have, below the backup's folder.
    fn expected_keys(&self, part_key: &str, part: &[u8]) -> Result<Vec<String>, EngineError>;

    /// Shards whose objects are in the part `part`, but not the index by which `searched` (collections and queries that were
    /// answered) were found: they would restore with the right count and find nothing.
    async fn unsearchable(&self, part: &[u8], searched: &[(String, Sample)]) -> Result<Vec<String>, EngineError>;

    /// Keys that the engine writes into a backup's folder and that are no part of the backup.
    fn is_bookkeeping(&self, key: &str) -> bool;

    /// Key below a backup's folder of the engine's record of its last install. It is deleted before an install: what an
    /// older install wrote there could be taken for the new one's, or stand in its way.
    fn install_record_key(&self) -> Option<&'static str>;

    /// Whether this engine takes such a backup, whatever it holds: asked before anything is deleted for it.
    async fn check_suits(&self, description: &Description) -> Result<(), EngineError>;

    /// Everything that would make [`NativeBackup::install`] fail or lie, found out before it is tried.
    async fn check_install(&self, description: &Description) -> Result<(), EngineError>;

    /// Puts a backup's data in place and waits until all of its collections are there. When exactly this is already
    /// going on in the engine (an earlier run of ours was killed), that is waited for instead.
    async fn install(
        &self,
        place: &Place,
        description: &Description,
        patience: Duration,
        progress: Progress<'_>,
    ) -> Result<(), EngineError>;

    /// Whether a [`NativeBackup::install`] of this backup is going on in the engine right now.
    async fn installing(&self, place: &Place) -> Result<bool, EngineError>;

    /// Cancels an install and waits until the engine has let go of it; one that has ended already is fine.
    async fn cancel_install(&self, place: &Place) -> Result<(), EngineError>;

    /// Deletes collections with all of their data.
    async fn remove_collections(&self, names: &[String]) -> Result<(), EngineError>;
}

/// Where the engine itself writes or reads a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Bucket or folder.
    pub root: Root,
    /// Path below the root of the folder that holds the backup's folder, without slashes at its ends; may be empty.
    pub path: String,
    /// The backup's name, which is also its folder's.
    pub id: String,
}

/// A bucket or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// An S3 bucket.
    Bucket(String),
    /// An absolute path of a folder that the engine can reach.
    Folder(String),
}

/// A finished capture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Captured {
    /// How long the engine took.
    pub took: Duration,
}

/// What a backup holds, as the engine described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Version of the engine that wrote it.
    pub engine_version: String,
    /// Host name of the engine that wrote it.
    pub host_name: String,
    /// Its collections, sorted.
    pub collections: Vec<String>,
    /// Bytes it needs on the disk; 0 when the engine did not say.
    pub size_on_disk: u64,
}
