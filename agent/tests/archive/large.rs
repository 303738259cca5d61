//! Files of many gibibytes, most of which are holes: what was never written is never looked at, and takes no room afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perennial_shared::archive::entry::{Content, Entry, Identity, Kind, Time};
use perennial_shared::archive::page::PageRef;
use perennial_shared::archive::path::RelPath;
use perennial_shared::archive::{entry, tar};
use perennial_shared::manifest::Archive;
use perennial_shared::store::folder::FolderStore;
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::case::Case;
use crate::support::{noise, run};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// More than an old tar header can say, and no multiple of anything.
const SIZE: u64 = 9 * GIB + 12_345;
/// Of a file of that size.
const CHUNK: u64 = 64 << 10;

/// A file's length, and its data by offset. What the file system does not store is not read.
fn data(path: &Path) -> (u64, BTreeMap<u64, Vec<u8>>) {
    let file = File::open(path).expect("open");
    let length = file.metadata().expect("there").len();
    let (mut found, mut at) = (BTreeMap::new(), 0);
    while let Ok(begin) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(begin)).expect("an end");
        at = begin / CHUNK * CHUNK;
        while at < end {
            let mut bytes = vec![0; usize::try_from(CHUNK.min(length - at)).expect("small")];
            file.read_exact_at(&mut bytes, at).expect("read");
            if bytes.iter().any(|byte| *byte != 0) {
                found.insert(at, bytes);
            }
            at += CHUNK;
        }
    }
    (length, found)
}

fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).expect("there").blocks() * 512
}

/// The same content, and no more room on the disk: at most a chunk at either end of a stretch of data.
#[track_caller]
fn assert_same(path: &Path, original: &Path, stretches: u64) {
    assert!(data(path) == data(original), "{} has another content", path.display());
    let (there, most) = (on_disk(path), on_disk(original) + 2 * CHUNK * stretches);
    assert!(there <= most, "{} takes {there} bytes, which is more than {most}", path.display());
}

/// A file with holes; without them these tests would fill the disk.
fn sparse(path: &Path, size: u64) -> File {
    let file = File::options().write(true).create_new(true).open(path).expect("made");
    file.set_len(16 * MIB).expect("made larger");
    assert_eq!(on_disk(path), 0, "{} keeps no holes; let TMPDIR be on a file system that does", path.display());
    file.set_len(size).expect("made larger");
    file
}

fn untar(repository: &Path, base: &Archive, to: &Path) {
    let archive = repository.join(base.objects[1].full_key());
    let script = format!("set -e -o pipefail; zstd -dc '{}' | tar xp -C '{}'", archive.display(), to.display());
    let ran = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn nine_gibibytes_with_a_little_data_cost_a_little() {
    let repository = tempfile::tempdir().expect("a folder");
    let case = Case { store: Arc::new(FolderStore::open(repository.path()).expect("opened")), ..Case::plain() };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large");
    let file = sparse(&path, SIZE);
    for (offset, seed) in [(0, 1), (4 * GIB + 7 * MIB, 2), (8 * GIB - MIB, 3), (SIZE - MIB, 4)] {
        file.write_all_at(&noise(1 << 20, seed), offset).expect("written");
    }
    let base = run(case.back_up(folder.path(), 0, None)).expect("a base");
    assert!(base.read_bytes <= 4 * MIB + 2 * 4 * CHUNK, "{} bytes were read", base.read_bytes);
    assert_eq!((base.data_bytes, base.read_bytes), (SIZE, base.new_bytes));
    let listed = pages(&case, &base, "large");
    assert!(listed.len() > 64, "its chunks are listed in many pages");
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&base, &out.path().join("base"), None)).expect("restored");
    assert_same(&out.path().join("base/large"), &path, 4);
    untar(repository.path(), &base, out.path());
    assert_same(&out.path().join("large"), &path, 4);

    // Half over data, half into a hole; and a hole where data was.
    file.write_all_at(&noise(1 << 20, 5), 4 * GIB + 7 * MIB + MIB / 2).expect("written");
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8 * GIB - MIB, MIB)
        .expect("a hole");
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).expect("set");
    let next = run(case.back_up(folder.path(), 1, Some(&base))).expect("an increment");
    assert_eq!(next.new_bytes, MIB);
    let changed = pages(&case, &next, "large").iter().filter(|page| !listed.contains(page)).count();
    assert_eq!(changed, 1, "the others are the base's; one with nothing but holes is like many of them");
    let restored = |name: &str, local: Option<&Path>| {
        let counters = run(case.restore(&next, &out.path().join(name), local)).expect("restored");
        assert_same(&out.path().join(name).join("large"), &path, 3);
        counters
    };
    restored("next", None);
    let beside = restored("beside", Some(&out.path().join("base")));
    assert!(beside.found.load(Ordering::Relaxed) > 2 * MIB, "what the older state has is taken from there");
}

/// The pages in which a file's chunks are listed.
fn pages(case: &Case, backup: &Archive, name: &str) -> Vec<PageRef> {
    run(async {
        let mut walk = case.objects(backup).walk(&backup.index);
        while let Some(entry) = walk.next().await.expect("an index") {
            if let Kind::File(entry::File { content: Content::Paged(pages), .. }) = entry.kind
                && entry.path.as_bytes() == name.as_bytes()
            {
                return pages;
            }
        }
        vec![]
    })
}

/// Eight gibibytes are the most that the digits of an old header hold. The tar file is one hole, but for its headers.
#[test]
fn tar_finds_its_way_past_a_file_of_more_than_eight_gibibytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.tar");
    let file = sparse(&path, 0);
    let mut end = 0;
    for (name, size) in [("large", 9 * GIB + 1), ("behind", 5)] {
        let header = header(name, size);
        file.write_all_at(&header, end).expect("written");
        end += header.len() as u64 + size + tar::padding(size) as u64;
    }
    file.set_len(end + tar::END.len() as u64).expect("made larger");
    let ran = Command::new("tar").arg("tvf").arg(&path).output().expect("tar");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let listed: Vec<_> = said.lines().filter_map(|line| Some((line.split_whitespace().nth(2)?, line))).collect();
    assert!(
        matches!(&listed[..], [("9663676417", a), ("5", b)] if a.ends_with("large") && b.ends_with("behind")),
        "{said}"
    );
}

fn header(name: &str, size: u64) -> Vec<u8> {
    let identity = Identity { inode: 1, ctime: Time { seconds: 0, nanos: 0 }, settled: true };
    let kind = Kind::File(entry::File { size, chunk_size: 1 << 20, identity, content: Content::Inline(vec![]) });
    let path = RelPath::checked(name.as_bytes()).expect("a path");
    let entry = Entry { path, mode: 0o644, uid: 0, gid: 0, mtime: Time { seconds: 0, nanos: 0 }, kind };
    tar::header(&entry, size, &[(0, size)])
}

/// Many small holes in a file of some megabytes, as an engine leaves them that frees pages.
#[test]
fn holes_between_pages_come_back_as_holes() {
    let repository = tempfile::tempdir().expect("a folder");
    let case = Case { store: Arc::new(FolderStore::open(repository.path()).expect("opened")), ..Case::plain() };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pages");
    let file = sparse(&path, 64 * MIB + 1);
    for n in 0..40 {
        file.write_all_at(&noise(20_000, n), n * 1_500_000 + n * n).expect("written");
    }
    let base = run(case.back_up(folder.path(), 0, None)).expect("a base");
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&base, &out.path().join("x"), None)).expect("restored");
    assert_same(&out.path().join("x/pages"), &path, 40);
    untar(repository.path(), &base, out.path());
    assert_same(&out.path().join("pages"), &path, 40);
}
