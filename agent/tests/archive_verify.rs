//! Verification of backups made of archives: every kind of damage is told and named, nothing else is called damage, and what was read
//! is not read again without need.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use perennial::archive::create::{Archived, Request, archive};
use perennial::archive::source::Source;
use perennial_shared::archive::frame::Compression;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::{BackupKind, Manifest, example};
use perennial_shared::repository::Repository;
use perennial_shared::resolve::resolve;
use perennial_shared::settings::Engine;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::Store;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::memory::MemoryStore;
use perennial_shared::verify::{self, Depth, Options, Report, Subset, Verdict};
use support::noise;
use tempfile::TempDir;

const DAY: u64 = 24 * 60 * 60;

/// A repository with a chain of backups of one folder.
struct World {
    folder: TempDir,
    store: Arc<dyn Store>,
    made: Vec<Manifest>,
}

impl World {
    /// A base and an increment.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = Self { folder, store: Arc::new(MemoryStore::default()), made: vec![] };
        world.write("gone", 2_500_000, 3);
        world.write("vectors", 3_000_000, 1);
        for n in 0..200 {
            world.write(&format!("segments/{n}"), 97 * n, n as u64);
        }
        world.back_up().await;
        world.overwrite("vectors", 1_000_000);
        world.write("segments/new", 300_000, 7);
        fs::remove_file(world.folder.path().join("gone")).expect("removed");
        world.back_up().await;
        world
    }

    fn write(&self, name: &str, size: usize, seed: u64) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, noise(size, seed)).expect("written");
    }

    fn overwrite(&self, name: &str, at: u64) {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(self.folder.path().join(name)).expect("open");
        file.write_all_at(b"changed in place", at).expect("written");
    }

    fn repository(&self) -> Repository {
        Repository::new(Arc::clone(&self.store), Engine::Files)
    }

    async fn back_up(&mut self) {
        let parent = self.made.last().cloned();
        let second = i64::try_from(self.made.len()).expect("few");
        let id = BackupId::new(
            now(0) - Duration::from_secs(100) + Duration::from_secs(second.unsigned_abs()),
            Generation(1),
        );
        let request = request(&self.store, &id, self.folder.path(), parent.as_ref());
        let archived = archive(request).await.expect("archived");
        let manifest = manifest(&id, archived, parent.as_ref());
        self.repository().create_manifest(&manifest).await.expect("stored");
        self.repository().publish(&manifest, Some("i-0aaaaaaaaaaaaaaaa"), now(0)).await.expect("published");
        self.made.push(manifest);
    }

    async fn verify(&self, backup: usize, options: &Options) -> Report {
        self.verify_on(0, backup, options).await
    }

    async fn verify_on(&self, day: u64, backup: usize, options: &Options) -> Report {
        verify::one(&self.repository(), &self.made[backup].backup_id, now(day), options).await
    }

    /// Full keys of a backup's own index and data.
    fn own(&self, backup: usize) -> [String; 2] {
        let manifest = &self.made[backup];
        let key = |start: &str| {
            let own = manifest.objects.iter().find(|o| o.key.starts_with(start)).expect("an object");
            format!("backups/{}/{}", manifest.backup_id, own.key)
        };
        [key("index-0"), key("data-0")]
    }

    /// Loses the records of what was verified.
    async fn forget(&self) {
        for record in self.store.list("verifications/").await.expect("listed") {
            self.store.delete(&record.key).await.expect("deleted");
        }
    }

    async fn change(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut body = self.store.get(key).await.expect("there").body.to_vec();
        change(&mut body);
        self.store.put(key, body.into()).await.expect("stored");
    }
}

fn request(store: &Arc<dyn Store>, id: &BackupId, folder: &Path, parent: Option<&Manifest>) -> Request {
    Request {
        store: Arc::clone(store),
        id: id.clone(),
        source: Source { ctime_is_ours: true, ..Source::folder(folder) },
        parent: parent.and_then(|p| p.archive.clone()),
        key: None,
        compression: Compression::default(),
        chunk_size: 16 << 10,
        upload: UploadSettings::default(),
        full_at: u64::MAX,
        reread: false,
        resume: None,
        passed: Arc::new(AtomicU64::new(0)),
    }
}

fn manifest(id: &BackupId, archived: Archived, parent: Option<&Manifest>) -> Manifest {
    let archive = archived.described(id, parent.and_then(|p| p.archive.as_ref()), "");
    Manifest {
        kind: if parent.is_some() { BackupKind::Incremental } else { BackupKind::Base },
        parent: parent.map(|p| p.backup_id.clone()),
        size_bytes: archived.objects.iter().map(|o| o.size).sum(),
        objects: archived.objects,
        archive: Some(archive),
        engine: "files".into(),
        ..example(id, &[])
    }
}

fn now(day: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range") + Duration::from_secs(day * DAY)
}

fn again() -> Options {
    Options { again: true, ..Options::default() }
}

fn part(text: &str) -> Options {
    let subset = Subset::parse(text, now(0)).expect("a part");
    Options { depth: Depth::Subset(subset), ..Options::default() }
}

fn structure() -> Options {
    Options { depth: Depth::Structure, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_chain_is_good_and_read_once() {
    let world = World::new().await;
    let total: u64 = world.made[1].archive.as_ref().expect("an archive").objects.iter().map(|o| o.size).sum();
    let seen = world.verify(1, &structure()).await;
    assert_eq!((seen.verdict, seen.files, seen.bytes_read, seen.frames), (Verdict::Good, 202, 0, 0), "{seen:?}");

    let base = world.verify(0, &Options::default()).await;
    assert_eq!((base.verdict, base.objects_good, base.objects), (Verdict::Good, 2, 2), "{base:?}");
    let next = world.verify(1, &Options::default()).await;
    assert_eq!((next.verdict, next.objects_good, next.objects), (Verdict::Good, 4, 4), "{next:?}");
    assert_eq!(next.from_records, base.bytes_read, "the base is not read again for the increment");
    assert_eq!(next.from_records + next.bytes_read, total);
    let twice = world.verify_on(29, 1, &Options::default()).await;
    assert_eq!((twice.verdict, twice.bytes_read, twice.from_records), (Verdict::Good, 0, total));
    let late = world.verify_on(31, 1, &Options::default()).await;
    assert_eq!((late.verdict, late.bytes_read, late.from_records), (Verdict::Good, total, 0));
    let again = world.verify_on(31, 1, &again()).await;
    assert_eq!((again.verdict, again.bytes_read, again.frames), (Verdict::Good, total, late.frames));
    assert!(again.chunks > 3_000_000 / (16 << 10) && again.findings.is_empty() && again.notes.is_empty(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_not_believed_of_another_object_or_when_they_cannot_be_read() {
    let world = World::new().await;
    let full = world.verify(1, &Options::default()).await;
    let data = world.own(0)[1].clone();
    let size = world.store.head(&data).await.expect("there").size;
    world.change(&data, |_| ()).await; // written again: the same bytes, another version
    let report = world.verify(1, &Options::default()).await;
    assert_eq!((report.verdict, report.bytes_read), (Verdict::Good, size));
    world.change(&data, |body| body[1000] ^= 1).await;
    assert_eq!(world.verify(1, &Options::default()).await.verdict, Verdict::Damaged);
    world.change(&data, |body| body[1000] ^= 1).await;
    for record in world.store.list("verifications/").await.expect("listed") {
        world.store.put(&record.key, Bytes::from_static(b"{\"size\": 1")).await.expect("stored");
    }
    let report = world.verify(1, &Options::default()).await;
    assert_eq!((report.verdict, report.bytes_read), (Verdict::Good, full.bytes_read));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_together_read_every_frame_once() {
    for of in [1, 2, 7] {
        let world = World::new().await;
        let structure = world.verify(1, &structure()).await;
        assert_eq!(structure.verdict, Verdict::Good);
        let (mut frames, mut chunks) = (0, 0);
        for n in 1..=of {
            let report = world.verify(1, &part(&format!("{n}/{of}"))).await;
            assert_eq!((report.verdict, report.from_records), (Verdict::Good, 0), "{report:?}");
            frames += report.frames;
            chunks += report.chunks;
            let same = world.verify(1, &part(&format!("{n}/{of}"))).await;
            assert_eq!((same.verdict, same.frames), (Verdict::Good, 0), "{n}/{of} was read");
        }
        let all = world.verify(1, &again()).await;
        assert_eq!((frames, chunks), (all.frames, all.chunks), "{of} parts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_was_read_counts_for_the_whole() {
    let world = World::new().await;
    for n in 1..=4 {
        world.verify(1, &part(&format!("{n}/4"))).await;
    }
    let report = world.verify(1, &Options::default()).await;
    assert_eq!((report.verdict, report.objects_good, report.bytes_read), (Verdict::Good, 4, 0), "{report:?}");
    let base = world.verify(0, &Options::default()).await;
    assert!(base.frames > 0, "the base needs frames that the increment does not");
}

/// What is done to a repository, to which backup's index (0) or data (1), and what the report must say.
type Harm = (&'static str, usize, usize, fn(&mut Vec<u8>), &'static str);

const HARMS: [Harm; 6] = [
    ("a bit of the base's data", 0, 1, |body| body[6_000_000] ^= 1, "the frame at"),
    ("a bit of the increment's data", 1, 1, |body| body[9] ^= 1, "the frame at"),
    ("a bit of the increment's index", 1, 0, |body| *body.last_mut().expect("bytes") ^= 1, "the page at"),
    ("the base's data, short", 0, 1, |body| body.truncate(1_000_000), "has 1000000 bytes"),
    ("the increment's index, short", 1, 0, |body| body.truncate(9), "has 9 bytes"),
    ("what only the base needs", 0, 1, |body| body[1_000_000] ^= 1, "SHA-256"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_found_named_and_traced() {
    for (name, backup, object, harm, word) in HARMS {
        let world = World::new().await;
        let key = world.own(backup)[object].clone();
        world.change(&key, harm).await;
        let report = world.verify(1, &Options::default()).await;
        assert_eq!(report.verdict, Verdict::Damaged, "{name}: {report:?}");
        let damage = &report.damaged[0];
        assert_eq!((&damage.object, report.damaged.len()), (&key, 1), "{name}: {report:?}");
        assert!(damage.what.iter().any(|what| what.contains(word)), "{name}: {damage:?}");
        let needed: Vec<_> = world.made[backup..].iter().map(|m| m.backup_id.clone()).collect();
        assert_eq!(damage.backups, needed, "{name}");
        assert!(report.findings.iter().any(|f| f.contains(&key) && f.contains(needed[0].as_str())), "{name}");
        let twice = world.verify(1, &Options::default()).await;
        assert_eq!(twice.verdict, Verdict::Damaged, "{name}: damage is never recorded as right");
        let of_other = world.verify(0, &again()).await;
        let expected = if backup == 0 { Verdict::Damaged } else { Verdict::Good };
        assert_eq!(of_other.verdict, expected, "{name}: the base");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_find_what_is_in_them() {
    let world = World::new().await;
    world.change(&world.own(0)[1], |body| body[6_000_000] ^= 1).await;
    let mut bad = vec![];
    for n in 1..=5 {
        bad.push(world.verify(1, &part(&format!("{n}/5"))).await.verdict == Verdict::Damaged);
        world.forget().await;
    }
    assert_eq!(bad.iter().filter(|b| **b).count(), 1, "{bad:?}");
}

/// What one part of the data showed is told by the verifications of the others, at every depth, of every backup that has the object.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_was_found_is_not_forgotten() {
    let mut world = World::new().await;
    let data = world.own(0)[1].clone();
    world.change(&data, |body| body[6_000_000] ^= 1).await;
    let mut found = None;
    for n in 1..=5 {
        let report = world.verify(1, &part(&format!("{n}/5"))).await;
        found = found.or((report.verdict == Verdict::Damaged).then_some(n));
        let expected = if found.is_some() { Verdict::Damaged } else { Verdict::Good };
        assert_eq!(report.verdict, expected, "{n}: {report:?}");
        assert!(found.is_none_or(|_| report.damaged[0].places == 1 && report.damaged[0].object == data), "{report:?}");
    }
    assert!(found.is_some_and(|n| n < 5), "{found:?}");
    for (backup, options) in [(1, structure()), (0, part("1/5")), (1, Options::default()), (1, again())] {
        let report = world.verify_on(40, backup, &options).await;
        assert_eq!((report.verdict, report.damaged[0].places), (Verdict::Damaged, 1), "{report:?}");
        assert!(report.damaged[0].what[0].contains("the frame at"), "{report:?}");
    }
    let meta = world.store.head(&data).await.expect("there");
    let object = world.made[0].archive.as_ref().expect("an archive").objects.iter().find(|o| o.full_key() == data);
    let known = verify::known_damage(&world.repository(), object.expect("named"), &meta.version).await;
    assert!(known.expect("read").is_some_and(|what| what.contains("the frame at")));

    // A record that cannot be read is said, changes no verdict, and is not written over.
    let inner = Arc::clone(&world.store);
    let quiet = Arc::new(FaultyStore::at(Arc::clone(&inner), []));
    world.store = Arc::<FaultyStore>::clone(&quiet);
    world.verify(1, &part("1/5")).await;
    let is_record = |line: &String| line.starts_with("get verifications/") && line.contains("data-0.tar");
    let step = quiet.log().iter().position(is_record).expect("it is read");
    let faulty = FaultyStore::at(Arc::clone(&inner), (0..4).map(|n| (step + n, Fault::Before)));
    world.store = Arc::new(faulty);
    let blind = world.verify(1, &part("1/5")).await;
    assert!(blind.notes.iter().any(|note| note.contains("what is known of")), "{blind:?}");
    world.store = inner;
    assert_eq!(world.verify(1, &structure()).await.verdict, Verdict::Damaged);

    // Another object under the same key is looked at for itself.
    world.change(&data, |body| body[6_000_000] ^= 1).await;
    assert_eq!(world.verify(1, &part("1/5")).await.verdict, Verdict::Good);
}

/// Damage that only showed by an object's SHA-256, or in the index.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_remembered() {
    for (name, backup, object, harm, _) in HARMS {
        let world = World::new().await;
        let key = world.own(backup)[object].clone();
        world.change(&key, harm).await;
        assert_eq!(world.verify(1, &Options::default()).await.verdict, Verdict::Damaged, "{name}");
        for n in 1..=3 {
            let report = world.verify(1, &part(&format!("{n}/3"))).await;
            assert_eq!((report.verdict, report.damaged.len()), (Verdict::Damaged, 1), "{name} {n}: {report:?}");
            assert_eq!(report.damaged[0].object, key, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_with_a_gap_is_damaged_and_no_candidate() {
    let world = World::new().await;
    let [_, data] = world.own(0);
    world.store.delete(&data).await.expect("deleted");
    for options in [structure(), Options::default(), part("1/3")] {
        let report = world.verify(1, &options).await;
        assert_eq!(report.verdict, Verdict::Damaged);
        assert!(report.findings.iter().any(|f| f.contains(&data) && f.contains("missing")), "{report:?}");
    }
    let found = resolve(&world.repository()).await.expect("readable");
    assert!(found.candidates.is_empty(), "{:?}", found.candidates);
    assert!(found.problems.iter().any(|p| p.contains(world.made[1].backup_id.as_str()) && p.contains(&data)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_not_the_manifest_s_is_damage() {
    let world = World::new().await;
    let mut wrong = world.made[1].clone();
    let index = &mut wrong.archive.as_mut().expect("an archive").index;
    index.page.hash.0[3] ^= 1;
    let key = Repository::manifest_key(&wrong.backup_id);
    world.store.put(&key, wrong.to_bytes().into()).await.expect("stored");
    let report = world.verify(1, &structure()).await;
    assert_eq!(report.verdict, Verdict::Damaged, "{report:?}");
    let newest = verify::newest(&world.repository(), now(0), &structure()).await;
    assert!(newest.findings.iter().any(|f| f.contains("not the one that was published")), "{newest:?}");
}

/// Fails each request in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_never_damage() {
    let mut world = World::new().await;
    let inner = Arc::clone(&world.store);
    let quiet = Arc::new(FaultyStore::at(Arc::clone(&inner), []));
    world.store = Arc::<FaultyStore>::clone(&quiet);
    world.verify(1, &again()).await;
    for step in 0..quiet.operations() {
        let faulty = Arc::new(FaultyStore::at(Arc::clone(&inner), [(step, Fault::Before)]));
        world.store = Arc::<FaultyStore>::clone(&faulty);
        let report = world.verify(1, &again()).await;
        let failed = faulty.log().into_iter().nth(step).unwrap_or_default();
        let about_records = failed.contains(" verifications/");
        let expected = if about_records { Verdict::Good } else { Verdict::CouldNotTell };
        assert_eq!(report.verdict, expected, "{failed}: {report:?}");
        assert!(report.damaged.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_goes_on_where_it_ended() {
    let world = World::new().await;
    let inner = Arc::clone(&world.store);
    let full = world.verify(1, &part("1/1")).await;
    let key = world.own(0)[1].clone();
    let mut less = 0;
    // Parts are read at the same time, so the one that fails may be the first of them, before which nothing stood; not every time.
    for (n, step) in (0..40).cycle().enumerate().take(400) {
        if n >= 40 && less > 0 {
            break;
        }
        for record in inner.list("verifications/").await.expect("listed") {
            inner.delete(&record.key).await.expect("deleted");
        }
        let faulty = Arc::new(FaultyStore::at(Arc::clone(&inner), [(step, Fault::Before)]));
        let broken = Repository::new(Arc::<FaultyStore>::clone(&faulty), Engine::Files);
        let id = &world.made[1].backup_id;
        let first = verify::one(&broken, id, now(0), &part("1/1")).await;
        if !faulty.log().get(step).is_some_and(|l| l.starts_with(&format!("read_range {key}"))) {
            continue;
        }
        assert_eq!(first.verdict, Verdict::CouldNotTell);
        let second = world.verify(1, &part("1/1")).await;
        assert_eq!(second.verdict, Verdict::Good);
        assert!(first.frames + second.frames >= full.frames && second.frames > 0, "{first:?} {second:?}");
        let own = world.own(1)[1].clone();
        let size = inner.head(&own).await.expect("there").size;
        less += usize::from(second.bytes_read + size < full.bytes_read);
    }
    assert!(less > 0, "what stood before the failure was read again each time");
}

/// Bytes that were damaged on their way are asked for once more.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_arrived_damaged_is_not_damage() {
    let mut world = World::new().await;
    let inner = Arc::clone(&world.store);
    let quiet = Arc::new(FaultyStore::at(Arc::clone(&inner), []));
    world.store = Arc::<FaultyStore>::clone(&quiet);
    world.verify(1, &again()).await;
    for step in 0..quiet.operations() {
        let fault = if step % 2 == 0 { Fault::Corrupt } else { Fault::Truncate };
        let faulty = Arc::new(FaultyStore::at(Arc::clone(&inner), [(step, fault)]));
        world.store = Arc::<FaultyStore>::clone(&faulty);
        let report = world.verify(1, &again()).await;
        let hit = faulty.log().into_iter().nth(step).unwrap_or_default();
        if hit.starts_with("read_range") {
            assert_eq!(report.verdict, Verdict::Good, "{hit}: {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_reached_is_not_called_good() {
    let world = World::new().await;
    let late = Options { deadline: Some(Instant::now()), ..Options::default() };
    let report = world.verify(1, &late).await;
    assert_eq!((report.verdict, report.objects_good, report.bytes_read), (Verdict::CouldNotTell, 0, 0), "{report:?}");
    assert!(report.findings.iter().all(|f| f.contains("time ran out")), "{report:?}");
    assert!(world.store.list("verifications/").await.expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_without_its_key_is_compared_by_its_sums() {
    let world = World::new().await;
    let mut sealed = world.made[1].clone();
    sealed.archive.as_mut().expect("an archive").key_id = Some("k-0123456789abcdef01234567".into());
    let key = Repository::manifest_key(&sealed.backup_id);
    world.store.put(&key, sealed.to_bytes().into()).await.expect("stored");
    let (mut read, mut total) = (0, 0);
    for n in 1..=3 {
        let report = world.verify(1, &part(&format!("{n}/3"))).await;
        assert_eq!((report.verdict, report.frames, report.notes.len()), (Verdict::Good, 0, 1), "{report:?}");
        read += report.bytes_read;
    }
    sealed.archive.iter().flat_map(|a| &a.objects).for_each(|o| total += o.size);
    assert_eq!(read, total);
    let report = world.verify(1, &Options::default()).await;
    assert_eq!((report.verdict, report.bytes_read, report.objects_good), (Verdict::Good, 0, 4));
    world.change(&world.own(0)[1], |body| body[77] ^= 1).await;
    let report = world.verify(1, &Options::default()).await;
    assert_eq!(report.verdict, Verdict::Damaged);
    assert!(report.damaged[0].what[0].contains("SHA-256"), "{report:?}");
}
