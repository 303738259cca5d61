//! Files that are written to, or gone, while they are read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use perennial::archive::create::ArchiveError;
use perennial::archive::source::Source;
use perennial_shared::archive::path::RelPath;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::case::changed_tree;
use crate::support::folder::overwrite;
use crate::support::{noise, run};
use crate::tree::image;

/// Files that shrink, grow and vanish while they are read.
#[test]
fn files_that_change_while_they_are_read() {
    let case = changed_tree().0;
    let folder = tempfile::tempdir().expect("a folder");
    let untouched = noise(1_500_000, 99);
    fs::write(folder.path().join("untouched"), &untouched).expect("written");
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
            assert!(fs::read(out.path().join("x/untouched")).expect("read") == untouched);
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

/// Does it again and again until it is dropped.
struct Meanwhile {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    fn begin(mut work: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Everything that backups of a folder tell, until each of these findings was told once. Whether a moment is hit is chance, and on one core a
/// small one: so it is tried for minutes.
#[track_caller]
fn told(folder: &Path, expected: &[&str]) -> BTreeSet<String> {
    let case = changed_tree().0;
    let (mut found, end) = (BTreeSet::new(), Instant::now() + Duration::from_mins(4));
    for second in 0.. {
        found.extend(run(case.told(folder, second, None)).expect("a backup").1);
        if expected.iter().all(|finding| found.contains(*finding)) {
            break;
        }
        assert!(Instant::now() < end, "{expected:?} were not all told: {found:?}");
    }
    found
}

#[test]
fn a_person_is_told_which_files_changed_or_went_while_they_were_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (name, size) in [("large", 5_000_000), ("small", 900_000), ("untouched", 3_000_000), ("untouched-too", 900)] {
        fs::write(path(name), noise(size, 1)).expect("written");
    }
    let (large, small) = (path("large"), path("small"));
    let writing = Meanwhile::begin(move || {
        overwrite(&large, 1000, b"in place");
        overwrite(&small, 1000, b"in place");
    });
    let written = ["large was written to while it was read", "small was written to while it was read"];
    assert_eq!(told(folder.path(), &written), written.map(String::from).into());
    drop(writing);

    let gone = ["large", "small"].map(|name| (path(name), path(&format!("{name}.aside"))));
    let moving = Meanwhile::begin(move || {
        for (there, aside) in &gone {
            fs::rename(there, aside).expect("moved away");
        }
        for (there, aside) in &gone {
            fs::rename(aside, there).expect("moved back");
        }
    });
    let expected = ["large was deleted before it was read", "small was deleted before it was read"];
    let found = told(folder.path(), &expected);
    drop(moving);
    assert!(found.iter().all(|finding| finding.ends_with(" was deleted before it was read")), "{found:?}");
    assert!(!found.iter().any(|finding| finding.contains("untouched")), "{found:?}");
}

#[test]
fn what_cannot_be_archived_is_named_and_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("run")).expect("made");
    fs::write(folder.path().join("run/data"), b"data").expect("written");
    let _listener = UnixListener::bind(folder.path().join("run/socket")).expect("a socket");
    mknodat(CWD, folder.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    let case = changed_tree().0;
    let (backup, found) = run(case.told(folder.path(), 0, None)).expect("a backup");
    let left_out = ["pipe", "run/socket"].map(|name| format!("{name} is a socket, pipe or device and was left out"));
    assert_eq!(found, left_out);
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&backup, &out.path().join("x"), None)).expect("restored");
    let names: Vec<_> = image(&out.path().join("x")).into_keys().collect();
    assert_eq!(names, ["run", "run/data"].map(PathBuf::from));
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
    let backup = run(case.back_up_source(source.clone(), 0, None)).expect("made").0;
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&backup, &out.path().join("x"), None)).expect("restored");
    assert!(fs::read(out.path().join("x/log")).expect("read") == log[..2_500_001]);
    source.lengths.insert(RelPath::checked(b"log").expect("a path"), 3_000_001);
    let error = run(case.back_up_source(source, 1, None)).expect_err("refused");
    assert!(error.to_string().contains("has 3000000 now"), "{error}");
}
