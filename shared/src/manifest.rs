//! The manifest of one backup, format 1: immutable, written last, small enough to read with the eye.
//!
//! A backup exists when its manifest exists. A crash before that leaves objects that no manifest names; they are
//! never restored and retention removes them. Unknown fields are ignored, an unknown format is refused: a newer
//! writer may have changed what a field means.
//!
//! The field names that boot scripts already read (`backup_id`, `path`, `backup_and_restore_path`, `latest_snapshot…`)
//! keep their names and meaning.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::frame::Algorithm;
use crate::archive::index::Root;
use crate::id::{BackupId, Generation};

/// The manifest format that this version writes and the newest it reads.
pub const FORMAT: u32 = 1;

/// A manifest larger than this is not read: an honest one is some hundred bytes an object.
pub const LARGEST: u64 = 64 << 20;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Restores by itself.
    Base,
    /// Needs its parent.
    Incremental,
}

/// Why a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// By a schedule.
    Scheduled,
    /// By a person.
    Manual,
    /// The last one of an instance that is about to go.
    Final,
}

/// The description of one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this document.
    pub format: u32,
    /// The backup's name; its objects are below `backups/<backup_id>/`.
    pub backup_id: BackupId,
    /// Full address of the backup's folder, such as `s3://bucket/prefix/backups/<backup_id>`.
    pub path: String,
    /// Name of the target.
    pub target: String,
    /// The engine, such as `weaviate`.
    pub engine: String,
    /// Version of the engine that wrote the backup.
    pub engine_version: String,
    /// The engine's host name, under which alone the backup restores without mapping.
    pub host_name: String,
    /// How the data was captured, as the settings call it: `native` is the engine's own backup.
    pub method: String,
    /// Base or incremental.
    pub kind: BackupKind,
    /// The backup that an incremental builds on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<BackupId>,
    /// Why it was taken.
    pub reason: Reason,
    /// Generation of the writer.
    pub generation: Generation,
    /// Instance that wrote it; absent outside EC2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// When the capture began; everything acknowledged before it is in the backup.
    pub started_at: Timestamp,
    /// When the last object was hashed.
    pub finished_at: Timestamp,
    /// Seconds the engine took to write the backup.
    pub capture_seconds: f64,
    /// Sum of the objects' sizes, bytes.
    pub size_bytes: u64,
    /// Collections with their exact counts and sample queries.
    pub collections: Vec<Collection>,
    /// Every object of the backup.
    pub objects: Vec<ObjectEntry>,
    /// What a backup made of archives has more; absent for the engine's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub archive: Option<Archive>,
    /// Version of the program that wrote this.
    pub tool_version: String,

    /// The engine's data folder (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_and_restore_path: Option<String>,
    /// Same as `backup_id` (the boot scripts' name).
    pub latest_snapshot: String,
    /// Same as `path` (the boot scripts' name).
    pub latest_snapshot_to_path: String,
    /// Whole mebibytes, rounded up (the boot scripts' name).
    pub latest_snapshot_size_in_mb: u64,
    /// Whole seconds, rounded up (the boot scripts' name).
    pub latest_snapshot_upload_duration_in_seconds: u64,
}

/// A backup made of archives: with it the manifest needs no other manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The base of the chain; the backup itself, if it is one.
    pub base: BackupId,
    /// How many increments after the base this is.
    pub position: u32,
    /// Why it is a base or an increment.
    pub because: String,
    /// Regular files.
    pub files: u64,
    /// Sum of their sizes, bytes, with holes.
    pub data_bytes: u64,
    /// Whether both are those of the index, to the last file and byte. Earlier captures counted a small file as it was
    /// met and not as it was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// What they take on a disk: their sizes without holes. Absent where it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Bytes of files that had to be read.
    pub read_bytes: u64,
    /// Bytes of chunks that are new in this backup, before compression.
    pub new_bytes: u64,
    /// Top of the index.
    pub index: Root,
    /// Every object of the chain that the index may point to, by number. An increment's table begins with its parent's.
    pub objects: Vec<ArchiveObject>,
    /// Which key the objects are encrypted with; absent when they are not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_id: Option<String>,
}

/// An object of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveObject {
    /// Backup that it belongs to.
    pub backup_id: BackupId,
    /// Key below that backup's folder.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the object, as `sha256sum` prints it.
    pub sha256: String,
    /// How its frames are compressed.
    pub compression: Algorithm,
}

impl Archive {
    /// Bytes that its files take on a disk, as far as that is known.
    pub fn on_disk(&self) -> u64 {
        self.disk_bytes.unwrap_or(self.data_bytes)
    }
}

impl ArchiveObject {
    /// Key in the repository.
    pub fn full_key(&self) -> String {
        format!("backups/{}/{}", self.backup_id, self.key)
    }
}

/// One collection of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// Exact count before the capture.
    pub count_before: u64,
    /// Exact count after it; differs from `count_before` when somebody wrote meanwhile.
    pub count_after: u64,
    /// Tenants that were not active, so that their objects could not be counted.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub uncounted_tenants: u64,
    /// Objects that vanish by themselves when their time comes, the most that were seen around the capture.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub may_expire: u64,
    /// How far outside of the two counts that of the capture may lie: it was seen to go up and down while the capture ran.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub churn: u64,
    /// Queries with the answers they had, to be asked again after a restore.
    pub samples: Vec<Sample>,
}

// serde's skip_serializing_if hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Collection {
    /// Whether `count` objects after a restore agree with what was counted around the capture. What could expire may be gone by then.
    pub fn agrees_with(&self, count: u64) -> bool {
        let (low, high) = (self.count_before.min(self.count_after), self.count_before.max(self.count_after));
        let (less, more) = (self.may_expire.saturating_add(self.churn), self.churn);
        (low.saturating_sub(less)..=high.saturating_add(more)).contains(&count)
    }
}

/// A stored object: a nearest-neighbour query by its vector, a digest of what it holds, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Tenant it is asked of, in a collection that has tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// Which of the object's vectors, in a collection whose objects have several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vector: Option<String>,
    /// Id of the object.
    pub near_object: String,
    /// How many neighbours were asked for; 0 where nothing is searched.
    pub limit: u32,
    /// Ids of the neighbours, nearest first.
    pub ids: Vec<String>,
    /// SHA-256 of the object in a form that is the same on every server of its engine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Key below `backups/<backup_id>/`.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, lower-case hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
    /// ETag when it was hashed: tells cheaply that the object is still the same.
    pub etag: String,
}

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Truncated, not JSON, or without a field it must have.
    #[error("the manifest of backup {id} is damaged: {why}; restore an older backup (`perennial backup list`)")]
    Damaged {
        /// Backup it belongs to.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// Written by a later version.
    #[error("the manifest of backup {id} has format {format}, this program reads up to {FORMAT}; update it")]
    Newer {
        /// Backup it belongs to.
        id: String,
        /// Its format.
        format: u64,
    },
}

impl Manifest {
    /// Reads and checks the manifest of the backup called `id`.
    ///
    /// Whoever can write to the bucket could have written it, so keys that leave the backup's folder, sizes that do not
    /// add up and a manifest that belongs to another backup are refused like truncation.
    pub fn parse(id: &str, body: &[u8]) -> Result<Self, ManifestError> {
        let damaged = |why: String| ManifestError::Damaged { id: id.into(), why };
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|e| damaged(e.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format > u64::from(FORMAT) => return Err(ManifestError::Newer { id: id.into(), format }),
            Some(1) => {}
            _ => return Err(damaged("it has no format number that is known".into())),
        }
        let manifest: Self = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        manifest.check(id).map_err(damaged)?;
        Ok(manifest)
    }

    /// Objects in all collections as counted after the capture; of a folder, its files.
    pub fn held(&self) -> u64 {
        match &self.archive {
            Some(archive) if self.collections.is_empty() => archive.files,
            _ => self.collections.iter().map(|c| c.count_after).sum(),
        }
    }

    /// The manifest as it is stored: indented, one newline at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }

    fn check(&self, id: &str) -> Result<(), String> {
        if self.backup_id.as_str() != id {
            return Err(format!("it says that it belongs to backup {}", self.backup_id));
        }
        let mut seen = BTreeSet::new();
        let mut sum = 0_u64;
        for object in &self.objects {
            if !is_inside(&object.key) {
                return Err(format!("object key {:?} leaves the backup's folder", object.key));
            }
            if !seen.insert(&object.key) {
                return Err(format!("object key {:?} stands twice", object.key));
            }
            if !is_sha256(&object.sha256) {
                return Err(format!("object {:?} has no SHA-256", object.key));
            }
            sum = sum.checked_add(object.size).ok_or("the sizes of its objects overflow")?;
        }
        match &self.archive {
            Some(archive) => self.check_archive(archive)?,
            None if self.objects.is_empty() => return Err("it names no object".into()),
            None => {}
        }
        if sum != self.size_bytes {
            return Err(format!("size_bytes is {}, its objects add up to {sum}", self.size_bytes));
        }
        Ok(())
    }

    /// The table of objects must hold together with the backup's own objects, and be of one chain.
    fn check_archive(&self, archive: &Archive) -> Result<(), String> {
        for object in &archive.objects {
            if !is_inside(&object.key) || !is_sha256(&object.sha256) {
                return Err(format!("the archive {:?} has no usable key or SHA-256", object.key));
            }
        }
        let own = archive.objects.iter().filter(|o| o.backup_id == self.backup_id);
        let stored =
            |o: &ArchiveObject| self.objects.iter().any(|s| s.key == o.key && s.sha256 == o.sha256 && s.size == o.size);
        if !own.clone().all(stored) || own.count() != self.objects.len() {
            return Err("its own archives and its objects differ".into());
        }
        if archive.index.page.object as usize >= archive.objects.len() {
            return Err("its index is in no object that it names".into());
        }
        let base = (archive.position == 0) == (archive.base == self.backup_id);
        let kind = (archive.position == 0) == (self.kind == BackupKind::Base)
            && (archive.position == 0) == self.parent.is_none();
        if base && kind { Ok(()) } else { Err("its kind, parent and place in the chain do not fit together".into()) }
    }
}

fn is_inside(key: &str) -> bool {
    !key.starts_with('/')
        && !key.contains(['\\', '\0'])
        && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// JSON as all of Perennial's documents are stored.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain data with string keys cannot fail: there is no map with other keys and no failing Serialize.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// A small manifest for tests of other modules.
#[cfg(any(test, feature = "testing"))]
pub fn example(id: &BackupId, objects: &[(&str, &[u8])]) -> Manifest {
    let at = id.made_at().unwrap_or(Timestamp::UNIX_EPOCH);
    let size_bytes = objects.iter().map(|(_, body)| body.len() as u64).sum();
    Manifest {
        format: FORMAT,
        backup_id: id.clone(),
        path: format!("s3://bucket/prefix/backups/{id}"),
        target: "docs".into(),
        engine: "weaviate".into(),
        engine_version: "1.39.0".into(),
        host_name: "weaviate-0".into(),
        method: "native".into(),
        kind: BackupKind::Base,
        parent: None,
        reason: Reason::Scheduled,
        generation: id.generation().unwrap_or_default(),
        owner: Some("i-0aaaaaaaaaaaaaaaa".into()),
        started_at: at,
        finished_at: at,
        capture_seconds: 2.0,
        size_bytes,
        collections: vec![Collection {
            name: "Doc".into(),
            count_before: 3,
            count_after: 3,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![],
        }],
        objects: objects
            .iter()
            .map(|(key, body)| ObjectEntry {
                key: (*key).into(),
                size: body.len() as u64,
                sha256: crate::verify::sha256_hex(body),
                etag: String::new(),
            })
            .collect(),
        archive: None,
        tool_version: "0.1.0".into(),
        backup_and_restore_path: Some("/workspace/weaviate/data".into()),
        latest_snapshot: id.to_string(),
        latest_snapshot_to_path: format!("s3://bucket/prefix/backups/{id}"),
        latest_snapshot_size_in_mb: size_bytes.div_ceil(1 << 20),
        latest_snapshot_upload_duration_in_seconds: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "20261121t105501z-g0003-7f3a9c";

    fn good() -> serde_json::Value {
        let id = ID.parse().expect("an id");
        serde_json::from_slice(&example(&id, &[("backup_config.json", b"{}")]).to_bytes()).expect("JSON")
    }

    /// A manifest as the first version wrote it must be readable for ever.
    #[test]
    fn format_1_is_read() {
        let body = include_bytes!("../fixtures/manifest-v1.json");
        let manifest = Manifest::parse(ID, body).expect("format 1");
        assert_eq!(manifest.generation, Generation(3));
        assert_eq!(manifest.collections[0].samples[0].ids.len(), 2);
        assert_eq!(manifest.objects[1].key, "weaviate-0/Doc/chunk-1");
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_formats_refused() {
        let mut value = good();
        value["colour"] = json!("blue");
        assert!(Manifest::parse(ID, value.to_string().as_bytes()).is_ok());
        value["format"] = json!(2);
        let error = Manifest::parse(ID, value.to_string().as_bytes()).expect_err("newer");
        assert_eq!(error, ManifestError::Newer { id: ID.into(), format: 2 });
    }

    #[test]
    fn every_truncation_is_refused() {
        let body = good().to_string();
        for end in 0..body.len() {
            assert!(Manifest::parse(ID, &body.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn hostile_manifests_are_refused() {
        type Change = fn(&mut serde_json::Value);
        let rows: [(&str, Change); 9] = [
            ("leaves", |v| v["objects"][0]["key"] = json!("../other/manifest.json")),
            ("leaves", |v| v["objects"][0]["key"] = json!("/etc/passwd")),
            ("leaves", |v| v["objects"][0]["key"] = json!("a//b")),
            ("twice", |v| {
                let first = v["objects"][0].clone();
                v["objects"].as_array_mut().expect("a list").push(first);
            }),
            ("SHA-256", |v| v["objects"][0]["sha256"] = json!("abc")),
            ("add up", |v| v["size_bytes"] = json!(1)),
            ("names no object", |v| v["objects"] = json!([])),
            ("belongs to", |v| v["backup_id"] = json!("other")),
            ("negative", |v| v["objects"][0]["size"] = json!(-1)),
        ];
        for (word, change) in rows {
            let mut value = good();
            change(&mut value);
            let error = Manifest::parse(ID, value.to_string().as_bytes()).expect_err(word);
            let known = matches!(error, ManifestError::Damaged { .. });
            assert!(known && (word == "negative" || error.to_string().contains(word)), "{word}: {error}");
        }
    }

    #[test]
    fn a_count_agrees_between_before_and_after() {
        let mut collection = Collection {
            name: "Doc".into(),
            count_before: 10,
            count_after: 12,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![],
        };
        assert!([10, 11, 12].iter().all(|n| collection.agrees_with(*n)));
        assert!(!collection.agrees_with(9) && !collection.agrees_with(13));
        collection.count_after = 8;
        assert!(collection.agrees_with(9) && !collection.agrees_with(7));
        collection.may_expire = 3;
        assert!(collection.agrees_with(5) && !collection.agrees_with(4) && !collection.agrees_with(11));
        collection.churn = 2;
        assert!(collection.agrees_with(3) && !collection.agrees_with(2));
        assert!(collection.agrees_with(12) && !collection.agrees_with(13));
    }

    #[test]
    fn what_moved_is_said_only_where_something_did() {
        let mut manifest = example(&BackupId::new(Timestamp::UNIX_EPOCH, Generation::default()), &[("a", b"a")]);
        let text = String::from_utf8_lossy(&manifest.to_bytes()).into_owned();
        assert!(!text.contains("may_expire") && !text.contains("churn"));
        (manifest.collections[0].may_expire, manifest.collections[0].churn) = (2, 3);
        let read = Manifest::parse(manifest.backup_id.as_str(), &manifest.to_bytes()).expect("good");
        assert_eq!((read.collections[0].may_expire, read.collections[0].churn), (2, 3));
    }
}
