//! What was verified of an object, remembered in the repository: `verifications/<backup-id>/<object>.json`.
//!
//! An increment rests on its parents' objects, and each verification of it would read them again. A record tells which bytes of
//! exactly which object were found right, when, and by whose index. It is believed for a month, by backups that the one that was
//! verified is a parent of (they need no other chunks of the object) or, where the whole object had its SHA-256, by any.
//!
//! What was found damaged is remembered, too, until it was found right again: a verification of other parts says it again, and nothing
//! is built on it.
//!
//! Records are advice. One that is torn, or of another object, is not believed and costs reading again; one that could not be read or
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
/// Damaged places that a record keeps: the first that were found.
pub(super) const PLACES: usize = 100;
/// Characters that it keeps of what is wrong with each.
const SAID: usize = 300;
/// No real record is larger.
const LARGEST: usize = 256 << 10;

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
    /// What was found damaged, and not right since.
    #[serde(default)]
    pub(super) damaged: Vec<Place>,
}

/// A part of an object that was found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) sign: Sign,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: String,
    /// When it was first seen.
    pub(super) at: Timestamp,
    /// The backup that was verified then.
    pub(super) by: BackupId,
}

/// By what a damage shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sign {
    /// The frame that begins there.
    Frame,
    /// A page of the index, which is looked at as a whole.
    Index,
    /// The SHA-256 of the object.
    Sha256,
}

/// What a verification found of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    /// The frames that begin here were right.
    pub(super) right: Range<u64>,
    /// The whole object's SHA-256 was right.
    pub(super) sha256: bool,
    /// Where frames begin that had been damaged and were right.
    pub(super) frames: Vec<u64>,
    /// The backup's whole index was right.
    pub(super) index: bool,
    /// What was damaged.
    pub(super) damaged: Vec<Place>,
    pub(super) by: BackupId,
    pub(super) at: Timestamp,
}

impl Place {
    /// The same place, seen by the same sign. Of an index each backup needs other pages.
    fn is(&self, other: &Self) -> bool {
        (self.sign, self.from) == (other.sign, other.from) && (self.sign != Sign::Index || self.by == other.by)
    }
}

impl News {
    fn heals(&self, place: &Place) -> bool {
        self.sha256
            || match place.sign {
                Sign::Frame => self.frames.contains(&place.from),
                Sign::Index => self.index && self.by == place.by,
                Sign::Sha256 => false,
            }
    }
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
        Self {
            size: object.size,
            version: version.clone(),
            sha256: object.sha256.clone(),
            right: vec![],
            damaged: vec![],
        }
    }

    /// What is remembered of this very object; nothing where the record is missing or torn.
    pub(super) async fn read(
        repository: &Repository,
        object: &ArchiveObject,
        version: &Version,
    ) -> Result<Self, StoreError> {
        let new = Self::new(object, version);
        let stored = match repository.store().get(&key(object)).await {
            Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => return Ok(new),
            stored => stored?,
        };
        if stored.body.len() > LARGEST {
            return Ok(new);
        }
        let record = serde_json::from_slice::<Self>(&stored.body).ok();
        let of_it = |r: &Self| (r.size, &r.version, &r.sha256) == (new.size, &new.version, &new.sha256);
        Ok(record.filter(of_it).unwrap_or(new))
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

    /// What is remembered as damaged, and was not looked at this time.
    pub(super) fn not_seen_again<'a>(&'a self, news: &'a News) -> impl Iterator<Item = &'a Place> {
        self.damaged.iter().filter(|p| !news.heals(p) && !news.damaged.iter().any(|n| n.is(p)))
    }

    /// Whether there is something to remember.
    pub(super) fn is_changed_by(&self, news: &News) -> bool {
        !news.right.is_empty() || !news.damaged.is_empty() || self.damaged.iter().any(|p| news.heals(p))
    }

    /// Takes over what was just found.
    pub(super) fn take(&mut self, news: &News) {
        if !news.right.is_empty() {
            self.add(news.right.clone(), &news.by, news.sha256, news.at);
        }
        self.damaged.retain(|p| !news.heals(p));
        for place in &news.damaged {
            if self.damaged.len() < PLACES && !self.damaged.iter().any(|p| p.is(place)) {
                let what = place.what.chars().take(SAID).collect();
                self.damaged.push(Place { what, ..place.clone() });
            }
        }
    }

    /// Remembers a stretch that was just found right, and forgets what it makes unnecessary.
    fn add(&mut self, range: Range<u64>, by: &BackupId, sha256: bool, now: Timestamp) {
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

    fn news(by: &str) -> News {
        News { right: 0..0, sha256: false, frames: vec![], index: false, damaged: vec![], by: id(by), at: at(5) }
    }

    fn place(sign: Sign, from: u64, by: &str) -> Place {
        Place { sign, from, to: 100, what: "torn".into(), at: at(1), by: id(by) }
    }

    #[test]
    fn what_was_damaged_stays_so_until_it_was_right() {
        let mut record = record();
        let found = [place(Sign::Frame, 7, "base"), place(Sign::Index, 0, "base"), place(Sign::Sha256, 0, "base")];
        record.take(&News { damaged: found.to_vec(), ..news("base") });
        let signs = |record: &Record| record.damaged.iter().map(|p| p.sign).collect::<Vec<_>>();
        for other in [
            News { right: 0..100, frames: vec![8], index: true, ..news("child") },
            News { damaged: vec![Place { at: at(5), ..found[0].clone() }], ..news("base") },
        ] {
            record.take(&other);
            assert_eq!(record.damaged, found, "the first time that it was seen");
        }
        let again = News { damaged: found[..1].to_vec(), index: true, ..news("base") };
        assert_eq!(record.not_seen_again(&again).collect::<Vec<_>>(), [&found[2]]);
        record.take(&News { index: true, ..news("base") });
        assert_eq!(signs(&record), [Sign::Frame, Sign::Sha256]);
        assert!(record.is_changed_by(&News { frames: vec![7], ..news("x") }) && !record.is_changed_by(&news("x")));
        record.take(&News { frames: vec![7], ..news("child") });
        assert_eq!(signs(&record), [Sign::Sha256]);
        record.take(&News { right: 0..100, sha256: true, ..news("child") });
        assert!(record.damaged.is_empty());
    }

    #[test]
    fn a_record_stays_small() {
        let mut record = record();
        let what = "\u{1}".repeat(9000);
        let damaged = (0..1000).map(|n| Place { what: what.clone(), ..place(Sign::Frame, n, "base") }).collect();
        record.take(&News { damaged, ..news("base") });
        assert_eq!(record.damaged.len(), PLACES);
        for n in 0..300 {
            record.add(n % 90..n % 90 + 1, &id(&format!("b{n}")), false, at(2));
        }
        assert!(record.to_bytes_len() < LARGEST, "{}", record.to_bytes_len());
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
