//! Whether a repository keeps its promises: three results, good, damaged, could not tell.
//!
//! Looks at the pointer, the manifest it names, the age, and every object, within a deadline. What was not reached is said; it is not
//! called good. Nothing is changed but the records of what was read.
//!
//! | module | owns |
//! |---|---|
//! | [`report`] | the result, in fields and words |
//! | [`native`] | the objects of an engine's own backup: existence, size, SHA-256 |
//! | [`chain`] | a backup made of archives: existence, and what is read of it |
//! | [`structure`] | its index, every page and entry |
//! | [`plan`] | which frames are fetched together |
//! | [`data`] | its frames: fetched, decompressed, every chunk hashed |
//! | [`subset`] | a part of the data each day |
//! | [`record`] | what was read lately and need not be read again, and what was damaged |
//! | [`touched`] | which backups a damaged object belongs to |
//! | [`sha256`] | what `sha256sum` prints |

mod chain;
mod data;
mod native;
mod plan;
mod record;
mod report;
mod sha256;
mod structure;
mod subset;
mod touched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::encryption::KeySources;
use crate::id::BackupId;
use crate::manifest::ArchiveObject;
use crate::pointer::{Pointer, PointerState};
use crate::repository::Repository;
use crate::store::{StoreError, Version};

pub use report::{Damage, Report, Verdict};
pub use sha256::{sha256_hex, sha256_of, sha256_while};
pub use subset::Subset;

/// What was read so long ago is read again.
const BELIEVED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// None: objects are there with their sizes, and an archive's index is right.
    Structure,
    /// A part of an archive's data; the objects of an engine's own backup are all read.
    Subset(Subset),
    /// All of it.
    #[default]
    All,
}

/// How to verify.
#[derive(Clone)]
pub struct Options {
    /// The newest backup may be this old; `None` does not look at the age.
    pub max_age: Option<Duration>,
    /// Nothing is begun after this instant.
    pub deadline: Option<Instant>,
    /// How much is read.
    pub depth: Depth,
    /// Read also what a record says was right lately.
    pub again: bool,
    /// How long such a record is believed.
    pub believed: Duration,
    /// Where the keys of encrypted backups are. Without them, such a backup is only compared by SHA-256.
    pub keys: Option<Arc<KeySources>>,
    /// How far it is, for whoever watches.
    pub progress: Arc<Progress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_age: None,
            deadline: None,
            depth: Depth::All,
            again: false,
            believed: BELIEVED,
            keys: None,
            progress: Arc::default(),
        }
    }
}

/// How far a verification is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that were read.
    pub done: AtomicU64,
    /// Bytes to read; 0 until that is known.
    pub total: AtomicU64,
}

impl Progress {
    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Verifies the backup that the pointer names.
pub async fn newest(repository: &Repository, now: Timestamp, options: &Options) -> Report {
    let pointer = match repository.pointer().await {
        Ok(pointer) => pointer,
        Err(e) => return Report::new(None).fail(&e.into()),
    };
    let named = pointer.backup_id().cloned();
    let mut report = match named.clone() {
        Some(id) => one(repository, &id, now, options).await,
        None => Report::new(None),
    };
    match (&pointer, named) {
        (PointerState::Damaged { why, .. }, _) => {
            report.note(Verdict::Damaged, format!("the pointer {} is damaged: {why}", repository.pointer_key()));
        }
        (PointerState::Present { pointer, .. }, Some(id)) => exchanged(repository, pointer, &id, &mut report).await,
        (PointerState::Bare { .. }, _) => {
            report.note(
                Verdict::CouldNotTell,
                "the pointer was written by a boot script and has no checksum of its backup",
            );
        }
        (_, None) => report.note(Verdict::Damaged, "there is no backup yet: nothing could be restored"),
        (PointerState::Absent, Some(_)) => {}
    }
    report
}

/// Verifies one backup.
pub async fn one(repository: &Repository, id: &BackupId, now: Timestamp, options: &Options) -> Report {
    let mut report = Report::new(Some(id.clone()));
    let manifest = match repository.manifest(id).await {
        Ok(manifest) => manifest,
        Err(e) => return report.fail(&e),
    };
    report.aged(manifest.started_at, now, options.max_age);
    match &manifest.archive {
        None => native::check(repository, &manifest, options, &mut report).await,
        Some(archive) => {
            chain::check(repository, &manifest, archive, options, now, &mut report).await;
            touched::add(repository, &mut report).await;
        }
    }
    report
}

/// What a verification found damaged in this version of an object, and none found right since. No record is no damage.
pub async fn known_damage(
    repository: &Repository,
    object: &ArchiveObject,
    version: &Version,
) -> Result<Option<String>, StoreError> {
    let record = record::Record::read(repository, object, version).await?;
    Ok(record.damaged.into_iter().next().map(|place| place.what))
}

async fn exchanged(repository: &Repository, pointer: &Pointer, id: &BackupId, report: &mut Report) {
    let Some(wanted) = &pointer.manifest_sha256 else { return };
    match repository.manifest_bytes(id).await {
        Ok(body) if sha256_hex(&body) == *wanted => {}
        Ok(_) => {
            report.note(Verdict::Damaged, format!("the manifest of backup {id} is not the one that was published"));
        }
        Err(e) => report.note(report::verdict_of(&e), crate::aws::chain(&e)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::Generation;
    use crate::manifest::example;
    use crate::settings::Engine;
    use crate::store::memory::MemoryStore;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_003_600).expect("in range")
    }

    async fn published() -> (Repository, BackupId) {
        let repository = Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate);
        let at = Timestamp::from_second(1_800_000_000).expect("in range");
        let objects: [(&str, &[u8]); 2] = [("n/chunk-1", b"data"), ("n/chunk-2", b"more")];
        let manifest = example(&BackupId::new(at, Generation(1)), &objects);
        let id = manifest.backup_id.clone();
        for (key, body) in objects {
            let body = bytes::Bytes::from_static(body);
            repository.store().create(&format!("backups/{id}/{key}"), body).await.expect("stored");
        }
        repository.create_manifest(&manifest).await.expect("stored");
        repository.publish(&manifest, None, at).await.expect("published");
        (repository, id)
    }

    async fn overwrite(repository: &Repository, key: &str, body: &'static [u8]) {
        repository.store().put(key, bytes::Bytes::from_static(body)).await.expect("stored");
    }

    #[tokio::test]
    async fn a_whole_backup_is_good_and_its_age_is_told() {
        let (repository, id) = published().await;
        let report = newest(&repository, now(), &Options::default()).await;
        assert_eq!((report.verdict, report.objects_good, report.bytes_read), (Verdict::Good, 2, 8), "{report:?}");
        assert_eq!((report.backup_id, report.age_seconds), (Some(id), Some(3600)));
    }

    #[tokio::test]
    async fn every_kind_of_damage_is_found_and_named() {
        for (key, body, word) in [
            ("n/chunk-1", Some(b"datA" as &'static [u8]), "SHA-256"),
            ("n/chunk-2", Some(b"longer"), "bytes, its manifest says 4"),
            ("n/chunk-2", None, "is missing"),
            ("manifest.json", Some(b"{\"format\": 1"), "damaged"),
            ("manifest.json", None, "no object"),
        ] {
            let (repository, id) = published().await;
            let key = format!("backups/{id}/{key}");
            match body {
                Some(body) => overwrite(&repository, &key, body).await,
                None => repository.store().delete(&key).await.expect("deleted"),
            }
            let report = newest(&repository, now(), &Options::default()).await;
            assert_eq!(report.verdict, Verdict::Damaged, "{key}");
            assert!(report.findings.iter().any(|f| f.contains(word)), "{word}: {:?}", report.findings);
        }
    }

    #[tokio::test]
    async fn a_damaged_pointer_and_a_stale_backup_are_damage() {
        let (repository, _) = published().await;
        let old = Options { max_age: Some(Duration::from_secs(60)), ..Options::default() };
        let report = newest(&repository, now(), &old).await;
        assert!(report.too_old && report.verdict == Verdict::Damaged);
        overwrite(&repository, "latest_weaviate_backup.manifest.json", b"{\"format\"").await;
        assert_eq!(newest(&repository, now(), &Options::default()).await.verdict, Verdict::Damaged);
    }

    #[tokio::test]
    async fn an_empty_repository_is_not_good_and_a_late_deadline_is_not_either() {
        let empty = Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate);
        assert_eq!(newest(&empty, now(), &Options::default()).await.verdict, Verdict::Damaged);
        let (repository, _) = published().await;
        let now_is_late = Options { deadline: Some(Instant::now()), ..Options::default() };
        let report = newest(&repository, now(), &now_is_late).await;
        assert_eq!((report.verdict, report.objects_good), (Verdict::CouldNotTell, 0));
    }
}
