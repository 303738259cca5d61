//! What Perennial asks of a database engine, and what can go wrong with it.
//!
//! An engine answers for the data: a capture is whole or it failed, an installed backup has every collection that it
//! should have or it failed. It does not answer for the repository: which backup, when, and whether its objects are
//! good is decided above it. Every call is bounded in time, and what it could not find out is an error.
//!
//! There are two ways to back an engine up, and an engine has one of them or both: [`native`], where it writes into the repository
//! itself, and [`files`], where it gives a consistent set of files and Perennial archives them.

mod error;
pub mod files;
pub mod native;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use perennial_shared::manifest::Sample;

use crate::check::Check;
pub use error::EngineError;
pub use files::FileBackup;
pub use native::NativeBackup;

/// Between two looks at an engine that is not ready.
const PAUSE: Duration = Duration::from_millis(200);

/// One database engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Succeeds when the engine is ready to serve.
    async fn health(&self) -> Result<(), EngineError>;

    /// Waits until [`Engine::health`] succeeds, at most `patience`: an engine that starts does not answer at first, then says that it is
    /// not ready.
    async fn wait_until_ready(&self, patience: Duration) -> Result<(), EngineError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.health().await {
                Err(e) if e.is_absence() && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    /// Who the engine says it is. Needs the API key, so it also proves that the key is right.
    async fn identity(&self) -> Result<Identity, EngineError>;

    /// The names of the collections, sorted.
    async fn collections(&self) -> Result<Vec<String>, EngineError>;

    /// Every collection with its exact count.
    async fn count(&self) -> Result<Vec<Counted>, EngineError>;

    /// Up to `each` samples of a collection, with the answers they have now.
    async fn samples(&self, collection: &str, each: usize) -> Result<Vec<Sample>, EngineError>;

    /// Asks for a sample again. A sample that is no longer there gives an empty answer, not an error.
    async fn ask(&self, collection: &str, sample: &Sample) -> Result<Answer, EngineError>;

    /// Whether [`Engine::refuse_writes`] refuses every write. Where it does not, clients must be cut off before a final backup.
    fn can_refuse_writes(&self) -> bool;

    /// Refuses writes and goes on answering reads, until [`Engine::accept_writes`] or a restart.
    async fn refuse_writes(&self) -> Result<(), EngineError>;

    /// Takes [`Engine::refuse_writes`] back.
    async fn accept_writes(&self) -> Result<(), EngineError>;

    /// What is looked at in this engine alone: settings and states that lose data.
    async fn examine(&self) -> Vec<Check>;

    /// The backups that it writes itself.
    fn native(&self) -> Option<&dyn NativeBackup> {
        None
    }

    /// The backups of its files.
    fn files(&self) -> Option<&dyn FileBackup> {
        None
    }
}

/// Told how far a long call is, each time the engine was asked.
pub type Progress<'a> = &'a (dyn Fn(Step<'_>) + Send + Sync);

/// How far a long call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The engine's own word for it.
    pub state: &'a str,
    /// Bytes that are in place so far, where that can be seen.
    pub done: Option<u64>,
}

/// Who an engine says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its version, such as `1.39.0`.
    pub version: String,
    /// Its own host name, where it keeps its data under one; else empty.
    pub host_name: String,
}

/// A collection and how much is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// Exact number of objects, of all active tenants.
    pub count: u64,
    /// Tenants that are not active, so that their objects cannot be counted.
    pub uncounted_tenants: u64,
    /// How many of them vanish by themselves when their time comes.
    pub may_expire: u64,
    /// The engine's own number of changes, where it has one: two that differ tell that somebody wrote, though the counts be the same.
    pub changes: u64,
}

/// What a sample gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Ids found by its vector, nearest first; empty where nothing is searched.
    pub ids: Vec<String>,
    /// Whether the object itself is among them, or others of the very same vector, which a search cannot tell from it.
    pub itself: bool,
    /// Whether all of them have that very vector, so that any others that have it could stand in their place.
    pub twins: bool,
    /// SHA-256 of the object itself in a form that does not change from server to server, where the engine has one.
    pub digest: Option<String>,
}

impl Answer {
    /// The neighbours that a sample by this object is to have: the object is one of them, though a search named only others of its vector.
    pub fn neighbours(mut self, near_object: &str) -> Vec<String> {
        let stood_in_for = self.itself && !self.ids.iter().any(|id| id == near_object);
        if let Some(last) = self.ids.last_mut().filter(|_| stood_in_for) {
            near_object.clone_into(last);
        }
        self.ids
    }
}
