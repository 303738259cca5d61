//! Format 1 of archives: what was written once is read for ever, and what is hostile is refused.

mod chains;
mod mangled;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use perennial::archive::restore::{self, Counters, RestoreError};
use perennial_shared::archive::chunk::ChunkHash;
use perennial_shared::archive::entry::{Content, Entry, Extent, File, FrameRef, Identity, Kind, Time};
use perennial_shared::archive::frame::Algorithm;
use perennial_shared::archive::index::Root;
use perennial_shared::archive::objects::Objects;
use perennial_shared::archive::page::{self, Packed, PageRef};
use perennial_shared::archive::tally::Tally;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::{Archive, ArchiveObject, Manifest};
use perennial_shared::store::Store;
use perennial_shared::store::folder::FolderStore;
use perennial_shared::store::memory::MemoryStore;
use perennial_shared::verify::sha256_hex;
use support::run;

fn bring(store: Arc<dyn Store>, archive: &Archive, to: &Path) -> Result<(), RestoreError> {
    let request = restore::Request {
        objects: Objects::new(store, archive, None),
        root: archive.index.clone(),
        tally: Tally::of(archive),
        staging: to.to_owned(),
        local: None,
        include: None,
        progress: Arc::new(Counters::default()),
    };
    run(restore::stage(&request))
}

/// A base and an increment that version 0.1.0 wrote. Never to be written again: later versions have to read these bytes.
#[test]
fn archives_of_format_1_are_read() {
    let fixture = Path::new("fixtures/archive-v1");
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(fixture).expect("the fixture"));
    let mut archives: Vec<_> = std::fs::read_dir(fixture.join("backups"))
        .expect("backups")
        .map(|entry| {
            let folder = entry.expect("an entry");
            let body = std::fs::read(folder.path().join("manifest.json")).expect("a manifest");
            let id = folder.file_name().into_string().expect("text");
            Manifest::parse(&id, &body).expect("format 1").archive.expect("an archive")
        })
        .collect();
    archives.sort_by_key(|a| a.position);
    let out = tempfile::tempdir().expect("a folder");
    let (base, next) = (out.path().join("base"), out.path().join("next"));
    bring(Arc::clone(&store), &archives[0], &base).expect("restored");
    bring(store, &archives[1], &next).expect("restored");

    let sum = |path: &Path| sha256_hex(&std::fs::read(path).expect("a file"));
    let changed = "4f9d593266cda4a0c3906ba7c62c3cac3c8fde4f321ca465823bd1b29bed5061";
    assert_eq!(sum(&next.join("numbers.txt")), changed);
    assert_ne!(sum(&base.join("numbers.txt")), changed);
    assert_eq!(sum(&next.join("holes")), "e1b44ec0fd7cb3461bdd79aeca5a561943a1a2d742390e92e6ba9b188920b845");
    assert_eq!(sum(&next.join("sub/new")), "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437");
    assert_eq!(std::fs::read_link(base.join("sub/link")).expect("a link"), Path::new("../numbers.txt"));
    assert!(!next.join("sub/link").exists() && !base.join("sub/new").exists());
    assert_eq!(std::fs::metadata(next.join("empty")).expect("there").len(), 0);
}

fn entry(path: &[u8], kind: Kind) -> Entry {
    let path = postcard::from_bytes(&postcard::to_allocvec(&path.to_vec()).expect("encoded")).expect("unchecked");
    Entry { path, mode: 0o755, uid: 0, gid: 0, mtime: Time { seconds: 0, nanos: 0 }, kind }
}

fn file(size: u64, extents: Vec<Extent>) -> Kind {
    let identity = Identity { inode: 1, ctime: Time { seconds: 0, nanos: 0 }, settled: true };
    Kind::File(File { size, chunk_size: 16 << 10, identity, content: Content::Inline(extents) })
}

/// An archive whose index is one leaf with these entries, and whose data object is `data`. Its manifest says how much
/// they are.
fn hostile(entries: &[Entry], data: Vec<u8>) -> (Arc<dyn Store>, Archive) {
    let sizes = entries.iter().filter_map(|e| if let Kind::File(file) = &e.kind { Some(file.size) } else { None });
    let (files, data_bytes) = (sizes.clone().count() as u64, sizes.sum());
    let (store, archive) = hostile_page(page::pack(&entries).expect("packed"), data);
    (store, Archive { files, data_bytes, ..archive })
}

/// An archive whose index is this page.
fn hostile_page(packed: Packed, data: Vec<u8>) -> (Arc<dyn Store>, Archive) {
    let id: BackupId = "20261121t153307z-g0001-015b10".parse().expect("an id");
    let object = |key: &str, body: &[u8], compression| ArchiveObject {
        backup_id: id.clone(),
        key: key.into(),
        size: body.len() as u64,
        sha256: sha256_hex(body),
        compression,
    };
    let objects = vec![object("index-0", &packed.bytes, Algorithm::None), object("data-0", &data, Algorithm::Zstd)];
    let length = u32::try_from(packed.bytes.len()).expect("small");
    let index = Root { page: PageRef { object: 0, offset: 0, length, hash: packed.hash }, height: 0 };
    let store = Arc::new(MemoryStore::default());
    run(async {
        store.create(&objects[0].full_key(), packed.bytes.into()).await.expect("stored");
        store.create(&objects[1].full_key(), data.into()).await.expect("stored");
    });
    let (base, because) = (id, String::new());
    let archive = Archive {
        base,
        position: 0,
        because,
        files: 0,
        data_bytes: 0,
        exact: true,
        disk_bytes: None,
        read_bytes: 0,
        new_bytes: 0,
        index,
        objects,
        key_id: None,
    };
    (store, archive)
}

#[test]
fn hostile_entries_are_refused_and_nothing_is_written_outside() {
    let folder = || entry(b"", Kind::Folder);
    let stored = |offset, length, at, chunks| Extent::Stored {
        frame: FrameRef { object: 1, offset, length },
        at,
        hashes: vec![ChunkHash([0; 16]); chunks],
    };
    let frame = zstd::bulk::compress(&vec![0; 16 << 10], 1).expect("compressed");
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("compressed");
    let length = |data: &[u8]| u32::try_from(data.len()).expect("small");
    let many = |size, extents| vec![folder(), entry(b"f", file(size, extents))];
    let one = |size, extent| many(size, vec![extent]);
    let cases: Vec<(&str, Vec<Entry>, Vec<u8>)> = vec![
        ("absolute", vec![folder(), entry(b"/etc/x", file(0, vec![]))], vec![0]),
        ("leaves", vec![folder(), entry(b"../x", file(0, vec![]))], vec![0]),
        (
            "through a link",
            vec![folder(), entry(b"a", Kind::Link(b"/tmp".to_vec())), entry(b"a/x", file(0, vec![]))],
            vec![0],
        ),
        ("no folder", vec![folder(), entry(b"a/x", file(0, vec![]))], vec![0]),
        ("twice", vec![folder(), entry(b"a", file(0, vec![])), entry(b"a", Kind::Link(b"/tmp".to_vec()))], vec![0]),
        ("more than is there", one(1 << 40, Extent::Hole(1)), vec![0]),
        ("past the object's end", one(16 << 10, stored(1 << 40, 9, 0, 1)), frame.clone()),
        (
            "where numbers end",
            many(32 << 10, vec![stored(u64::MAX - 9, 9, 0, 1), stored(u64::MAX - 99, 9, 0, 1)]),
            frame.clone(),
        ),
        ("past the frame's end", one(16 << 10, stored(0, length(&frame), 100, 1)), frame.clone()),
        ("another content", one(16 << 10, stored(0, length(&frame), 0, 1)), frame.clone()),
        ("a bomb", one(16 << 10, stored(0, length(&bomb), 0, 1)), bomb),
        (
            "no such object",
            one(
                16 << 10,
                Extent::Stored {
                    frame: FrameRef { object: 7, offset: 0, length: 1 },
                    at: 0,
                    hashes: vec![ChunkHash([0; 16])],
                },
            ),
            vec![0],
        ),
    ];
    for (what, entries, data) in cases {
        let (store, archive) = hostile(&entries, data);
        let out = tempfile::tempdir().expect("a folder");
        let inside = out.path().join("deep/inside");
        std::fs::create_dir_all(out.path().join("deep")).expect("made");
        let error = bring(store, &archive, &inside).expect_err(what);
        assert!(matches!(&error, RestoreError::Read(e) if e.is_damage()), "{what}: {error}");
        let outside: Vec<_> = std::fs::read_dir(out.path().join("deep")).expect("read").flatten().collect();
        assert!(outside.iter().all(|e| e.file_name() == "inside"), "{what}");
        assert_eq!(std::fs::read_dir(out.path()).expect("read").count(), 1, "{what}");
    }
}

/// Holes, and chunks that files share, need no room in an archive.
#[test]
fn more_than_the_manifest_says_is_refused_before_anything_is_written() {
    let data = zstd::bulk::compress(&vec![0; 16 << 10], 1).expect("compressed");
    let frame = FrameRef { object: 1, offset: 0, length: u32::try_from(data.len()).expect("small") };
    let shared = || Extent::Stored { frame, at: 0, hashes: vec![ChunkHash::of(&[0; 16 << 10])] };
    let copies = (b'a'..=b'z').map(|name| entry(&[name], file(16 << 10, vec![shared()])));
    let copies: Vec<_> = std::iter::once(entry(b"", Kind::Folder)).chain(copies).collect();
    let Kind::File(hole) = file(64 << 20, vec![Extent::Hole(64)]) else { unreachable!() };
    let hole = Kind::File(File { chunk_size: 1 << 20, ..hole });
    let sparse = vec![entry(b"", Kind::Folder), entry(b"f", hole)];
    for (entries, bytes) in [(copies, 26 * (16 << 10)), (sparse, 64 << 20)] {
        let (store, honest) = hostile(&entries, data.clone());
        assert_eq!(honest.data_bytes, bytes);
        let out = tempfile::tempdir().expect("a folder");
        bring(Arc::clone(&store), &honest, &out.path().join("honest")).expect("restored");
        let fewer_bytes = Archive { data_bytes: bytes - 1, ..honest.clone() };
        let fewer_files = Archive { files: honest.files - 1, exact: false, ..honest.clone() };
        for (archive, said) in [(fewer_bytes, bytes - 1), (fewer_files, bytes)] {
            let to = out.path().join("hostile");
            let error = bring(Arc::clone(&store), &archive, &to).expect_err("more than the manifest says");
            assert!(matches!(&error, RestoreError::Read(e) if e.is_damage()), "{error}");
            let (listed, said) = (format!("with {bytes} bytes"), format!("with {said}"));
            assert!(error.to_string().contains(&listed) && error.to_string().contains(&said), "{error}");
            assert!(!to.exists(), "nothing was written");
        }
    }
}
