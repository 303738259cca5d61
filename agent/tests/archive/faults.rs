//! Stores that fail: nothing that is said of a backup or a restore then is untrue.

use std::fs;
use std::sync::Arc;

use perennial::archive::create::ArchiveError;
use perennial::archive::restore::RestoreError;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::faulty::{Fault, FaultyStore};

use crate::case::{Case, changed_tree};
use crate::support::{noise, run};
use crate::tree::{Change, image};

/// Whatever an archive says that it made is there and restores, over a store that fails, throttles, delays, truncates and corrupts.
/// Several parts are under way at a time, so that they arrive in any order.
#[test]
fn a_store_that_fails_never_makes_a_backup_that_does_not_restore() {
    let (case, mut tree, base) = changed_tree();
    // Parts by the default number at a time, and more than one data object.
    let options = UploadSettings { part_size: 1 << 20, ..UploadSettings::default() };
    let case = Case { options, full_at: 8 << 20, ..case };
    tree.apply(&Change::Write { file: 5, size: 6_000_000, seed: 77 });
    let was = image(tree.folder.path());
    let (mut made, mut failed, mut under_way) = (0, 0, 0);
    for seed in 0..40 {
        // Most of them are only late.
        let mut kinds = vec![Fault::Delay; 15];
        kinds.extend([Fault::Before, Fault::After, Fault::Throttle, Fault::Truncate, Fault::Corrupt]);
        let store = Arc::new(FaultyStore::seeded(Arc::clone(&case.store), seed, 0.4, &kinds));
        let unkind = case.on(Arc::<FaultyStore>::clone(&store));
        // A base is tar, an increment is not: both are many parts.
        let parent = (seed % 2 == 0).then_some(&base);
        match run(unkind.back_up(tree.folder.path(), 10 + seed.cast_signed(), parent)) {
            Ok(backup) => {
                made += 1;
                let out = tempfile::tempdir().expect("a folder");
                run(case.restore(&backup, &out.path().join("x"), None)).expect("it restores");
                assert!(image(&out.path().join("x")) == was, "seed {seed}");
            }
            Err(_) => failed += 1,
        }
        under_way = under_way.max(store.most_under_way());
    }
    assert!(made > 5 && failed > 5, "{made} made, {failed} failed: both must be seen");
    assert!(under_way > 2, "only {under_way} requests were under way at a time");
}

/// The store is busy from one request on, whichever: that is told as it is, nothing is damaged by it, and the next try succeeds.
#[test]
fn a_store_that_throttles_is_asked_again_later() {
    let case = Case { options: UploadSettings { part_size: 4_000, concurrency: 4, bandwidth: None }, ..Case::plain() };
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("data"), noise(30_000, 1)).expect("written");
    for n in 0..3000 {
        fs::write(folder.path().join(format!("{n}")), b"").expect("written");
    }
    let over = |throttled: Option<usize>| {
        let store = match throttled {
            Some(step) => FaultyStore::crash(Arc::clone(&case.store), step, Fault::Throttle),
            None => FaultyStore::at(Arc::clone(&case.store), None),
        };
        let store = Arc::new(store);
        (case.on(Arc::<FaultyStore>::clone(&store)), store)
    };
    let (kind, store) = over(None);
    let backup = run(kind.back_up(folder.path(), 0, None)).expect("a backup");
    let sends = store.log().iter().filter(|line| line.starts_with("send") && line.contains("index")).count();
    assert!(sends > 1, "the index is sent in parts, too: {:?}", store.log());
    for step in 0..store.operations() {
        let (busy, _) = over(Some(step));
        let error = run(busy.back_up(folder.path(), 1, None)).expect_err("throttled");
        assert!(matches!(&error, ArchiveError::Store(e) if e.is_temporary()), "step {step}: {error:?}");
        assert!(format!("{error:?}").contains("SlowDown") || step > 0, "{error:?}");
    }
    run(case.back_up(folder.path(), 1, None)).expect("the same backup, later");

    let out = tempfile::tempdir().expect("a folder");
    let (kind, store) = over(None);
    run(kind.restore(&backup, &out.path().join("x"), None)).expect("restored");
    for step in 0..store.operations() {
        let (busy, _) = over(Some(step));
        let to = out.path().join(format!("{step}"));
        let error = run(busy.restore(&backup, &to, None)).expect_err("throttled");
        assert!(matches!(&error, RestoreError::Read(e) if !e.is_damage()), "step {step}: {error:?}");
        run(case.restore(&backup, &to, None)).expect("restored later");
        assert!(image(&to) == image(folder.path()), "step {step}");
    }
}

/// A restore tells the truth: what it says it brought back is right, whatever the store did.
#[test]
fn a_store_that_fails_never_makes_a_restore_that_lies() {
    let (case, tree, base) = changed_tree();
    let backup = run(case.back_up(tree.folder.path(), 1, Some(&base))).expect("an increment");
    let was = image(tree.folder.path());
    let (mut restored, mut failed) = (0, 0);
    for seed in 0..80 {
        let kinds = [Fault::Before, Fault::Throttle, Fault::Truncate, Fault::Corrupt, Fault::Delay];
        let unkind = case.faulty(FaultyStore::seeded(Arc::clone(&case.store), seed, 0.25, &kinds));
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
        let unkind = case.on(Arc::<FaultyStore>::clone(&store));
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
