//! What Perennial asks of a database engine, and what can go wrong with it.
//!
//! An engine answers for the data: a capture is whole or it failed, an installed backup has every collection that it
//! should have or it failed. It does not answer for the repository: which backup, when, and whether its objects are
//! good is decided above it. Every call is bounded in time, and what it could not find out is an error.

use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::manifest::Sample;

/// One database engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Succeeds when the engine is ready to serve.
    async fn health(&self) -> Result<(), EngineError>;

    /// Waits until [`Engine::health`] succeeds, at most `patience`.
    async fn wait_until_ready(&self, patience: Duration) -> Result<(), EngineError>;

    /// Who the engine says it is. Needs the API key, so it also proves that the key is right.
    async fn identity(&self) -> Result<Identity, EngineError>;

    /// The names of the collections, sorted.
    async fn collections(&self) -> Result<Vec<String>, EngineError>;

    /// Every collection with its exact count.
    async fn count(&self) -> Result<Vec<Counted>, EngineError>;

    /// Up to `each` nearest-neighbour queries of a collection, with the answers they have now.
    async fn samples(&self, collection: &str, each: usize) -> Result<Vec<Sample>, EngineError>;

    /// Asks a sample's query again: the ids found now, nearest first.
    async fn ask(&self, collection: &str, sample: &Sample) -> Result<Vec<String>, EngineError>;

    /// Writes a backup of everything to `place` and waits until it is whole. One that takes longer than `patience` is
    /// cancelled. What a failed one leaves behind is for retention: its id is never used again.
    async fn capture(&self, place: &Place, patience: Duration, progress: Progress<'_>)
    -> Result<Captured, EngineError>;

    /// Cancels a capture and waits until the engine has let go of it; one that has ended already is fine.
    async fn cancel_capture(&self, place: &Place) -> Result<(), EngineError>;

    /// What a backup holds, from the engine's own description of it: the object of [`Engine::description_key`].
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

    /// Everything that would make [`Engine::install`] fail or lie, found out before it is tried.
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

    /// Whether an [`Engine::install`] of this backup is going on in the engine right now.
    async fn installing(&self, place: &Place) -> Result<bool, EngineError>;

    /// Cancels an install and waits until the engine has let go of it; one that has ended already is fine.
    async fn cancel_install(&self, place: &Place) -> Result<(), EngineError>;

    /// Deletes collections with all of their data.
    async fn remove_collections(&self, names: &[String]) -> Result<(), EngineError>;

    /// Refuses writes and goes on answering reads, until [`Engine::accept_writes`] or a restart.
    async fn refuse_writes(&self) -> Result<(), EngineError>;

    /// Takes [`Engine::refuse_writes`] back.
    async fn accept_writes(&self) -> Result<(), EngineError>;

    /// Folders of collections that the engine does not know. Installing over one loses data without an error.
    async fn left_over_folders(&self) -> Result<Vec<std::path::PathBuf>, EngineError>;
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
    /// Its own host name, which it keeps its data under.
    pub host_name: String,
}

/// A collection and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// Exact number of objects, of all active tenants.
    pub count: u64,
    /// Tenants that are not active, so that their objects cannot be counted.
    pub uncounted_tenants: u64,
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

/// What can go wrong with an engine. Each variant is a different decision of the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nothing answers.
    #[error("the engine at {url} does not answer ({why}); is it running, and is this the right address?")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// It answers, and says that it is not ready.
    #[error("the engine at {url} is not ready ({why}); its own log says what it waits for")]
    NotReady {
        /// Where it is.
        url: String,
        /// What it said.
        why: String,
    },
    /// No API key, or a wrong one.
    #[error("the engine at {url} does not accept the API key ({why}); check `api_key` in the settings")]
    Unauthorized {
        /// Where it is.
        url: String,
        /// What it said.
        why: String,
    },
    /// The API key lacks a right.
    #[error("the engine at {url} forbids {request} to this API key ({why}); the key needs administrator rights")]
    Forbidden {
        /// Where it is.
        url: String,
        /// Which request.
        request: String,
        /// What it said.
        why: String,
    },
    /// There is no collection, and the engine cannot back up nothing.
    #[error("the engine has no collections, so there is nothing to back up")]
    Empty,
    /// It is busy with another backup or restore.
    #[error("the engine is busy with another {what} ({id}); it does one at a time")]
    Busy {
        /// `backup` or `restore`.
        what: &'static str,
        /// The other one's id.
        id: String,
    },
    /// Collections of the backup exist already.
    #[error("the engine already has {}; a restore does not overwrite them (say --replace to have them deleted first)", names.join(", "))]
    CollectionExists {
        /// Which.
        names: Vec<String>,
    },
    /// The engine runs under another host name than the settings pin.
    #[error(
        "the engine's host name is {found}, the settings say {expected}; start it with CLUSTER_HOSTNAME={expected}, because its data does not open under another name"
    )]
    HostNameDiffers {
        /// As pinned.
        expected: String,
        /// As found.
        found: String,
    },
    /// A folder of a collection that the engine does not know.
    #[error("{} holds data of a collection that the engine does not know; a restore over it would lose data without an error. Stop the engine, move these folders away, start it again", folders.join(", "))]
    OrphanFolder {
        /// Which.
        folders: Vec<String>,
    },
    /// The engine's data folder could not be looked into.
    #[error(
        "the data folder {path} cannot be read ({why}), so left-over folders cannot be seen; correct `data_dir` in the settings, or run this on the engine's own machine with enough rights"
    )]
    DataFolder {
        /// Which folder.
        path: String,
        /// What the system said.
        why: String,
    },
    /// This engine cannot restore that backup.
    #[error("a backup by version {backup} does not restore on version {engine}: {why}")]
    VersionUnsupported {
        /// Version that wrote the backup.
        backup: String,
        /// Version that runs.
        engine: String,
        /// Which rule says so.
        why: &'static str,
    },
    /// The engine does not find the backup where it was told to look.
    #[error("the engine finds no backup {id} at {path}; can it read that bucket, and is it the right one?")]
    NotFound {
        /// The backup.
        id: String,
        /// Where it looked.
        path: String,
    },
    /// The engine tried and failed.
    #[error("the engine's {what} of {id} failed: {why}")]
    Failed {
        /// `backup` or `restore`.
        what: &'static str,
        /// The backup.
        id: String,
        /// What the engine said.
        why: String,
    },
    /// The engine no longer works on it, though it never finished: it restarted meanwhile.
    #[error(
        "the engine gave up its {what} of {id} without finishing it (its last word was {status}); it was restarted meanwhile, or an earlier cancellation is in the way"
    )]
    Abandoned {
        /// `backup` or `restore`.
        what: &'static str,
        /// The backup.
        id: String,
        /// The last state that was written.
        status: String,
    },
    /// It took too long.
    #[error("the engine's {what} of {id} was not done after {}; {outcome}", for_people(*waited))]
    TimedOut {
        /// `backup` or `restore`.
        what: &'static str,
        /// The backup.
        id: String,
        /// How long it was waited for.
        waited: Duration,
        /// What became of it.
        outcome: String,
    },
    /// It answered what no engine of a known version answers.
    #[error("{request} got an answer that was not expected: {status} {why}")]
    Unexpected {
        /// Which request.
        request: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        why: String,
    },
    /// A document of the engine could not be understood.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which document.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The engine is something that Perennial does not look after.
    #[error("{0}")]
    Unsupported(String),
}

impl EngineError {
    /// Whether the engine may simply not be there yet.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }

    /// Stable word for alarms, scripts and results of runs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "EngineUnreachable",
            Self::NotReady { .. } => "EngineNotReady",
            Self::Unauthorized { .. } | Self::Forbidden { .. } => "EngineDenied",
            Self::Empty => "NothingToBackUp",
            Self::Busy { .. } => "EngineBusy",
            Self::CollectionExists { .. } => "NotEmpty",
            Self::HostNameDiffers { .. } => "HostNameDiffers",
            Self::OrphanFolder { .. } => "OrphanFolder",
            Self::DataFolder { .. } => "DataFolderUnreadable",
            Self::VersionUnsupported { .. } => "VersionUnsupported",
            Self::NotFound { .. } => "EngineFindsNoBackup",
            Self::Failed { what: "restore", .. } => "RestoreRefused",
            Self::Failed { .. } => "EngineFailed",
            Self::Abandoned { .. } => "EngineRestarted",
            Self::TimedOut { .. } => "EngineTimedOut",
            Self::Unexpected { .. } => "EngineOddAnswer",
            Self::Damaged { .. } => "BackupDamaged",
            Self::Unsupported(_) => "EngineUnsupported",
        }
    }
}

fn for_people(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
