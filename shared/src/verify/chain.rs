//! A backup made of archives: its own objects and those of its parents.
//!
//! Three steps: every object of the chain is there with its size; the index is read to its end; and of the data as much as is asked
//! for and no record speaks for. Of an object that is read whole the SHA-256 is compared too, which also covers what stands between the
//! files (tar headers, chunks that only older backups need). What a record says was damaged is read again where the backup has a part in
//! it, and is told until it was found right.
//!
//! An encrypted backup without its key shows neither index nor chunks: then objects are only compared by their SHA-256.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::data::{Data, Found, Reader};
use super::plan::{Planner, Share};
use super::record::{Belief, News, Place, Record, Sign};
use super::report::{Damages, Report, Verdict, verdict_of};
use super::sha256::sha256_of;
use super::structure::{Seen, Structure, send_all};
use super::{Depth, Options};
use crate::archive::objects::Objects;
use crate::archive::tally::Tally;
use crate::aws::chain;
use crate::encryption::{DataKey, KeyId, KeyringError, keyring};
use crate::manifest::{Archive, ArchiveObject, Manifest};
use crate::repository::{Repository, RepositoryError};
use crate::store::{Meta, StoreError, Version};

/// Small requests that are made together.
const AT_ONCE: usize = 8;
/// Steps that may wait for a fetcher.
const AHEAD: usize = 8;
/// Failed requests that are told.
const TOLD: usize = 3;

/// One verification of one backup.
struct Chain<'a> {
    repository: &'a Repository,
    manifest: &'a Manifest,
    archive: &'a Archive,
    options: &'a Options,
    now: Timestamp,
    key: Key,
}

/// What an archive is read with.
enum Key {
    Unneeded,
    Open(DataKey),
    /// It is encrypted and its key is not at hand.
    Lacking,
}

/// An object that is there with its size.
struct Present<'a> {
    object: &'a ArchiveObject,
    version: Version,
    record: Record,
    /// Why the record could not be read; then nothing may be written in its place.
    unread: Option<String>,
}

/// Looks at everything that the options ask for.
pub(super) async fn check(
    repository: &Repository,
    manifest: &Manifest,
    archive: &Archive,
    options: &Options,
    now: Timestamp,
    report: &mut Report,
) {
    let key = key(repository, archive, options, report).await;
    Chain { repository, manifest, archive, options, now, key }.check(report).await;
}

/// The chain's key. Without it there is still something to look at.
async fn key(repository: &Repository, archive: &Archive, options: &Options, report: &mut Report) -> Key {
    let Some(id) = &archive.key_id else { return Key::Unneeded };
    let Some(sources) = &options.keys else { return Key::Lacking };
    let id = match id.parse::<KeyId>() {
        Ok(id) => id,
        Err(e) => {
            report.note(Verdict::Damaged, format!("the manifest names the key {id:?}: {e}"));
            return Key::Lacking;
        }
    };
    match keyring::open(repository, &sources.all(), &id).await {
        Ok(key) => return Key::Open(key),
        Err(e @ KeyringError::NoKey { .. }) => report.note(Verdict::Damaged, chain(&e)),
        Err(e) => report.note(Verdict::CouldNotTell, chain(&e)),
    }
    Key::Lacking
}

impl<'a> Chain<'a> {
    async fn check(&self, report: &mut Report) {
        report.objects = self.archive.objects.len();
        if let Depth::Subset(subset) = self.options.depth {
            report.subset = Some(subset);
        }
        let versions = match self.existence(report).await {
            Ok(versions) => versions,
            Err(e) => {
                let e = RepositoryError::Store(e);
                return report.note(verdict_of(&e), chain(&e));
            }
        };
        let present = self.recorded(versions, report).await;
        let shares = self.shares(&present, report);
        let total = shares.iter().map(|s| s.range.end - s.range.start).sum();
        self.options.progress.total.store(total, Ordering::Relaxed);
        let (seen, data) = self.read(&shares).await;
        let news = self.judge(&shares, &seen, &data, report).await;
        let complete = seen.complete;
        self.tell(seen, data, report);
        tell_known(&present, &news, report);
        let good = present.iter().zip(&shares).zip(&news).filter(|((present, share), news)| {
            let here = present.as_ref().is_some_and(|p| !report.is_damaged(&p.object.full_key()));
            here && news.right == share.range && (complete || news.sha256)
        });
        report.objects_good = good.count();
        self.remember(present, news, report).await;
    }

    /// The chain's objects, as they can be read.
    fn objects(&self) -> Objects {
        let key = if let Key::Open(key) = &self.key { Some(key.clone()) } else { None };
        Objects::new(self.repository.shared_store(), self.archive, key)
    }

    /// Whether neither index nor frames can be read.
    fn sealed(&self) -> bool {
        matches!(self.key, Key::Lacking)
    }

    /// The version of each object that is there with its size, by number.
    async fn existence(&self, report: &mut Report) -> Result<Vec<Option<Version>>, StoreError> {
        let store = self.repository.store();
        let folders: BTreeSet<_> =
            self.archive.objects.iter().map(|o| Repository::backup_prefix(&o.backup_id)).collect();
        let lists = stream::iter(&folders).map(|prefix| store.list(prefix)).buffer_unordered(AT_ONCE);
        let listed: Vec<Vec<Meta>> = lists.try_collect().await?;
        let present: BTreeMap<_, _> = listed.into_iter().flatten().map(|meta| (meta.key.clone(), meta)).collect();
        let mut damage = Damages::default();
        let mut look = |object: &ArchiveObject| {
            let key = object.full_key();
            match present.get(&key) {
                Some(meta) if meta.size == object.size => return Some(meta.version.clone()),
                Some(meta) => {
                    damage.add(&key, format!("it has {} bytes, the manifest says {}", meta.size, object.size));
                }
                None => damage.add(&key, "it is missing".into()),
            }
            None
        };
        let versions = self.archive.objects.iter().map(&mut look).collect();
        report.damages(damage);
        Ok(versions)
    }

    /// With what is remembered of each.
    async fn recorded(&self, versions: Vec<Option<Version>>, report: &mut Report) -> Vec<Option<Present<'a>>> {
        let read = |(object, version): (&'a ArchiveObject, Option<Version>)| async move {
            let version = version?;
            let (record, unread) = match Record::read(self.repository, object, &version).await {
                Ok(record) => (record, None),
                Err(e) => (Record::new(object, &version), Some(chain(&e))),
            };
            Some(Present { object, version, record, unread })
        };
        let reads = stream::iter(self.archive.objects.iter().zip(versions)).map(read).buffered(AT_ONCE);
        let present: Vec<Option<Present<'_>>> = reads.collect().await;
        for (present, why) in present.iter().flatten().filter_map(|p| Some((p, p.unread.as_ref()?))) {
            report.notes.push(format!("what is known of {} could not be read: {why}", present.object.full_key()));
        }
        present
    }

    /// What is to be read of each object.
    fn shares(&self, present: &[Option<Present<'_>>], report: &mut Report) -> Vec<Share> {
        let belief = Belief::new(self.manifest, self.archive, self.now, self.options.believed);
        let mut shares = vec![];
        for (number, present) in present.iter().enumerate() {
            let Some(Present { object, record, .. }) = present else {
                shares.push(Share::default());
                continue;
            };
            let (wanted, whole) = self.wanted(number, object.size);
            // Of what is read whole the SHA-256 alone tells that no damage is left.
            let anew = self.options.again || (whole && !record.damaged.is_empty());
            let left = if anew { wanted.clone() } else { record.left(wanted.clone(), &belief) };
            let range = if whole && !left.is_empty() { wanted.clone() } else { left };
            report.from_records += length(&wanted) - length(&range);
            shares.push(Share { whole: whole && !range.is_empty(), range, again: self.again(record) });
        }
        shares
    }

    /// Where frames begin that were damaged.
    fn again(&self, record: &Record) -> Vec<u64> {
        let frames = record.damaged.iter().filter(|p| p.sign == Sign::Frame && self.options.depth != Depth::Structure);
        frames.map(|p| p.from).collect()
    }

    /// What would be read without any record, and whether as a whole.
    fn wanted(&self, number: usize, size: u64) -> (Range<u64>, bool) {
        match self.options.depth {
            Depth::Structure => (0..0, false),
            Depth::All => (0..size, true),
            Depth::Subset(subset) if self.sealed() && subset.has_object(number) => (0..size, true),
            Depth::Subset(_) if self.sealed() => (0..0, false),
            Depth::Subset(subset) => (subset.range(size), false),
        }
    }

    /// Reads index and data side by side.
    async fn read(&self, shares: &[Share]) -> (Seen, Data) {
        let (out, steps) = mpsc::channel(AHEAD);
        let (objects, planner) = (self.objects(), Planner::new(shares.to_vec()));
        let (deadline, progress) = (self.options.deadline, Arc::clone(&self.options.progress));
        let reader = Reader::new(objects.clone(), deadline, progress);
        let reading = if self.sealed() {
            tokio::spawn(async move { Seen { complete: send_all(planner.finish(), &out).await, ..Seen::default() } })
        } else {
            let root = self.archive.index.clone();
            let sizes = self.archive.objects.iter().map(|o| o.size).collect();
            let tally = Tally::of(self.archive);
            tokio::spawn(Structure { objects, root, tally, sizes, deadline, planner, out }.run())
        };
        let (seen, data) = tokio::join!(reading, reader.run(shares, steps));
        let failed = |e: tokio::task::JoinError| Seen { ended: Some(e.to_string()), ..Seen::default() };
        (seen.unwrap_or_else(failed), data)
    }

    /// What was found of each object.
    async fn judge(&self, shares: &[Share], seen: &Seen, data: &Data, report: &mut Report) -> Vec<News> {
        let mut news = vec![];
        for ((object, share), found) in self.archive.objects.iter().zip(shares).zip(&data.found) {
            let (mut sha256, mut right) = (false, self.reached(share, seen, found));
            let frames = found.damaged.iter().map(|(range, what)| self.place(Sign::Frame, range.clone(), what));
            let mut damaged: Vec<_> = frames.collect();
            let of_index = seen.damage.of(&object.full_key());
            damaged.extend(of_index.map(|what| self.place(Sign::Index, 0..object.size, what)));
            if let Some(sum) = found.sha256(object.size) {
                let wrong = if sum == object.sha256 { Ok(()) } else { self.sum_once_more(object, &sum, report).await };
                sha256 = wrong.is_ok();
                right = if sha256 { share.range.clone() } else { nothing(share) };
                let wrong = wrong.err().flatten();
                damaged.extend(wrong.map(|what| self.place(Sign::Sha256, 0..object.size, &what)));
            }
            let (frames, index) = (found.healed.clone(), seen.complete && !self.sealed());
            news.push(News {
                right,
                sha256,
                frames,
                index,
                damaged,
                by: self.manifest.backup_id.clone(),
                at: self.now,
            });
        }
        news
    }

    fn place(&self, sign: Sign, range: Range<u64>, what: &str) -> Place {
        let (by, what) = (self.manifest.backup_id.clone(), what.to_owned());
        Place { sign, from: range.start, to: range.end, what, at: self.now, by }
    }

    /// Reads an object with a wrong sum once more before that is called damage: it may have been damaged on its way. Fails with what is
    /// wrong, or without where that could not be told.
    async fn sum_once_more(
        &self,
        object: &ArchiveObject,
        sum: &str,
        report: &mut Report,
    ) -> Result<(), Option<String>> {
        let key = object.full_key();
        let said = format!("it has SHA-256 {sum}, the manifest says {}", object.sha256);
        if self.options.deadline.is_some_and(|d| Instant::now() >= d) {
            report
                .note(Verdict::CouldNotTell, format!("{key}: {said}; time ran out before it could be read once more"));
            return Err(None);
        }
        match sha256_of(self.repository.store(), &key).await {
            Ok((sum, _)) if sum == object.sha256 => Ok(()),
            Ok(_) => {
                let mut damage = Damages::default();
                damage.add(&key, said.clone());
                report.damages(damage);
                Err(Some(said))
            }
            Err(e) => {
                let e = RepositoryError::Store(e);
                report.note(verdict_of(&e), chain(&e));
                Err(None)
            }
        }
    }

    fn reached(&self, share: &Share, seen: &Seen, found: &Found) -> Range<u64> {
        let Range { start, end } = share.range;
        if self.sealed() || !seen.damage.is_empty() {
            // It is not known which frames there are.
            return nothing(share);
        }
        if seen.complete && !found.stuck {
            return start..end;
        }
        if found.unordered { nothing(share) } else { start..found.reached.clamp(start, end) }
    }

    /// Says what was found.
    fn tell(&self, seen: Seen, data: Data, report: &mut Report) {
        report.files = seen.files;
        report.frames = data.found.iter().map(|f| f.frames).sum();
        report.chunks = data.found.iter().map(|f| f.chunks).sum();
        report.bytes_read = data.found.iter().map(|f| f.bytes).sum();
        report.damages(seen.damage);
        report.damages(data.damage);
        if let Some(why) = seen.ended {
            report.note(Verdict::CouldNotTell, why);
        }
        for doubt in data.doubts.iter().take(TOLD) {
            report.note(Verdict::CouldNotTell, doubt);
        }
        if data.late > 0 {
            let why = if data.doubts.is_empty() { "time ran out" } else { "too many requests failed" };
            report.note(Verdict::CouldNotTell, format!("{why}: {} bytes that were due were not read", data.late));
        }
        if self.sealed() {
            let note = "the backup is encrypted and no key is at hand here: objects were compared by their SHA-256, neither \
                        index nor files were looked at";
            report.notes.push(note.into());
        }
    }

    /// Records what was found. Without it, what was right is only read again; what was damaged is told by nobody else.
    async fn remember(&self, present: Vec<Option<Present<'a>>>, news: Vec<News>, report: &mut Report) {
        let changed = |(p, n): (Option<Present<'a>>, News)| Some((p?, n)).filter(|(p, n)| p.record.is_changed_by(n));
        let changed = present.into_iter().zip(news).filter_map(changed);
        let mut written = stream::iter(changed).map(|(p, n)| self.record(p, n)).buffer_unordered(AT_ONCE);
        while let Some(result) = written.next().await {
            if let Err(e) = result {
                let why = format!("what was found could not be recorded and must be read again: {}", chain(&e));
                return report.notes.push(why);
            }
        }
    }

    /// On what is recorded now: another verification may have ended meanwhile.
    async fn record(&self, present: Present<'_>, news: News) -> Result<(), StoreError> {
        let Present { object, version, unread, .. } = present;
        if unread.is_some() {
            return Ok(());
        }
        let mut record = Record::read(self.repository, object, &version).await?;
        record.take(&news);
        record.write(self.repository, object).await
    }
}

/// Says what is known to be damaged and was not looked at.
fn tell_known(present: &[Option<Present<'_>>], news: &[News], report: &mut Report) {
    let mut damage = Damages::default();
    for (present, news) in present.iter().zip(news) {
        let Some(present) = present else { continue };
        for place in present.record.not_seen_again(news) {
            let when = place.at.strftime("%Y-%m-%d %H:%M UTC");
            let what = format!("{} (found {when} and not seen right since)", place.what);
            damage.add(&present.object.full_key(), what);
        }
    }
    report.damages(damage);
}

fn nothing(share: &Share) -> Range<u64> {
    share.range.start..share.range.start
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}
