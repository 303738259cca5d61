//! `uploads.json`: the uploads of the backup that is being made, so that an interrupted one is taken up again.
//!
//! It says only where to look, and when it is no use to go on: what has arrived or stands there is what the store says,
//! and is compared with what would be sent. A record that is stale, damaged or of another chain is dropped, together
//! with its uploads.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use perennial_shared::encryption::KeyId;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::store::{Part, Store};
use serde::{Deserialize, Serialize};

use super::State;
use crate::archive::upload::Resume;
use crate::failure::Failure;

/// Stores keep unfinished uploads about this long, and by then the data has changed.
const USABLE: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    backup_id: BackupId,
    parent: Option<BackupId>,
    begun_at: Timestamp,
    /// The data key of a new chain: with another one everything would have to be sent again.
    #[serde(default)]
    key_id: Option<KeyId>,
    uploads: BTreeMap<String, String>,
    /// Objects that were about to be completed, and their parts.
    #[serde(default)]
    completing: BTreeMap<String, Vec<Part>>,
}

/// The uploads of one backup.
#[derive(Debug, Clone)]
pub struct Uploads {
    path: PathBuf,
    record: Arc<Mutex<Record>>,
    backup_id: BackupId,
    taken_up: bool,
}

impl Uploads {
    /// Those of the interrupted backup, if there is one that the next can go on with; else those of a new backup.
    pub async fn take_up(
        state: &State,
        store: &dyn Store,
        generation: Generation,
        parent: Option<&BackupId>,
    ) -> Result<Self, Failure> {
        let path = file(state);
        let found = fs::read(&path).ok().and_then(|body| serde_json::from_slice::<Record>(&body).ok());
        let now = Timestamp::now();
        if let Some(record) = found {
            let fits = record.parent.as_ref() == parent
                && record.backup_id.generation() == Some(generation)
                && now.duration_since(record.begun_at) < USABLE;
            if fits {
                let backup_id = record.backup_id.clone();
                return Ok(Self { path, record: Arc::new(Mutex::new(record)), backup_id, taken_up: true });
            }
            drop_uploads(store, &record).await;
        }
        Self::begin(state, BackupId::new(now, generation), parent)
    }

    /// Those of a new backup.
    pub fn begin(state: &State, backup_id: BackupId, parent: Option<&BackupId>) -> Result<Self, Failure> {
        let record = Record {
            backup_id,
            parent: parent.cloned(),
            begun_at: Timestamp::now(),
            key_id: None,
            uploads: BTreeMap::new(),
            completing: BTreeMap::new(),
        };
        Self::of(state, record)
    }

    /// Those of a new backup in place of this one, which cannot become what it would have to be; with its data key.
    pub async fn begin_again(&self, state: &State, store: &dyn Store, generation: Generation) -> Result<Self, Failure> {
        let given_up = self.record.lock().map_err(|_| io::Error::other("a thread panicked"));
        let given_up = given_up.map_err(|e| state.failed(&self.path, &e))?.clone();
        drop_uploads(store, &given_up).await;
        let now = Timestamp::now();
        let (uploads, completing) = Default::default();
        Self::of(
            state,
            Record { backup_id: BackupId::new(now, generation), begun_at: now, uploads, completing, ..given_up },
        )
    }

    fn of(state: &State, record: Record) -> Result<Self, Failure> {
        let path = file(state);
        write(&path, &record).map_err(|e| state.failed(&path, &e))?;
        let backup_id = record.backup_id.clone();
        Ok(Self { path, record: Arc::new(Mutex::new(record)), backup_id, taken_up: false })
    }

    /// The backup is published, or was never begun.
    pub fn forget(state: &State) -> Result<(), Failure> {
        let path = file(state);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(state.failed(&path, &e)),
            _ => Ok(()),
        }
    }

    /// The backup.
    pub fn backup_id(&self) -> &BackupId {
        &self.backup_id
    }

    /// The data key that the interrupted run had begun to encrypt with.
    pub fn key_id(&self) -> Option<KeyId> {
        self.record.lock().ok()?.key_id.clone()
    }

    /// Remembers the data key of a new chain.
    pub fn remember_key(&self, id: &KeyId) -> io::Result<()> {
        let mut record = self.record.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        record.key_id = Some(id.clone());
        write(&self.path, &record)
    }

    /// Whether an interrupted run began it.
    pub fn taken_up(&self) -> bool {
        self.taken_up
    }
}

impl Resume for Uploads {
    fn token(&self, key: &str) -> Option<String> {
        self.record.lock().ok()?.uploads.get(key).cloned()
    }

    fn begun(&self, key: &str, token: &str) -> io::Result<()> {
        let mut record = self.record.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        record.uploads.insert(key.to_owned(), token.to_owned());
        write(&self.path, &record)
    }

    fn parts(&self, key: &str) -> Option<Vec<Part>> {
        self.record.lock().ok()?.completing.get(key).cloned()
    }

    fn completing(&self, key: &str, parts: &[Part]) -> io::Result<()> {
        let mut record = self.record.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        record.completing.insert(key.to_owned(), parts.to_vec());
        write(&self.path, &record)
    }
}

/// Nobody will finish them. What cannot be dropped now, the bucket's lifecycle rule for unfinished uploads drops.
async fn drop_uploads(store: &dyn Store, record: &Record) {
    for (key, token) in &record.uploads {
        if let Ok(Some(upload)) = store.resume(key, token).await {
            let _ = upload.abort().await;
        }
    }
}

fn file(state: &State) -> PathBuf {
    state.folder.join("uploads.json")
}

fn write(path: &std::path::Path, record: &Record) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(&new, path)
}
