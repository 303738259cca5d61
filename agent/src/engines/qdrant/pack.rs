//! The archive that a folder of [`super::unpack`] came from, made again while it is sent.
//!
//! Its description is made first: the headers and which bytes of which files stand between them, in Qdrant's order. So its size and
//! checksum are known before a byte is sent, and it is never whole on this disk or in memory; the description takes about a
//! kilobyte a file. The log goes in complete: without it, deletes that were acknowledged would come back, and a log that
//! ends below the segments' versions would make the next writes be ignored. `applied_seq.json` stays out: with it the last
//! 200 operations of the log would be applied only after the recovery was answered.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom as Look, seek};
use sha2::{Digest, Sha256};

use super::entry::{self, Run};
use super::unpack::is_segment;

/// What is read at a time.
const PIECE: u64 = 256 << 10;
/// A hole that is shorter is sent as zeros.
const SHORTEST_HOLE: u64 = 64 << 10;
/// Files that stand behind all others of their folder, in this order: an archive that was cut is then refused.
const LAST: [&str; 8] = [
    "first-index",
    "replica_state.json",
    "shard_config.json",
    "segment.json",
    "version.info",
    "config.json",
    "shard_key_mapping.json",
    "payload_index.json",
];
const LEFT_OUT: &str = "applied_seq.json";

enum Piece {
    Bytes(Vec<u8>),
    File { path: PathBuf, run: Run },
}

/// An archive, described.
#[derive(Default)]
pub(super) struct Packed {
    pieces: Vec<Piece>,
    size: u64,
}

impl Packed {
    /// The collection snapshot that was taken apart into `folder`.
    pub(super) fn collection(folder: &Path) -> io::Result<Self> {
        let mut packed = Self::default();
        packed.tree(folder, "")?;
        packed.bytes(entry::END.to_vec());
        Ok(packed)
    }

    /// Its length.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Its SHA-256.
    pub(super) fn sha256(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        self.write(|piece| {
            hash.update(piece);
            Ok(())
        })?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Gives all of its bytes to `sink`, piece by piece.
    pub(super) fn write(&self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or(1 << 18)];
        let mut open: Option<(&Path, File)> = None;
        for piece in &self.pieces {
            let (path, (mut at, mut left)) = match piece {
                Piece::Bytes(bytes) => {
                    sink(bytes)?;
                    continue;
                }
                Piece::File { path, run } => (path, *run),
            };
            if open.as_ref().is_none_or(|(known, _)| *known != path) {
                open = Some((path, File::open(path)?));
            }
            let Some((_, file)) = &mut open else { continue };
            while left > 0 {
                let some = &mut buffer[..usize::try_from(left.min(PIECE)).unwrap_or(0)];
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(some)?;
                sink(some)?;
                at += some.len() as u64;
                left -= some.len() as u64;
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: Vec<u8>) {
        self.size += bytes.len() as u64;
        self.pieces.push(Piece::Bytes(bytes));
    }

    fn tree(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let names = sorted(folder)?;
        if names.is_empty() && !prefix.is_empty() {
            self.bytes(entry::folder(prefix.trim_end_matches('/')));
        }
        for name in names {
            let (path, inside) = (folder.join(&name), format!("{prefix}{name}"));
            if !path.is_dir() {
                self.file(&path, &inside)?;
            } else if is_segment(Path::new(&inside)) {
                self.segment(&path, &inside)?;
            } else {
                self.tree(&path, &format!("{inside}/"))?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        let segment = Self::collection(folder)?;
        self.bytes(entry::file(name, segment.size));
        self.size += segment.size;
        self.pieces.extend(segment.pieces);
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let size = metadata.len();
        let runs = if metadata.blocks() * 512 < size { runs(&file, size)? } else { vec![(0, size)] };
        let stored = runs.iter().map(|(_, length)| length).sum();
        let is_whole = stored == size;
        self.bytes(if is_whole { entry::file(name, size) } else { entry::sparse(name, size, &runs) });
        self.size += stored;
        self.pieces.extend(runs.into_iter().map(|run| Piece::File { path: path.into(), run }));
        if entry::padding(stored) > 0 {
            self.bytes(vec![0; entry::padding(stored)]);
        }
        Ok(())
    }
}

/// The names in a folder, in the order of the archive.
fn sorted(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string();
        let name =
            name.map_err(|n| io::Error::new(io::ErrorKind::InvalidData, format!("{} is no name", n.display())))?;
        if name != LEFT_OUT {
            names.push(name);
        }
    }
    let rank = |name: &str| LAST.iter().position(|last| *last == name).map_or(0, |at| at + 1);
    names.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    Ok(names)
}

/// Where a file has data. All runs but the last are whole blocks.
fn runs(file: &File, size: u64) -> io::Result<Vec<Run>> {
    let mut runs: Vec<Run> = vec![];
    let mut at = 0;
    while at < size {
        let start = match seek(file, Look::Data(at)) {
            Ok(start) => start,
            // No data from here on.
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = seek(file, Look::Hole(start))?.min(size);
        match runs.last_mut() {
            Some((offset, length)) if start - (*offset + *length) < SHORTEST_HOLE => *length = at - *offset,
            _ => runs.push((start, at - start)),
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::super::unpack;
    use super::*;

    fn put(folder: &Path, name: &str, data: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, data).expect("written");
    }

    /// A file with data at its begin, 40 times in its middle, and a hole at its end.
    fn put_sparse(folder: &Path, name: &str) {
        put(folder, name, b"begin");
        let file = File::options().write(true).open(folder.join(name)).expect("a file");
        for n in 1..=40 {
            std::os::unix::fs::FileExt::write_at(&file, &[7; 4096], n * (256 << 10)).expect("written");
        }
        file.set_len(32 << 20).expect("room");
    }

    fn archive(folder: &Path) -> Vec<u8> {
        let packed = Packed::collection(folder).expect("packed");
        let mut data = vec![];
        packed
            .write(|piece| {
                data.extend(piece);
                Ok(())
            })
            .expect("written");
        assert_eq!(packed.size(), data.len() as u64);
        assert_eq!(packed.sha256().expect("hashed"), perennial_shared::verify::sha256_hex(&data));
        data
    }

    #[test]
    fn what_was_packed_comes_apart_into_the_same_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = format!("0/segments/a.tar/snapshot/files/payload_index/{}/data.dat", "x".repeat(120));
        put(dir.path(), "from/config.json", b"{}");
        put(dir.path(), "from/payload_index.json", b"{}");
        put(dir.path(), "from/0/shard_config.json", b"{}");
        put(dir.path(), "from/0/applied_seq.json", b"5");
        put_sparse(&dir.path().join("from"), "0/wal/open-1");
        put(&dir.path().join("from"), "0/segments/a.tar/snapshot/files/segment.json", b"{}");
        put(&dir.path().join("from"), &long, &vec![3; 70_001]);
        fs::create_dir(dir.path().join("from/0/segments/a.tar/snapshot/files/empty")).expect("made");
        let data = archive(&dir.path().join("from"));
        assert!(data.len() < 1 << 20, "holes are not sent: {}", data.len());

        let (to, from) = tokio::sync::mpsc::channel(10);
        to.try_send(Ok(data.clone().into())).expect("room");
        drop(to);
        let again = dir.path().join("to");
        unpack::collection(unpack::Incoming::new(from), &again).expect("good");
        assert!(!again.join("0/applied_seq.json").exists(), "the whole log is applied before the answer");
        for name in ["config.json", "0/wal/open-1", long.as_str(), "0/segments/a.tar/snapshot/files/segment.json"] {
            let read = |side: &str| fs::read(dir.path().join(side).join(name)).expect("a file");
            assert!(read("from") == read("to"), "{name}");
        }
        assert!(again.join("0/segments/a.tar/snapshot/files/empty").is_dir());
        assert!(archive(&again) == data, "an archive follows from its files");
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let mut found = tar::Archive::new(archive);
        let entries = found.entries().expect("a tar");
        entries.map(|e| e.expect("an entry").path().expect("a path").display().to_string()).collect()
    }

    #[test]
    fn an_archive_of_a_real_server_comes_apart_and_together() {
        let recorded = "../tests/qdrant_server/recordings/archives/collection-snapshot.tar.gz";
        let unzipped = std::process::Command::new("gzip").arg("-dc").arg(recorded).output().expect("gzip").stdout;
        let dir = tempfile::tempdir().expect("a folder");
        let apart = |data: &[u8], folder: &str| {
            let (to, from) = tokio::sync::mpsc::channel(1);
            to.try_send(Ok(data.to_vec().into())).expect("room");
            drop(to);
            unpack::collection(unpack::Incoming::new(from), &dir.path().join(folder)).expect("good");
            archive(&dir.path().join(folder))
        };
        let first = apart(&unzipped, "first");
        assert!(apart(&first, "second") == first);
        let (mut before, mut after) = (names(&unzipped), names(&first));
        assert_eq!(before.last(), after.last());
        before.retain(|name| !name.ends_with(LEFT_OUT));
        before.sort();
        after.sort();
        assert_eq!(before, after);
    }

    #[test]
    fn the_descriptions_stand_last() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["payload_index.json", "0/shard_config.json", "version.info", "0/wal/first-index", "0/wal/open-1"] {
            put(dir.path(), name, b"1");
        }
        put(dir.path(), "config.json", b"1");
        let data = archive(dir.path());
        let expected = [
            "0/wal/open-1",
            "0/wal/first-index",
            "0/shard_config.json",
            "version.info",
            "config.json",
            "payload_index.json",
        ];
        assert_eq!(names(&data), expected);
    }
}
