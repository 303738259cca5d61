//! Which backup a restore starts from.
//!
//! The pointer's backup; else the newest complete manifest, by generation and then time, so that a zombie's late backup
//! never wins over its successor's; else, in a bucket that only a boot script wrote, the newest engine backup by
//! `LastModified`. A backup with a missing or short object, also one of the chain that it builds on, is passed over, and said to be. A read that fails is an error: only a
//! repository that was read and found empty is empty.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::id::{BackupId, Generation};
use crate::manifest::Manifest;
use crate::pointer::PointerState;
use crate::repository::{Repository, RepositoryError};
use crate::store::{Meta, StoreError};

/// The object that Weaviate writes first and finishes last in a backup of its own.
const ENGINE_DESCRIPTOR: &str = "backup_config.json";

/// A backup that a restore may start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The backup.
    pub id: BackupId,
    /// How it was found.
    pub source: Source,
    /// Its manifest; absent for a backup that a boot script made.
    pub manifest: Option<Manifest>,
    /// Key prefix below the repository of the folder that holds it, ending in `/`; the folder's own name is the id.
    pub parent: String,
}

/// How a backup was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The pointer names it.
    Pointer,
    /// It is the newest complete manifest, or the next older one.
    Manifest,
    /// It has no manifest and was found by time of writing.
    LastModified,
}

/// Everything that could be restored, best first, and what was passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// What stands where the pointer should be.
    pub pointer: PointerState,
    /// Restorable backups, best first.
    pub candidates: Vec<Candidate>,
    /// What a person should know: a damaged pointer, backups passed over and why.
    pub problems: Vec<String>,
    /// Whether there has never been a backup: no object of one, or only unfinished ones under a pointer that names none.
    pub empty: bool,
}

impl Resolution {
    /// The generation that a take-over of this repository follows.
    pub fn generation(&self) -> Generation {
        let written = self.candidates.iter().filter_map(|c| c.id.generation()).max();
        self.pointer.pointer().map(|p| p.generation).max(written).unwrap_or_default()
    }

    /// The candidate for one backup.
    pub fn candidate(&self, id: &BackupId) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.id == *id)
    }
}

/// Reads the repository and ranks what can be restored.
pub async fn resolve(repository: &Repository) -> Result<Resolution, StoreError> {
    let pointer = repository.pointer().await?;
    let folders = repository.backup_objects().await?;
    let mut problems = Vec::new();
    if let PointerState::Damaged { why, .. } = &pointer {
        problems.push(format!("the pointer {} is damaged: {why}", repository.pointer_key()));
    }
    let sizes = sizes(folders.values().flatten());
    let (mut whole, mut bare) = (Vec::new(), Vec::new());
    for (name, objects) in &folders {
        match examine(repository, name, objects, &sizes).await? {
            Examined::Whole(candidate, sha256) if exchanged(&pointer, &candidate, &sha256) => {
                problems.push(format!("the manifest of backup {} is not the one that was published", candidate.id));
            }
            Examined::Whole(candidate, _) => whole.push(candidate),
            Examined::Bare(candidate, modified) => bare.push((modified, candidate)),
            Examined::Unfinished => {}
            Examined::Bad(why) => problems.push(why),
        }
    }
    if !whole.iter().any(|c| Some(&c.id) == pointer.backup_id()) {
        bare.extend(elsewhere(repository, &folders).await?);
    }
    let candidates = rank(&pointer, whole, bare, &mut problems);
    let never = match &pointer {
        // Objects without a pointer may be all that is left of a repository that somebody damaged.
        PointerState::Absent => folders.is_empty(),
        // A target that was started empty, and whose first backup was never finished.
        PointerState::Present { pointer, .. } => pointer.backup_id.is_none() && problems.is_empty(),
        PointerState::Bare { .. } | PointerState::Damaged { .. } => false,
    };
    let empty = never && candidates.is_empty();
    Ok(Resolution { pointer, candidates, problems, empty })
}

enum Examined {
    /// With the SHA-256 of its manifest as it is stored.
    Whole(Candidate, String),
    Bare(Candidate, Timestamp),
    /// No manifest and no finished engine backup: one that is being made, or that a crash left.
    Unfinished,
    Bad(String),
}

/// What one folder below `backups/` is worth.
async fn examine(
    repository: &Repository,
    name: &str,
    objects: &[Meta],
    sizes: &Sizes<'_>,
) -> Result<Examined, StoreError> {
    let Ok(id) = name.parse::<BackupId>() else {
        return Ok(Examined::Bad(format!("backups/{name} is not the name of a backup")));
    };
    let key = Repository::manifest_key(&id);
    if objects.iter().any(|m| m.key == key) {
        return Ok(match manifest(repository, &id).await {
            Ok((manifest, sha256)) => match missing(&manifest, sizes) {
                None => Examined::Whole(
                    Candidate { id, source: Source::Manifest, manifest: Some(manifest), parent: "backups/".into() },
                    sha256,
                ),
                Some(why) => Examined::Bad(format!("backup {id} is not complete: {why}")),
            },
            Err(RepositoryError::Store(StoreError::NotFound { .. })) => Examined::Unfinished, // deleted meanwhile
            Err(RepositoryError::Store(e @ StoreError::Corrupt { .. })) => Examined::Bad(format!("backup {id}: {e}")),
            Err(RepositoryError::Store(e)) => return Err(e),
            Err(e) => Examined::Bad(e.to_string()),
        });
    }
    // A backup of ours without its manifest was never finished; anybody else's never has one.
    if id.generation().is_some() {
        return Ok(Examined::Unfinished);
    }
    bare_backup(repository, "backups/", id, objects).await.map(|found| match found {
        Some((modified, candidate)) => Examined::Bare(candidate, modified),
        None => Examined::Unfinished,
    })
}

/// A manifest, and the SHA-256 of its stored bytes: parsing and printing it again may change the last digit of a number.
async fn manifest(repository: &Repository, id: &BackupId) -> Result<(Manifest, String), RepositoryError> {
    let body = repository.manifest_bytes(id).await?;
    Ok((Manifest::parse(id.as_str(), &body)?, crate::verify::sha256_hex(&body)))
}

/// The size of each object, by its key in the repository.
pub type Sizes<'a> = BTreeMap<&'a str, u64>;

/// The sizes of objects as they were listed.
pub fn sizes<'a>(present: impl IntoIterator<Item = &'a Meta>) -> Sizes<'a> {
    present.into_iter().map(|meta| (meta.key.as_str(), meta.size)).collect()
}

/// The first object that the backup needs and that is not there in its full size: its own, and those of the chain that it
/// builds on.
pub fn missing(manifest: &Manifest, present: &Sizes<'_>) -> Option<String> {
    let prefix = Repository::backup_prefix(&manifest.backup_id);
    let own = manifest.objects.iter().map(|o| (o.key.clone(), format!("{prefix}{}", o.key), o.size));
    let chain = manifest.archive.iter().flat_map(|archive| &archive.objects);
    let chain = chain.filter(|o| o.backup_id != manifest.backup_id).map(|o| (o.full_key(), o.full_key(), o.size));
    own.chain(chain).find_map(|(name, key, wanted)| match present.get(key.as_str()) {
        Some(size) if *size == wanted => None,
        Some(size) => Some(format!("{name} has {size} bytes, its manifest says {wanted}")),
        None => Some(format!("{name} is missing")),
    })
}

/// Engine backups that stand elsewhere below the prefix, where boot scripts put them.
async fn elsewhere(
    repository: &Repository,
    known: &BTreeMap<String, Vec<Meta>>,
) -> Result<Vec<(Timestamp, Candidate)>, StoreError> {
    let mut found = Vec::new();
    let all = repository.store().list("").await?;
    for descriptor in all.iter().filter(|m| !m.key.starts_with("backups/")) {
        let Some(folder) = descriptor.key.strip_suffix(&format!("/{ENGINE_DESCRIPTOR}")) else { continue };
        let (parent, name) = folder.rsplit_once('/').map_or(("", folder), |(p, n)| (p, n));
        let Ok(id) = name.parse::<BackupId>() else { continue };
        if known.contains_key(name) {
            continue;
        }
        let parent = if parent.is_empty() { String::new() } else { format!("{parent}/") };
        found.extend(bare_backup(repository, &parent, id, &all).await?);
    }
    Ok(found)
}

/// A finished engine backup without a manifest, with the time of its newest object.
async fn bare_backup(
    repository: &Repository,
    parent: &str,
    id: BackupId,
    objects: &[Meta],
) -> Result<Option<(Timestamp, Candidate)>, StoreError> {
    let folder = format!("{parent}{id}/");
    let Some(modified) = objects.iter().filter(|m| m.key.starts_with(&folder)).map(|m| m.modified).max() else {
        return Ok(None);
    };
    let body = match repository.store().get(&format!("{folder}{ENGINE_DESCRIPTOR}")).await {
        Ok(object) => object.body,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let status = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let done = status.as_ref().and_then(|v| v.get("status")?.as_str()) == Some("SUCCESS");
    Ok(done.then(|| (modified, Candidate { id, source: Source::LastModified, manifest: None, parent: parent.into() })))
}

/// Best first: the pointer's backup, manifests by generation and time, bare backups by time of writing.
fn rank(
    pointer: &PointerState,
    whole: Vec<Candidate>,
    bare: Vec<(Timestamp, Candidate)>,
    problems: &mut Vec<String>,
) -> Vec<Candidate> {
    let named = pointer.backup_id();
    let mut whole = whole;
    let time = |c: &Candidate| c.manifest.as_ref().map(|m| m.started_at);
    whole.sort_by_key(|c| Reverse((c.manifest.as_ref().map(|m| m.generation), time(c), c.id.clone())));
    let mut bare = bare;
    bare.sort_by_key(|(modified, c)| Reverse((*modified, c.id.clone())));
    let mut all: Vec<_> = whole.into_iter().chain(bare.into_iter().map(|(_, c)| c)).collect();
    match (named, all.iter().position(|c| Some(&c.id) == named)) {
        (Some(_), Some(place)) => {
            let mut best = all.remove(place);
            best.source = Source::Pointer;
            all.insert(0, best);
        }
        (Some(id), None) => problems.push(format!("the pointer names backup {id}, which is not there or not complete")),
        (None, _) => {}
    }
    all
}

/// Whether this is the pointer's backup, but with another manifest than the one that was published.
fn exchanged(pointer: &PointerState, candidate: &Candidate, sha256: &str) -> bool {
    let named = pointer.pointer().filter(|p| p.backup_id.as_ref() == Some(&candidate.id));
    named.and_then(|p| p.manifest_sha256.as_ref()).is_some_and(|wanted| wanted != sha256)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::example;
    use crate::settings::Engine;
    use crate::store::memory::MemoryStore;

    struct World {
        repository: Repository,
    }

    impl World {
        fn new() -> Self {
            Self { repository: Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate) }
        }

        async fn put(&self, key: &str, body: &[u8]) {
            self.repository.store().put(key, bytes::Bytes::copy_from_slice(body)).await.expect("stored");
        }

        /// A complete backup; `published` moves the pointer to it.
        async fn backup(&self, second: i64, generation: u32, published: bool) -> BackupId {
            let at = Timestamp::from_second(1_800_000_000 + second).expect("in range");
            let manifest = example(&BackupId::new(at, Generation(generation)), &[("n/chunk-1", b"data")]);
            let id = manifest.backup_id.clone();
            self.put(&format!("backups/{id}/n/chunk-1"), b"data").await;
            self.repository.create_manifest(&manifest).await.expect("created");
            if published {
                let seen = self.repository.pointer().await.expect("read");
                let base = crate::pointer::Pointer::first("docs", "weaviate", Some("i-1"), at);
                let pointer = base.naming(&manifest, at).owned_by("i-1", Generation(generation), at);
                self.repository.set_pointer(&seen, &pointer).await.expect("moved");
            }
            id
        }

        async fn ids(&self) -> Vec<BackupId> {
            self.resolve().await.candidates.into_iter().map(|c| c.id).collect()
        }

        async fn resolve(&self) -> Resolution {
            resolve(&self.repository).await.expect("readable")
        }
    }

    #[tokio::test]
    async fn the_pointer_wins_over_a_newer_manifest() {
        let world = World::new();
        let old = world.backup(0, 1, true).await;
        let newer = world.backup(10, 1, false).await;
        assert_eq!(world.ids().await, [old, newer]);
        assert_eq!(world.resolve().await.candidates[0].source, Source::Pointer);
    }

    #[tokio::test]
    async fn without_a_pointer_generation_counts_before_time() {
        let world = World::new();
        let successor = world.backup(0, 2, false).await;
        let zombie = world.backup(10, 1, false).await;
        let newest = world.backup(5, 2, false).await;
        assert_eq!(world.ids().await, [newest, successor, zombie]);
        assert_eq!(world.resolve().await.generation(), Generation(2));
    }

    #[tokio::test]
    async fn a_backup_deleted_behind_the_pointer_is_passed_over() {
        let world = World::new();
        let old = world.backup(0, 1, false).await;
        let named = world.backup(10, 1, true).await;
        world.repository.store().delete(&format!("backups/{named}/n/chunk-1")).await.expect("deleted");
        let found = world.resolve().await;
        assert_eq!(found.candidates[0].id, old);
        assert_eq!(found.problems.len(), 2, "{:?}", found.problems);
        assert!(!found.empty);
    }

    #[tokio::test]
    async fn a_truncated_hostile_or_newer_manifest_is_passed_over_and_said() {
        let world = World::new();
        let good = world.backup(0, 1, false).await;
        for (second, change) in [(10, 0), (20, 1), (30, 2)] {
            let bad = world.backup(second, 1, true).await;
            let key = Repository::manifest_key(&bad);
            let body = world.repository.store().get(&key).await.expect("there").body;
            let text = String::from_utf8(body.to_vec()).expect("text");
            let text = match change {
                0 => text[..text.len() / 2].to_owned(),
                1 => text.replace("n/chunk-1", "../../x"),
                _ => text.replace("\"format\": 1", "\"format\": 2"),
            };
            world.put(&key, text.as_bytes()).await;
        }
        let found = world.resolve().await;
        assert_eq!(found.candidates.iter().map(|c| &c.id).collect::<Vec<_>>(), [&good]);
        assert_eq!(found.problems.len(), 4, "{:?}", found.problems);
    }

    #[tokio::test]
    async fn a_manifest_is_known_again_whatever_its_numbers() {
        // JSON does not give back every number with its last digit.
        for seconds in (1..300).map(|n| 2.0 + f64::from(n) / 997.0) {
            let world = World::new();
            let id = BackupId::new(Timestamp::from_second(1_800_000_000).expect("in range"), Generation(1));
            let manifest = Manifest { capture_seconds: seconds, ..example(&id, &[("n/chunk-1", b"data")]) };
            world.put(&format!("backups/{id}/n/chunk-1"), b"data").await;
            world.repository.create_manifest(&manifest).await.expect("created");
            world.repository.publish(&manifest, Some("i-1"), manifest.started_at).await.expect("published");
            assert_eq!(world.resolve().await.candidates[0].source, Source::Pointer, "{seconds}");
        }
    }

    #[tokio::test]
    async fn an_exchanged_manifest_is_not_believed() {
        let world = World::new();
        let good = world.backup(0, 1, false).await;
        let named = world.backup(10, 1, true).await;
        let manifest = world.repository.manifest(&named).await.expect("there");
        let other = Manifest { target: "other".into(), ..manifest };
        world.put(&Repository::manifest_key(&named), &other.to_bytes()).await;
        assert_eq!(world.ids().await, [good]);
    }

    #[tokio::test]
    async fn a_bucket_that_only_a_boot_script_wrote_gives_the_newest_finished_backup() {
        let world = World::new();
        for (id, status) in [("weaviate-backups/b1", "SUCCESS"), ("weaviate-backups/b2", "SUCCESS"), ("b3", "STARTED")]
        {
            world.put(&format!("{id}/backup_config.json"), format!("{{\"status\":\"{status}\"}}").as_bytes()).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let found = world.resolve().await;
        let best = &found.candidates[0];
        assert_eq!(
            (best.id.as_str(), best.source, best.parent.as_str()),
            ("b2", Source::LastModified, "weaviate-backups/")
        );
        assert_eq!(found.candidates.len(), 2);

        world.put("latest_weaviate_backup.manifest.json", br#"{"id": "b1"}"#).await;
        let best = world.resolve().await.candidates[0].clone();
        assert_eq!((best.id.as_str(), best.source), ("b1", Source::Pointer));
    }

    #[tokio::test]
    async fn empty_is_only_what_was_read_and_found_empty() {
        let world = World::new();
        assert!(world.resolve().await.empty);
        world.put("backups/20261121t105501z-g0001-7f3a9c/n/chunk-1", b"half").await;
        let found = world.resolve().await;
        assert!(!found.empty && found.candidates.is_empty());
    }
}
