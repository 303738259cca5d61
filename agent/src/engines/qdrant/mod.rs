//! Qdrant, one node, by its collection snapshots.
//!
//! | file | holds |
//! |---|---|
//! | `client` | REST: authentication, time limits, repeated reads, what errors mean |
//! | `inventory` | collections, aliases, exact counts, sample points |
//! | `capture` | a backup's files |
//! | `unchanged` | which collections need no snapshot |
//! | `snapshot` | one snapshot: made, fetched, deleted |
//! | `left_over` | the snapshot that is on the server for us, also after a crash |
//! | `unpack`, `pack`, `entry` | an archive taken apart while it arrives, and made again while it is sent |
//! | `install`, `commit`, `plan` | a restore beside what is there, then in its place; who gets which name |
//! | `upload` | an archive on its way into the server |
//! | `scratch` | the folder for all that |
//! | `names`, `version`, `examine` | names on the disk, who restores what, what `doctor` looks at |
//!
//! Why collection snapshots and no other: while the optimizer works, acknowledged deletes are only in its memory, beside the
//! segment. A snapshot of a shard, streamed or partial, has the segments and an empty log, and brings them back (all of 1000, seen on
//! 1.18.3). A collection snapshot has the log, which is replayed from the last operation that the segments are sure to hold: it holds
//! every write that was acknowledged before it was asked for. Writers wait while the log is copied, for milliseconds.
//!
//! Disk: at its peak one server snapshot (once or one and a half times the largest collection that changed, on the server's disk)
//! and one copy of all that changed, taken apart, in our scratch folder until it is archived. A restore needs the staged
//! files, one uploaded archive on the server's disk at a time, and, over live data, the copies beside it until the commit.

mod capture;
mod client;
mod commit;
mod entry;
mod examine;
mod install;
mod inventory;
mod left_over;
mod names;
mod pack;
mod plan;
mod scratch;
mod snapshot;
mod unchanged;
mod unpack;
mod upload;
mod version;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use perennial_shared::manifest::{Manifest, Sample};
use perennial_shared::secret::Secret;
use serde::Deserialize;
use serde_json::Value;

use crate::check::Check;
use crate::engine::files::{CaptureWish, CapturedFiles, InstallWish, Installed};
use crate::engine::{Answer, Counted, Engine, EngineError, FileBackup, Identity};
use client::{Client, Request};
use plan::Phase;
use scratch::Scratch;
use snapshot::Snapshots;

/// One Qdrant server.
#[derive(Debug)]
pub struct Qdrant {
    client: Client,
    scratch: Scratch,
    snapshots: Snapshots,
    data_dir: Option<PathBuf>,
}

/// What must be known of a Qdrant server.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder for copies of snapshots on their way.
    pub scratch: PathBuf,
    /// The server's data folder, where it is known: for its free space.
    pub data_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Title {
    version: String,
}

impl Qdrant {
    /// The server at `url`; nothing is sent yet.
    pub fn new(url: &str, key: Option<&Secret>, options: Options) -> Result<Self, EngineError> {
        let client = Client::new(url, key)?;
        let Options { scratch, data_dir } = options;
        Ok(Self { client, scratch: Scratch::new(scratch), snapshots: Snapshots::default(), data_dir })
    }

    /// Fails on a node of a cluster: its snapshots hold only its own shards.
    async fn is_single(&self) -> Result<(), EngineError> {
        let cluster: Value = self.client.read(Request::get(&["cluster"])).await?;
        if cluster["status"] == "disabled" {
            return Ok(());
        }
        let why = "runs in distributed mode; Perennial looks after single nodes (QDRANT__CLUSTER__ENABLED=false)";
        Err(EngineError::Unsupported(format!("the engine at {} {why}", self.client.url())))
    }
}

#[async_trait]
impl Engine for Qdrant {
    async fn health(&self) -> Result<(), EngineError> {
        self.client.ready().await
    }

    async fn identity(&self) -> Result<Identity, EngineError> {
        let text = self.client.text(Request::get(&[])).await?;
        let damaged =
            |e: serde_json::Error| EngineError::Damaged { what: "the engine's title".into(), why: e.to_string() };
        let Title { version } = serde_json::from_str(&text).map_err(damaged)?;
        // The title is for everybody; this is not.
        inventory::collections(&self.client).await?;
        Ok(Identity { version, host_name: String::new() })
    }

    async fn collections(&self) -> Result<Vec<String>, EngineError> {
        Ok(inventory::called(&self.client).await?.into_keys().collect())
    }

    async fn count(&self) -> Result<Vec<Counted>, EngineError> {
        inventory::count(&self.client).await
    }

    async fn samples(&self, collection: &str, each: usize) -> Result<Vec<Sample>, EngineError> {
        inventory::samples(&self.client, collection, each).await
    }

    async fn ask(&self, collection: &str, sample: &Sample) -> Result<Answer, EngineError> {
        inventory::ask(&self.client, collection, sample).await
    }

    fn can_refuse_writes(&self) -> bool {
        false
    }

    async fn refuse_writes(&self) -> Result<(), EngineError> {
        let why = "Qdrant cannot refuse writes; close its port to everybody but this machine, or move its address, before a final backup";
        Err(EngineError::Unsupported(why.into()))
    }

    async fn accept_writes(&self) -> Result<(), EngineError> {
        Ok(())
    }

    async fn examine(&self) -> Vec<Check> {
        examine::checks(self).await
    }

    fn files(&self) -> Option<&dyn FileBackup> {
        Some(self)
    }
}

#[async_trait]
impl FileBackup for Qdrant {
    async fn capture(&self, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
        capture::capture(self, wish).await
    }

    async fn release(&self) -> Result<(), EngineError> {
        // A snapshot that cannot be told from others stays remembered: the next capture says so.
        left_over::remove(&self.client, &self.scratch).await?;
        self.scratch.remove_capture().await
    }

    async fn staging(&self, tag: &str) -> Result<PathBuf, EngineError> {
        self.scratch.make()?;
        Ok(self.scratch.staging(tag))
    }

    async fn local(&self) -> Option<PathBuf> {
        None
    }

    fn copies_into(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    async fn check_install(&self, manifest: &Manifest) -> Result<Vec<String>, EngineError> {
        install::check(self, manifest).await
    }

    async fn make_good(&self) -> Result<Vec<String>, EngineError> {
        commit::make_good(self).await
    }

    fn is_in_place(&self, tag: &str, staged: &Path) -> Result<bool, EngineError> {
        let plan = install::load(&self.scratch, tag)?;
        Ok(plan.map_or(!staged.exists(), |plan| plan.phase == Phase::Cleaning))
    }

    async fn install(&self, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
        install::install(self, wish).await
    }

    async fn commit(&self, installed: &Installed) -> Result<Vec<String>, EngineError> {
        commit::commit(self, &installed.tag).await
    }

    async fn take_back(&self, installed: &Installed) -> Result<bool, EngineError> {
        install::take_back(self, &installed.tag).await
    }
}
