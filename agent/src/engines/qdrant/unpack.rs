//! A snapshot's archive, taken apart while it arrives.
//!
//! A collection snapshot is a tar whose segments are tars of their own. Both are taken apart, so that an unchanged file of a segment
//! is the same file at the same path in the next backup, whatever the segments before it became: `0/segments/<id>.tar` becomes
//! a folder of that name. Only files and folders are accepted, each once and inside the folder; holes stay holes. Nothing but the
//! piece at hand is in memory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};
use tokio::sync::mpsc;

/// What is read, and written or skipped, at a time.
const PIECE: usize = 64 << 10;
/// File systems make holes in units of this size.
const BLOCK: usize = 4096;

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Of all of its bytes.
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// Pieces that another task puts in, read as a stream and hashed.
pub(super) struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    hash: Sha256,
    bytes: u64,
}

impl Incoming {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new(), hash: Sha256::new(), bytes: 0 }
    }

    /// Reads what stands behind the archive's end, which belongs to the checksum.
    fn finish(mut self) -> io::Result<Arrived> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Arrived { sha256: hex::encode(self.hash.finalize()), bytes: self.bytes })
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(piece) = self.pieces.blocking_recv() else { return Ok(0) };
            self.piece = piece?;
        }
        let piece = self.piece.split_to(into.len().min(self.piece.len()));
        into[..piece.len()].copy_from_slice(&piece);
        self.hash.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(piece.len())
    }
}

/// Takes a collection snapshot apart into `folder`, which is made.
pub(super) fn collection(mut incoming: Incoming, folder: &Path) -> io::Result<Arrived> {
    fs::create_dir_all(folder)?;
    archive(&mut incoming, folder, true)?;
    incoming.finish()
}

fn archive(from: &mut dyn Read, folder: &Path, outermost: bool) -> io::Result<()> {
    for entry in Archive::new(from).entries()? {
        let mut entry = entry?;
        let (name, kind) = (entry.path()?.into_owned(), entry.header().entry_type());
        let path = folder.join(inside(&name)?);
        match kind {
            EntryType::Directory => fs::create_dir_all(&path)?,
            EntryType::Regular | EntryType::GNUSparse if outermost && is_segment(&name) => {
                fs::create_dir_all(path.parent().unwrap_or(folder))?;
                fs::create_dir(&path)?;
                archive(&mut entry, &path, false)?;
            }
            EntryType::Regular | EntryType::GNUSparse => {
                fs::create_dir_all(path.parent().unwrap_or(folder))?;
                write_sparse(&mut entry, &path)?;
            }
            other => return Err(refused(&name, &format!("it is a {other:?}"))),
        }
    }
    Ok(())
}

/// Whether a file of a collection snapshot is a segment's archive.
pub(super) fn is_segment(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name);
    path.extension().is_some_and(|e| e == "tar") && parent.is_some_and(|p| p == "segments")
}

/// A path that stays below the folder that it is joined to.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(refused(path, "it leads out of the archive")),
        }
    }
    Ok(clean)
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the entry {} is refused: {why}", path.display()))
}

/// Writes a file that must not be there yet; blocks of zeros become holes.
fn write_sparse(from: &mut dyn Read, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let length = read_full(from, &mut piece)?;
        for (number, block) in piece[..length].chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start(at + (number * BLOCK) as u64))?;
                file.write_all(block)?;
            }
        }
        at += length as u64;
        if length < PIECE {
            return file.set_len(at);
        }
    }
}

fn read_full(from: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match from.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(vec![]);
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, *data).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }

    fn incoming(data: &[u8]) -> Incoming {
        let (to, from) = mpsc::channel(1000);
        for piece in data.chunks(700) {
            to.try_send(Ok(Bytes::copy_from_slice(piece))).expect("room");
        }
        Incoming::new(from)
    }

    #[test]
    fn a_segment_becomes_a_folder_and_all_bytes_are_hashed() {
        let segment = tar(&[("snapshot/files/segment.json", EntryType::Regular, b"{}")]);
        let data = tar(&[
            ("0/segments/a.tar", EntryType::Regular, &segment),
            ("0/wal", EntryType::Directory, b""),
            ("config.json", EntryType::Regular, b"{\"a\":1}"),
        ]);
        let dir = tempfile::tempdir().expect("a folder");
        let arrived = collection(incoming(&data), &dir.path().join("c")).expect("good");
        let expected = perennial_shared::verify::sha256_hex(&data);
        assert_eq!(arrived, Arrived { sha256: expected, bytes: data.len() as u64 });
        let read = |path: &str| fs::read(dir.path().join("c").join(path)).expect("a file");
        assert_eq!(read("0/segments/a.tar/snapshot/files/segment.json"), b"{}");
        assert_eq!(read("config.json"), b"{\"a\":1}");
        assert!(dir.path().join("c/0/wal").is_dir());
    }

    #[test]
    fn hostile_entries_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let cases: [(&str, EntryType); 5] = [
            ("../out", EntryType::Regular),
            ("/etc/out", EntryType::Regular),
            ("a/../../out", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("pipe", EntryType::Fifo),
        ];
        for (number, (name, kind)) in cases.into_iter().enumerate() {
            let data = tar(&[(name, kind, b"")]);
            let done = collection(incoming(&data), &dir.path().join(format!("c{number}")));
            assert!(done.is_err(), "{name}");
        }
        let twice = tar(&[("a", EntryType::Regular, b"1"), ("a", EntryType::Regular, b"2")]);
        assert!(collection(incoming(&twice), &dir.path().join("twice")).is_err());
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn a_stream_that_fails_is_an_error() {
        let data = tar(&[("config.json", EntryType::Regular, &[7; 5000])]);
        let (to, from) = mpsc::channel(10);
        to.try_send(Ok(Bytes::copy_from_slice(&data[..3000]))).expect("room");
        to.try_send(Err(io::Error::other("gone"))).expect("room");
        drop(to);
        let dir = tempfile::tempdir().expect("a folder");
        assert!(collection(Incoming::new(from), &dir.path().join("c")).is_err());
    }
}
