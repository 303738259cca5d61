//! A target's repository: which key holds what, and the only ways in which they may change.
//!
//! Everything but the pointer is created once and never replaced (progress records are advice and may be). Reads tell "absent"
//! from "could not be read": an error is never an empty repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{BackupId, RunId};
use crate::manifest::{self, Manifest, ManifestError, to_json};
use crate::pointer::{Pointer, PointerState};
use crate::run::{Claim, Progress, RunResult};
use crate::settings::{Engine, RepositorySettings};
use crate::store::cloud::CloudStore;
use crate::store::folder::FolderStore;
use crate::store::s3::{S3Options, S3Store};
use crate::store::{Meta, Store, StoreError, Version};

/// A target's repository.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    engine: Engine,
}

/// Why something in the repository could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A manifest is there but of no use.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another document is there but of no use.
    #[error("{location}/{key} is damaged: {why}")]
    Damaged {
        /// Repository.
        location: String,
        /// Key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// Why the pointer was not moved. It is unchanged by us in every case.
#[derive(Debug, thiserror::Error)]
pub enum PointerError {
    /// Somebody moved it since it was read.
    #[error("the pointer moved while this was going on: somebody else published a backup or took the target over")]
    Moved,
    /// It belongs to another instance, or a later generation.
    #[error(
        "this instance ({me}) does not own the target: the pointer says {owner}, generation {generation}; \
         its backup was not published, so that a replaced instance cannot overwrite its successor's data"
    )]
    NotOwner {
        /// Who tried.
        me: String,
        /// Who owns it.
        owner: String,
        /// The pointer's generation.
        generation: u32,
    },
    /// A newer version of Perennial wrote it.
    #[error("the pointer cannot be moved: {0}")]
    Newer(String),
    /// The repository could not be reached or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who won a create-if-absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed<T> {
    /// We did.
    Won,
    /// Somebody was first; this is what they wrote.
    Lost(T),
}

impl Repository {
    /// The repository that the settings name. Nothing is read yet.
    pub fn open(
        settings: &RepositorySettings,
        engine: Engine,
        aws: &aws_config::SdkConfig,
    ) -> Result<Self, StoreError> {
        let store: Arc<dyn Store> = match settings {
            RepositorySettings::Folder { path } => Arc::new(FolderStore::at(path)),
            RepositorySettings::Google { bucket, prefix } => Arc::new(CloudStore::google(bucket, prefix)?),
            RepositorySettings::Azure { account, container, prefix } => {
                Arc::new(CloudStore::azure(account, container, prefix)?)
            }
            RepositorySettings::S3 { bucket, prefix, region, kms_key, bucket_owner } => Arc::new(S3Store::new(
                aws,
                S3Options {
                    region: region.clone(),
                    kms_key: kms_key.clone(),
                    bucket_owner: bucket_owner.clone(),
                    ..S3Options::new(bucket, prefix)
                },
            )),
        };
        Ok(Self::new(store, engine))
    }

    /// A repository on a store.
    pub fn new(store: Arc<dyn Store>, engine: Engine) -> Self {
        Self { store, engine }
    }

    /// The store itself.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The store, for work that goes on in other threads.
    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Where the repository is, for messages.
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// The pointer's key.
    pub fn pointer_key(&self) -> String {
        format!("latest_{}_backup.manifest.json", self.engine.word())
    }

    /// The folder of one backup, with a slash at its end.
    pub fn backup_prefix(id: &BackupId) -> String {
        format!("backups/{id}/")
    }

    /// The key of one backup's manifest.
    pub fn manifest_key(id: &BackupId) -> String {
        format!("backups/{id}/manifest.json")
    }

    // ---- pointer ---------------------------------------------------------------------------------------------------

    /// What stands where the pointer should be.
    pub async fn pointer(&self) -> Result<PointerState, StoreError> {
        match self.store.get(&self.pointer_key()).await {
            Ok(object) => Ok(PointerState::parse(&object.body, object.meta.version)),
            Err(StoreError::NotFound { .. }) => Ok(PointerState::Absent),
            Err(e) => Err(e),
        }
    }

    /// Writes `pointer` in the place of `seen` and nothing else: create-if-absent or compare-and-set.
    pub async fn set_pointer(&self, seen: &PointerState, pointer: &Pointer) -> Result<Version, PointerError> {
        if let PointerState::Damaged { newer: true, why, .. } = seen {
            return Err(PointerError::Newer(why.clone()));
        }
        let (key, body) = (self.pointer_key(), Bytes::from(pointer.to_bytes()));
        let done = match seen.version() {
            None => self.store.create(&key, body).await,
            Some(version) => self.store.replace(&key, body, version).await,
        };
        done.map_err(|e| match e {
            StoreError::AlreadyExists { .. } | StoreError::Changed { .. } => PointerError::Moved,
            e => PointerError::Store(e),
        })
    }

    /// Publishes a finished backup: its manifest must be stored already. `me` is the writing instance, absent outside EC2.
    ///
    /// Tries again when the pointer moved under the same owner and generation; a later generation or another owner
    /// refuses.
    pub async fn publish(&self, manifest: &Manifest, me: Option<&str>, at: Timestamp) -> Result<Pointer, PointerError> {
        for _ in 0..5 {
            let seen = self.pointer().await?;
            let base = match seen.pointer() {
                Some(pointer) => {
                    may_publish(pointer, manifest, me)?;
                    pointer.clone()
                }
                None => Pointer {
                    generation: manifest.generation,
                    ..Pointer::first(&manifest.target, self.engine.word(), me, at)
                },
            };
            let pointer = base.naming(manifest, at);
            match self.set_pointer(&seen, &pointer).await {
                Ok(_) => return Ok(pointer),
                Err(PointerError::Moved) => {}
                Err(e) => return Err(e),
            }
        }
        Err(PointerError::Moved)
    }

    // ---- backups ---------------------------------------------------------------------------------------------------

    /// Every object below `backups/`, by backup folder.
    pub async fn backup_objects(&self) -> Result<BTreeMap<String, Vec<Meta>>, StoreError> {
        let mut folders: BTreeMap<String, Vec<Meta>> = BTreeMap::new();
        for meta in self.store.list("backups/").await? {
            let folder = meta.key["backups/".len()..].split('/').next().unwrap_or_default().to_owned();
            folders.entry(folder).or_default().push(meta);
        }
        Ok(folders)
    }

    /// The manifest of one backup.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest, RepositoryError> {
        Ok(Manifest::parse(id.as_str(), &self.manifest_bytes(id).await?)?)
    }

    /// The stored bytes of one backup's manifest.
    pub async fn manifest_bytes(&self, id: &BackupId) -> Result<Bytes, RepositoryError> {
        let key = Self::manifest_key(id);
        let size = self.store.head(&key).await?.size;
        if size > manifest::LARGEST {
            let why = format!("it is {size} bytes large, more than any real manifest");
            return Err(ManifestError::Damaged { id: id.to_string(), why }.into());
        }
        Ok(self.store.get(&key).await?.body)
    }

    /// Stores the manifest of a finished backup; from then on the backup exists.
    pub async fn create_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.store.create(&Self::manifest_key(&manifest.backup_id), manifest.to_bytes().into()).await.map(|_| ())
    }

    // ---- runs and other records ------------------------------------------------------------------------------------

    /// Claims a run; the loser is given the winner's claim.
    pub async fn claim(&self, claim: &Claim) -> Result<Claimed<Claim>, RepositoryError> {
        self.create_record(&format!("runs/{}/claim.json", claim.run), claim).await
    }

    /// A run's claim.
    pub async fn claim_of(&self, run: &RunId) -> Result<Option<Claim>, RepositoryError> {
        self.record(&format!("runs/{run}/claim.json")).await
    }

    /// A run's progress.
    pub async fn progress_of(&self, run: &RunId) -> Result<Option<Progress>, RepositoryError> {
        self.record(&format!("runs/{run}/progress.json")).await
    }

    /// Overwrites a run's progress.
    pub async fn report_progress(&self, progress: &Progress) -> Result<(), StoreError> {
        self.put_record(&format!("runs/{}/progress.json", progress.run), progress).await
    }

    /// A run's result.
    pub async fn result_of(&self, run: &RunId) -> Result<Option<RunResult>, RepositoryError> {
        self.record(&format!("runs/{run}/result.json")).await
    }

    /// Stores a run's result; the first one stays.
    pub async fn finish(&self, result: &RunResult) -> Result<Claimed<RunResult>, RepositoryError> {
        self.create_record(&format!("runs/{}/result.json", result.run), result).await
    }

    /// The runs whose names begin with `prefix`, oldest key first.
    pub async fn runs(&self, prefix: &str) -> Result<Vec<RunId>, StoreError> {
        let found = self.store.list(&format!("runs/{prefix}")).await?;
        let claims = found.iter().filter_map(|m| m.key.strip_prefix("runs/")?.strip_suffix("/claim.json"));
        Ok(claims.filter_map(|name| name.parse().ok()).collect())
    }

    /// Creates a small record, or reads the one that is there.
    pub async fn create_record<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        record: &T,
    ) -> Result<Claimed<T>, RepositoryError> {
        match self.store.create(key, to_json(record).into()).await {
            Ok(_) => Ok(Claimed::Won),
            Err(e @ StoreError::AlreadyExists { .. }) => self.record(key).await?.map(Claimed::Lost).ok_or(e.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Overwrites a small record.
    pub async fn put_record<T: Serialize>(&self, key: &str, record: &T) -> Result<(), StoreError> {
        self.store.put(key, to_json(record).into()).await.map(|_| ())
    }

    /// A small record, if it is there.
    pub async fn record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RepositoryError> {
        match self.store.get(key).await {
            Ok(object) => serde_json::from_slice(&object.body).map(Some).map_err(|e| RepositoryError::Damaged {
                location: self.location(),
                key: key.into(),
                why: e.to_string(),
            }),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether `me` may move `pointer` to the backup of `manifest`.
fn may_publish(pointer: &Pointer, manifest: &Manifest, me: Option<&str>) -> Result<(), PointerError> {
    let owned = pointer.owner.is_none() || pointer.owner.as_deref() == me;
    if owned && pointer.generation == manifest.generation {
        return Ok(());
    }
    Err(PointerError::NotOwner {
        me: me.unwrap_or("not an EC2 instance").into(),
        owner: pointer.owner.clone().unwrap_or_else(|| "nobody".into()),
        generation: pointer.generation.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Generation;
    use crate::manifest::example;
    use crate::store::memory::MemoryStore;

    fn repository() -> Repository {
        Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn manifest(second: i64, generation: u32) -> Manifest {
        example(&BackupId::new(at(second), Generation(generation)), &[("backup_config.json", b"{}")])
    }

    #[tokio::test]
    async fn an_owner_publishes_and_a_zombie_cannot() {
        let repo = repository();
        let first = repo.publish(&manifest(0, 1), Some("i-1"), at(0)).await.expect("nobody owned it");
        let seen = repo.pointer().await.expect("read");
        let taken = first.owned_by("i-2", Generation(2), at(1));
        repo.set_pointer(&seen, &taken).await.expect("unmoved");

        let late = manifest(2, 1);
        let error = repo.publish(&late, Some("i-1"), at(2)).await.expect_err("a zombie");
        assert!(matches!(error, PointerError::NotOwner { generation: 2, .. }), "{error}");
        let error = repo.publish(&manifest(3, 1), Some("i-2"), at(3)).await.expect_err("an old generation");
        assert!(matches!(error, PointerError::NotOwner { .. }), "{error}");
        let current = repo.publish(&manifest(4, 2), Some("i-2"), at(4)).await.expect("the owner");
        assert_eq!(repo.pointer().await.expect("read").pointer(), Some(&current));
    }

    #[tokio::test]
    async fn a_take_over_fails_once_the_pointer_moved() {
        let repo = repository();
        repo.publish(&manifest(0, 1), Some("i-1"), at(0)).await.expect("published");
        let seen = repo.pointer().await.expect("read");
        let published = repo.publish(&manifest(1, 1), Some("i-1"), at(1)).await.expect("published");
        let take = published.clone().owned_by("i-2", Generation(2), at(2));
        assert!(matches!(repo.set_pointer(&seen, &take).await, Err(PointerError::Moved)));
        assert_eq!(repo.pointer().await.expect("read").pointer(), Some(&published));
    }

    #[tokio::test]
    async fn a_newer_pointer_is_left_alone() {
        let repo = repository();
        repo.store().create(&repo.pointer_key(), Bytes::from_static(b"{\"format\": 7}")).await.expect("created");
        let seen = repo.pointer().await.expect("read");
        let pointer = Pointer::first("docs", "weaviate", None, at(0));
        assert!(matches!(repo.set_pointer(&seen, &pointer).await, Err(PointerError::Newer(_))));
    }

    #[tokio::test]
    async fn a_run_is_claimed_once() {
        let repo = repository();
        let claim = |nonce: &str| Claim {
            run: "restore-i-1-1".parse().expect("a run"),
            target: "docs".into(),
            instance: "i-1".into(),
            backup_id: None,
            pointer_version: None,
            generation: Generation(1),
            replace: false,
            claimed_at: at(0),
            nonce: nonce.into(),
        };
        assert_eq!(repo.claim(&claim("a")).await.expect("claimed"), Claimed::Won);
        assert_eq!(repo.claim(&claim("b")).await.expect("lost"), Claimed::Lost(claim("a")));
        assert_eq!(repo.runs("restore-i-1-").await.expect("list").len(), 1);
        assert!(repo.runs("restore-i-2-").await.expect("list").is_empty());
    }
}
