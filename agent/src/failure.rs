//! How a command ends when it does not succeed: a stable word, a sentence, an exit code.

use perennial_shared::archive::objects::ReadError;
use perennial_shared::aws::{AwsError, AwsErrorKind, chain};
use perennial_shared::encryption::{KeyError, KeyringError};
use perennial_shared::manifest::ManifestError;
use perennial_shared::repository::{PointerError, RepositoryError};
use perennial_shared::run::RunError;
use perennial_shared::secret::SecretError;
use perennial_shared::settings::SettingsError;
use perennial_shared::store::StoreError;

use crate::archive::create::ArchiveError;
use crate::archive::restore::RestoreError;
use crate::engine::EngineError;

/// Exit codes, a contract with scripts; `perennial --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// A check found a problem, or a backup is damaged.
    Problems = 3,
    /// Nobody can tell: the repository or the engine did not answer.
    CouldNotTell = 4,
    /// It was not done because it could destroy data.
    Refused = 5,
}

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Stable word for scripts, alarms and results of runs, such as `RepositoryDenied`.
    pub code: &'static str,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The program's exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure with its own sentence.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), exit }
    }

    /// As it is stored in the result of a run.
    pub fn to_run_error(&self) -> RunError {
        RunError { code: self.code.into(), message: self.message.clone() }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        use EngineError as E;
        let exit = match error {
            E::Unreachable { .. } | E::NotReady { .. } => Exit::CouldNotTell,
            E::Unauthorized { .. } | E::Forbidden { .. } => Exit::Usage,
            E::CollectionExists { .. }
            | E::HostNameDiffers { .. }
            | E::OrphanFolder { .. }
            | E::DataFolder { .. }
            | E::VersionUnsupported { .. } => Exit::Refused,
            E::Damaged { .. } => Exit::Problems,
            _ => Exit::Failed,
        };
        Self::new(exit, error.code(), error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, code) = match error {
            StoreError::Denied { .. } => (Exit::CouldNotTell, "RepositoryDenied"),
            StoreError::Unavailable { .. } => (Exit::CouldNotTell, "RepositoryUnavailable"),
            StoreError::Invalid { .. } => (Exit::Usage, "RepositoryInvalid"),
            StoreError::Corrupt { .. } => (Exit::Problems, "BackupDamaged"),
            StoreError::NotFound { .. } => (Exit::Failed, "NotInRepository"),
            StoreError::AlreadyExists { .. } | StoreError::Changed { .. } => (Exit::Failed, "RepositoryChanged"),
            StoreError::Full { .. } => (Exit::Failed, "RepositoryFull"),
            _ => (Exit::Failed, "RepositoryFailed"),
        };
        Self::new(exit, code, chain(&error))
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(e) => e.into(),
            e @ ReadError::Damaged { .. } => Self::new(Exit::Problems, "BackupDamaged", e.to_string()),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Store(e) => e.into(),
            ArchiveError::Parent(e) if e.is_damage() => {
                Self::new(Exit::Problems, "ParentDamaged", format!("the parent's index: {}", chain(&e)))
            }
            ArchiveError::Parent(e) => e.into(),
            e @ ArchiveError::Local(_) => Self::new(Exit::Failed, "FilesUnreadable", e.to_string()),
            e @ ArchiveError::Stopped => Self::new(Exit::Failed, "Interrupted", e.to_string()),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Read(e) => e.into(),
            RestoreError::Local(e) => Self::new(Exit::Failed, "FilesUnwritable", e.to_string()),
        }
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        let (exit, code) = match error {
            ManifestError::Damaged { .. } => (Exit::Problems, "BackupDamaged"),
            ManifestError::Newer { .. } => (Exit::Usage, "ManifestNewer"),
        };
        Self::new(exit, code, error.to_string())
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Store(e) => e.into(),
            RepositoryError::Manifest(e) => e.into(),
            e @ RepositoryError::Damaged { .. } => Self::new(Exit::Problems, "RecordDamaged", e.to_string()),
        }
    }
}

impl From<PointerError> for Failure {
    fn from(error: PointerError) -> Self {
        let (exit, code) = match error {
            PointerError::Store(e) => return e.into(),
            PointerError::Moved => (Exit::Failed, "PointerMoved"),
            PointerError::NotOwner { .. } => (Exit::Refused, "NotOwner"),
            PointerError::Newer(_) => (Exit::Refused, "PointerNewer"),
        };
        Self::new(exit, code, error.to_string())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Usage, "SettingsInvalid", error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::new(Exit::Usage, "SecretUnreadable", chain(&error))
    }
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        let exit = if error.kind == AwsErrorKind::NotFound { Exit::Usage } else { Exit::CouldNotTell };
        Self::new(exit, "AwsFailed", error.to_string())
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let (exit, code) = match error {
            KeyError::Wrong { .. } => (Exit::Usage, "KeyWrong"),
            KeyError::Missing { .. } => (Exit::Usage, "KeyMissing"),
            KeyError::Newer { .. } => (Exit::Usage, "KeyNewer"),
            KeyError::Denied { .. } => (Exit::CouldNotTell, "KeyDenied"),
            KeyError::Unavailable { .. } => (Exit::CouldNotTell, "KeyUnavailable"),
            KeyError::Tampered { .. } => (Exit::Problems, "KeyTampered"),
        };
        Self::new(exit, code, error.to_string())
    }
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        let message = error.to_string();
        match error {
            KeyringError::Store(e) => e.into(),
            KeyringError::Key(e) => e.into(),
            KeyringError::Closed { telling, .. } => Self { message, ..telling.into() },
            KeyringError::NoKey { .. } => Self::new(Exit::Problems, "KeyNotInRepository", message),
            KeyringError::ReadsDifferently { .. } => Self::new(Exit::Problems, "RecordDamaged", message),
            KeyringError::Crowded { .. } => Self::new(Exit::Failed, "RepositoryChanged", message),
        }
    }
}
