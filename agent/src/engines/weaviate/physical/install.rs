//! What must hold for files to become Weaviate's, before and after they do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use perennial_shared::manifest::Manifest;

use super::layout;
use crate::engine::{EngineError, Identity};

/// Files open on the version that wrote them and on its later patches, under the host name that wrote them: the name is that of the
/// only member in the log of the schema, and no other is ever let in.
pub(super) fn fits(manifest: &Manifest, engine: &Identity) -> Result<(), EngineError> {
    if !opens(&manifest.engine_version, &engine.version) {
        return Err(EngineError::VersionUnsupported {
            backup: manifest.engine_version.clone(),
            engine: engine.version.clone(),
            why: "files open on the version that wrote them and its later patches; start one of those, or go by a backup \
                  with `method: native`, which restores on later versions",
        });
    }
    is_named(&engine.host_name, manifest)
}

/// Whether the engine is called what the backup's was.
pub(super) fn is_named(name: &str, manifest: &Manifest) -> Result<(), EngineError> {
    if manifest.host_name.is_empty() || manifest.host_name == name {
        return Ok(());
    }
    Err(EngineError::HostNameDiffers { expected: manifest.host_name.clone(), found: name.into() })
}

fn opens(backup: &str, engine: &str) -> bool {
    match (numbers(backup), numbers(engine)) {
        (Some((b, b_patch)), Some((e, e_patch))) => b == e && b_patch <= e_patch,
        _ => backup == engine,
    }
}

fn numbers(version: &str) -> Option<((u32, u32), u32)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.').map(str::parse);
    Some(((parts.next()?.ok()?, parts.next()?.ok()?), parts.next()?.ok()?))
}

/// Whether the engine would take every file of a staged folder for what it is: beside a log, it deletes what it takes for a half
/// made copy of the log.
pub(super) fn check_staged(staged: &Path) -> Result<(), EngineError> {
    let mut folders = vec![staged.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut names = BTreeSet::new();
        for (path, is_folder) in entries(&folder).map_err(|e| EngineError::files(&folder, &e))? {
            names.extend(path.file_name().and_then(|n| n.to_str()).map(ToOwned::to_owned));
            if is_folder {
                folders.push(path);
            }
        }
        let found = layout::contradictions(&names);
        if !found.is_empty() {
            let why =
                format!("it has {}, over which the engine would lose data; restore another backup", found.join(", "));
            return Err(EngineError::Damaged { what: format!("the restored folder {}", folder.display()), why });
        }
    }
    Ok(())
}

/// Gives a staged folder to the owner of what it replaces. Only root can, and for anybody else it has the right owner already.
pub(super) fn give(staged: &Path, existing: &Path) -> io::Result<()> {
    let Ok(like) = fs::metadata(existing) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut all = vec![staged.to_owned()];
    while let Some(path) = all.pop() {
        let found = fs::symlink_metadata(&path)?;
        if (found.uid(), found.gid()) != (like.uid(), like.gid()) {
            lchown(&path, Some(like.uid()), Some(like.gid()))?;
        }
        if found.is_dir() {
            all.extend(entries(&path)?.into_iter().map(|(path, _)| path));
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    fs::read_dir(folder)?.map(|entry| entry.and_then(|e| Ok((e.path(), e.file_type()?.is_dir())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_open_on_their_version_and_its_later_patches() {
        for (backup, engine, fits) in [
            ("1.39.0", "1.39.0", true),
            ("1.39.0", "1.39.4", true),
            ("1.39.4", "1.39.0", false),
            ("1.39.0", "1.40.0", false),
            ("1.38.9", "1.39.0", false),
            ("1.39.0-rc.1", "1.39.0-rc.1", true),
            ("1.39.0-rc.1", "1.39.0", false),
        ] {
            assert_eq!(opens(backup, engine), fits, "{backup} on {engine}");
        }
    }

    #[test]
    fn a_staged_folder_with_a_log_beside_its_segment_is_refused() {
        let staged = tempfile::tempdir().expect("a folder");
        let bucket = staged.path().join("doc/s/lsm/objects");
        fs::create_dir_all(&bucket).expect("made");
        fs::write(bucket.join("segment-1.db"), "x").expect("written");
        fs::write(bucket.join("segment-2.wal"), "x").expect("written");
        check_staged(staged.path()).expect("nothing stands against it");
        fs::write(bucket.join("segment-1.wal"), "").expect("written");
        let error = check_staged(staged.path()).expect_err("a stale log");
        assert!(error.to_string().contains("segment-1.db beside the log"), "{error}");
    }
}
