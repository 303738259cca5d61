//! What the program remembers on this machine, a folder for each target.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | held by the one command that changes something; the system lets go of it when the process ends |
//! | `copies.lock` | held by the run that copies to the replicas |
//! | `<run>.lock` | held by whoever does that run, also while it no longer changes anything here; removed when it is done |
//! | `restore-runs.json` | in which repository this machine's restores are claimed, and when the last was that ended well |
//! | `restore.json` | the last restore: which backup, and how far it came |
//! | `capture.json` | what the engine wants to know of the last capture that was published |
//! | `uploads.json` | the uploads of a backup that is being made |
//! | `redis.json` | what a Redis said of its data folder, while a restore goes on |
//!
//! `restore.json` is written before anything of the engine's is changed, whole or not at all. So after a crash the next restore
//! knows whether what it finds are the remains of its own, which may be removed, or somebody's data.

pub mod uploads;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::id::{BackupId, RunId};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

const SYSTEM: &str = "/var/lib/perennial";
const PAUSE: Duration = Duration::from_secs(1);

/// A target's folder.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

/// Held while something is changed.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

/// The last restore on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMarker {
    /// The backup.
    pub backup_id: BackupId,
    /// Key prefix of the folder that holds it in the repository.
    pub parent: String,
    /// The engine's address: another engine's remains are not ours.
    pub engine: String,
    /// The collections that it puts in place.
    pub collections: Vec<String>,
    /// How far it came.
    pub reached: Reached,
}

/// The restores that functions asked this machine for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRuns {
    /// The instance: what an image brought along from another one's disk says nothing.
    pub instance: String,
    /// The repository in which the first of them was claimed: only that one's pointer can make this machine the owner.
    pub home: String,
    /// When the last one was claimed that ended well: an older claim is overtaken.
    pub last: Option<Timestamp>,
}

/// How far a restore came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    /// Nothing came into the engine yet: what it holds is what it held.
    Begun,
    /// The backup was coming into the engine, in the place of what it held.
    Changing,
    /// It was compared, and is what the engine serves.
    Finished,
}

impl State {
    /// The folder of a target: below `PERENNIAL_STATE_DIR`, else `/var/lib/perennial`, else, for a person, their own.
    pub fn of_target(name: &str) -> Result<Self, Failure> {
        let base = match std::env::var_os("PERENNIAL_STATE_DIR") {
            Some(folder) => folder.into(),
            None if rustix::process::geteuid().is_root() => PathBuf::from(SYSTEM),
            None => own_folder(),
        };
        let state = Self { folder: base.join(name) };
        std::fs::create_dir_all(&state.folder).map_err(|e| state.failed(&state.folder, &e))?;
        Ok(state)
    }

    fn failed(&self, path: &Path, error: &std::io::Error) -> Failure {
        let message =
            format!("{}: {error}; make {} writable or set PERENNIAL_STATE_DIR", path.display(), self.folder.display());
        Failure::new(Exit::Failed, "StateUnusable", message)
    }

    /// Takes the lock, waiting at most `patience` for another command of this target; `waiting` is called before each look.
    pub async fn lock(&self, patience: Duration, waiting: impl Fn()) -> Result<Lock, Failure> {
        self.hold("lock", patience, waiting).await
    }

    /// Takes the lock of one run, in the same way: one that is delivered twice is done once.
    pub async fn lock_run(&self, run: &RunId, patience: Duration, waiting: impl Fn()) -> Result<Lock, Failure> {
        self.hold(&format!("{run}.lock"), patience, waiting).await
    }

    /// Takes the lock of the copies to the replicas, in the same way: two that copy would send the same.
    pub async fn lock_copies(&self, patience: Duration, waiting: impl Fn()) -> Result<Lock, Failure> {
        self.hold("copies.lock", patience, waiting).await
    }

    /// Removes the lock file of a run that has its result: whoever still waits for it finds that.
    pub fn forget_run(&self, run: &RunId) {
        // A file that stays is of no harm.
        let _ = std::fs::remove_file(self.folder.join(format!("{run}.lock")));
    }

    /// The restore runs of this machine; `None` when there was none.
    pub fn restore_runs(&self) -> Result<Option<RestoreRuns>, Failure> {
        self.read("restore-runs.json", "have this instance replaced: nobody knows what is in the engine")
    }

    /// Remembers them, before one changes anything and when it ended well.
    pub fn remember_restore_runs(&self, runs: &RestoreRuns) -> Result<(), Failure> {
        self.write("restore-runs.json", runs)
    }

    async fn hold(&self, name: &str, patience: Duration, waiting: impl Fn()) -> Result<Lock, Failure> {
        let path = self.folder.join(name);
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| self.failed(&path, &e))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < patience => waiting(),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let message =
                        "another perennial command is changing this target on this machine; wait until it is done";
                    return Err(Failure::new(Exit::Failed, "AlreadyRunning", message));
                }
                Err(e) => return Err(self.failed(&path, &e.into())),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last restore; `None` when there was none.
    pub fn last_restore(&self) -> Result<Option<RestoreMarker>, Failure> {
        self.read("restore.json", "look what is in the engine")
    }

    /// Remembers a restore, before it begins and when it is done.
    pub fn remember(&self, marker: &RestoreMarker) -> Result<(), Failure> {
        self.write("restore.json", marker)
    }

    /// The last capture that was published from this machine, and what the engine wanted to be remembered of it.
    pub fn last_capture(&self) -> Result<Option<(BackupId, serde_json::Value)>, Failure> {
        self.read("capture.json", "the next capture reads everything")
    }

    /// Remembers a capture; only once it is published.
    pub fn remember_capture(&self, id: &BackupId, value: &serde_json::Value) -> Result<(), Failure> {
        self.write("capture.json", &(id, value))
    }

    fn read<T: DeserializeOwned>(&self, name: &str, advice: &str) -> Result<Option<T>, Failure> {
        let path = self.folder.join(name);
        match std::fs::read(&path) {
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(|e| {
                let message = format!("{} is damaged ({e}); {advice}, then delete the file", path.display());
                Failure::new(Exit::Failed, "StateDamaged", message)
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed(&path, &e)),
        }
    }

    /// Whole or not at all.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| self.failed(&path, &e))
    }
}

fn own_folder() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    state.or_else(home).unwrap_or_else(std::env::temp_dir).join("perennial")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = State { folder: dir.path().into() };
        (dir, state)
    }

    #[tokio::test]
    async fn one_command_at_a_time() {
        let (_dir, state) = state();
        let first = state.lock(Duration::ZERO, || ()).await.expect("free");
        let second = state.lock(Duration::ZERO, || ()).await.expect_err("held");
        assert_eq!(second.code, "AlreadyRunning");
        drop(first);
        let again = state.lock(Duration::ZERO, || ()).await.expect("free again");
        let (one, two): (RunId, RunId) =
            ("backup-20261121t105500z".parse().expect("a run"), "final-i-1-1".parse().expect("a run"));
        let copying = state.lock_run(&one, Duration::ZERO, || ()).await.expect("another lock");
        drop(again);
        state.lock(Duration::ZERO, || ()).await.expect("no run holds this one");
        state.lock_run(&one, Duration::ZERO, || ()).await.expect_err("held");
        state.lock_run(&two, Duration::ZERO, || ()).await.expect("another run");
        drop(copying);
    }

    #[test]
    fn the_last_restore_is_remembered() {
        let (dir, state) = state();
        assert_eq!(state.last_restore(), Ok(None));
        let marker = RestoreMarker {
            backup_id: "b1".parse().expect("an id"),
            parent: "backups/".into(),
            engine: "x".into(),
            collections: vec!["Doc".into()],
            reached: Reached::Begun,
        };
        state.remember(&marker).expect("written");
        assert_eq!(state.last_restore(), Ok(Some(marker)));
        std::fs::write(dir.path().join("restore.json"), "{").expect("written");
        assert_eq!(state.last_restore().expect_err("damaged").code, "StateDamaged");
    }
}
