//! An engine's data folder, which a restored one is swapped in for while the engine is stopped.
//!
//! Promises: what was there before is kept beside it until the restore is committed, and put back when it is taken back. A swap that
//! fails leaves the engine running on what it had. A crash in between leaves the engine stopped or with the restored data; the same
//! restore begun again goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use perennial_shared::settings::Service;

use crate::archive::restore::swap::{self, Places};
use crate::engine::EngineError;
use crate::failpoint;
use crate::service;

/// A data folder and what holds it open.
#[derive(Debug, Clone)]
pub struct DataFolder {
    /// Where it is.
    pub path: PathBuf,
    /// How the engine is stopped and started around the swap.
    pub service: Service,
}

impl DataFolder {
    /// The folder at `path`, which must be set, of an engine that can be stopped.
    pub fn new(path: Option<&Path>, service: Option<&Service>) -> Result<Self, EngineError> {
        let missing = |what: &str, why: &str| EngineError::Unsupported(format!("`{what}` is not set: {why}"));
        let path = path.ok_or_else(|| missing("data_dir", "which folder holds the engine's data?"))?;
        let service =
            service.ok_or_else(|| missing("service", "the engine must be stopped while its data folder is swapped"))?;
        Ok(Self { path: path.into(), service: service.clone() })
    }

    fn places(&self, tag: &str) -> Result<Places, EngineError> {
        Places::new(&self.path, tag).map_err(|e| EngineError::files(&self.path, &e))
    }

    /// Where the restore called `tag` is put together.
    pub fn staging(&self, tag: &str) -> Result<PathBuf, EngineError> {
        Ok(self.places(tag)?.staging)
    }

    /// A folder for `what` beside the data folder, on the same file system.
    pub fn beside(&self, what: &str) -> Result<PathBuf, EngineError> {
        let staging = self.staging(what)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Ok(staging.with_file_name(format!(".{name}.perennial-{what}")))
    }

    /// Stops the engine, puts the staged folder in, starts it again. Whether it serves then is for the caller to see.
    pub async fn install(&self, tag: &str, patience: Duration) -> Result<(), EngineError> {
        let places = self.places(tag)?;
        self.stop(patience).await?;
        failpoint::reach("restore-stopped");
        let swapped = self.blocking(places, swap::finish).await;
        failpoint::reach("restore-swapped");
        let started = service::start(&self.service, patience).await;
        // Without the swap the engine runs on what it had; why there was none is the telling error.
        swapped.and(started)
    }

    /// Whether what was there before a restore is kept.
    pub fn keeps_old(&self, tag: &str) -> Result<bool, EngineError> {
        Ok(self.places(tag)?.old.exists())
    }

    /// Forgets what was there before.
    pub async fn commit(&self, tag: &str) -> Result<(), EngineError> {
        self.blocking(self.places(tag)?, swap::forget_old).await
    }

    /// Puts back what was there before, where it is still kept; whether it was.
    pub async fn take_back(&self, tag: &str, patience: Duration) -> Result<bool, EngineError> {
        let places = self.places(tag)?;
        if !places.old.exists() {
            return Ok(false);
        }
        self.stop(patience).await?;
        self.blocking(places, swap::undo).await?;
        service::start(&self.service, patience).await.map(|()| true)
    }

    /// Stops the engine. One that is gone although stopping it failed is started again: nobody else would.
    async fn stop(&self, patience: Duration) -> Result<(), EngineError> {
        let stopped = service::stop(&self.service, patience).await;
        if stopped.is_err() && matches!(service::pid(&self.service).await, Ok(None)) {
            // Why it could not be stopped is the telling error.
            let _ = service::start(&self.service, patience).await;
        }
        stopped
    }

    async fn blocking(&self, places: Places, work: fn(&Places) -> std::io::Result<()>) -> Result<(), EngineError> {
        let done = tokio::task::spawn_blocking(move || work(&places)).await.unwrap_or_else(|e| Err(e.into()));
        done.map_err(|e| EngineError::files(&self.path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// An engine whose service writes down what it is told, and ends so when it is told to stop.
    fn noted(folder: &Path, stop: &str) -> (DataFolder, PathBuf) {
        let log = folder.join("log");
        let says = |word: &str, then: &str| {
            let script = format!("echo {word} >>{}; {then}", log.display());
            ["/bin/sh", "-c", &script].map(ToOwned::to_owned).to_vec()
        };
        let pid = vec!["/bin/true".to_owned()];
        let service = Service::Commands { start: says("start", "exit 0"), stop: says("stop", stop), pid };
        (DataFolder { path: folder.join("data"), service }, log)
    }

    #[tokio::test]
    async fn an_engine_whose_swap_fails_is_started_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, log) = noted(folder.path(), "exit 0");
        data.install("x", PATIENCE).await.expect_err("nothing is staged, and nothing is there");
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "stop\nstart\n");
        data.take_back("x", PATIENCE).await.expect("nothing to take back");
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "stop\nstart\n");
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_after_a_stop_that_failed_is_started_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, log) = noted(folder.path(), "echo no room >&2; exit 1");
        let error = data.install("x", PATIENCE).await.expect_err("it could not be stopped");
        assert!(error.to_string().contains("no room"), "{error}");
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "stop\nstart\n");
    }
}
