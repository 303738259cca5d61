//! Backups of Weaviate's files, caught in an instant.
//!
//! Promises: a capture is one instant of all collections, tenants and the schema, in which everything is that was acknowledged
//! before it; the engine stands still for the milliseconds in which that instant is told apart. It starts from the files as it
//! would after a power cut, so nothing is in them that it could not recover from. A crash leaves a folder of hard links beside the
//! data folder, which the next run removes, and never an engine that stands still.
//!
//! | file | holds |
//! |---|---|
//! | `hook` | having the engine write out what it holds back |
//! | `freeze` | holding the process still, and the watchdog |
//! | `links` | the capture folder |
//! | `layout` | what each file is, by its name |
//! | `wal` | the write-ahead logs' checksums |
//! | `install` | what must hold before and after an install |
//! | `searched` | whether objects are found by their own vectors |
//! | `shards` | its shards, with what they are doing |
//! | `repair` | having the engine index again those that are not |

mod freeze;
mod hook;
mod install;
mod layout;
mod links;
mod repair;
mod searched;
mod shards;
mod wal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use perennial_shared::archive::path::RelPath;
use perennial_shared::manifest::Manifest;

use super::Weaviate;
use crate::archive::source::Source;
use crate::engine::files::{CaptureWish, CapturedFiles, InstallWish, Installed};
use crate::engine::{Engine, EngineError, FileBackup, Progress, Step};
use crate::engines::data_folder::DataFolder;
use crate::{failpoint, service};
use freeze::Process;
use hook::{Flushed, Hook};
use links::{Links, Seen};
use repair::Repair;

/// Freezes tried until no bucket is between two states, which each is for less than a millisecond.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(15);
/// An engine that is put back is given this long to stop and to start.
const PUTTING_BACK: Duration = Duration::from_secs(300);

impl Weaviate {
    fn folder(&self) -> Result<DataFolder, EngineError> {
        DataFolder::new(self.data_dir.as_deref(), self.service.as_ref())
    }

    /// The engine's process, which must be the one that has the data folder open.
    async fn process(&self, folder: &DataFolder) -> Result<Process, EngineError> {
        let missing = || EngineError::Service { why: "the engine's process was not found".into() };
        let id = service::pid(&folder.service).await?.ok_or_else(missing)?;
        let process = Process::new(id)?;
        process.must_hold(&folder.path.join("raft/raft.db"))?;
        Ok(process)
    }

    /// Everything that a capture would be refused for.
    pub(super) async fn check_capture(&self) -> Result<(), EngineError> {
        let folder = self.folder()?;
        folder.beside("capture")?;
        self.process(&folder).await.map(|_| ())
    }

    /// Removes what a capture left, also one that was killed. Its watchdog has let the engine go on; this does so again.
    async fn clear(&self, folder: &DataFolder, capture: &Path) -> Result<(), EngineError> {
        if !capture.exists() {
            return Ok(());
        }
        if let Some(Ok(process)) = service::pid(&folder.service).await?.map(Process::new) {
            process.resume();
        }
        let path = capture.to_owned();
        blocking(capture, move || links::remove_all(&path)).await
    }

    /// Freezes until the instant is a good one.
    async fn freeze(&self, process: Process, mut links: Links) -> Result<Moment, EngineError> {
        let hook = Hook { client: &self.client };
        let (mut paused, process) = (Duration::ZERO, Arc::new(process));
        for _ in 0..TRIES {
            let Flushed { collections, findings } = hook.flush().await?;
            let held = Arc::clone(&process);
            let settling = tokio::task::spawn_blocking(move || settle(&held, links));
            let (settled, of_this, back) = settling.await.map_err(stopped)??;
            links = back;
            paused += of_this;
            if settled == Seen::Whole {
                let after = self.collections().await?;
                let collections = collections.into_iter().filter(|c| after.contains(c)).collect();
                return Ok(Moment { links, paused, collections, findings });
            }
            tokio::time::sleep(PAUSE).await;
        }
        let why = format!("its files were between two states each of {TRIES} times it was looked at; try again later");
        Err(EngineError::Failed { what: "backup", id: "its files".into(), why })
    }
}

/// An instant of the engine's.
struct Moment {
    links: Links,
    /// How long the engine stood still.
    paused: Duration,
    /// Collections that were there before and after.
    collections: Vec<String>,
    findings: Vec<String>,
}

#[async_trait]
impl FileBackup for Weaviate {
    async fn capture(&self, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
        let told = |state| (wish.progress)(Step { state, done: None });
        let folder = self.folder()?;
        let capture = folder.beside("capture")?;
        self.clear(&folder, &capture).await?;
        self.pinned_identity().await?;
        if self.collections().await?.is_empty() {
            return Err(EngineError::Empty);
        }
        let process = self.process(&folder).await?;
        let stop = Stop::default();

        told("linking files");
        let (from, to, flag) = (folder.path.clone(), capture.clone(), Arc::clone(&stop.0));
        let links = blocking(&capture, move || {
            let mut links = Links::new(&from, &to, flag)?;
            links.prepare()?;
            Ok(links)
        });
        let links = links.await?;
        told("freezing");
        let Moment { links, paused, collections, mut findings } = self.freeze(process, links).await?;
        told("checking logs");
        let lengths = blocking(&capture, move || links.finish()).await?;
        let root = capture.clone();
        let (lengths, unchecked) =
            tokio::task::spawn_blocking(move || checked(&root, lengths)).await.map_err(stopped)??;
        findings.extend(unchecked);
        let source = Source { root: capture, lengths, ctime_is_ours: true, ..Source::default() };
        Ok(CapturedFiles { source, collections, paused: Some(paused), findings, ..CapturedFiles::default() })
    }

    async fn release(&self) -> Result<(), EngineError> {
        let folder = self.folder()?;
        self.clear(&folder, &folder.beside("capture")?).await
    }

    async fn staging(&self, tag: &str) -> Result<PathBuf, EngineError> {
        self.folder()?.staging(tag)
    }

    async fn local(&self) -> Option<PathBuf> {
        self.data_dir.clone().filter(|d| d.is_dir())
    }

    async fn check_install(&self, manifest: &Manifest) -> Result<Vec<String>, EngineError> {
        self.folder()?;
        if let Some(pinned) = &self.host_name {
            install::is_named(pinned, manifest)?;
        }
        match self.identity().await {
            Ok(identity) => install::fits(manifest, &identity).map(|()| vec![]),
            Err(e) if e.is_absence() => {
                Ok(vec![format!("the engine does not run, so its version will be seen when it has started ({e})")])
            }
            Err(e) => Err(e),
        }
    }

    async fn install(&self, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
        let deadline = Instant::now() + wish.patience;
        let told = |state| (wish.progress)(Step { state, done: None });
        let folder = self.folder()?;
        let (staged, existing) = (wish.staged.to_owned(), folder.path.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            // Of an earlier run of this restore that was killed after the swap, nothing is staged any more.
            if !staged.exists() {
                return Ok(());
            }
            install::check_staged(&staged)?;
            install::give(&staged, &existing).map_err(|e| EngineError::files(&staged, &e))
        });
        prepared.await.map_err(stopped)??;
        folder.install(wish.tag, wish.patience).await?;
        told("waiting for the engine");
        self.wait_until_ready(deadline.saturating_duration_since(Instant::now())).await?;
        install::fits(wish.manifest, &self.pinned_identity().await?)?;
        Ok(Installed { tag: wish.tag.into(), ..Installed::default() })
    }

    async fn mend(&self, patience: Duration, progress: Progress<'_>) -> Vec<String> {
        let told = |state: &str| progress(Step { state, done: None });
        let until = Instant::now() + patience;
        Repair { client: &self.client, profiling: &self.profiling, until, told: &told }.findings().await
    }

    async fn commit(&self, installed: &Installed) -> Result<Vec<String>, EngineError> {
        self.folder()?.commit(&installed.tag).await?;
        Ok(vec![])
    }

    async fn take_back(&self, installed: &Installed) -> Result<bool, EngineError> {
        self.folder()?.take_back(&installed.tag, PUTTING_BACK).await
    }
}

/// One freeze: what it gave, how long it was, and the links. The engine goes on whatever happens.
fn settle(process: &Process, mut links: Links) -> Result<(Seen, Duration, Links), EngineError> {
    let frozen = process.freeze()?;
    let settled = links.settle(frozen.deadline());
    failpoint::reach("backup-frozen");
    let paused = frozen.thaw()?;
    let settled = settled.map_err(|e| EngineError::Files { path: "the engine's files".into(), why: e.to_string() })?;
    Ok((settled, paused, links))
}

/// Logs end after their last whole record; one that is damaged before it is no backup.
fn checked(
    root: &Path,
    mut lengths: BTreeMap<RelPath, u64>,
) -> Result<(BTreeMap<RelPath, u64>, Vec<String>), EngineError> {
    let mut unknown = 0;
    for (path, length) in &mut lengths {
        if path.as_path().extension().is_none_or(|e| e != "wal") {
            continue;
        }
        let full = path.under(root);
        match wal::check(&full, *length).map_err(|e| EngineError::files(&full, &e))? {
            wal::Found::Whole(whole) => *length = whole,
            wal::Found::Unknown => unknown += 1,
            wal::Found::Damaged(at) => {
                let why = format!(
                    "its record at byte {at} does not have its checksum, so the engine would lose what follows at its next \
                     start; nothing was published"
                );
                return Err(EngineError::Damaged { what: format!("the write-ahead log {path} of the engine"), why });
            }
        }
    }
    let finding = format!("{unknown} write-ahead logs are of a form that is not known, and were not checked");
    Ok((lengths, if unknown > 0 { vec![finding] } else { vec![] }))
}

/// Stops the blocking part of a capture that nobody waits for any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.into()));
    done.map_err(|e| EngineError::files(path, &e))
}

// For `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn stopped(e: tokio::task::JoinError) -> EngineError {
    EngineError::Unsupported(format!("a part of the program ended: {e}"))
}
