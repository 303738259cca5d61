//! Names: of collections as folders, of the collections that a restore makes beside live ones, and what such a one is called.
//!
//! A collection may be called nearly anything, also `..` in an archive that somebody else made. On the disk a name is letters,
//! digits, `-`, `_` and dots that are not first; every other byte is `%` and two hexadecimal digits.

use std::collections::BTreeMap;
use std::fmt::Write;

use perennial_shared::verify::sha256_hex;

/// What stands between a collection's name and the restore's mark in the name of its copy.
const COPY: &str = ".perennial-";
/// Longest name of a collection, in bytes.
const LONGEST: usize = 255;
/// A folder's name must fit into what file systems take.
const LONGEST_FOLDER: usize = 240;

/// The folder of a collection; `None` for a name that does not fit into one.
pub(super) fn to_folder(name: &str) -> Option<String> {
    let mut folder = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (byte == b'.' && at > 0) {
            folder.push(char::from(byte));
        } else {
            let _ = write!(folder, "%{byte:02x}");
        }
    }
    (!folder.is_empty() && folder.len() <= LONGEST_FOLDER).then_some(folder)
}

/// The collection of a folder; `None` if [`to_folder`] never made it.
pub(super) fn from_folder(folder: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = folder.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        bytes.push(*hex::decode(rest.get(..2)?).ok()?.first()?);
        rest = &rest[2..];
    }
    let name = String::from_utf8(bytes).ok()?;
    (to_folder(&name)? == folder).then_some(name)
}

/// The mark of a restore: the same for the same restore begun again.
pub(super) fn mark(tag: &str) -> String {
    sha256_hex(tag.as_bytes())[..8].to_owned()
}

/// The name of a collection's copy; `taken` names are avoided.
pub(super) fn copy(name: &str, tag: &str, taken: impl Fn(&str) -> bool) -> String {
    let stem = format!("{}{COPY}{}", shortened(name), mark(tag));
    let numbered = (2..).map(|n| format!("{stem}-{n}"));
    std::iter::once(stem.clone()).chain(numbered).find(|n| !taken(n)).unwrap_or(stem)
}

/// As much of a name as a copy's has room for.
fn shortened(name: &str) -> &str {
    let mut room = name.len().min(LONGEST - COPY.len() - 16);
    while !name.is_char_boundary(room) {
        room -= 1;
    }
    &name[..room]
}

/// Whether a collection is the copy that a restore makes of what is called `name`.
pub(super) fn is_copy_of(collection: &str, name: &str) -> bool {
    is_copy(collection) && collection.rsplit_once(COPY).is_some_and(|(stem, _)| stem == shortened(name))
}

/// What clients call a collection: a copy that a restore left behind an alias of its original's name is called by that alias. So
/// the next backup calls it as the last one did, and restores it under its own name where nothing is.
pub(super) fn called<'a>(collection: &'a str, aliases: &'a BTreeMap<String, String>) -> &'a str {
    let mut of_it = aliases.iter().filter(|(_, shown)| *shown == collection).map(|(alias, _)| alias.as_str());
    of_it.find(|alias| is_copy_of(collection, alias)).unwrap_or(collection)
}

/// Whether a collection is the copy that a restore makes.
pub(super) fn is_copy(name: &str) -> bool {
    let mark = name.rsplit_once(COPY).map(|(_, mark)| mark.split('-').next().unwrap_or_default());
    mark.is_some_and(|m| m.len() == 8 && m.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_folder_of_its_own_and_comes_back() {
        for name in ["docs", "docs-v1.2", "..", ".hidden", "ä b", "100%", "a\\b", "A", "%2e", "x\u{1}"] {
            let folder = to_folder(name).expect("short");
            assert!(!folder.starts_with('.') && !folder.contains(['/', '\\', ' ']), "{folder}");
            assert_eq!(from_folder(&folder).as_deref(), Some(name));
        }
        assert_eq!(to_folder(""), None);
        assert_eq!(to_folder(&"ä".repeat(100)), None);
    }

    #[test]
    fn folders_that_nobody_of_us_made_are_not_read() {
        for folder in ["%2E", "%64ocs", "%zz", "%", "..", "%ff", "a b"] {
            assert_eq!(from_folder(folder), None, "{folder}");
        }
    }

    #[test]
    fn a_copy_has_the_same_name_each_time_and_takes_nobodys() {
        let first = copy("docs", "b1", |_| false);
        assert_eq!(first, copy("docs", "b1", |_| false));
        assert_ne!(first, copy("docs", "b2", |_| false));
        let second = copy("docs", "b1", |n| n == first);
        assert_eq!(second, format!("{first}-2"));
        assert!(is_copy(&first) && is_copy(&second) && !is_copy("docs") && !is_copy("docs.perennial-x"));
        assert!(copy(&"ä".repeat(127), "b1", |_| false).len() <= LONGEST);
    }

    #[test]
    fn a_copy_is_called_by_the_alias_that_has_its_original_s_name() {
        let called_with = |collection: &str, pairs: &[(&str, &str)]| {
            let aliases = pairs.iter().map(|(a, c)| ((*a).to_owned(), (*c).to_owned())).collect();
            called(collection, &aliases).to_owned()
        };
        let docs = copy("docs", "b1", |_| false);
        assert_eq!(called_with(&docs, &[("all", &docs), ("docs", &docs)]), "docs");
        assert_eq!(called_with(&format!("{docs}-2"), &[("docs", &format!("{docs}-2"))]), "docs");
        assert_eq!(called_with(&docs, &[("now", &docs), ("docs", "another")]), docs);
        assert_eq!(called_with("docs-1", &[("docs", "docs-1")]), "docs-1", "somebody's own name");
        let (long, copy_of_copy) = ("ä".repeat(127), copy(&docs, "b2", |_| false));
        let copy_of_long = copy(&long, "b1", |_| false);
        assert_eq!(called_with(&copy_of_long, &[(&long, &copy_of_long)]), long);
        assert_eq!(called_with(&copy_of_copy, &[("docs", &copy_of_copy)]), copy_of_copy);
    }
}
