//! Paths inside an archive: bytes, relative, harmless.
//!
//! File names are bytes on Linux, not text. The order is that of a walk that visits a folder before what is in it and the names of a
//! folder by their bytes, so that a walk and an index can be read side by side.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Linux takes no longer path in one call.
pub const LONGEST: usize = 4096;
const LONGEST_NAME: usize = 255;

/// A path below the archived folder; empty for the folder itself.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// The archived folder itself.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// A path from bytes that may come from anywhere: refused when it is absolute, leaves its folder, or no file system has it.
    pub fn checked(bytes: &[u8]) -> Result<Self, String> {
        let path = Self(bytes.to_vec());
        path.check().map(|()| path)
    }

    /// See [`RelPath::checked`]; for paths that were decoded.
    pub fn check(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let harmless = self.0.len() < LONGEST
            && !self.0.contains(&0)
            && self
                .0
                .split(|b| *b == b'/')
                .all(|name| !name.is_empty() && name != b"." && name != b".." && name.len() <= LONGEST_NAME);
        if harmless { Ok(()) } else { Err(format!("the path {self} leaves the folder or cannot be a file's")) }
    }

    /// The path of `name` in this folder.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes)
    }

    /// As bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Below `root` on this machine.
    pub fn under(&self, root: &Path) -> std::path::PathBuf {
        if self.0.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&self.0)) }
    }

    /// For globs and the file system's calls.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether it is in `folder`, at any depth.
    pub fn is_below(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(folder.0.as_slice());
        rest.is_some_and(|rest| if folder.0.is_empty() { !rest.is_empty() } else { rest.first() == Some(&b'/') })
    }

    /// The folder that it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts before everything else: what is in a folder stands before the folder's next neighbour.
        let key = |b: &u8| if *b == b'/' { 0 } else { u16::from(*b) + 1 };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { write!(f, "{}", self.0.escape_ascii()) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for bad in ["/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\0b"] {
            assert!(RelPath::checked(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(RelPath::checked(&[b'a'; 256]).is_err(), "no file system has such a name");
        for good in ["", "a", "a/b", "..a", "a..b/c.", "\u{fffd}"] {
            assert!(RelPath::checked(good.as_bytes()).is_ok(), "{good}");
        }
        assert!(RelPath::checked(b"\xff\xfe/x").is_ok(), "names need not be UTF-8");
    }

    #[test]
    fn the_order_is_that_of_a_walk() {
        let mut paths: Vec<_> = ["a-b", "a/z", "", "b", "a", "a/b/c", "a/b"]
            .iter()
            .map(|p| RelPath::checked(p.as_bytes()).expect("good"))
            .collect();
        paths.sort();
        let sorted: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, [".", "a", "a/b", "a/b/c", "a/z", "a-b", "b"]);
        assert_eq!(paths[3].parent().map(|p| p.to_string()).as_deref(), Some("a/b"));
    }
}
