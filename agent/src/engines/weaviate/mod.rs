//! Weaviate, one node.
//!
//! | file | holds |
//! |---|---|
//! | `client` | HTTP: authentication, time limits, repeated reads, what errors mean |
//! | `health` | ready or not, version, host name |
//! | `inventory` | collections, exact counts, sample queries |
//! | `operation` | a backup or restore, watched until it is really over |
//! | `backup`, `restore` | what each needs before and after |
//! | `files` | the documents inside a native backup |
//! | `examine` | what `doctor` looks at in Weaviate alone |
//! | `left_over` | folders that would make a restore lie |
//! | `read_only` | refusing writes |
//! | `profiling` | having vectors indexed again, over the profiling port |
//! | `physical` | backups of its files, caught in an instant |

mod backup;
mod client;
mod examine;
mod files;
mod health;
mod inventory;
mod left_over;
mod operation;
mod physical;
mod profiling;
mod read_only;
mod restore;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::manifest::Sample;
use perennial_shared::secret::Secret;
use perennial_shared::settings::Service;

use crate::check::Check;
use crate::engine::native::{Captured, Description, Place};
use crate::engine::{Answer, Counted, Engine, EngineError, FileBackup, Identity, NativeBackup, Progress};
use client::{Client, Request};
use operation::{Kind, Operation};
use profiling::Profiling;

/// One Weaviate server.
#[derive(Debug)]
pub struct Weaviate {
    client: Client,
    profiling: Profiling,
    host_name: Option<String>,
    data_dir: Option<PathBuf>,
    service: Option<Service>,
    physical: bool,
}

/// What must be known of a Weaviate server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where its profiling port answers; `None` is port 6060 of its host.
    pub debug_url: Option<String>,
    /// The name it must run under (`CLUSTER_HOSTNAME`); `None` takes any.
    pub host_name: Option<String>,
    /// Its data folder as this program sees it; `None` does without looking for left-over folders.
    pub data_dir: Option<PathBuf>,
    /// How it is started and stopped, for physical backups.
    pub service: Option<Service>,
    /// Whether its files are what is backed up.
    pub physical: bool,
}

impl Weaviate {
    /// The server at `url`; nothing is sent yet.
    pub fn new(url: &str, key: Option<&Secret>, options: Options) -> Result<Self, EngineError> {
        let Options { debug_url, host_name, data_dir, service, physical } = options;
        let (client, profiling) = (Client::new(url, key)?, Profiling::new(debug_url.as_deref(), url)?);
        Ok(Self { client, profiling, host_name, data_dir, service, physical })
    }

    /// The identity, which must have the pinned host name.
    async fn pinned_identity(&self) -> Result<Identity, EngineError> {
        let identity = self.identity().await?;
        match &self.host_name {
            Some(expected) if *expected != identity.host_name => {
                Err(EngineError::HostNameDiffers { expected: expected.clone(), found: identity.host_name })
            }
            _ => Ok(identity),
        }
    }

    fn restore_of<'a>(&'a self, place: &'a Place) -> Operation<'a> {
        Operation::new(&self.client, Kind::Restore, place)
    }

    fn backup_of<'a>(&'a self, place: &'a Place) -> Operation<'a> {
        Operation::new(&self.client, Kind::Backup, place)
    }
}

#[async_trait]
impl Engine for Weaviate {
    async fn health(&self) -> Result<(), EngineError> {
        self.client.ready().await
    }

    async fn identity(&self) -> Result<Identity, EngineError> {
        health::identity(&self.client).await
    }

    async fn collections(&self) -> Result<Vec<String>, EngineError> {
        Ok(inventory::classes(&self.client).await?.into_iter().map(|c| c.name).collect())
    }

    async fn count(&self) -> Result<Vec<Counted>, EngineError> {
        inventory::count(&self.client).await
    }

    async fn samples(&self, collection: &str, each: usize) -> Result<Vec<Sample>, EngineError> {
        inventory::samples(&self.client, collection, each).await
    }

    async fn ask(&self, collection: &str, sample: &Sample) -> Result<Answer, EngineError> {
        match inventory::ask(&self.client, collection, sample).await {
            // What there is nothing to search by is gone.
            Err(EngineError::Unexpected { why, .. }) if why.contains("vector not found") => Ok(Answer::default()),
            found => found,
        }
    }

    async fn refuse_writes(&self) -> Result<(), EngineError> {
        read_only::set_all(&self.client, "READONLY").await
    }

    async fn accept_writes(&self) -> Result<(), EngineError> {
        read_only::set_all(&self.client, "READY").await
    }

    /// A shard that refuses writes refuses the first object of a batch, and acknowledges the others without storing them.
    fn can_refuse_writes(&self) -> bool {
        false
    }

    async fn examine(&self) -> Vec<Check> {
        examine::checks(self).await
    }

    fn native(&self) -> Option<&dyn NativeBackup> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn FileBackup> {
        Some(self)
    }
}

#[async_trait]
impl NativeBackup for Weaviate {
    async fn capture(
        &self,
        place: &Place,
        patience: Duration,
        progress: Progress<'_>,
    ) -> Result<Captured, EngineError> {
        self.pinned_identity().await?;
        backup::capture(self.backup_of(place), patience, progress).await
    }

    async fn cancel_capture(&self, place: &Place) -> Result<(), EngineError> {
        self.backup_of(place).cancel().await
    }

    fn describe(&self, description: &[u8]) -> Result<Description, EngineError> {
        files::describe(description)
    }

    fn description_key(&self) -> &'static str {
        files::CONFIG
    }

    fn part_keys(&self, description: &Description) -> Vec<String> {
        vec![files::part_key(&description.host_name)]
    }

    fn expected_keys(&self, part_key: &str, part: &[u8]) -> Result<Vec<String>, EngineError> {
        files::chunk_keys(part_key, part)
    }

    async fn unsearchable(&self, part: &[u8], searched: &[(String, Sample)]) -> Result<Vec<String>, EngineError> {
        let graphs = inventory::graphs(&self.client, searched).await?;
        files::without_graph(part, &graphs)
    }

    fn is_bookkeeping(&self, key: &str) -> bool {
        files::is_bookkeeping(key)
    }

    fn install_record_key(&self) -> Option<&'static str> {
        Some(files::RESTORE_CONFIG)
    }

    async fn check_suits(&self, description: &Description) -> Result<(), EngineError> {
        restore::check_version(&description.engine_version, &self.pinned_identity().await?.version)
    }

    async fn check_install(&self, description: &Description) -> Result<(), EngineError> {
        self.check_suits(description).await?;
        restore::check(&self.client, self.data_dir.as_deref(), description).await
    }

    async fn install(
        &self,
        place: &Place,
        description: &Description,
        patience: Duration,
        progress: Progress<'_>,
    ) -> Result<(), EngineError> {
        let identity = self.pinned_identity().await?;
        restore::install(
            self.restore_of(place),
            self.data_dir.as_deref(),
            description,
            &identity.host_name,
            patience,
            progress,
        )
        .await
    }

    async fn installing(&self, place: &Place) -> Result<bool, EngineError> {
        Ok(self.restore_of(place).running().await?.is_some())
    }

    async fn cancel_install(&self, place: &Place) -> Result<(), EngineError> {
        self.restore_of(place).cancel().await
    }

    async fn remove_collections(&self, names: &[String]) -> Result<(), EngineError> {
        for name in names {
            self.client.change(Request::delete(&["schema", name])).await?;
        }
        Ok(())
    }
}
