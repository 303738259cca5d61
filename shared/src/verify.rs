//! Whether a repository keeps its promises: three results, good, damaged, could not tell.
//!
//! Looks at the pointer, the manifest it names, the age, and every object: existence and size first, then SHA-256 by
//! streaming, within a deadline. What was not reached is said; it is not called good. Nothing is changed.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::id::BackupId;
use crate::manifest::{Manifest, ObjectEntry};
use crate::pointer::PointerState;
use crate::repository::{Repository, RepositoryError};
use crate::resolve::missing;
use crate::store::{Store, StoreError};

/// The result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was promised was seen to hold.
    Good,
    /// Something is missing, changed, unreadable as data, or too old.
    Damaged,
    /// The repository could not be read, or time ran out.
    CouldNotTell,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The result.
    pub verdict: Verdict,
    /// The backup that was looked at.
    pub backup_id: Option<BackupId>,
    /// Seconds since its capture began.
    pub age_seconds: Option<i64>,
    /// Whether it is older than promised; a backup asked for by id is never too old.
    pub too_old: bool,
    /// Objects whose bytes were hashed and agreed.
    pub objects_good: usize,
    /// Objects that the manifest names.
    pub objects: usize,
    /// Bytes that were hashed.
    pub bytes_read: u64,
    /// What is wrong or unknown, a line each.
    pub findings: Vec<String>,
}

impl Report {
    fn new(backup_id: Option<BackupId>) -> Self {
        Self {
            verdict: Verdict::Good,
            backup_id,
            age_seconds: None,
            too_old: false,
            objects_good: 0,
            objects: 0,
            bytes_read: 0,
            findings: vec![],
        }
    }

    /// Damage outweighs doubt, doubt outweighs good.
    fn note(&mut self, verdict: Verdict, finding: impl Into<String>) {
        self.findings.push(finding.into());
        if self.verdict != Verdict::Damaged {
            self.verdict = verdict;
        }
    }

    fn fail(mut self, error: &RepositoryError) -> Self {
        self.note(verdict_of(error), describe(error));
        self
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The newest backup may be this old; `None` does not look at the age.
    pub max_age: Option<Duration>,
    /// No object is begun after this instant.
    pub deadline: Option<Instant>,
}

/// Verifies the backup that the pointer names.
pub async fn newest(repository: &Repository, now: Timestamp, limits: Limits) -> Report {
    let pointer = match repository.pointer().await {
        Ok(pointer) => pointer,
        Err(e) => return Report::new(None).fail(&e.into()),
    };
    let named = pointer.backup_id().cloned();
    let mut report = match named.clone() {
        Some(id) => one(repository, &id, now, limits).await,
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
pub async fn one(repository: &Repository, id: &BackupId, now: Timestamp, limits: Limits) -> Report {
    let mut report = Report::new(Some(id.clone()));
    let manifest = match repository.manifest(id).await {
        Ok(manifest) => manifest,
        Err(e) => return report.fail(&e),
    };
    let age = now.duration_since(manifest.started_at);
    report.age_seconds = Some(age.as_secs());
    if limits.max_age.is_some_and(|most| age.as_secs() > i64::try_from(most.as_secs()).unwrap_or(i64::MAX)) {
        report.too_old = true;
        report.note(Verdict::Damaged, format!("the newest backup is {} old", hours(age.as_secs())));
    }
    report.objects = manifest.objects.len();
    match repository.store().list(&Repository::backup_prefix(id)).await {
        Ok(present) => {
            if let Some(why) = missing(&manifest, &present) {
                report.note(Verdict::Damaged, why);
            }
        }
        Err(e) => return report.fail(&e.into()),
    }
    hash_objects(repository.store(), &manifest, limits.deadline, &mut report).await;
    report
}

async fn hash_objects(store: &dyn Store, manifest: &Manifest, deadline: Option<Instant>, report: &mut Report) {
    for (index, object) in manifest.objects.iter().enumerate() {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            let left = manifest.objects.len() - index;
            report.note(
                Verdict::CouldNotTell,
                format!("time ran out: {left} of {} objects were not read", report.objects),
            );
            return;
        }
        match hash_object(store, &manifest.backup_id, object).await {
            Ok(found) if found == object.sha256 => {
                report.objects_good += 1;
                report.bytes_read += object.size;
            }
            Ok(found) => report.note(
                Verdict::Damaged,
                format!("{} has SHA-256 {found}, its manifest says {}", object.key, object.sha256),
            ),
            Err(e) => {
                let e = RepositoryError::Store(e);
                report.note(verdict_of(&e), describe(&e));
            }
        }
    }
}

async fn hash_object(store: &dyn Store, id: &BackupId, object: &ObjectEntry) -> Result<String, StoreError> {
    let key = format!("{}{}", Repository::backup_prefix(id), object.key);
    sha256_of(store, &key).await.map(|(sum, _)| sum)
}

/// SHA-256 and size of a stored object, streamed: memory does not depend on its size.
pub async fn sha256_of(store: &dyn Store, key: &str) -> Result<(String, u64), StoreError> {
    sha256_while(store, key, |_| ()).await
}

/// The same, telling `told` the bytes of each piece that was hashed.
pub async fn sha256_while(
    store: &dyn Store,
    key: &str,
    mut told: impl FnMut(u64) + Send,
) -> Result<(String, u64), StoreError> {
    let mut reader = store.read(key).await?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok((hex::encode(hash.finalize()), size)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                size += n as u64;
                told(n as u64);
            }
            Err(e) => return Err(StoreError::from_read(e, key, store.location())),
        }
    }
}

/// SHA-256 of bytes, as `sha256sum` prints it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn exchanged(repository: &Repository, pointer: &crate::pointer::Pointer, id: &BackupId, report: &mut Report) {
    let Some(wanted) = &pointer.manifest_sha256 else { return };
    match repository.manifest_bytes(id).await {
        Ok(body) if sha256_hex(&body) == *wanted => {}
        Ok(_) => {
            report.note(Verdict::Damaged, format!("the manifest of backup {id} is not the one that was published"));
        }
        Err(e) => report.note(verdict_of(&e), describe(&e)),
    }
}

/// What an error says about the data: a missing or broken object is damage, a store that does not answer is doubt.
fn verdict_of(error: &RepositoryError) -> Verdict {
    match error {
        RepositoryError::Store(StoreError::NotFound { .. } | StoreError::Corrupt { .. })
        | RepositoryError::Damaged { .. }
        | RepositoryError::Manifest(crate::manifest::ManifestError::Damaged { .. }) => Verdict::Damaged,
        _ => Verdict::CouldNotTell,
    }
}

fn describe(error: &RepositoryError) -> String {
    crate::aws::chain(error)
}

fn hours(seconds: i64) -> String {
    if seconds < 7200 { format!("{} minutes", seconds / 60) } else { format!("{} hours", seconds / 3600) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::Generation;
    use crate::manifest::example;
    use crate::settings::Engine;
    use crate::store::memory::MemoryStore;

    const NO_LIMITS: Limits = Limits { max_age: None, deadline: None };

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
        let report = newest(&repository, now(), NO_LIMITS).await;
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
            let report = newest(&repository, now(), NO_LIMITS).await;
            assert_eq!(report.verdict, Verdict::Damaged, "{key}");
            assert!(report.findings.iter().any(|f| f.contains(word)), "{word}: {:?}", report.findings);
        }
    }

    #[tokio::test]
    async fn a_damaged_pointer_and_a_stale_backup_are_damage() {
        let (repository, _) = published().await;
        let old = Limits { max_age: Some(Duration::from_secs(60)), deadline: None };
        let report = newest(&repository, now(), old).await;
        assert!(report.too_old && report.verdict == Verdict::Damaged);
        overwrite(&repository, "latest_weaviate_backup.manifest.json", b"{\"format\"").await;
        assert_eq!(newest(&repository, now(), NO_LIMITS).await.verdict, Verdict::Damaged);
    }

    #[tokio::test]
    async fn an_empty_repository_is_not_good_and_a_late_deadline_is_not_either() {
        let empty = Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate);
        assert_eq!(newest(&empty, now(), NO_LIMITS).await.verdict, Verdict::Damaged);
        let (repository, _) = published().await;
        let now_is_late = Limits { max_age: None, deadline: Some(Instant::now()) };
        let report = newest(&repository, now(), now_is_late).await;
        assert_eq!((report.verdict, report.objects_good), (Verdict::CouldNotTell, 0));
    }
}
