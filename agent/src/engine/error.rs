//! What can go wrong with an engine, and what each is called in alarms, scripts and results of runs.

use std::time::Duration;

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
    /// The engine runs under another host name than the settings pin, or than the files have that it would get.
    #[error(
        "the engine's host name is {found} and must be {expected}; start it with CLUSTER_HOSTNAME={expected}, because its data does not open under another name"
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
    /// A file or folder of the engine's, or beside it.
    #[error("{path}: {why}")]
    Files {
        /// Which.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The engine could not be started, stopped or found.
    #[error("{why}; check `service` in the settings")]
    Service {
        /// What failed.
        why: String,
    },
    /// A program of the settings failed.
    #[error("{why}")]
    Command {
        /// Which, and how.
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

    /// An error of the system about `path`.
    pub fn files(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Files { path: path.display().to_string(), why: error.to_string() }
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
            Self::Command { .. } => "CommandFailed",
            Self::Files { .. } => "FilesUnusable",
            Self::Service { .. } => "ServiceFailed",
            Self::Unsupported(_) => "EngineUnsupported",
        }
    }
}

fn for_people(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
