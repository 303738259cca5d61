//! The folder for what is on its way, and for what must be known after a crash.
//!
//! | name | holds |
//! |---|---|
//! | `capture/` | the backup's files while they are archived |
//! | `restore-<tag>/` | a restore's files |
//! | `restore-<tag>.json` | what that restore made in the engine, and how far it is |
//! | `snapshot.json` | the snapshot that is on the server for us; written before it is made |
//! | `last-snapshot` | when our last one was made, for the next to stand apart from it |
//! | `timeline` | a word that changes with every restore, after which what was known of unchanged collections is void |

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::EngineError;

const RESTORE: &str = "restore-";
const RECORD: &str = ".json";

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the folder, which only its owner may look into: it holds the engine's data.
    pub(super) fn make(&self) -> Result<(), EngineError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|e| EngineError::files(&self.folder, &e))
    }

    /// The files of a capture.
    pub(super) fn capture(&self) -> PathBuf {
        self.folder.join("capture")
    }

    /// The files of a restore.
    pub(super) fn staging(&self, tag: &str) -> PathBuf {
        self.folder.join(format!("{RESTORE}{tag}"))
    }

    /// The timeline that the engine's data is on, as far as this machine knows.
    pub(super) fn timeline(&self) -> Result<String, EngineError> {
        match self.load::<String>("timeline")? {
            Some(word) => Ok(word),
            None => self.new_timeline(),
        }
    }

    /// Says that the engine's numbers do not go on from where they were.
    pub(super) fn new_timeline(&self) -> Result<String, EngineError> {
        let word = format!("{}-{}", Timestamp::now().as_nanosecond(), std::process::id());
        self.store("timeline", &word)?;
        Ok(word)
    }

    /// The name under which a restore is remembered.
    pub(super) fn record(tag: &str) -> String {
        format!("{RESTORE}{tag}{RECORD}")
    }

    /// The names under which restores are remembered.
    pub(super) fn records(&self) -> Result<Vec<String>, EngineError> {
        let failed = |e: std::io::Error| EngineError::files(&self.folder, &e);
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(failed)?,
        };
        let mut found = vec![];
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            found.extend(name.into_string().ok().filter(|n| n.starts_with(RESTORE) && n.ends_with(RECORD)));
        }
        found.sort();
        Ok(found)
    }

    /// What is remembered under a name.
    pub(super) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, EngineError> {
        let path = self.folder.join(name);
        let damaged =
            |e: serde_json::Error| EngineError::Damaged { what: path.display().to_string(), why: e.to_string() };
        match fs::read(&path) {
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(damaged),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(EngineError::files(&path, &e)),
        }
    }

    /// Remembers, whole or not at all, also over a power cut.
    pub(super) fn store<T: Serialize>(&self, name: &str, value: &T) -> Result<(), EngineError> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        self.make()?;
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| EngineError::files(&path, &e))
    }

    /// Forgets what is remembered under a name.
    pub(super) fn forget(&self, name: &str) -> Result<(), EngineError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(EngineError::files(&path, &e)),
            _ => Ok(()),
        }
    }

    /// Removes the files of a capture.
    pub(super) async fn remove_capture(&self) -> Result<(), EngineError> {
        remove(self.capture()).await
    }

    /// Removes the files of all restores: one that was finished leaves none of use.
    pub(super) async fn remove_staged(&self) -> Result<(), EngineError> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(()) };
        let is_staging =
            |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(RESTORE)) && p.is_dir();
        for path in entries.flatten().map(|e| e.path()).filter(|p| is_staging(p)) {
            remove(path).await?;
        }
        Ok(())
    }
}

async fn remove(folder: PathBuf) -> Result<(), EngineError> {
    blocking(&folder, |folder| match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    })
    .await
}

/// Does work on files beside the runtime; `path` is what an error is about.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, EngineError> {
    let owned = path.to_path_buf();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await.unwrap_or_else(|e| Err(e.into()));
    done.map_err(|e| EngineError::files(path, &e))
}
