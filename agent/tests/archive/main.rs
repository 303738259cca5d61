//! Folders into archives and back: any tree, any changes, any number of increments, with a store that is not always kind.

mod adaptive;
mod begun_again;
mod case;
mod changing;
mod faults;
mod large;
#[path = "../support/mod.rs"]
mod support;
mod tar;
mod tree;
mod unchanged;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use case::{Case, changed_tree};
use perennial_shared::archive::frame::{Algorithm, Compression};
use perennial_shared::encryption::DataKey;
use perennial_shared::manifest::Archive;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::memory::MemoryStore;
use proptest::prelude::*;
use support::{noise, run};
use tree::{Change, Tree, change, image};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After each backup the tree comes back bit for bit, into an empty folder and over whatever tree is there.
    #[test]
    fn any_tree_comes_back_after_any_changes(
        rounds in prop::collection::vec(prop::collection::vec(change(), 0..8), 1..5),
        algorithm in prop_oneof![Just(Algorithm::Zstd), Just(Algorithm::Gzip), Just(Algorithm::None)],
        chunk in 11..18_u32,
        full_at in prop_oneof![Just(u64::MAX), Just(150_000)],
        encrypted in any::<bool>(),
        ctime_is_ours in any::<bool>(),
    ) {
        let case = Case {
            store: Arc::new(MemoryStore::default()),
            key: encrypted.then(DataKey::generate),
            options: UploadSettings { part_size: 300_000, concurrency: 3, bandwidth: None },
            compression: Compression { algorithm, level: None },
            chunk_size: 1 << chunk,
            full_at,
            ctime_is_ours,
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
