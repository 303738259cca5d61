//! What stands in the data folder and is not data: an ACL file, a configuration, a log. It is carried over to the restored folder.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::captured;

/// More than this in the data folder means that it is not the server's own, such as a home folder that it happened to start in.
pub(super) const MOST: usize = 1000;

/// Gives everything in `from` a second name in `to`, but for names of data, of files that the server was writing, and of ours.
pub(super) fn carry(from: &Path, to: &Path, data: &[&str]) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        // A server that never ran has nothing.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        if !is_data(&name, data) && !to.join(&name).exists() {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// How many files [`carry`] would carry over; it stops counting where there are too many.
pub(super) fn count(folder: &Path, data: &[&str]) -> io::Result<usize> {
    let mut count = 0;
    let mut folders = vec![(folder.to_owned(), data)];
    while let Some((folder, data)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if is_data(&entry.file_name(), data) {
                continue;
            }
            count += 1;
            if count > MOST {
                return Ok(count);
            }
            if entry.file_type()?.is_dir() {
                folders.push((entry.path(), &[]));
            }
        }
    }
    Ok(count)
}

fn is_data(name: &OsStr, data: &[&str]) -> bool {
    let name = name.to_string_lossy();
    data.contains(&&*name) || name.starts_with("temp-") || name.starts_with(".perennial-")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        let owner = |m: &fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (m.uid(), m.gid())
        };
        let (uid, gid) = owner(&found);
        if owner(&fs::metadata(to)?) != (uid, gid) {
            std::os::unix::fs::lchown(to, Some(uid), Some(gid))?;
        }
        fs::set_permissions(to, found.permissions())
    } else if found.is_symlink() {
        symlink(fs::read_link(from)?, to)
    } else if found.is_file() {
        captured::link(from, to)
    } else {
        // Sockets and pipes are made again by whoever uses them.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_data_comes_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("appendonlydir")).expect("made");
        fs::create_dir_all(from.join("conf/more")).expect("made");
        fs::create_dir(&to).expect("made");
        for file in ["dump.rdb", "temp-7.rdb", "users.acl", "conf/more/a.conf", ".perennial-restored"] {
            fs::write(from.join(file), file).expect("written");
        }
        symlink("users.acl", from.join("link")).expect("a link");
        let data = ["dump.rdb", "appendonlydir"];
        assert_eq!(count(&from, &data).expect("counted"), 5);
        carry(&from, &to, &data).expect("carried");
        carry(&from, &to, &data).expect("again");
        let mut names: Vec<_> = fs::read_dir(&to).expect("read").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["conf", "link", "users.acl"]);
        assert_eq!(fs::read_to_string(to.join("conf/more/a.conf")).expect("read"), "conf/more/a.conf");
    }
}
