//! What a verification found, for people, metrics and the log.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::subset::Subset;
use crate::archive::objects::ReadError;
use crate::id::BackupId;
use crate::manifest::ManifestError;
use crate::repository::RepositoryError;
use crate::store::StoreError;

/// Of an object's damaged places this many are told; the others are counted.
const TOLD: usize = 5;

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
    /// Objects in which everything that was to be looked at was right, be it now or as a record says.
    pub objects_good: usize,
    /// Objects that the backup needs, also those of its parents.
    pub objects: usize,
    /// Bytes of objects that were read and right.
    pub bytes_read: u64,
    /// Bytes of objects that were not read again, because a record says that they were right.
    pub from_records: u64,
    /// Files, of a backup made of archives.
    pub files: u64,
    /// Frames that were decompressed.
    pub frames: u64,
    /// Chunks whose hash was right.
    pub chunks: u64,
    /// Which part of the data was to be read, where not all.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_words")]
    pub subset: Option<Subset>,
    /// Damaged objects.
    pub damaged: Vec<Damage>,
    /// What is wrong or unknown, a line each.
    pub findings: Vec<String>,
    /// What a person may want to know although nothing is wrong with it, a line each.
    pub notes: Vec<String>,
}

/// A damaged object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Its key in the repository.
    pub object: String,
    /// What is wrong with it and where; the first few places.
    pub what: Vec<String>,
    /// How many places are damaged.
    pub places: usize,
    /// The backups that need it, newest last.
    pub backups: Vec<BackupId>,
}

// serde hands over a reference to the whole field.
#[allow(clippy::ref_option)]
fn in_words<S: Serializer>(subset: &Option<Subset>, out: S) -> Result<S::Ok, S::Error> {
    subset.map(|s| s.to_string()).serialize(out)
}

impl Report {
    /// Nothing was found yet.
    pub fn new(backup_id: Option<BackupId>) -> Self {
        Self {
            verdict: Verdict::Good,
            backup_id,
            age_seconds: None,
            too_old: false,
            objects_good: 0,
            objects: 0,
            bytes_read: 0,
            from_records: 0,
            files: 0,
            frames: 0,
            chunks: 0,
            subset: None,
            damaged: vec![],
            findings: vec![],
            notes: vec![],
        }
    }

    /// Damage outweighs doubt, doubt outweighs good.
    pub(super) fn note(&mut self, verdict: Verdict, finding: impl Into<String>) {
        self.findings.push(finding.into());
        if self.verdict != Verdict::Damaged {
            self.verdict = verdict;
        }
    }

    pub(super) fn fail(mut self, error: &RepositoryError) -> Self {
        self.note(verdict_of(error), crate::aws::chain(error));
        self
    }

    /// Takes over what was found damaged.
    pub(super) fn damages(&mut self, found: Damages) {
        for damage in found.0 {
            for what in &damage.what {
                self.note(Verdict::Damaged, format!("{}: {what}", damage.object));
            }
            match self.damaged.iter_mut().find(|known| known.object == damage.object) {
                Some(known) => {
                    known.places += damage.places;
                    known.what.extend(damage.what);
                }
                None => self.damaged.push(damage),
            }
        }
    }

    pub(super) fn is_damaged(&self, object: &str) -> bool {
        self.damaged.iter().any(|d| d.object == object)
    }

    /// When the capture began; a backup that is older than `most` is no longer what was promised.
    pub(super) fn aged(&mut self, started_at: Timestamp, now: Timestamp, most: Option<std::time::Duration>) {
        let age = now.duration_since(started_at).as_secs();
        self.age_seconds = Some(age);
        if most.is_some_and(|most| age > i64::try_from(most.as_secs()).unwrap_or(i64::MAX)) {
            self.too_old = true;
            self.note(Verdict::Damaged, format!("the newest backup is {} old", hours(age)));
        }
    }
}

/// Damaged places, gathered by object. However many there are, the memory is that of a few.
#[derive(Debug, Default)]
pub(super) struct Damages(Vec<Damage>);

impl Damages {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with an object, if something is.
    pub(super) fn of(&self, object: &str) -> Option<&str> {
        self.0.iter().find(|d| d.object == object)?.what.first().map(String::as_str)
    }

    /// A damaged place of an object.
    pub(super) fn add(&mut self, object: &str, what: String) {
        let known = self.0.iter_mut().find(|d| d.object == object);
        match known {
            Some(damage) => {
                damage.places += 1;
                if damage.what.len() < TOLD {
                    damage.what.push(what);
                }
            }
            None => {
                self.0.push(Damage { object: object.into(), what: vec![what], places: 1, backups: vec![] });
            }
        }
    }
}

/// What an error says about the data: a missing or broken object is damage, a store that does not answer is doubt.
pub(super) fn verdict_of(error: &RepositoryError) -> Verdict {
    match error {
        RepositoryError::Store(StoreError::NotFound { .. } | StoreError::Corrupt { .. })
        | RepositoryError::Damaged { .. }
        | RepositoryError::Manifest(ManifestError::Damaged { .. }) => Verdict::Damaged,
        _ => Verdict::CouldNotTell,
    }
}

/// Which object a failed read says is damaged, and how; or the doubt that it leaves.
pub(super) fn blamed(error: ReadError) -> Result<(String, String), String> {
    match error {
        ReadError::Damaged { key, why } => Ok((key, why)),
        ReadError::Store(e) if matches!(e, StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {
            Ok((e.key().to_owned(), crate::aws::chain(&e)))
        }
        ReadError::Store(e) => Err(crate::aws::chain(&e)),
    }
}

fn hours(seconds: i64) -> String {
    if seconds < 7200 { format!("{} minutes", seconds / 60) } else { format!("{} hours", seconds / 3600) }
}
