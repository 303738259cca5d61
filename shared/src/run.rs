//! The records of a run: what it must do, how far it is, how it ended.
//!
//! A function claims a run by creating `runs/<run>/claim.json`; whoever comes second finds the claim and does nothing. The
//! agent reads the claim, overwrites `progress.json` while it works and creates `result.json` once. So a run that is
//! started twice is done once, and a function that dies anywhere is taken up by the next one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BackupId, Generation, RunId};

/// What a run must do. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run's name; its kind is part of it.
    pub run: RunId,
    /// Name of the target.
    pub target: String,
    /// The instance that does it.
    pub instance: String,
    /// The backup to restore; absent for a backup run, and for a first launch that starts empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_id: Option<BackupId>,
    /// Version of the pointer when the backup was chosen: a take-over succeeds only on this very pointer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pointer_version: Option<String>,
    /// Generation of the pointer when the run was claimed.
    pub generation: Generation,
    /// Whether what an earlier attempt left in the engine may be removed first.
    #[serde(default)]
    pub replace: bool,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// Makes every claim distinguishable.
    pub nonce: String,
}

/// How far a run is. Overwritten while it runs; only ever advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The run.
    pub run: RunId,
    /// What is being done, in words.
    pub stage: String,
    /// Changes whenever there was real progress: bytes, objects or collections done.
    pub done: u64,
    /// Out of how many, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<u64>,
    /// Whether the backup that it makes is published: what is left to do are copies.
    #[serde(default)]
    pub published: bool,
    /// When it was written.
    pub at: Timestamp,
}

/// How a run ended. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The run.
    pub run: RunId,
    /// Whether all of it succeeded.
    pub ok: bool,
    /// What went wrong, when it did not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RunError>,
    /// The backup that was restored or made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_id: Option<BackupId>,
    /// When the agent began.
    pub started_at: Timestamp,
    /// When it was done.
    pub finished_at: Timestamp,
    /// Bytes of the backup.
    pub size_bytes: u64,
    /// Objects in all collections: restored, or counted after the capture.
    pub objects: u64,
    /// What was compared, one line each, for the report to a person.
    pub findings: Vec<String>,
}

impl RunResult {
    /// Seconds from begin to end.
    #[allow(clippy::cast_precision_loss)]
    pub fn seconds(&self) -> f64 {
        self.finished_at.duration_since(self.started_at).as_millis() as f64 / 1000.0
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable word for alarms and filters, such as `RepositoryDenied`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
}

impl RunError {
    /// Codes that say that the backup itself cannot be restored, so that an older one should be tried. After any other
    /// failure (the engine did not start, the repository did not answer) the same backup is tried again: an older one would
    /// lose data for nothing.
    const BACKUP_AT_FAULT: &[&str] = &[
        "BackupDamaged",
        "BackupIncomplete",
        "EngineFindsNoBackup",
        "ManifestNewer",
        "NotInRepository",
        "RestoreDiffers",
        "RestoreRefused",
        "VersionUnsupported",
    ];

    /// Whether an older backup should be tried next.
    pub fn blames_backup(&self) -> bool {
        Self::BACKUP_AT_FAULT.contains(&self.code.as_str())
    }
}
