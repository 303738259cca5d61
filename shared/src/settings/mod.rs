//! One target's settings: the same YAML from a file or from the SSM parameter `/perennial/targets/<name>`.
//!
//! Unknown keys are refused and every value is checked, because a setting that is silently ignored in a disaster
//! recovery tool is found out on the worst day. Every error names the file, the key, the value and what is allowed.

mod archive;
mod encryption;
mod endpoint;
mod engine;
mod parse;
mod repository;

use std::path::PathBuf;
use std::time::Duration;

use crate::id::RunKind;

pub use archive::{ArchiveSettings, Commands, UploadSettings};
pub use encryption::{EncryptionSettings, KeySettings, TokenSource, VaultSettings};
pub use endpoint::{ElasticIp, Endpoint, NetworkInterface, WhichInterface};
pub use engine::{Engine, Method, Service};
pub use parse::{SettingsError, parse};
pub use repository::RepositorySettings;

/// One database that Perennial looks after.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Lower-case letters, digits and `-`; part of resource names.
    pub name: String,
    /// Which engine it is.
    pub engine: Engine,
    /// How its data is captured.
    pub method: Method,
    /// Where the engine answers, seen from its own instance: `http://127.0.0.1:8080`.
    pub url: String,
    /// Where Weaviate's profiling port answers, which also repairs vector indexes: `http://127.0.0.1:6060`. `None` is the host of `url`
    /// with port 6060. It has no authentication, and is never told the API key.
    pub debug_url: Option<String>,
    /// Whose password `api_key` is, where the engine has users (Redis); `None` is the default user.
    pub user: Option<String>,
    /// Where the engine's API key is; `None` for an engine without authentication.
    pub api_key: Option<SecretSource>,
    /// The engine's own pinned host name (Weaviate: `CLUSTER_HOSTNAME`). A backup restores only under the name it was
    /// made under.
    pub host_name: Option<String>,
    /// The engine's data folder on its instance, for the checks of free space and left-over folders.
    pub data_dir: Option<PathBuf>,
    /// How the engine is started and stopped; needed where a restore puts files in its data folder, refused where nothing is stopped.
    pub service: Option<Service>,
    /// Where the backups are.
    pub repository: RepositorySettings,
    /// Client-side encryption; `None` stores backups as the repository's own encryption protects them.
    pub encryption: Option<EncryptionSettings>,
    /// The Auto Scaling group of one; `None` for a database that is only backed up.
    pub auto_scaling: Option<AutoScaling>,
    /// The stable address; `None` where clients find the instance in another way.
    pub endpoint: Option<Endpoint>,
    /// Promises about backups.
    pub backup: BackupPolicy,
    /// How a restore may go.
    pub restore: RestorePolicy,
    /// How files become archives.
    pub archive: ArchiveSettings,
    /// How archives are sent.
    pub upload: UploadSettings,
    /// Programs that are run around a capture and a restore.
    pub commands: Commands,
    /// Further repositories that every backup is copied to.
    pub replicas: Vec<RepositorySettings>,
    /// What `doctor` holds the instance to.
    pub checks: Checks,
}

/// Where a secret is. The secret itself never stands in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Name or ARN in Secrets Manager; the secret string is the key.
    SecretsManager(String),
    /// An environment variable.
    Env(String),
    /// A file, whose content without surrounding white space is the key.
    File(PathBuf),
}

/// The group that keeps one instance alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoScaling {
    /// Group name.
    pub group: String,
    /// Lifecycle hook on `autoscaling:EC2_INSTANCE_LAUNCHING`.
    pub launch_hook: String,
    /// Lifecycle hook on `autoscaling:EC2_INSTANCE_TERMINATING`.
    pub terminate_hook: String,
    /// SSM document that starts the agent.
    pub document: String,
    /// How long an instance may take to register with SSM before its restore counts as failed.
    pub registration_timeout: Duration,
}

/// Promises about backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPolicy {
    /// The newest good backup may be this old.
    pub max_age: Duration,
    /// One backup may take this long.
    pub timeout: Duration,
    /// A final backup leaves clients their reads although the engine does not refuse every write honestly.
    pub keep_reads: bool,
}

/// What is done when there is nothing to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyRepository {
    /// Alert and do not put an empty database in service.
    Refuse,
    /// The first launch starts with an empty database.
    Allow,
}

/// How a restore may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePolicy {
    /// One restore may take this long.
    pub timeout: Duration,
    /// A restore without progress for this long has failed.
    pub stalled_after: Duration,
    /// Restores tried on one instance before it is given up; each later one takes an older backup.
    pub attempts: u32,
    /// What an empty repository means.
    pub empty_repository: EmptyRepository,
    /// When the repository could not be read for this long, a launching instance is restored from a replica, without what was not copied
    /// there; `None` waits for the repository.
    pub fall_over_after: Option<Duration>,
}

/// What `doctor` holds the instance to.
#[derive(Debug, Clone, PartialEq)]
pub struct Checks {
    /// Free space at `data_dir`, GiB.
    pub min_free_disk_gib: u64,
    /// Available memory, percent of all.
    pub min_free_memory_percent: u64,
    /// One-minute load average divided by the number of CPUs.
    pub max_load_per_cpu: f64,
}

impl Target {
    /// The SSM parameter that holds the settings of the target called `name`.
    pub fn parameter_name(name: &str) -> String {
        format!("/perennial/targets/{name}")
    }

    /// How long a run may take.
    pub fn timeout_of(&self, kind: RunKind) -> Duration {
        match kind {
            RunKind::Restore => self.restore.timeout,
            RunKind::Precopy | RunKind::Final | RunKind::Backup => self.backup.timeout,
        }
    }

    /// Whether clients go on reading during a final backup, while the engine refuses writes.
    pub fn keeps_reads(&self) -> bool {
        self.method.keeps_reads() || self.backup.keep_reads
    }
}
