//! What of a folder of files is read again: nobody promises anything about these but the file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use perennial_shared::archive::entry::Kind;
use perennial_shared::manifest::Archive;

use crate::case::Case;
use crate::support::folder::overwrite;
use crate::support::{noise, run};
use crate::tree::image;

/// Whether a backup's index vouches for a file: one that changed just before it was read may have changed again in the same tick.
fn is_settled(case: &Case, backup: &Archive, name: &str) -> bool {
    run(async {
        let mut walk = case.objects(backup).walk(&backup.index);
        while let Some(entry) = walk.next().await.expect("an index") {
            if let Kind::File(file) = &entry.kind
                && entry.path.as_bytes() == name.as_bytes()
            {
                return file.identity.settled;
            }
        }
        panic!("{name} is not in the index");
    })
}

/// Waits until a file's ctime is so old that a later change would show.
fn settle(path: &Path) {
    let ctime = || fs::metadata(path).expect("there").ctime();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    let settled = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        ctime() + 2 <= now()
    });
    assert!(settled, "the clock stands still");
}

/// A base that was made right after `fresh` was written: it cannot vouch for it.
fn base_of_what_was_just_written(case: &Case, folder: &Path) -> Archive {
    let tries = 0..20;
    let mut bases = tries.map(|second| {
        fs::write(folder.join("fresh"), noise(300_000, 9)).expect("written");
        run(case.back_up(folder, second, None)).expect("a base")
    });
    // A machine that is very busy may take seconds from one to the other.
    bases.find(|base| !is_settled(case, base, "fresh")).expect("a backup right after a change")
}

#[test]
fn a_file_is_read_again_unless_the_file_system_shows_that_it_is_the_same() {
    let case = Case::of_files();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (name, size, seed) in [("large", 3_000_000, 1), ("small", 200_000, 2), ("untouched", 700_000, 3)] {
        fs::write(path(name), noise(size, seed)).expect("written");
    }
    settle(&path("untouched"));
    let base = base_of_what_was_just_written(&case, folder.path());
    for name in ["large", "small", "untouched"] {
        assert!(is_settled(&case, &base, name), "{name}");
    }

    settle(&path("fresh"));
    let next = run(case.back_up(folder.path(), 100, Some(&base))).expect("an increment");
    assert_eq!((next.read_bytes, next.new_bytes), (300_000, 0), "only what the base could not vouch for");
    let same = run(case.back_up(folder.path(), 101, Some(&next))).expect("an increment");
    assert_eq!((same.read_bytes, same.new_bytes), (0, 0), "this time it could");

    // Of the same size, with its old mtime: its ctime alone tells.
    for name in ["large", "small"] {
        let mtime = fs::metadata(path(name)).expect("there").modified().expect("a time");
        overwrite(&path(name), 100_000, b"changed in place");
        fs::File::options().write(true).open(path(name)).expect("open").set_modified(mtime).expect("set");
    }
    let changed = run(case.back_up(folder.path(), 102, Some(&same))).expect("an increment");
    assert_eq!((changed.read_bytes, changed.new_bytes), (3_200_000, 2 * (16 << 10)));
    let back = tempfile::tempdir().expect("a folder");
    run(case.restore(&changed, &back.path().join("x"), None)).expect("restored");
    assert!(image(&back.path().join("x")) == image(folder.path()));
}
