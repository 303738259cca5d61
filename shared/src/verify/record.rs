//! What was verified of an object, remembered in the repository: `verifications/<backup-id>/<object>.json`.
//!
//! An increment rests on its parents' objects, and each verification of it would read them again. A record tells which bytes of
//! exactly which object were found right, when, and by whose index. It is believed for a month, by backups that the one that was
//! verified is a parent of (they need no other chunks of the object) or, where the whole object had its SHA-256, by any.
//!
//! Records are advice. One that cannot be read, or is of another object, is not believed and costs reading again; one that could not be
//! written is said and changes no verdict. Of two that are written at the same time one is lost.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::BackupId;
use crate::manifest::{Archive, ArchiveObject, Manifest, to_json};
use crate::repository::Repository;
use crate::store::{StoreError, Version};

/// Stretches that a record keeps: the newest.
const KEPT: usize = 100;
/// No real record is larger.
const LARGEST: usize = 64 << 10;

/// What is remembered of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its size.
    size: u64,
    /// Its version: another object under the same key has another one.
    version: Version,
    /// What its SHA-256 should be.
    sha256: String,
    /// What was found right.
    right: Vec<Stretch>,
}

/// A part of an object that was found right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    /// The frames that begin here were right.
    from: u64,
    to: u64,
    /// When.
    at: Timestamp,
    /// The backup whose index said what is in the frames.
    by: BackupId,
    /// The object's SHA-256 was right, too.
    sha256: bool,
}

/// Whom to believe.
pub(super) struct Belief {
    now: Timestamp,
    most: Duration,
    family: BTreeSet<BackupId>,
}

impl Belief {
    /// The backup itself and its parents believe each other, and nobody believes what is older than `most`.
    pub(super) fn new(manifest: &Manifest, archive: &Archive, now: Timestamp, most: Duration) -> Self {
        let mut family: BTreeSet<_> = archive.objects.iter().map(|o| o.backup_id.clone()).collect();
        family.insert(manifest.backup_id.clone());
        Self { now, most, family }
    }

    fn holds(&self, stretch: &Stretch) -> bool {
        let age = self.now.duration_since(stretch.at);
        let recent = !age.is_negative() && age.unsigned_abs() <= self.most;
        recent && (stretch.sha256 || self.family.contains(&stretch.by))
    }
}

impl Record {
    /// Nothing is known of this object yet.
    pub(super) fn new(object: &ArchiveObject, version: &Version) -> Self {
        Self { size: object.size, version: version.clone(), sha256: object.sha256.clone(), right: vec![] }
    }

    /// What is remembered of this very object; nothing where that cannot be read.
    pub(super) async fn read(repository: &Repository, object: &ArchiveObject, version: &Version) -> Self {
        let new = Self::new(object, version);
        let Ok(stored) = repository.store().get(&key(object)).await else { return new };
        if stored.body.len() > LARGEST {
            return new;
        }
        let record = serde_json::from_slice::<Self>(&stored.body).ok();
        record.filter(|r| (r.size, &r.version, &r.sha256) == (new.size, &new.version, &new.sha256)).unwrap_or(new)
    }

    /// Writes it over the one that is there.
    pub(super) async fn write(&self, repository: &Repository, object: &ArchiveObject) -> Result<(), StoreError> {
        repository.store().put(&key(object), to_json(self).into()).await.map(|_| ())
    }

    /// What of `wanted` is still to be read: without what its beginning and its end are believed to be.
    pub(super) fn left(&self, wanted: Range<u64>, belief: &Belief) -> Range<u64> {
        let Range { mut start, mut end } = wanted;
        let believed: Vec<_> = self.right.iter().filter(|s| belief.holds(s)).collect();
        while let Some(stretch) = believed.iter().find(|s| s.from <= start && start < s.to && start < end) {
            start = stretch.to;
        }
        while let Some(stretch) = believed.iter().find(|s| s.from < end && end <= s.to && start < end) {
            end = stretch.from;
        }
        if start < end { start..end } else { start..start }
    }

    /// Remembers a stretch that was just found right, and forgets what it makes unnecessary.
    pub(super) fn add(&mut self, range: Range<u64>, by: &BackupId, sha256: bool, now: Timestamp) {
        let new = Stretch { from: range.start, to: range.end, at: now, by: by.clone(), sha256 };
        let says_less = |old: &Stretch| {
            let inside = new.from <= old.from && old.to <= new.to;
            inside && (sha256 || (!old.sha256 && old.by == new.by))
        };
        self.right.retain(|old| !says_less(old));
        self.right.push(new);
        let over = self.right.len().saturating_sub(KEPT);
        self.right.drain(..over);
    }
}

fn key(object: &ArchiveObject) -> String {
    format!("verifications/{}/{}.json", object.backup_id, object.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::frame::Algorithm;

    const DAY: i64 = 24 * 60 * 60;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * DAY).expect("in range")
    }

    fn id(name: &str) -> BackupId {
        name.parse().expect("a name")
    }

    fn record() -> Record {
        let (key, sha256, compression) = ("data-0".into(), String::new(), Algorithm::Zstd);
        let object = ArchiveObject { backup_id: id("base"), key, size: 100, sha256, compression };
        Record::new(&object, &Version::new("v1"))
    }

    fn belief(day: i64, family: &[&str]) -> Belief {
        let most = Duration::from_secs(30 * 24 * 60 * 60);
        Belief { now: at(day), most, family: family.iter().map(|n| id(n)).collect() }
    }

    #[test]
    fn what_was_right_is_not_left() {
        let mut record = record();
        record.add(0..40, &id("base"), false, at(0));
        record.add(30..60, &id("base"), false, at(1));
        record.add(90..100, &id("base"), false, at(2));
        let left = |wanted, belief: &Belief| record.left(wanted, belief);
        let child = belief(3, &["base", "child"]);
        assert_eq!(left(0..100, &child), 60..90);
        assert!(left(10..60, &child).is_empty() && left(95..100, &child).is_empty());
        assert_eq!(left(20..70, &child), 60..70);
        assert!(left(5..5, &child).is_empty());
        assert_eq!(left(0..100, &belief(31, &["base"])), 0..90, "a month later");
        assert_eq!(left(0..100, &belief(-1, &["base"])), 0..100, "nobody believes the future");
        assert_eq!(left(0..100, &belief(3, &["other"])), 0..100, "another backup may need other frames");
    }

    #[test]
    fn a_whole_object_is_right_for_everybody_and_needs_no_other_stretch() {
        let mut record = record();
        for n in 0..7 {
            record.add(n * 10..(n + 1) * 10, &id("base"), false, at(0));
        }
        record.add(0..100, &id("child"), true, at(1));
        assert_eq!(record.right.len(), 1);
        assert!(record.left(0..100, &belief(1, &["base"])).is_empty());
        record.add(0..10, &id("child"), false, at(2));
        assert_eq!(record.right.len(), 2);
        for n in 0..300 {
            record.add(n % 90..n % 90 + 1, &id(&format!("b{n}")), false, at(2));
        }
        assert_eq!(record.right.len(), KEPT);
        assert!(record.to_bytes_len() < LARGEST);
    }

    impl Record {
        fn to_bytes_len(&self) -> usize {
            to_json(self).len()
        }
    }
}
