//! What was written whole and then changed, on a disk or by somebody who means harm: reading it ends, and nothing comes of it that
//! could not have been written.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use perennial_shared::archive::chunk::ChunkHash;
use perennial_shared::archive::entry::{Content, Entry, Extent, File, FrameRef, Kind};
use perennial_shared::archive::frame::{Algorithm, Compression, Compressor, Decompressor, LARGEST};
use perennial_shared::archive::index;
use perennial_shared::archive::page::{self, Node, Packed, PageRef};
use perennial_shared::archive::path::RelPath;
use perennial_shared::manifest::{Archive, ArchiveObject, Manifest};
use perennial_shared::pointer::PointerState;
use perennial_shared::store::Version;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::support::noise;
use crate::{bring, entry, file, hostile_page};

/// One change to bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip {
        at: Index,
        bits: u8,
    },
    Cut {
        at: Index,
    },
    /// A part comes again elsewhere, over what is there or between it.
    Splice {
        from: Index,
        length: usize,
        to: Index,
        over: bool,
    },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Change::Flip { at, bits }),
        1 => any::<Index>().prop_map(|at| Change::Cut { at }),
        2 => (any::<Index>(), 1..200_usize, any::<Index>(), any::<bool>())
            .prop_map(|(from, length, to, over)| Change::Splice { from, length, to, over }),
    ];
    prop::collection::vec(change, 1..6)
}

fn mangled(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        if bytes.is_empty() {
            return bytes;
        }
        let size = bytes.len();
        match change {
            Change::Flip { at, bits } => bytes[at.index(size)] ^= bits,
            Change::Cut { at } => bytes.truncate(at.index(size)),
            Change::Splice { from, length, to, over } => {
                let from = from.index(size);
                let part = bytes[from..size.min(from + length)].to_vec();
                let to = to.index(size);
                let end = if *over { size.min(to + part.len()) } else { to };
                bytes.splice(to..end, part);
            }
        }
    }
    bytes
}

/// Where a page with this content stands, for who is believed: its hash is that of the content.
fn place(plain: &[u8], stored: &[u8]) -> PageRef {
    PageRef { object: 0, offset: 0, length: u32::try_from(stored.len()).expect("small"), hash: ChunkHash::of(plain) }
}

fn frame(offset: u64) -> FrameRef {
    FrameRef { object: 1, offset, length: 40 }
}

fn stored(offset: u64, at: u32, chunks: u8) -> Extent {
    Extent::Stored { frame: frame(offset), at, hashes: (0..chunks).map(|n| ChunkHash([n; 16])).collect() }
}

/// Entries of every kind.
fn leaf() -> Vec<Entry> {
    let paged = |pages: Vec<PageRef>| {
        let Kind::File(whole) = file(40 << 20, vec![]) else { unreachable!() };
        Kind::File(File { content: Content::Paged(pages), ..whole })
    };
    vec![
        entry(b"", Kind::Folder),
        entry(b"a", Kind::Folder),
        entry(b"a/file", file(50_000, vec![stored(0, 0, 2), Extent::Hole(1), stored(40, 7, 1)])),
        entry(b"a/link", Kind::Link(b"../elsewhere".to_vec())),
        entry(b"b\xff", file(0, vec![])),
        entry(b"c", paged(vec![place(b"one", b"1"), place(b"two", b"2")])),
        entry(b"d", file(16 << 10, vec![stored(80, 0, 1)])),
    ]
}

/// Frames of raw blocks, compressed ones, and ones as they are.
static FRAMES: LazyLock<Vec<(Algorithm, Vec<u8>)>> = LazyLock::new(|| {
    let mut frames = vec![];
    for plain in [noise(300_000, 2), b"text ".repeat(20_000), b"short".to_vec(), vec![]] {
        for algorithm in [Algorithm::Zstd, Algorithm::Gzip, Algorithm::None] {
            let compression = Compression { algorithm, level: None };
            let frame = Compressor::new(compression).expect("made").compress(plain.clone()).expect("compressed");
            frames.push((algorithm, frame));
        }
    }
    frames
});

/// Names that stay inside, in their order.
fn is_harmless(leaf: &[Entry]) -> bool {
    let harmless = |entry: &Entry| {
        let under = entry.path.under(Path::new("/srv/data"));
        under.starts_with("/srv/data") && !under.components().any(|c| c.as_os_str() == "..")
    };
    leaf.iter().all(harmless) && leaf.is_sorted_by(|a, b| a.path < b.path)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// A page whose bytes were changed is found out, whatever it says.
    #[test]
    fn a_mangled_page_is_never_read(changes in changes()) {
        let Packed { hash, bytes } = page::pack(&leaf()).expect("packed");
        let bad = mangled(&bytes, &changes);
        let page = PageRef { hash, ..place(b"", &bad) };
        if let Ok(read) = index::leaf(&page, &bad, None) {
            prop_assert!(read == leaf(), "only what does not matter was changed");
        }
    }

    /// A page that somebody mangled and then vouched for: reading it ends, and it says nothing that cannot be.
    #[test]
    fn a_mangled_page_that_is_vouched_for_is_harmless_or_refused(changes in changes(), number in 0..4_usize) {
        let Kind::File(file) = file(40 << 20, vec![]) else { unreachable!() };
        let chunks = vec![stored(0, 0, 30), Extent::Hole(400), stored(40, 0, 82)];
        let path = |name: &[u8]| RelPath::checked(name).expect("a path");
        let node: Node = vec![(path(b"a"), place(b"a", b"a")), (path(b"b/c"), place(b"bc", b"bc"))];
        let encoded = [postcard::to_allocvec(&leaf()), postcard::to_allocvec(&node), postcard::to_allocvec(&chunks)];
        for plain in encoded {
            let plain = mangled(&plain.expect("encoded"), &changes);
            let bytes = zstd::bulk::compress(&plain, 1).expect("compressed");
            let page = place(&plain, &bytes);
            if let Ok(leaf) = index::leaf(&page, &bytes, None) {
                prop_assert!(is_harmless(&leaf));
            }
            if let Ok(node) = index::node(&page, &bytes) {
                prop_assert!(!node.is_empty());
            }
            if let Ok(chunks) = index::chunks(&page, &bytes, &file, number) {
                let listed: u64 = chunks.iter().map(|extent| u64::from(extent.chunks())).sum();
                prop_assert_eq!(listed, file.chunks_of_page(number));
            }
        }
    }

    /// Small first bytes are counts that make sense.
    #[test]
    fn any_bytes_are_a_page_or_an_error(plain in prop::collection::vec(any::<u8>(), 0..600), first in 0_u8..40) {
        let plain = [&[first][..], &plain].concat();
        let bytes = zstd::bulk::compress(&plain, 1).expect("compressed");
        let page = place(&plain, &bytes);
        let _ = index::leaf(&page, &bytes, None);
        let _ = index::node(&page, &bytes);
        let Kind::File(file) = file(1 << 20, vec![]) else { unreachable!() };
        let _ = index::chunks(&page, &bytes, &file, 0);
    }

    /// The parser of raw blocks is our own; what it makes of a frame is what restores write.
    #[test]
    fn a_mangled_frame_ends(
        changes in changes(), which in any::<Index>(), part in (any::<Index>(), any::<Index>()), piece in 1_usize..2000,
    ) {
        let (algorithm, frame) = which.get::<(Algorithm, Vec<u8>)>(&FRAMES);
        let bad = mangled(frame, &changes);
        let (mut decompressor, mut plain) = (Decompressor::new().expect("made"), vec![]);
        if decompressor.decompress(*algorithm, &bad, &mut plain).is_ok() {
            prop_assert!(plain.len() <= LARGEST);
        }
        let whole = plain.clone();
        let arrived: Vec<_> = bad.chunks(piece).map(Bytes::copy_from_slice).collect();
        if let Ok(content) = decompressor.content(*algorithm, &arrived, &mut plain) {
            prop_assert!(content.size() <= LARGEST);
            let (a, b) = (part.0.index(content.size() + 1), part.1.index(content.size() + 1));
            let found = content.slices(a.min(b), a.max(b)).collect::<Vec<_>>().concat();
            prop_assert_eq!(found.len(), a.max(b) - a.min(b));
            // Where zstd reads it too, both read the same.
            if whole.len() == content.size() {
                prop_assert!(found == whole[a.min(b)..a.max(b)]);
            }
        }
    }

    #[test]
    fn any_path_is_harmless_or_refused(bytes in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(0), any::<u8>()], 0..40)) {
        if let Ok(path) = RelPath::checked(&bytes) {
            let under = path.under(Path::new("/srv/data"));
            prop_assert!(under.starts_with("/srv/data") && !under.components().any(|c| c.as_os_str() == ".."));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A whole restore of an index that somebody mangled: it succeeds or it is refused as damage, and writes nothing outside.
    #[test]
    fn a_mangled_index_is_restored_or_refused(changes in changes()) {
        let data = zstd::bulk::compress(&vec![0; 64 << 10], 1).expect("compressed");
        let frame = FrameRef { object: 1, offset: 0, length: u32::try_from(data.len()).expect("small") };
        let zeros = |at| Extent::Stored { frame, at, hashes: vec![ChunkHash::of(&[0; 16 << 10])] };
        let leaf = vec![
            entry(b"", Kind::Folder),
            entry(b"a", Kind::Folder),
            entry(b"a/file", file(48 << 10, vec![zeros(0), Extent::Hole(1), zeros(16 << 10)])),
            entry(b"a/link", Kind::Link(b"file".to_vec())),
            entry(b"b", file(16 << 10, vec![zeros(32 << 10)])),
        ];
        let plain = mangled(&postcard::to_allocvec(&leaf).expect("encoded"), &changes);
        let bytes = zstd::bulk::compress(&plain, 1).expect("compressed");
        let (store, archive) = hostile_page(Packed { hash: ChunkHash::of(&plain), bytes }, data);
        let archive = Archive { files: 20, data_bytes: 1 << 20, ..archive };
        let out = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(out.path().join("deep")).expect("made");
        if let Err(error) = bring(store, &archive, &out.path().join("deep/inside")) {
            // A name or a mode that this machine does not take is no damage.
            prop_assert!(!error.to_string().is_empty());
        }
        let names = |folder: PathBuf| std::fs::read_dir(folder).expect("read").flatten().map(|e| e.file_name());
        prop_assert!(names(out.path().into()).eq(["deep"]));
        prop_assert!(names(out.path().join("deep")).all(|name| name == "inside"));
    }
}

/// Every place in a document where a value stands.
fn places(value: &Value) -> Vec<String> {
    let below = |key: String, value: &Value| {
        let own = format!("/{key}");
        places(value).into_iter().map(|rest| format!("{own}{rest}")).chain([own.clone()]).collect::<Vec<_>>()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| below(key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().flat_map(|(n, value)| below(n.to_string(), value)).collect(),
        _ => vec![],
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5e300),
        json!(u64::MAX),
        json!(u32::MAX),
        json!(""),
        json!("../../etc"),
        json!("/"),
        json!("9999-12-31T23:59:59Z"),
        json!("0".repeat(64)),
        json!([]),
        json!([[[]]]),
        json!({}),
    ])
}

/// A document with other values at some places, and other bytes at some.
fn documents(whole: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let value: Value = serde_json::from_slice(&whole).expect("json");
    let all = places(&value);
    let values = prop::collection::vec((any::<Index>(), any_value()), 1..5).prop_map(move |replaced| {
        let mut value = value.clone();
        for (at, new) in replaced {
            // What stood below a place that was replaced is gone.
            if let Some(old) = value.pointer_mut(at.get::<String>(&all)) {
                *old = new;
            }
        }
        serde_json::to_vec(&value).expect("json")
    });
    let bytes = changes().prop_map(move |changes| mangled(&whole, &changes));
    prop_oneof![values, bytes]
}

/// The manifest of an increment, which says more than that of a base.
fn manifest() -> (String, Vec<u8>) {
    let id = "20261121t153307z-g0001-015b10";
    let path = Path::new("fixtures/archive-v1/backups").join(id).join("manifest.json");
    (id.into(), std::fs::read(path).expect("a manifest"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_mangled_manifest_is_harmless_or_refused(body in documents(manifest().1)) {
        let (id, _) = manifest();
        if let Ok(manifest) = Manifest::parse(&id, &body) {
            let archive = manifest.archive.as_ref().map_or(&[][..], |archive| &archive.objects);
            for key in archive.iter().map(ArchiveObject::full_key) {
                prop_assert!(key.starts_with("backups/") && !key.split('/').any(|part| part == ".."), "{}", key);
            }
            prop_assert!(Manifest::parse(&id, &manifest.to_bytes()).is_ok(), "what is read can be written");
        }
    }

    #[test]
    fn a_mangled_pointer_is_harmless_or_refused(
        body in documents(std::fs::read("fixtures/archive-v1/latest_files_backup.manifest.json").expect("a pointer")),
    ) {
        let state = PointerState::parse(&body, Version::new("v"));
        if let Some(id) = state.backup_id() {
            prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{}", id);
        }
        if let PointerState::Present { pointer, .. } = &state {
            let again = PointerState::parse(&pointer.to_bytes(), Version::new("v"));
            prop_assert_eq!(again.pointer(), Some(&**pointer));
        }
    }
}
