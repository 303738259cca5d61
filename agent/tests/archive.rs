//! Folders into archives and back: any tree, any changes, any number of increments, with a store that is not always kind.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use perennial::archive::create::{ArchiveError, Archived, Request, archive};
use perennial::archive::restore::{self, Counters, RestoreError};
use perennial::archive::source::Source;
use perennial_shared::archive::frame::{Algorithm, Compression};
use perennial_shared::archive::objects::Objects;
use perennial_shared::archive::path::RelPath;
use perennial_shared::archive::tally::Tally;
use perennial_shared::encryption::DataKey;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::Archive;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::Store;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::memory::MemoryStore;
use proptest::prelude::*;
use support::{noise, run};
use tempfile::TempDir;

/// A change to a tree. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Change {
    Write { file: u8, size: u32, seed: u8 },
    Overwrite { file: u8, at: u32, size: u16 },
    Append { file: u8, size: u32 },
    Truncate { file: u8, to: u32 },
    Punch { file: u8, size: u32 },
    Remove { file: u8 },
    Rename { file: u8, to: u8 },
    Link { file: u8, to: u8 },
    Mode { file: u8, mode: u16 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u8>(), 0..200_000_u32, any::<u8>()).prop_map(|(file, size, seed)| Change::Write { file, size, seed }),
        1 => (any::<u8>(), 1_000_000..3_000_000_u32, any::<u8>()).prop_map(|(file, size, seed)| Change::Write { file, size, seed }),
        3 => (any::<u8>(), any::<u32>(), 1..2000_u16).prop_map(|(file, at, size)| Change::Overwrite { file, at, size }),
        2 => (any::<u8>(), 1..50_000_u32).prop_map(|(file, size)| Change::Append { file, size }),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(file, to)| Change::Truncate { file, to }),
        1 => (any::<u8>(), 1..4_000_000_u32).prop_map(|(file, size)| Change::Punch { file, size }),
        1 => any::<u8>().prop_map(|file| Change::Remove { file }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(file, to)| Change::Rename { file, to }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(file, to)| Change::Link { file, to }),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(file, mode)| Change::Mode { file, mode }),
    ]
}

/// A folder that is changed, with a clock of its own: every change gets an mtime that no other has.
struct Tree {
    folder: TempDir,
    clock: i64,
}

impl Tree {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), clock: 1_000_000_000 }
    }

    fn path(&self, file: u8) -> PathBuf {
        let name = match file % 5 {
            0 => format!("f{file}").into_bytes(),
            1 => format!("a/{file}").into_bytes(),
            2 => format!("a/b-{file}/deep").into_bytes(),
            3 => [b"a/\xff".as_slice(), file.to_string().as_bytes()].concat(),
            _ => format!("{}{file}", "long".repeat(40)).into_bytes(),
        };
        self.folder.path().join(Path::new(std::ffi::OsStr::from_bytes(&name)))
    }

    fn apply(&mut self, change: &Change) {
        let (Change::Write { file, .. }
        | Change::Overwrite { file, .. }
        | Change::Append { file, .. }
        | Change::Truncate { file, .. }
        | Change::Punch { file, .. }
        | Change::Remove { file }
        | Change::Rename { file, .. }
        | Change::Link { file, .. }
        | Change::Mode { file, .. }) = change;
        let path = self.path(*file % 12);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
        match change {
            Change::Write { size, seed, .. } => {
                let _ = fs::remove_file(&path);
                fs::write(&path, noise(*size as usize, u64::from(*seed))).expect("written");
            }
            Change::Link { to, .. } => {
                let _ = fs::remove_file(&path);
                symlink(format!("../somewhere/{to}"), &path).expect("linked");
                return;
            }
            Change::Remove { .. } => {
                let _ = fs::remove_file(&path);
                return;
            }
            Change::Rename { to, .. } if is_file => {
                let to = self.path(*to % 12);
                fs::create_dir_all(to.parent().expect("a parent")).expect("made");
                fs::rename(&path, &to).expect("renamed");
                return;
            }
            _ if !is_file => return,
            Change::Overwrite { at, size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let at = u64::from(*at) % length.max(1);
                let bytes = noise(usize::from(*size), u64::from(*size));
                fs::File::options().write(true).open(&path).expect("open").write_all_at(&bytes, at).expect("written");
            }
            Change::Append { size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let bytes = noise(*size as usize, length);
                fs::File::options()
                    .write(true)
                    .open(&path)
                    .expect("open")
                    .write_all_at(&bytes, length)
                    .expect("written");
            }
            Change::Truncate { to, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let file = fs::File::options().write(true).open(&path).expect("open");
                file.set_len(u64::from(*to) % (length + 1)).expect("cut");
            }
            Change::Punch { size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let file = fs::File::options().write(true).open(&path).expect("open");
                file.set_len(length + u64::from(*size)).expect("grown");
                file.write_all_at(b"after the hole", length + u64::from(*size)).expect("written");
            }
            Change::Mode { mode, .. } => {
                fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(mode % 0o1000) | 0o400)).expect("set");
            }
            Change::Rename { .. } => {}
        }
        self.clock += 1;
        let at = std::time::UNIX_EPOCH + std::time::Duration::new(self.clock.unsigned_abs(), 123_456_789);
        fs::File::open(&path).expect("open").set_modified(at).expect("set");
    }
}

/// What of a file a restore must bring back.
#[derive(PartialEq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
}

/// Everything about a tree that a restore must bring back.
fn image(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                vec![]
            } else if metadata.is_symlink() {
                fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).expect("read")
            };
            let owner = (metadata.uid(), metadata.gid());
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            let facts = Facts { mode: metadata.mode(), owner, modified, content };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), facts);
        }
    }
    found
}

struct Case {
    store: Arc<dyn Store>,
    key: Option<DataKey>,
    options: UploadSettings,
    compression: Compression,
    chunk_size: u32,
    full_at: u64,
}

impl Case {
    /// What the settings say when they say nothing.
    fn plain() -> Self {
        Self {
            store: Arc::new(MemoryStore::default()),
            key: None,
            options: UploadSettings::default(),
            compression: Compression::default(),
            chunk_size: 16 << 10,
            full_at: u64::MAX,
        }
    }

    async fn back_up(&self, root: &Path, second: i64, parent: Option<&Archive>) -> Result<Archive, ArchiveError> {
        self.back_up_source(Source { ctime_is_ours: true, ..Source::folder(root) }, second, parent).await
    }

    async fn back_up_source(
        &self,
        source: Source,
        second: i64,
        parent: Option<&Archive>,
    ) -> Result<Archive, ArchiveError> {
        let at = Timestamp::from_second(1_800_000_000 + second).expect("in range");
        let id = BackupId::new(at, Generation(1));
        let request = Request {
            store: Arc::clone(&self.store),
            id: id.clone(),
            source,
            parent: parent.cloned(),
            key: self.key.clone(),
            compression: self.compression,
            chunk_size: self.chunk_size,
            upload: self.options,
            full_at: self.full_at,
            reread: false,
            resume: None,
            passed: Arc::new(AtomicU64::new(0)),
        };
        let archived = archive(request).await?;
        let Archived { table: objects, root: index, files, data_bytes, disk_bytes, read_bytes, new_bytes, .. } =
            archived;
        let disk_bytes = Some(disk_bytes);
        let base = parent.map_or(id, |p| p.base.clone());
        let position = parent.map_or(0, |p| p.position + 1);
        let because = String::new();
        let key_id = None;
        Ok(Archive {
            base,
            position,
            because,
            files,
            data_bytes,
            exact: true,
            disk_bytes,
            read_bytes,
            new_bytes,
            index,
            objects,
            key_id,
        })
    }

    async fn restore(&self, backup: &Archive, to: &Path, local: Option<&Path>) -> Result<Arc<Counters>, RestoreError> {
        let progress = Arc::new(Counters::default());
        let request = restore::Request {
            objects: Objects::new(Arc::clone(&self.store), backup, self.key.clone()),
            root: backup.index.clone(),
            tally: Tally::of(backup),
            staging: to.to_owned(),
            local: local.map(Path::to_owned),
            include: None,
            progress: Arc::clone(&progress),
        };
        restore::stage(&request).await?;
        Ok(progress)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After each backup the tree comes back bit for bit, into an empty folder and over whatever tree is there.
    #[test]
    fn any_tree_comes_back_after_any_changes(
        rounds in prop::collection::vec(prop::collection::vec(change(), 0..8), 1..5),
        algorithm in prop_oneof![Just(Algorithm::Zstd), Just(Algorithm::Gzip), Just(Algorithm::None)],
        chunk in 14..18_u32,
        full_at in prop_oneof![Just(u64::MAX), Just(150_000)],
        encrypted in any::<bool>(),
    ) {
        let case = Case {
            store: Arc::new(MemoryStore::default()),
            key: encrypted.then(DataKey::generate),
            options: UploadSettings { part_size: 300_000, concurrency: 3, bandwidth: None },
            compression: Compression { algorithm, level: None },
            chunk_size: 1 << chunk,
            full_at,
        };
        let mut tree = Tree::new();
        let mut made: Vec<(Archive, BTreeMap<_, _>)> = vec![];
        for (n, round) in rounds.iter().enumerate() {
            for change in round {
                tree.apply(change);
            }
            let parent = made.last().map(|(backup, _)| backup.clone());
            let backup = run(case.back_up(tree.folder.path(), i64::try_from(n).expect("few"), parent.as_ref())).expect("a backup");
            made.push((backup, image(tree.folder.path())));
        }
        for (backup, was) in &made {
            let empty = tempfile::tempdir().expect("a folder");
            let fresh = empty.path().join("fresh");
            run(case.restore(backup, &fresh, None)).expect("restored");
            prop_assert!(image(&fresh) == *was, "an empty folder");
            let delta = empty.path().join("delta");
            let counters = run(case.restore(backup, &delta, Some(&fresh))).expect("restored");
            prop_assert!(image(&delta) == *was, "beside the same tree");
            prop_assert_eq!(counters.fetched.load(Ordering::Relaxed), 0, "nothing had to be fetched");
            let over = empty.path().join("over");
            run(case.restore(backup, &over, Some(tree.folder.path()))).expect("restored");
            prop_assert!(image(&over) == *was, "beside the newest tree");
        }
    }
}

#[test]
fn what_did_not_change_costs_nothing() {
    let case = Case::plain();
    let mut tree = Tree::new();
    for file in 0..12 {
        tree.apply(&Change::Write { file, size: 2_000_000, seed: file });
    }
    let base = run(case.back_up(tree.folder.path(), 0, None)).expect("a base");
    assert_eq!(base.objects.len(), 2);
    let same = run(case.back_up(tree.folder.path(), 1, Some(&base))).expect("an increment");
    assert_eq!((same.read_bytes, same.new_bytes, &same.objects), (0, 0, &base.objects));

    tree.apply(&Change::Overwrite { file: 3, at: 1_000_000, size: 100 });
    let little = run(case.back_up(tree.folder.path(), 2, Some(&same))).expect("an increment");
    assert_eq!((little.read_bytes, little.new_bytes), (2_000_000, 16 << 10));
    assert_eq!(little.objects.len(), 4);
}

#[test]
fn what_was_moved_is_not_stored_again() {
    let case = Case::plain();
    let tree = tempfile::tempdir().expect("a folder");
    let path = |name: &str| tree.path().join(name);
    for (name, size, seed) in
        [("app.log", 3_000_000, 1), ("app.log.1", 2_500_000, 2), ("z/big", 5_000_000, 3), ("z/little", 90_000, 4)]
    {
        fs::create_dir_all(path("z")).expect("made");
        fs::write(path(name), noise(size, seed)).expect("written");
    }
    let base = run(case.back_up(tree.path(), 0, None)).expect("a base");

    // Logs are rotated, of which one had grown; a folder gets a name that stands before all others.
    let log = fs::File::options().append(true).open(path("app.log")).expect("open");
    std::io::Write::write_all(&mut &log, &noise(1000, 5)).expect("written");
    fs::rename(path("app.log.1"), path("app.log.2")).expect("renamed");
    fs::rename(path("app.log"), path("app.log.1")).expect("renamed");
    fs::write(path("app.log"), noise(500, 6)).expect("written");
    fs::rename(path("z"), path("a")).expect("renamed");
    let next = run(case.back_up(tree.path(), 1, Some(&base))).expect("an increment");
    assert!(next.new_bytes <= 2 * (16 << 10), "{} bytes were stored again", next.new_bytes);

    let back = tempfile::tempdir().expect("a folder");
    run(case.restore(&next, &back.path().join("data"), None)).expect("restored");
    assert!(image(&back.path().join("data")) == image(tree.path()));
}

/// A file system gives the number of a file that is gone to the next one that is made.
#[test]
fn a_file_that_is_written_anew_is_compared_with_what_stood_there_whatever_its_inode() {
    let case = Case::plain();
    let tree = tempfile::tempdir().expect("a folder");
    let path = |name: &str| tree.path().join(name);
    let mut kept = noise(2_000_000, 2);
    fs::write(path("kept"), &kept).expect("written");
    for n in 0..8 {
        fs::write(path(&format!("gone-{n}")), noise(2_000_000, 10 + n)).expect("written");
    }
    let base = run(case.back_up(tree.path(), 0, None)).expect("a base");
    // Later than any tick of the clock in which the base was made.
    std::thread::sleep(std::time::Duration::from_millis(50));
    for n in 0..8 {
        fs::remove_file(path(&format!("gone-{n}"))).expect("removed");
    }
    kept[1_000_000] ^= 1;
    fs::write(path("kept.new"), &kept).expect("written");
    fs::rename(path("kept.new"), path("kept")).expect("renamed");
    let next = run(case.back_up(tree.path(), 1, Some(&base))).expect("an increment");
    assert_eq!(next.new_bytes, 16 << 10);
}

#[test]
fn a_base_is_an_ordinary_tar_file() {
    let (one, several) = (u64::MAX, 500_000);
    for (algorithm, full_at) in
        [(Algorithm::Zstd, one), (Algorithm::Gzip, one), (Algorithm::None, one), (Algorithm::Zstd, several)]
    {
        let repository = tempfile::tempdir().expect("a folder");
        let store = perennial_shared::store::folder::FolderStore::open(repository.path()).expect("opened");
        let compression = Compression { algorithm, level: None };
        let options = UploadSettings::default();
        let case = Case { store: Arc::new(store), key: None, options, compression, chunk_size: 16 << 10, full_at };
        let mut tree = Tree::new();
        for file in 0..12 {
            tree.apply(&Change::Write { file, size: u32::from(file) * 300_000, seed: file });
        }
        tree.apply(&Change::Punch { file: 7, size: 5_000_000 });
        tree.apply(&Change::Link { file: 9, to: 1 });
        tree.apply(&Change::Mode { file: 2, mode: 0o640 });
        // Only root gives files away, here and at a restore.
        if rustix::process::geteuid().is_root() {
            let some = fs::read_dir(tree.folder.path()).expect("a folder").flatten().map(|e| e.path());
            for (path, owner) in some.zip(40_000..40_003) {
                std::os::unix::fs::lchown(path, Some(owner), Some(owner + 7)).expect("given");
            }
        }
        let backup = run(case.back_up(tree.folder.path(), 0, None)).expect("a base");
        let data: Vec<_> = backup.objects[1..].iter().map(|o| repository.path().join(o.full_key())).collect();
        assert_eq!(data.len() > 1, full_at == several, "{data:?}");
        let data = data.iter().map(|path| format!("'{}'", path.display())).collect::<Vec<_>>().join(" ");

        let out = tempfile::tempdir().expect("a folder");
        let unpack = match algorithm {
            Algorithm::Zstd => "zstd -dc",
            Algorithm::Gzip => "gzip -dc",
            Algorithm::None => "cat",
        };
        let script =
            format!("set -e -o pipefail; {unpack} {data} | tar xp -C '{}'; sha256sum {data}", out.path().display());
        let ran = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(image(out.path()) == image(tree.folder.path()), "{algorithm:?}");
        let sum = String::from_utf8_lossy(&ran.stdout);
        for (line, object) in sum.lines().zip(&backup.objects[1..]) {
            assert!(line.starts_with(&object.sha256), "{sum}");
        }
        let ours = out.path().with_extension("ours");
        run(case.restore(&backup, &ours, None)).expect("restored");
        assert!(image(&ours) == image(tree.folder.path()), "{algorithm:?}");
        fs::remove_dir_all(&ours).expect("removed");
    }
}

#[test]
fn a_folder_that_is_reached_by_a_link_keeps_its_own_mode() {
    let (case, tree, _) = changed_tree();
    fs::set_permissions(tree.folder.path(), fs::Permissions::from_mode(0o750)).expect("set");
    let out = tempfile::tempdir().expect("a folder");
    let link = out.path().join("data");
    std::os::unix::fs::symlink(tree.folder.path(), &link).expect("made");
    let backup = run(case.back_up(&link, 7, None)).expect("a base");
    run(case.restore(&backup, &out.path().join("x"), None)).expect("restored");
    assert_eq!(fs::metadata(out.path().join("x")).expect("there").mode() & 0o7777, 0o750);
}

/// A case whose store fails by seed, or at one step.
fn faulty(case: &Case, store: FaultyStore) -> Case {
    on(case, Arc::new(store))
}

fn on(case: &Case, store: Arc<dyn Store>) -> Case {
    let Case { options, compression, chunk_size, full_at, .. } = *case;
    Case { store, key: case.key.clone(), options, compression, chunk_size, full_at }
}

/// A tree with a base and a change, in a store that is kind so far.
fn changed_tree() -> (Case, Tree, Archive) {
    let case = Case {
        store: Arc::new(MemoryStore::default()),
        key: Some(DataKey::generate()),
        options: UploadSettings { part_size: 300_000, concurrency: 3, bandwidth: None },
        compression: Compression::default(),
        chunk_size: 16 << 10,
        full_at: 2_000_000,
    };
    let mut tree = Tree::new();
    for file in 0..12 {
        tree.apply(&Change::Write { file, size: 400_000 * u32::from(file % 4), seed: file });
    }
    let base = run(case.back_up(tree.folder.path(), 0, None)).expect("a base");
    tree.apply(&Change::Overwrite { file: 3, at: 1_000_000, size: 900 });
    tree.apply(&Change::Append { file: 2, size: 700_000 });
    (case, tree, base)
}

/// Whatever an archive says that it made is there and restores, over a store that fails, throttles, delays, truncates and corrupts.
#[test]
fn a_store_that_fails_never_makes_a_backup_that_does_not_restore() {
    let (case, tree, base) = changed_tree();
    let was = image(tree.folder.path());
    let (mut made, mut failed) = (0, 0);
    for seed in 0..60 {
        let kinds = [Fault::Before, Fault::After, Fault::Truncate, Fault::Corrupt, Fault::Delay];
        let unkind = faulty(&case, FaultyStore::seeded(Arc::clone(&case.store), seed, 0.08, &kinds));
        match run(unkind.back_up(tree.folder.path(), 10 + seed.cast_signed(), Some(&base))) {
            Ok(backup) => {
                made += 1;
                let out = tempfile::tempdir().expect("a folder");
                run(case.restore(&backup, &out.path().join("x"), None)).expect("it restores");
                assert!(image(&out.path().join("x")) == was, "seed {seed}");
            }
            Err(_) => failed += 1,
        }
    }
    assert!(made > 5 && failed > 5, "{made} made, {failed} failed: both must be seen");
}

/// A restore tells the truth: what it says it brought back is right, whatever the store did.
#[test]
fn a_store_that_fails_never_makes_a_restore_that_lies() {
    let (case, tree, base) = changed_tree();
    let backup = run(case.back_up(tree.folder.path(), 1, Some(&base))).expect("an increment");
    let was = image(tree.folder.path());
    let (mut restored, mut failed) = (0, 0);
    for seed in 0..80 {
        let kinds = [Fault::Before, Fault::Truncate, Fault::Corrupt, Fault::Delay];
        let unkind = faulty(&case, FaultyStore::seeded(Arc::clone(&case.store), seed, 0.25, &kinds));
        let out = tempfile::tempdir().expect("a folder");
        let to = out.path().join("x");
        if run(unkind.restore(&backup, &to, None)).is_ok() {
            restored += 1;
        } else {
            failed += 1;
            // The same restore begun again with a kinder store goes on.
            run(case.restore(&backup, &to, None)).expect("restored");
        }
        assert!(image(&to) == was, "seed {seed}");
    }
    assert!(restored > 5 && failed > 5, "{restored} restored, {failed} failed: both must be seen");
}

/// A bit that flips on the way is no damaged backup, for which an older one would be restored.
#[test]
fn what_only_arrives_damaged_is_fetched_again() {
    let (case, tree, base) = changed_tree();
    let backup = run(case.back_up(tree.folder.path(), 1, Some(&base))).expect("an increment");
    let was = image(tree.folder.path());
    let restored = |faults: Option<(usize, Fault)>| {
        let store = Arc::new(FaultyStore::at(Arc::clone(&case.store), faults));
        let unkind = on(&case, Arc::<FaultyStore>::clone(&store));
        let out = tempfile::tempdir().expect("a folder");
        let done = run(unkind.restore(&backup, &out.path().join("x"), None));
        (done.map(|_| image(&out.path().join("x"))), store.operations())
    };
    let (_, operations) = restored(None);
    assert!(operations > 2, "{operations}");
    for step in 0..operations {
        for fault in [Fault::Corrupt, Fault::Truncate] {
            let (found, _) = restored(Some((step, fault)));
            assert!(found.is_ok_and(|found| found == was), "{fault:?} at {step}");
        }
    }
}

/// Files that shrink, grow and vanish while they are read.
#[test]
fn files_that_change_while_they_are_read() {
    let case = changed_tree().0;
    let folder = tempfile::tempdir().expect("a folder");
    for n in 0..40 {
        fs::write(folder.path().join(format!("{n:02}")), noise(600_000 + n * 40_000, n as u64)).expect("written");
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (path, stopped) = (folder.path().to_owned(), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let mut n = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            let file = path.join(format!("{:02}", n % 40));
            match n % 3 {
                0 => drop(fs::remove_file(&file)),
                1 => drop(fs::write(&file, noise(usize::try_from(n % 7).expect("small") * 300_000, n))),
                _ => drop(
                    fs::File::options()
                        .append(true)
                        .open(&file)
                        .and_then(|mut f| std::io::Write::write_all(&mut f, b"more")),
                ),
            }
        }
    });
    let there_and_back = |second| {
        let made = run(case.back_up(folder.path(), second, None));
        if let Ok(backup) = &made {
            let out = tempfile::tempdir().expect("a folder");
            run(case.restore(backup, &out.path().join("x"), None)).expect("what was read is restored");
        }
        made
    };
    for second in 0..12 {
        match there_and_back(100 + second) {
            Ok(_) => {}
            Err(ArchiveError::Local(e)) => assert!(e.to_string().contains("became shorter"), "{e}"),
            Err(e) => panic!("{e}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("it ends");
    there_and_back(200).expect("made, once nobody writes");
}

/// Only this much of a growing file belongs to the capture.
#[test]
fn a_file_s_recorded_length_is_what_is_backed_up() {
    let case = changed_tree().0;
    let folder = tempfile::tempdir().expect("a folder");
    let log = noise(3_000_000, 5);
    fs::write(folder.path().join("log"), &log).expect("written");
    let mut source = Source::folder(folder.path());
    source.lengths.insert(RelPath::checked(b"log").expect("a path"), 2_500_001);
    let backup = run(case.back_up_source(source.clone(), 0, None)).expect("made");
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&backup, &out.path().join("x"), None)).expect("restored");
    assert!(fs::read(out.path().join("x/log")).expect("read") == log[..2_500_001]);
    source.lengths.insert(RelPath::checked(b"log").expect("a path"), 3_000_001);
    let error = run(case.back_up_source(source, 1, None)).expect_err("refused");
    assert!(error.to_string().contains("has 3000000 now"), "{error}");
}
