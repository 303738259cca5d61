//! A restore that was interrupted and is begun again.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perennial::archive::restore::fetches;
use perennial_shared::manifest::Archive;
use perennial_shared::store::Store;
use perennial_shared::store::faulty::{Fault, FaultyStore};

use crate::case::Case;
use crate::support::{noise, run};
use crate::tree::image;

/// Fetches that a restore has under way at a time.
fn at_once() -> u64 {
    u64::try_from(fetches()).expect("few")
}

/// Each of them is one request: what stood between them is not wanted any more.
fn files() -> u64 {
    3 * at_once()
}

const SIZE: u64 = 1 << 20;

/// A backup whose restore needs a request for each file.
fn many_requests(case: &Case, folder: &Path) -> Archive {
    for n in 0..files() {
        for (name, seed) in [("kept", n), ("removed", 100 + n)] {
            fs::write(folder.join(format!("{n:02}-{name}")), noise(1 << 20, seed)).expect("written");
        }
    }
    let base = run(case.back_up(folder, 0, None)).expect("a base");
    for n in 0..files() {
        fs::remove_file(folder.join(format!("{n:02}-removed"))).expect("removed");
    }
    run(case.back_up(folder, 1, Some(&base))).expect("an increment")
}

#[test]
fn what_is_in_the_staging_folder_is_not_fetched_again() {
    let case = Case::plain();
    let folder = tempfile::tempdir().expect("a folder");
    let backup = many_requests(&case, folder.path());
    let out = tempfile::tempdir().expect("a folder");
    let over = |name: &str, faults: Option<(usize, Fault)>| {
        let store = Arc::new(FaultyStore::at(Arc::clone(&case.store), faults));
        let unkind = case.on(Arc::clone(&store) as Arc<dyn Store>);
        (run(unkind.restore(&backup, &out.path().join(name), None)), store.operations())
    };
    let (whole, operations) = over("whole", None);
    let whole = whole.expect("restored");
    assert_eq!(whole.requests.load(Ordering::Relaxed), files());

    // The last request fails. All but those that were under way with it had been brought by then.
    over("torn", Some((operations - 1, Fault::Before))).0.expect_err("it fails");
    assert!(image(&out.path().join("torn")) != image(folder.path()), "not all of it is there");
    let again = over("torn", None).0.expect("restored");
    assert!(image(&out.path().join("torn")) == image(folder.path()));
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!((1..=at_once()).contains(&of(&again.requests)), "{again:?}");
    assert!(of(&again.found) >= (files() - at_once()) * SIZE, "{again:?}");
    assert!(of(&again.fetched) > 0 && of(&again.fetched) < of(&whole.fetched) / 2, "{again:?}");

    let nothing = over("torn", None).0.expect("restored");
    assert_eq!((of(&nothing.fetched), of(&nothing.found)), (0, files() * SIZE), "all of it was there");
    assert!(image(&out.path().join("torn")) == image(folder.path()));
}
