//! A backup that was killed and is made again: what arrived is not sent twice, and nothing stale or damaged is
//! published.

mod support;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use perennial::archive::create::ArchiveError;
use perennial::archive::upload::{Destination, ObjectWriter, Pace, Resume, Stored};
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::cloud::CloudStore;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::folder::FolderStore;
use perennial_shared::store::memory::MemoryStore;
use perennial_shared::store::{Part, Store, StoreError};
use support::cli::{Machine, PREFIX};
use support::folder::{fill, image, lose, overwrite};
use support::s3::{BUCKET, S3};
use support::{files_ending, noise, run};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SETTINGS: &str = "upload: {part_size: 5MiB, concurrency: 1}";

/// Requests since the first `seen` ones that bring bytes of a data object, or begin to.
fn sent(s3: &S3, seen: usize) -> Vec<String> {
    let brings =
        |line: &&String| ["s3_UploadPart", "s3_PutObject", "s3_CreateMultipart"].iter().any(|name| line.contains(name));
    s3.requests()[seen..].iter().filter(brings).filter(|line| line.contains("/data-0")).cloned().collect()
}

/// Files of uploads that nobody ended.
fn left_over(s3: &S3) -> Vec<PathBuf> {
    let uploads = s3.bucket().join(".sgwtmp/multipart");
    if uploads.is_dir() { files_ending(&uploads, "") } else { vec![] }
}

#[track_caller]
fn comes_back(machine: &Machine) {
    machine.run(&["backup", "verify"]).exits(0);
    let before = image(&machine.data());
    lose(machine);
    machine.run(&["backup", "restore"]).exits(0);
    assert_eq!(image(&machine.data()), before);
}

#[test]
fn parts_that_arrived_are_not_sent_again() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, SETTINGS);
    fill(&machine.data());
    // Dies when the fourth part would be sent, and again without the data having changed.
    machine.crash("backup-part-4", &["backup", "create"]);
    machine.run(&["backup", "create"]).exits(0).says("an interrupted run had sent");
    comes_back(&machine);
}

/// Of a base and of an increment, killed before its index and before its manifest.
#[test]
fn an_object_that_was_complete_is_not_sent_again() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, &format!("{SETTINGS}\nencryption: {{key: {{env: TEST_KEY}}}}"));
    let machine = machine.with("TEST_KEY", KEY);
    fill(&machine.data());
    for (n, step) in (2..).zip(["backup-data-stored", "backup-archived", "backup-data-stored", "backup-archived"]) {
        std::fs::write(machine.data().join(format!("new-{n}")), noise(12 << 20, n)).expect("written");
        machine.crash(step, &["backup", "create"]);
        // Another ctime makes another index.
        let file = machine.data().join("payload.jsonl");
        let mode = std::fs::metadata(&file).expect("there").permissions();
        std::fs::set_permissions(&file, mode).expect("set");
        let seen = s3.requests().len();
        let mebibytes = if n == 2 { "37 MiB" } else { "12 MiB" };
        machine.run(&["backup", "create"]).exits(0).says(&format!("{mebibytes} were there already"));
        assert_eq!(sent(&s3, seen), [""; 0], "{step}");
        assert!(left_over(&s3).is_empty(), "{step}: {:?}", left_over(&s3));
        machine.run(&["backup", "verify"]).exits(0);
    }
    let newest = machine.run(&["backup", "show", "--json"]).exits(0).json();
    assert_eq!(newest["archive"]["position"], 3, "{newest}");
    comes_back(&machine);
}

#[test]
fn data_that_changed_since_is_what_is_backed_up() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, SETTINGS);
    fill(&machine.data());
    // In the first part of the data object, and in the last.
    for (file, at) in [("payload.jsonl", 0), ("vectors.bin", (24 << 20) - 100)] {
        overwrite(&machine.data().join(file), at, b"as it was when the first run died");
        machine.crash("backup-archived", &["backup", "create", "--type", "base"]);
        let stale = files_ending(&s3.bucket().join(PREFIX), "data-0.tar.zst");
        overwrite(&machine.data().join(file), at, b"as it was when the second run came");
        let seen = s3.requests().len();
        let made = machine.run(&["backup", "create", "--type", "base", "--json"]).exits(0).json();
        let id = made["backup_id"].as_str().expect("an id");
        assert!(stale.iter().all(|object| !object.display().to_string().contains(id)), "{id} is the first run's");
        let sent = sent(&s3, seen);
        assert!(sent.iter().all(|line| line.contains(id)), "nothing is sent in vain: {sent:?}");
        assert_eq!(sent.iter().filter(|line| line.contains("s3_UploadPart")).count(), 6, "{sent:?}");
        assert!(left_over(&s3).is_empty(), "{:?}", left_over(&s3));
        comes_back(&machine);
    }
}

#[test]
fn an_object_that_was_replaced_or_damaged_is_never_published() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, SETTINGS);
    fill(&machine.data());
    machine.crash("backup-archived", &["backup", "create"]);
    let object = files_ending(&s3.bucket().join(PREFIX), "data-0.tar.zst").remove(0);
    let size = std::fs::metadata(&object).expect("there").len();
    let key = object.strip_prefix(s3.bucket().join(PREFIX)).expect("below").display().to_string();
    let other = Bytes::from(noise(usize::try_from(size).expect("small"), 9));
    run(async { s3.repository(PREFIX).store().put(&key, other).await }).expect("replaced");
    let made = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert!(!key.contains(made["backup_id"].as_str().expect("an id")), "{key} is published: {made}");
    comes_back(&machine);

    // A folder's objects are read: there is no other checksum of what is stored.
    let folder = tempfile::tempdir().expect("a folder");
    let machine = in_a_folder(&s3, folder.path());
    fill(&machine.data());
    machine.crash("backup-archived", &["backup", "create"]);
    let object = files_ending(&folder.path().join("backups"), "data-0.tar.zst").remove(0);
    overwrite(&object, size / 2, b"damaged");
    let made = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert!(!object.display().to_string().contains(made["backup_id"].as_str().expect("an id")), "{made}");
    comes_back(&machine);
}

fn in_a_folder(s3: &S3, folder: &Path) -> Machine {
    let machine = Machine::of_files(s3, SETTINGS);
    let settings = std::fs::read_to_string(machine.settings()).expect("read");
    let here = settings.replace(&format!("s3://{BUCKET}/{PREFIX}"), &format!("file://{}", folder.display()));
    std::fs::write(machine.settings(), here).expect("written");
    machine
}

/// What a machine remembers of its uploads.
#[derive(Debug, Default)]
struct Memory {
    tokens: Mutex<HashMap<String, String>>,
    parts: Mutex<HashMap<String, Vec<Part>>>,
}

impl Resume for Memory {
    fn token(&self, key: &str) -> Option<String> {
        self.tokens.lock().expect("no panic").get(key).cloned()
    }

    fn begun(&self, key: &str, token: &str) -> io::Result<()> {
        self.tokens.lock().expect("no panic").insert(key.into(), token.into());
        Ok(())
    }

    fn parts(&self, key: &str) -> Option<Vec<Part>> {
        self.parts.lock().expect("no panic").get(key).cloned()
    }

    fn completing(&self, key: &str, parts: &[Part]) -> io::Result<()> {
        self.parts.lock().expect("no panic").insert(key.into(), parts.into());
        Ok(())
    }
}

const OBJECT: &str = "backups/a/data-0";
const PART: usize = 1 << 20;
/// Of one request, and of four parts.
const SIZES: [usize; 2] = [1000, 3 * PART + 50_000];

/// Writes an object as a run would.
fn write(store: &Arc<dyn Store>, memory: &Arc<Memory>, body: &[u8]) -> Result<Stored, ArchiveError> {
    let settings = UploadSettings { part_size: PART as u64, concurrency: 1, bandwidth: None };
    let resume: Arc<dyn Resume + Sync> = Arc::clone(memory) as _;
    let pace = Pace::new(settings.bandwidth);
    let to = Destination { store: Arc::clone(store), key: OBJECT.into(), settings, pace, resume: Some(resume) };
    let body = body.to_vec();
    run(async move {
        let writing = move |handle| {
            let mut writer = ObjectWriter::new(to, handle);
            for piece in body.chunks(100_000) {
                writer.append(Bytes::copy_from_slice(piece))?;
            }
            Ok(writer.finish()?.expect("something was appended"))
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || writing(handle)).await.expect("no panic")
    })
}

/// On stores of every kind that a test has.
fn everywhere(check: impl Fn(Arc<dyn Store>, Vec<u8>)) {
    for size in SIZES {
        let folder = tempfile::tempdir().expect("a folder");
        check(Arc::new(MemoryStore::default()), noise(size, 1));
        check(Arc::new(FolderStore::open(folder.path()).expect("opens")), noise(size, 1));
        let bucket = Arc::new(object_store::memory::InMemory::new());
        check(Arc::new(CloudStore::new(bucket.clone(), bucket, "", "memory:")), noise(size, 1));
    }
}

#[test]
fn whatever_operation_a_run_dies_in_the_next_one_sends_nothing_that_is_complete() {
    for body in SIZES.map(|size| noise(size, 1)) {
        let calm = Arc::new(FaultyStore::at(Arc::new(MemoryStore::default()), []));
        write(&(Arc::clone(&calm) as Arc<dyn Store>), &Arc::default(), &body).expect("written");
        for (step, fault) in (0..calm.operations()).flat_map(|n| [(n, Fault::Before), (n, Fault::After)]) {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::default());
            let memory = Arc::default();
            let dying: Arc<dyn Store> = Arc::new(FaultyStore::crash(Arc::clone(&inner), step, fault));
            write(&dying, &memory, &body).expect_err("it dies");
            let was_complete = run(inner.head(OBJECT)).is_ok();
            let second = Arc::new(FaultyStore::at(Arc::clone(&inner), []));
            let stored = write(&(Arc::clone(&second) as Arc<dyn Store>), &memory, &body).expect("the second run");
            assert_eq!(run(inner.get(OBJECT)).expect("there").body, body, "{step} {fault:?}");
            if was_complete {
                let log = second.log();
                assert_eq!(stored.resumed, body.len() as u64, "{step} {fault:?}: {log:?}");
                let sends = |line: &&String| ["send", "upload", "create"].iter().any(|name| line.starts_with(name));
                assert_eq!(log.iter().filter(sends).count(), 0, "{step} {fault:?}: {log:?}");
            }
        }
    }
}

#[test]
fn another_object_than_the_one_that_stands_is_refused() {
    everywhere(|store, body| {
        let memory = Arc::new(Memory::default());
        write(&store, &memory, &body).expect("the first run");
        assert_eq!(write(&store, &memory, &body).expect("the same").resumed, body.len() as u64);
        let mut changed = body.clone();
        *changed.last_mut().expect("a byte") ^= 1;
        let longer = [&body[..], b"more"].concat();
        let shorter = &body[..body.len() - 500];
        // As long as its first two parts.
        let fewer = &body[..(2 * PART + PART / 500 + 2 * PART / 500).min(body.len() - 1)];
        for other in [&changed[..], &longer, shorter, fewer] {
            for memory in [&memory, &Arc::new(Memory::default())] {
                let refused = write(&store, memory, other).expect_err("another object stands there");
                let refused = matches!(refused, ArchiveError::Store(StoreError::AlreadyExists { .. }));
                assert!(refused, "{} bytes", other.len());
            }
            assert_eq!(run(store.get(OBJECT)).expect("there").body, body);
        }

        // Whatever is remembered, what stands there is looked at.
        run(store.put(OBJECT, changed.into())).expect("replaced");
        let refused = write(&store, &memory, &body).expect_err("it was replaced");
        assert!(matches!(refused, ArchiveError::Store(StoreError::AlreadyExists { .. })), "{refused}");
        run(store.delete(OBJECT)).expect("deleted");
        assert_eq!(write(&store, &memory, &body).expect("sent anew").resumed, 0);
        assert_eq!(run(store.get(OBJECT)).expect("there").body, body);
    });
}
