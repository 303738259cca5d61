//! Folders in Weaviate's data folder that belong to no collection.
//!
//! A collection's data is in `<data>/<name in lower case>/<shard>/lsm/`. A restore moves its folder there; when
//! one stands there already, the server logs the failure, opens what it finds, and says SUCCESS.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::engine::EngineError;

/// The folders that stand where `collections` would be put.
pub(super) fn of_collections(data_dir: &Path, collections: &[String]) -> Result<Vec<String>, EngineError> {
    readable(data_dir)?;
    let mut found = vec![];
    for collection in collections {
        let folder = data_dir.join(collection.to_lowercase());
        match folder.symlink_metadata() {
            Ok(_) => found.push(folder.display().to_string()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(&folder, &e)),
        }
    }
    Ok(found)
}

/// The folders that look like a collection's and are not one of `collections`.
pub(super) fn unknown(data_dir: &Path, collections: &[String]) -> Result<Vec<PathBuf>, EngineError> {
    let known: BTreeSet<_> = collections.iter().map(|c| c.to_lowercase()).collect();
    let mut found = vec![];
    for entry in std::fs::read_dir(data_dir).map_err(|e| unreadable(data_dir, &e))? {
        let entry = entry.map_err(|e| unreadable(data_dir, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !known.contains(&name) && holds_shards(&entry.path()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes that a restore has downloaded so far. Nothing but a sign of life, so what cannot be read counts as nothing.
pub(super) fn staged_bytes(data_dir: &Path) -> u64 {
    let mut folders = vec![data_dir.join(".backup.tmp")];
    let mut sum = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => sum += metadata.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

fn readable(data_dir: &Path) -> Result<(), EngineError> {
    std::fs::read_dir(data_dir).map(|_| ()).map_err(|e| unreadable(data_dir, &e))
}

fn holds_shards(folder: &Path) -> bool {
    // Staging and deletion folders begin with a dot or an underscore; a collection begins with a letter.
    let named =
        folder.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_lowercase()));
    let Ok(shards) = std::fs::read_dir(folder) else { return false };
    named && shards.flatten().any(|shard| shard.path().join("lsm").is_dir())
}

fn unreadable(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::DataFolder { path: path.display().to_string(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_unknown_collections_are_found() {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["doc/s1/lsm", "old/s1/lsm", "raft/snapshots", ".backup.tmp/x/lsm"] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("made");
        }
        let found = unknown(dir.path(), &["Doc".into()]).expect("readable");
        assert_eq!(found, [dir.path().join("old")]);
        let found = of_collections(dir.path(), &["Old".into(), "New".into()]).expect("readable");
        assert_eq!(found, [dir.path().join("old").display().to_string()]);
    }

    #[test]
    fn a_data_folder_that_is_not_there_is_an_error() {
        let error = of_collections(Path::new("/nonexistent/data"), &["Doc".into()]).expect_err("no folder");
        assert!(matches!(error, EngineError::DataFolder { .. }), "{error}");
    }
}
