//! Append-only files, read to their ends before a backup has them.
//!
//! The server reads them only when it starts: what rotted since would be found out at the restore. A base that is a point-in-time file
//! is stepped through to its checksum, commands are stepped through one by one. What was read for the backup before is not read again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{aof, rdb};
use crate::engine::EngineError;

/// What was read of each file, for the next capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known(BTreeMap<String, Part>);

/// A file as far as it was read and right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    inode: u64,
    /// Of the last change to its bytes, for a file that must not be changed at all; nanoseconds.
    modified: i128,
    /// Bytes up to the last whole command, or all of a point-in-time file.
    whole: u64,
}

/// What an append-only file is.
pub(super) enum Begins {
    /// A point-in-time file.
    AsDump,
    /// A point-in-time file with commands behind it, as Redis 6 wrote them; it is not looked into.
    AsDumpWithCommands,
    /// Commands.
    Otherwise,
}

/// Reads the files of a captured list, in its order, each up to its length. Damage is an error.
pub(super) fn check(folder: &Path, files: &[(String, u64)], known: &Known) -> Result<Known, EngineError> {
    let mut read = BTreeMap::new();
    for (n, (name, length)) in files.iter().enumerate() {
        let path = folder.join(name);
        let found = path.metadata().map_err(|e| EngineError::files(&path, &e))?;
        let modified = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        let before = known.0.get(name).filter(|part| part.inode == found.ino() && part.whole <= *length);
        let whole = match kind(&path).map_err(|e| damaged(&path, &e))? {
            Begins::AsDump if before.is_some_and(|p| (p.whole, p.modified) == (*length, modified)) => *length,
            Begins::AsDump => rdb::check(&path).map(|_| *length)?,
            Begins::AsDumpWithCommands => *length,
            Begins::Otherwise => {
                let from = before.map_or(0, |part| part.whole);
                let whole = from + walk(&path, from, *length).map_err(|e| damaged(&path, &e))?;
                if whole < *length && n + 1 < files.len() {
                    return Err(is_not_the_last(&path, *length - whole));
                }
                whole
            }
        };
        read.insert(name.clone(), Part { inode: found.ino(), modified, whole });
    }
    Ok(Known(read))
}

/// Bytes of whole commands between two places of a file.
fn walk(path: &Path, from: u64, to: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let walked = aof::walk(&mut BufReader::with_capacity(256 << 10, file.take(to - from)))?;
    Ok(walked.whole)
}

/// What a file with this name is, by its first bytes.
pub(super) fn kind(path: &Path) -> io::Result<Begins> {
    let mut magic = vec![];
    File::open(path)?.take(6).read_to_end(&mut magic)?;
    if !magic.starts_with(b"REDIS") && !magic.starts_with(b"VALKEY") {
        return Ok(Begins::Otherwise);
    }
    // Redis 6 wrote commands behind the point-in-time file in its one append-only file, and Redis 7 takes that for its base as it is.
    Ok(if path.extension().is_some_and(|e| e == "rdb") { Begins::AsDump } else { Begins::AsDumpWithCommands })
}

/// Bytes that are no commands are damage; anything else is this machine's.
pub(super) fn damaged(path: &Path, error: &io::Error) -> EngineError {
    if error.kind() == io::ErrorKind::InvalidData {
        EngineError::Damaged { what: path.display().to_string(), why: error.to_string() }
    } else {
        EngineError::files(path, error)
    }
}

/// Only the last file may end within a command.
pub(super) fn is_not_the_last(path: &Path, rest: u64) -> EngineError {
    let why = format!("its last command is not whole, and it is not the last file ({rest} bytes)");
    EngineError::Damaged { what: path.display().to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<(String, u64)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listed = files.iter().map(|(name, text)| {
            std::fs::write(folder.path().join(name), text).expect("written");
            ((*name).to_owned(), text.len() as u64)
        });
        let listed = listed.collect();
        (folder, listed)
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        let (folder, mut files) = folder(&[("a.1.base.aof", SET), ("a.1.incr.aof", &format!("{SET}{SET}*3\r\n$3"))]);
        let known = check(folder.path(), &files, &Known::default()).expect("whole but for the last command");
        assert_eq!(known.0["a.1.incr.aof"].whole, 2 * SET.len() as u64);
        assert_eq!(check(folder.path(), &files, &known).expect("the same"), known);

        // Bytes before the place where it goes on are not looked at; those behind it are.
        let path = folder.path().join("a.1.incr.aof");
        std::fs::write(&path, format!("{}{SET}", "x".repeat(2 * SET.len()))).expect("written");
        files[1].1 = 3 * SET.len() as u64;
        let next = check(folder.path(), &files, &known).expect("one command more");
        assert_eq!(next.0["a.1.incr.aof"].whole, files[1].1);
        check(folder.path(), &files, &Known::default()).expect_err("all of it is read where nothing is known");
        // Another file under the same name is read from its begin.
        let other = folder.path().join("other");
        std::fs::copy(&path, &other).expect("copied");
        std::fs::rename(&other, &path).expect("renamed");
        check(folder.path(), &files, &known).expect_err("another file");
    }

    #[test]
    fn only_the_last_file_may_end_within_a_command() {
        let (folder, files) = folder(&[("a.1.base.aof", &SET[..9]), ("a.1.incr.aof", SET)]);
        let error = check(folder.path(), &files, &Known::default()).expect_err("cut short");
        assert!(error.to_string().contains("not the last file"), "{error}");
        check(folder.path(), &files[..1], &Known::default()).expect("the only one");
    }
}
