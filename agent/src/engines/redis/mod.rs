//! Redis, one server, and Valkey, which is Redis by another name: its point-in-time file, its append-only files, or both.
//!
//! | module | owns |
//! |---|---|
//! | `client`, `info` | commands, and what refusals mean; `INFO` |
//! | `inventory`, `value`, `names` | counts of databases, samples of keys and their digests |
//! | `writes` | refusing writes |
//! | `layout`, `known`, `startup` | where the data is, and what the server will be after a restart |
//! | `capture`, `captured`, `save`, `appended` | capturing: the folder, the point-in-time file, the append-only files, read to their ends |
//! | `rdb`, `aof` | the files themselves, read without a server |
//! | `arrange`, `others`, `install`, `log`, `versions` | making a data folder of a backup, and the server's of it |
//! | `examine` | what loses data |
//!
//! A database that holds keys is a collection, `db0`, `db1` and so on. Its count takes in keys that have expired and were not deleted
//! yet; how many may expire stands beside it.

mod aof;
mod appended;
mod arrange;
mod capture;
mod captured;
mod client;
mod examine;
mod info;
mod install;
mod inventory;
mod known;
mod layout;
mod log;
mod names;
mod others;
mod rdb;
mod save;
mod startup;
mod value;
mod versions;
mod writes;

use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use perennial_shared::manifest::{Manifest, Sample};
use perennial_shared::secret::Secret;
use perennial_shared::settings::{Method, Service};

use crate::check::Check;
use crate::engine::files::{CaptureWish, CapturedFiles, InstallWish, Installed};
use crate::engine::{Answer, Counted, Engine, EngineError, FileBackup, Identity};
use crate::engines::data_folder::DataFolder;
use captured::Captured;
use client::Client;
use info::Info;
use known::Known;

/// Of these Perennial knows the append-only files and the counts of saves.
const OLDEST: u32 = 7;

/// One Redis server.
#[derive(Debug)]
pub struct Redis {
    client: Client,
    options: Options,
    known: Known,
    /// Where the server said that its data is.
    found: OnceLock<PathBuf>,
}

/// What must be known of a Redis server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The ACL user that the key belongs to; `None` is the default user.
    pub user: Option<String>,
    /// What is captured.
    pub method: Method,
    /// The server's `dir` as this program sees it; `None` asks the server.
    pub data_dir: Option<PathBuf>,
    /// How it is started and stopped.
    pub service: Option<Service>,
    /// A file that remembers what the server said of its folder while a restore keeps it stopped; `None` remembers nothing.
    pub memory: Option<PathBuf>,
}

impl Redis {
    /// The server at `url`; nothing is sent yet.
    pub fn new(url: &str, key: Option<&Secret>, options: Options) -> Result<Self, EngineError> {
        let client = Client::new(url, key, options.user.as_deref())?;
        let known = Known::new(options.memory.as_deref(), url);
        Ok(Self { client, options, known, found: OnceLock::new() })
    }

    /// The data folder, of the settings or else as the server says.
    async fn data_dir(&self) -> Result<PathBuf, EngineError> {
        if let Some(known) = self.options.data_dir.as_ref().or_else(|| self.found.get()) {
            return Ok(known.clone());
        }
        let path: PathBuf = match self.client.open().await {
            Ok(mut link) => link.setting("dir").await?.unwrap_or_default().into(),
            Err(e) if e.is_absence() => self.known.layout().map(|l| l.dir).ok_or(e)?,
            Err(e) => return Err(e),
        };
        if !path.is_absolute() {
            return Err(EngineError::Unsupported(format!(
                "the server's data folder {} is no absolute path; set `data_dir`",
                path.display()
            )));
        }
        Ok(self.found.get_or_init(|| path).clone())
    }

    /// The data folder of a server that can be stopped.
    async fn folder(&self) -> Result<DataFolder, EngineError> {
        DataFolder::new(Some(&self.data_dir().await?), self.options.service.as_ref())
    }

    /// Who the server is, if it is one that Perennial looks after.
    async fn identify(&self) -> Result<Identity, EngineError> {
        let info = self.client.open().await?.info("server").await?;
        let version = version(&info);
        let refused = |what: &str| Err(EngineError::Unsupported(format!("the server at {} {what}", self.client.url())));
        match info.text("redis_mode") {
            "cluster" => return refused("is a node of a cluster; Perennial looks after single servers"),
            "sentinel" => return refused("is a sentinel, which holds no data; give the address of the server itself"),
            _ => {}
        }
        let major = info.text("redis_version").split('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        if major < OLDEST {
            return refused(&format!("is version {version}; Perennial needs {OLDEST}.0 or later"));
        }
        Ok(Identity { version, host_name: String::new() })
    }
}

/// `7.0.15`, or `valkey-9.1.2`: Valkey goes on calling itself Redis 7.2.4.
fn version(info: &Info) -> String {
    match info.text("valkey_version") {
        "" => info.text("redis_version").to_owned(),
        valkey => format!("valkey-{valkey}"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(EngineError::Unsupported(format!("work on the server's files was broken off: {e}"))),
    }
}

#[async_trait]
impl Engine for Redis {
    /// A server that refuses writes because it cannot save (`MISCONF`) still answers reads and needs a backup most of all.
    async fn health(&self) -> Result<(), EngineError> {
        let mut link = self.client.open().await?;
        match link.call(&["PING"]).await {
            Err(EngineError::Failed { why, .. }) if why.starts_with("MISCONF") => {}
            answer => drop(answer?),
        }
        if link.info("persistence").await?.is_on("loading") {
            let (url, why) = (self.client.url().to_owned(), "it is loading its data".into());
            return Err(EngineError::NotReady { url, why });
        }
        Ok(())
    }

    async fn identity(&self) -> Result<Identity, EngineError> {
        self.identify().await
    }

    async fn collections(&self) -> Result<Vec<String>, EngineError> {
        Ok(inventory::count(&self.client).await?.into_iter().map(|c| c.name).collect())
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
        true
    }

    async fn refuse_writes(&self) -> Result<(), EngineError> {
        writes::refuse(&self.client).await
    }

    async fn accept_writes(&self) -> Result<(), EngineError> {
        writes::accept(&self.client).await
    }

    async fn examine(&self) -> Vec<Check> {
        examine::checks(self).await
    }

    fn files(&self) -> Option<&dyn FileBackup> {
        Some(self)
    }
}

#[async_trait]
impl FileBackup for Redis {
    async fn capture(&self, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
        capture::capture(self, wish).await
    }

    async fn release(&self) -> Result<(), EngineError> {
        let data_dir = match self.data_dir().await {
            Ok(data_dir) => data_dir,
            // Nothing can have been captured of a server that was never asked; what is left of an earlier run waits for the next capture.
            Err(e) if e.is_absence() => return Ok(()),
            Err(e) => return Err(e),
        };
        blocking(move || Captured::remove(&data_dir)).await
    }

    async fn staging(&self, tag: &str) -> Result<PathBuf, EngineError> {
        self.folder().await?.staging(tag)
    }

    async fn local(&self) -> Option<PathBuf> {
        self.data_dir().await.ok().filter(|d| d.is_dir())
    }

    async fn check_install(&self, manifest: &Manifest) -> Result<Vec<String>, EngineError> {
        install::check(self, manifest).await
    }

    async fn install(&self, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
        install::install(self, wish).await
    }

    async fn commit(&self, installed: &Installed) -> Result<Vec<String>, EngineError> {
        install::commit(self, installed).await
    }

    async fn take_back(&self, installed: &Installed) -> Result<bool, EngineError> {
        install::take_back(self, installed).await
    }
}
