//! The pointer: the one object of a target that is ever replaced, always by compare-and-set.
//!
//! It names the newest good backup, the generation and the instance that owns the target. Only the owner moves it to a new
//! backup, under its own generation; only a take-over changes the owner, and raises the generation. So a
//! writer that lost the target finds the pointer changed and stops, and a crash leaves the pointer at the last backup
//! that was complete.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BackupId, Generation};
use crate::manifest::{Manifest, to_json};
use crate::store::Version;

/// The pointer format that this version writes and the newest it reads.
pub const FORMAT: u32 = 1;

/// The pointer's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Format of this document.
    pub format: u32,
    /// Name of the target.
    pub target: String,
    /// The engine, such as `weaviate`.
    pub engine: String,
    /// The newest good backup; absent for a target that was started empty and has none yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_id: Option<BackupId>,
    /// Full address of that backup's folder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// SHA-256 of that backup's manifest: a manifest that was exchanged does not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest_sha256: Option<String>,
    /// Counts take-overs.
    pub generation: Generation,
    /// Instance that owns the target; absent outside EC2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// When the owner took over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken_over_at: Option<Timestamp>,
    /// When the pointer was last moved.
    pub updated_at: Timestamp,
    /// Makes every write distinguishable, so that a lost reply can be told from a lost race.
    pub nonce: String,

    /// The engine's data folder (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_and_restore_path: Option<String>,
    /// Same as `backup_id` (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_snapshot: Option<String>,
    /// Same as `path` (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_snapshot_to_path: Option<String>,
    /// Whole mebibytes (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_snapshot_size_in_mb: Option<u64>,
    /// Whole seconds (the boot scripts' name).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latest_snapshot_upload_duration_in_seconds: Option<u64>,
}

impl Pointer {
    /// The first pointer of a target, naming no backup.
    pub fn first(target: &str, engine: &str, owner: Option<&str>, at: Timestamp) -> Self {
        Self {
            format: FORMAT,
            target: target.into(),
            engine: engine.into(),
            backup_id: None,
            path: None,
            manifest_sha256: None,
            generation: Generation(1),
            owner: owner.map(Into::into),
            taken_over_at: owner.map(|_| at),
            updated_at: at,
            nonce: nonce(),
            backup_and_restore_path: None,
            latest_snapshot: None,
            latest_snapshot_to_path: None,
            latest_snapshot_size_in_mb: None,
            latest_snapshot_upload_duration_in_seconds: None,
        }
    }

    /// This pointer moved to `manifest`'s backup.
    #[must_use]
    pub fn naming(self, manifest: &Manifest, at: Timestamp) -> Self {
        Self {
            backup_id: Some(manifest.backup_id.clone()),
            path: Some(manifest.path.clone()),
            manifest_sha256: Some(crate::verify::sha256_hex(&manifest.to_bytes())),
            updated_at: at,
            nonce: nonce(),
            backup_and_restore_path: manifest.backup_and_restore_path.clone(),
            latest_snapshot: Some(manifest.latest_snapshot.clone()),
            latest_snapshot_to_path: Some(manifest.latest_snapshot_to_path.clone()),
            latest_snapshot_size_in_mb: Some(manifest.latest_snapshot_size_in_mb),
            latest_snapshot_upload_duration_in_seconds: Some(manifest.latest_snapshot_upload_duration_in_seconds),
            ..self
        }
    }

    /// This pointer moved to a backup that has no manifest (a boot script made it).
    #[must_use]
    pub fn naming_bare(self, id: &BackupId, path: &str, at: Timestamp) -> Self {
        Self {
            backup_id: Some(id.clone()),
            path: Some(path.into()),
            manifest_sha256: None,
            updated_at: at,
            nonce: nonce(),
            latest_snapshot: Some(id.to_string()),
            latest_snapshot_to_path: Some(path.into()),
            latest_snapshot_size_in_mb: None,
            latest_snapshot_upload_duration_in_seconds: None,
            ..self
        }
    }

    /// This pointer with a new owner under `generation`.
    #[must_use]
    pub fn owned_by(self, owner: &str, generation: Generation, at: Timestamp) -> Self {
        Self { generation, owner: Some(owner.into()), taken_over_at: Some(at), updated_at: at, nonce: nonce(), ..self }
    }

    /// The pointer as it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// What stands where the pointer should be. A pointer that could not be read is an error, not a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PointerState {
    /// Nothing stands there.
    #[default]
    Absent,
    /// A pointer of ours.
    Present {
        /// Its content.
        pointer: Box<Pointer>,
        /// For the next compare-and-set.
        version: Version,
    },
    /// A document of a boot script that has only `backup_id`, `id` or `path`.
    Bare {
        /// The backup it names.
        backup_id: BackupId,
        /// Its address, if given.
        path: Option<String>,
        /// For the next compare-and-set.
        version: Version,
    },
    /// Something that is no pointer: truncated, or written by a newer version.
    Damaged {
        /// What is wrong.
        why: String,
        /// Whether a newer version wrote it: then it must not be replaced.
        newer: bool,
        /// For the next compare-and-set.
        version: Version,
    },
}

impl PointerState {
    /// Reads what stands where the pointer should be.
    pub fn parse(body: &[u8], version: Version) -> Self {
        let value: serde_json::Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(e) => return Self::Damaged { why: e.to_string(), newer: false, version },
        };
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(1) => match serde_json::from_value::<Pointer>(value) {
                Ok(pointer) => Self::Present { pointer: Box::new(pointer), version },
                Err(e) => Self::Damaged { why: e.to_string(), newer: false, version },
            },
            Some(format) => Self::Damaged {
                why: format!("it has format {format}, this program reads up to {FORMAT}; update it"),
                newer: format > u64::from(FORMAT),
                version,
            },
            None => Self::bare(&value, version),
        }
    }

    /// The order in which boot scripts look: `backup_id`, `id`, then the last part of `path`.
    fn bare(value: &serde_json::Value, version: Version) -> Self {
        let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).filter(|t| !t.is_empty());
        let path = text("path");
        let last = path.map(|p| p.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
        let Some(name) = text("backup_id").or_else(|| text("id")).or(last) else {
            return Self::Damaged { why: "it names no backup".into(), newer: false, version };
        };
        match name.parse() {
            Ok(backup_id) => Self::Bare { backup_id, path: path.map(Into::into), version },
            Err(e) => Self::Damaged { why: format!("it names a backup that cannot be: {e}"), newer: false, version },
        }
    }

    /// The version to compare with when the pointer is moved next; `None` when it must be created.
    pub fn version(&self) -> Option<&Version> {
        match self {
            Self::Absent => None,
            Self::Present { version, .. } | Self::Bare { version, .. } | Self::Damaged { version, .. } => Some(version),
        }
    }

    /// The pointer, if one of ours stands there.
    pub fn pointer(&self) -> Option<&Pointer> {
        if let Self::Present { pointer, .. } = self { Some(pointer) } else { None }
    }

    /// The backup that it names, if it can be read and names one.
    pub fn backup_id(&self) -> Option<&BackupId> {
        match self {
            Self::Present { pointer, .. } => pointer.backup_id.as_ref(),
            Self::Bare { backup_id, .. } => Some(backup_id),
            Self::Absent | Self::Damaged { .. } => None,
        }
    }
}

/// A random text that no other write has.
pub fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> PointerState {
        PointerState::parse(text.as_bytes(), Version::new("v"))
    }

    #[test]
    fn format_1_is_read() {
        let PointerState::Present { pointer, .. } = state(include_str!("../fixtures/pointer-v1.json")) else {
            panic!("not a pointer");
        };
        assert_eq!(pointer.generation, Generation(3));
        assert_eq!(pointer.owner.as_deref(), Some("i-0f3a9c1b2d4e5f607"));
        assert_eq!(PointerState::parse(&pointer.to_bytes(), Version::new("v")).pointer(), Some(&*pointer));
    }

    #[test]
    fn boot_scripts_documents_are_read_in_their_order() {
        let rows = [
            (r#"{"backup_id": "b1", "id": "b2", "path": "s3://x/y/b3"}"#, Some("b1")),
            (r#"{"id": "b2", "path": "s3://x/y/b3"}"#, Some("b2")),
            (r#"{"path": "s3://x/y/b3/"}"#, Some("b3")),
            (r#"{"path": ""}"#, None),
            ("{}", None),
            (r#"{"backup_id": "../../etc"}"#, None),
            ("[1]", None),
        ];
        for (text, id) in rows {
            assert_eq!(state(text).backup_id().map(BackupId::as_str), id, "{text}");
        }
    }

    #[test]
    fn a_truncated_or_newer_pointer_is_damaged_not_absent() {
        let whole = include_str!("../fixtures/pointer-v1.json");
        for end in 0..whole.trim_end().len() {
            assert!(matches!(state(&whole[..end]), PointerState::Damaged { newer: false, .. }), "cut at {end}");
        }
        let newer = whole.replace("\"format\": 1", "\"format\": 9");
        assert!(matches!(state(&newer), PointerState::Damaged { newer: true, .. }));
    }
}
