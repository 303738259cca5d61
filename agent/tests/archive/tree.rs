//! Trees that are changed, and what a restore must bring back of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::noise;

/// A change to a tree. Numbers choose among what is there.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write { file: u8, size: u32, seed: u8 },
    Overwrite { file: u8, at: u32, size: u16 },
    Append { file: u8, size: u32 },
    Truncate { file: u8, to: u32 },
    Punch { file: u8, size: u32 },
    Remove { file: u8 },
    Rename { file: u8, to: u8 },
    Link { file: u8, to: u8 },
    Mode { file: u8, mode: u16 },
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u8>(), 0..200_000_u32, any::<u8>()).prop_map(|(file, size, seed)| Change::Write { file, size, seed }),
        1 => (any::<u8>(), 1_000_000..3_000_000_u32, any::<u8>()).prop_map(|(file, size, seed)| Change::Write { file, size, seed }),
        3 => (any::<u8>(), any::<u32>(), 1..2000_u16).prop_map(|(file, at, size)| Change::Overwrite { file, at, size }),
        2 => (any::<u8>(), 1..50_000_u32).prop_map(|(file, size)| Change::Append { file, size }),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(file, to)| Change::Truncate { file, to }),
        1 => (any::<u8>(), 1..4_000_000_u32).prop_map(|(file, size)| Change::Punch { file, size }),
        1 => any::<u8>().prop_map(|file| Change::Remove { file }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(file, to)| Change::Rename { file, to }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(file, to)| Change::Link { file, to }),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(file, mode)| Change::Mode { file, mode }),
    ]
}

/// A folder that is changed, with a clock of its own: every change gets an mtime that no other has.
pub(crate) struct Tree {
    pub(crate) folder: TempDir,
    clock: i64,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), clock: 1_000_000_000 }
    }

    fn path(&self, file: u8) -> PathBuf {
        let name = match file % 5 {
            0 => format!("f{file}").into_bytes(),
            1 => format!("a/{file}").into_bytes(),
            2 => format!("a/b-{file}/deep").into_bytes(),
            3 => [b"a/\xff".as_slice(), file.to_string().as_bytes()].concat(),
            _ => format!("{}{file}", "long".repeat(40)).into_bytes(),
        };
        self.folder.path().join(Path::new(std::ffi::OsStr::from_bytes(&name)))
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        let (Change::Write { file, .. }
        | Change::Overwrite { file, .. }
        | Change::Append { file, .. }
        | Change::Truncate { file, .. }
        | Change::Punch { file, .. }
        | Change::Remove { file }
        | Change::Rename { file, .. }
        | Change::Link { file, .. }
        | Change::Mode { file, .. }) = change;
        let path = self.path(*file % 12);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
        match change {
            Change::Write { size, seed, .. } => {
                let _ = fs::remove_file(&path);
                fs::write(&path, noise(*size as usize, u64::from(*seed))).expect("written");
            }
            Change::Link { to, .. } => {
                let _ = fs::remove_file(&path);
                symlink(format!("../somewhere/{to}"), &path).expect("linked");
                return;
            }
            Change::Remove { .. } => {
                let _ = fs::remove_file(&path);
                return;
            }
            Change::Rename { to, .. } if is_file => {
                let to = self.path(*to % 12);
                fs::create_dir_all(to.parent().expect("a parent")).expect("made");
                fs::rename(&path, &to).expect("renamed");
                return;
            }
            _ if !is_file => return,
            Change::Overwrite { at, size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let at = u64::from(*at) % length.max(1);
                let bytes = noise(usize::from(*size), u64::from(*size));
                fs::File::options().write(true).open(&path).expect("open").write_all_at(&bytes, at).expect("written");
            }
            Change::Append { size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let bytes = noise(*size as usize, length);
                fs::File::options()
                    .write(true)
                    .open(&path)
                    .expect("open")
                    .write_all_at(&bytes, length)
                    .expect("written");
            }
            Change::Truncate { to, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let file = fs::File::options().write(true).open(&path).expect("open");
                file.set_len(u64::from(*to) % (length + 1)).expect("cut");
            }
            Change::Punch { size, .. } => {
                let length = fs::metadata(&path).expect("there").len();
                let file = fs::File::options().write(true).open(&path).expect("open");
                file.set_len(length + u64::from(*size)).expect("grown");
                file.write_all_at(b"after the hole", length + u64::from(*size)).expect("written");
            }
            Change::Mode { mode, .. } => {
                fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(mode % 0o1000) | 0o400)).expect("set");
            }
            Change::Rename { .. } => {}
        }
        self.clock += 1;
        let at = std::time::UNIX_EPOCH + std::time::Duration::new(self.clock.unsigned_abs(), 123_456_789);
        fs::File::open(&path).expect("open").set_modified(at).expect("set");
    }
}

/// What of a file a restore must bring back.
#[derive(PartialEq)]
pub(crate) struct Facts {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
}

/// Everything about a tree that a restore must bring back.
pub(crate) fn image(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                vec![]
            } else if metadata.is_symlink() {
                fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).expect("read")
            };
            let owner = (metadata.uid(), metadata.gid());
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            let facts = Facts { mode: metadata.mode(), owner, modified, content };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), facts);
        }
    }
    found
}
