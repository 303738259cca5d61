//! Any folder, of a service that Perennial does not know: the commands of the settings stand for the engine.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use perennial_shared::manifest::Manifest;
use perennial_shared::settings::{Commands, Target};

use crate::archive::restore::swap::{self, Places};
use crate::archive::source::Source;
use crate::command;
use crate::engine::files::{CaptureWish, CapturedFiles, InstallWish, Installed};
use crate::engine::{EngineError, FileBackup};
use crate::failpoint;

/// A folder that is backed up as it is.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    commands: Commands,
    patience: Duration,
}

impl Folder {
    /// The data folder of a target.
    pub fn of(target: &Target) -> Result<Self, EngineError> {
        let path = target.data_dir.clone().ok_or_else(|| {
            EngineError::Unsupported("`data_dir` is not set: say where to with --to DIR, or set it".into())
        })?;
        Ok(Self { path, commands: target.commands.clone(), patience: target.backup.timeout })
    }

    /// A folder that nothing uses.
    pub fn unused(path: PathBuf) -> Self {
        Self { path, commands: Commands::default(), patience: Duration::ZERO }
    }

    fn places(&self, tag: &str) -> Result<Places, EngineError> {
        Places::new(&self.path, tag).map_err(|e| EngineError::files(&self.path, &e))
    }

    async fn run(&self, setting: &str, words: &[String], patience: Duration) -> Result<(), EngineError> {
        command::run(setting, words, patience).await.map_err(|e| EngineError::Command { why: e.message })
    }
}

#[async_trait]
impl FileBackup for Folder {
    async fn capture(&self, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
        self.run("commands.before_capture", &self.commands.before_capture, wish.patience).await?;
        Ok(CapturedFiles { source: Source::folder(&self.path), ..CapturedFiles::default() })
    }

    async fn release(&self) -> Result<(), EngineError> {
        self.run("commands.after_capture", &self.commands.after_capture, self.patience).await
    }

    async fn staging(&self, tag: &str) -> Result<PathBuf, EngineError> {
        Ok(self.places(tag)?.staging)
    }

    async fn local(&self) -> Option<PathBuf> {
        self.path.is_dir().then(|| self.path.clone())
    }

    async fn check_install(&self, _: &Manifest) -> Result<Vec<String>, EngineError> {
        Ok(vec![])
    }

    async fn install(&self, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
        let places = self.places(wish.tag)?;
        self.run("commands.before_restore", &self.commands.before_restore, wish.patience).await?;
        let swapped = swap::finish(&places).map_err(|e| EngineError::files(&self.path, &e));
        failpoint::reach("restore-swapped");
        let started = self.run("commands.after_restore", &self.commands.after_restore, wish.patience).await;
        // Without the swap the service goes on with what it had; why there was none is the telling error.
        swapped?;
        started.map_err(|e| match &places.old {
            old if old.exists() => {
                EngineError::Command { why: format!("{e}; what was there before is kept at {}", old.display()) }
            }
            _ => e,
        })?;
        Ok(Installed { tag: wish.tag.into(), ..Installed::default() })
    }

    async fn commit(&self, installed: &Installed) -> Result<Vec<String>, EngineError> {
        let places = self.places(&installed.tag)?;
        swap::forget_old(&places).map_err(|e| EngineError::files(&self.path, &e))?;
        Ok(vec![])
    }

    /// Nothing compares a folder whose service is not known, so nothing is ever taken back.
    async fn take_back(&self, _: &Installed) -> Result<bool, EngineError> {
        Ok(false)
    }
}
