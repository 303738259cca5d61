//! A staged backup becomes a data folder that the server loads.
//!
//! Redis reads either its point-in-time file or its append-only files, never both, and says nothing of what it does not read: with
//! `appendonly yes` and a point-in-time file alone it starts empty, and overwrites that file when it stops. So a backup that has
//! one is arranged for either: under its own name, and once more as the base of append-only files. Append-only files are cut
//! behind their last whole command. What else stands in the data folder (an ACL file, a configuration) comes along.
//!
//! Every file is read to its end before it counts. A crash leaves the staged folder half arranged; a record in it says what of it is
//! the backup's, and the next run begins with that.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::aof::{self, List};
use super::appended::{Begins, damaged, is_not_the_last, kind};
use super::captured;
use super::layout::Layout;
use super::{others, rdb};
use crate::engine::EngineError;

/// The record's name. It is removed when the restore is committed.
pub(super) const RECORD: &str = ".perennial-restored";

/// What of a staged folder is the backup's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    /// The point-in-time file.
    dump: Option<String>,
    /// The folder of append-only files.
    appended: Option<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Arranged {
    /// What the point-in-time file, or the base of the append-only files, says of itself.
    pub(super) summary: Option<rdb::Summary>,
    /// Whether the server finds the data only with `appendonly yes`.
    pub(super) needs_append_only: bool,
    /// What a person should know.
    pub(super) findings: Vec<String>,
}

/// Arranges `staged` for a server whose data folder is `data_dir`.
pub(super) fn arrange(staged: &Path, data_dir: &Path, layout: &Layout) -> Result<Arranged, EngineError> {
    let own = Own::of(staged)?;
    let mut arranged = Arranged { needs_append_only: own.dump.is_none(), ..Arranged::default() };
    if let Some(name) = &own.dump {
        arranged.summary = Some(rdb::check(&staged.join(name))?);
    }
    if let Some(name) = &own.appended {
        let base = check_appended(&staged.join(name), &mut arranged.findings)?;
        arranged.summary = arranged.summary.or(base);
    }
    let files = |e: io::Error| EngineError::files(staged, &e);
    own.name(staged, layout).map_err(files)?;
    if own.appended.is_none() {
        base_of_dump(staged, layout).map_err(files)?;
    }
    others::carry(data_dir, staged, &[&layout.dump, &layout.aof_folder]).map_err(files)?;
    give(staged, data_dir, layout).map_err(files)?;
    Ok(arranged)
}

impl Own {
    /// From the record of an earlier run, or by looking, and then recorded. What an earlier run added is removed.
    fn of(staged: &Path) -> Result<Self, EngineError> {
        let files = |e: io::Error| EngineError::files(staged, &e);
        let record = staged.join(RECORD);
        if let Some(own) = fs::read(&record).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok()) {
            for entry in fs::read_dir(staged).map_err(files)? {
                let name = entry.map_err(files)?.file_name();
                let ours = [&own.dump, &own.appended].into_iter().flatten().any(|n| name == n.as_str());
                if !ours && name != RECORD {
                    remove(&staged.join(name)).map_err(files)?;
                }
            }
            return Ok(own);
        }
        let own = Self::look(staged)?;
        fs::write(&record, serde_json::to_vec(&own).unwrap_or_default()).map_err(files)?;
        File::open(&record).and_then(|f| f.sync_all()).map_err(files)?;
        Ok(own)
    }

    /// A backup has at most one file and one folder at its top.
    fn look(staged: &Path) -> Result<Self, EngineError> {
        let files = |e: io::Error| EngineError::files(staged, &e);
        let damaged = |why: &str| EngineError::Damaged { what: "the backup".into(), why: why.into() };
        let mut own = Self::default();
        for entry in fs::read_dir(staged).map_err(files)? {
            let entry = entry.map_err(files)?;
            let name = entry.file_name().into_string().map_err(|_| damaged("a name in it is not text"))?;
            if name == RECORD {
                continue;
            }
            let place = if entry.file_type().map_err(files)?.is_dir() { &mut own.appended } else { &mut own.dump };
            if place.replace(name).is_some() {
                return Err(damaged("it has more than one point-in-time file or folder of append-only files"));
            }
        }
        if own == Self::default() {
            return Err(damaged("it has neither a point-in-time file nor append-only files"));
        }
        Ok(own)
    }

    /// Gives everything the names that the server looks for.
    fn name(&self, staged: &Path, layout: &Layout) -> io::Result<()> {
        if let Some(name) = &self.dump {
            rename(staged, name, &layout.dump)?;
        }
        if let Some(name) = &self.appended {
            rename(staged, name, &layout.aof_folder)?;
            let folder = staged.join(&layout.aof_folder);
            if let Some(list) = list_in(&folder)? {
                rename(&folder, &list, &layout.aof_manifest())?;
            }
        }
        Ok(())
    }
}

fn rename(folder: &Path, from: &str, to: &str) -> io::Result<()> {
    if from == to { Ok(()) } else { fs::rename(folder.join(from), folder.join(to)) }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn list_in(folder: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".manifest") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Reads append-only files to their end and cuts the last one. What the base says of itself, where it is a point-in-time file.
fn check_appended(folder: &Path, findings: &mut Vec<String>) -> Result<Option<rdb::Summary>, EngineError> {
    let Some(name) = list_in(folder).map_err(|e| EngineError::files(folder, &e))? else {
        return Err(EngineError::Damaged {
            what: folder.display().to_string(),
            why: "the list of its files is missing".into(),
        });
    };
    let path = folder.join(name);
    let text = fs::read_to_string(&path).map_err(|e| EngineError::files(&path, &e))?;
    let list = List::parse(&path.display().to_string(), &text)?;
    let mut summary = None;
    for (n, part) in list.parts.iter().enumerate() {
        let path = folder.join(&part.name);
        match kind(&path).map_err(|e| damaged(&path, &e))? {
            Begins::AsDump => summary = Some(rdb::check(&path)?),
            Begins::AsDumpWithCommands => {
                findings.push(format!("{} was written by Redis 6 and is not looked into", part.name));
            }
            Begins::Otherwise => {
                let (cut, whole) = cut(&path).map_err(|e| damaged(&path, &e))?;
                if cut > 0 && n + 1 < list.parts.len() {
                    return Err(is_not_the_last(&path, cut));
                }
                if cut > 0 {
                    findings.push(format!(
                        "{}: {cut} bytes of a command that was being written were cut off behind {whole}",
                        part.name
                    ));
                }
            }
        }
    }
    Ok(summary)
}

/// Cuts a file of commands behind the last whole one: bytes cut off, bytes kept.
fn cut(path: &Path) -> io::Result<(u64, u64)> {
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let walked = aof::walk(&mut BufReader::with_capacity(256 << 10, &file))?;
    if walked.whole < size {
        file.set_len(walked.whole)?;
        file.sync_all()?;
    }
    Ok((size - walked.whole, walked.whole))
}

/// The point-in-time file as the base of append-only files.
fn base_of_dump(staged: &Path, layout: &Layout) -> io::Result<()> {
    let folder = staged.join(&layout.aof_folder);
    fs::create_dir(&folder)?;
    let base = format!("{}.1.base.rdb", layout.aof_name);
    captured::link(&staged.join(&layout.dump), &folder.join(&base))?;
    let list = folder.join(layout.aof_manifest());
    fs::write(&list, List::of_base(&base).text())?;
    File::open(&list)?.sync_all()?;
    File::open(&folder)?.sync_all()
}

/// Gives the data to the owner of the data folder, with that folder's mode, where we may.
fn give(staged: &Path, data_dir: &Path, layout: &Layout) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Ok(there) = fs::metadata(data_dir) else { return Ok(()) };
    fs::set_permissions(staged, there.permissions())?;
    if rustix::process::geteuid().is_root() {
        let folder = staged.join(&layout.aof_folder);
        let inside = fs::read_dir(&folder)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        let dump = Some(staged.join(&layout.dump)).filter(|d| d.exists());
        for path in inside.into_iter().chain(dump).chain([folder, staged.join(RECORD), staged.to_owned()]) {
            std::os::unix::fs::lchown(&path, Some(there.uid()), Some(there.gid()))?;
        }
    }
    File::open(staged)?.sync_all()
}
