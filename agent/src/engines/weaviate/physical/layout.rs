//! What each file of Weaviate's data folder is, by its name: whether it is linked or copied, how far it belongs to an instant, and
//! which names cannot stand beside each other. Pure.
//!
//! | name | what the engine does to it | in a capture |
//! |---|---|---|
//! | `segment-<id>….db`, `.bloom`, `.cna`, `.metadata` | written aside, renamed, never changed | linked |
//! | `segment-<id>.wal`, `<vector>.hnsw.commitlog.d/<digits>` | appended to | linked, with its length |
//! | `.sorted`, `.condensed`, `.snapshot` of a vector's log | written aside, renamed, never changed | linked |
//! | `.tmp`, `.deleteme`, what a backup of its own stages | scratch | left out |
//! | all else: counters, bbolt files, `raft/`, queues | changed in place | copied |
//!
//! A name is no promise of content: a cleaned segment takes the name of the old one. Only the inode tells them apart.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use perennial_shared::archive::path::RelPath;

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Its bytes never change: a hard link holds them.
    Link,
    /// Bytes are only added to it: a hard link and a length hold it.
    Grow,
    /// Its bytes are changed in place.
    Copy,
    /// It is no part of the data.
    Skip,
}

/// What is done with the file `name` in `folder`.
pub(super) fn of_file(folder: &RelPath, name: &OsStr) -> Treatment {
    let Some(name) = name.to_str() else { return Treatment::Copy };
    if is_scratch(name) {
        return Treatment::Skip;
    }
    let folder = folder.as_path();
    if folder.starts_with("raft") {
        return Treatment::Copy;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "wal" if name.starts_with(SEGMENT) => Treatment::Grow,
        "db" | "bloom" | "cna" | "metadata" if name.starts_with(SEGMENT) => Treatment::Link,
        "sorted" | "condensed" | "snapshot" => Treatment::Link,
        _ if is_raw_log(name) && is_log_folder(folder) => Treatment::Grow,
        _ => Treatment::Copy,
    }
}

/// Whether a folder or file is scratch, of the engine or of its own backups.
pub(super) fn is_scratch(name: &str) -> bool {
    let ended = [".tmp", ".deleteme"].iter().any(|end| name.ends_with(end));
    ended || [".backup-staging-", "__DELETE_ME_AFTER_BACKUP__"].iter().any(|begin| name.starts_with(begin))
}

/// Whether the file is small and changed rarely, so that a copy made earlier is often still right.
pub(super) fn is_counter(name: &OsStr) -> bool {
    ["indexcount", "proplengths", "version"].iter().any(|counter| name == *counter)
}

const SEGMENT: &str = "segment-";

fn is_raw_log(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
}

fn is_log_folder(folder: &std::path::Path) -> bool {
    folder.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(".commitlog.d"))
}

/// Whether a bucket is between two states: the joined segment has its scratch name still, and one of the two that it replaces is
/// gone. The engine itself would put the scratch file in place at a start; a capture waits the moment until it has.
pub(super) fn is_switching(names: &BTreeSet<String>) -> bool {
    let joined = names.iter().filter_map(|n| n.strip_prefix(SEGMENT)?.strip_suffix(".db.tmp"));
    let pairs = joined.filter_map(|n| n.split('.').next()?.split_once('_'));
    let exists = |id: &str| of_segment(names, id).any(|n| n.rsplit('.').next() == Some("db"));
    pairs.into_iter().any(|(left, right)| !exists(left) || !exists(right))
}

/// Names of a folder that the engine would remove at its next start, because the log that they were made of is there still: it
/// believes the log. It leaves such pairs behind for the moment between finishing a file and removing its log.
pub(super) fn superseded(names: &BTreeSet<String>) -> Vec<String> {
    let mut found = vec![];
    for name in names {
        if let Some(id) = name.strip_prefix(SEGMENT).and_then(|n| n.strip_suffix(".wal")) {
            found.extend(of_segment(names, id).filter(|n| *n != name).cloned());
        } else if is_raw_log(name) {
            found.extend(
                [".sorted", ".condensed"].iter().map(|end| format!("{name}{end}")).filter(|n| names.contains(n)),
            );
        }
    }
    found
}

/// Everything of a folder that must not be in a capture, and why a restore of it would lose data.
pub(super) fn contradictions(names: &BTreeSet<String>) -> Vec<String> {
    let mut found: Vec<_> =
        superseded(names).into_iter().map(|n| format!("{n} beside the log that it was made of")).collect();
    found.extend(names.iter().filter(|n| is_scratch(n)).map(|n| format!("{n}, which is scratch")));
    found
}

/// All files of a segment.
fn of_segment<'a>(names: &'a BTreeSet<String>, id: &str) -> impl Iterator<Item = &'a String> + use<'a> {
    let begin = format!("{SEGMENT}{id}.");
    names.range(begin.clone()..).take_while(move |n| n.starts_with(&begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn every_kind_of_file_is_told_by_its_name() {
        let of = |path: &str| {
            let path = std::path::Path::new(path);
            let folder = RelPath::checked(path.parent().expect("a folder").to_str().expect("text").as_bytes());
            of_file(&folder.expect("a path"), path.file_name().expect("a name"))
        };
        for (path, treatment) in [
            ("doc/s/lsm/objects/segment-17.l0.s5.db", Treatment::Link),
            ("doc/s/lsm/objects/segment-17.secondary.0.bloom", Treatment::Link),
            ("doc/s/lsm/objects/segment-17.wal", Treatment::Grow),
            ("doc/s/lsm/objects/segment-17_18.l1.s5.db.tmp", Treatment::Skip),
            ("doc/s/lsm/objects/segment-17.db.0000000000123.deleteme", Treatment::Skip),
            ("doc/s/lsm/objects/edits.db", Treatment::Copy),
            ("doc/s/main.hnsw.commitlog.d/1771", Treatment::Grow),
            ("doc/s/main.hnsw.commitlog.d/1771.sorted", Treatment::Link),
            ("doc/s/main.hnsw.snapshot.d/1771_1772.snapshot", Treatment::Link),
            ("doc/s/main.queue.d/chunk-1.bin", Treatment::Copy),
            ("doc/s/indexcount", Treatment::Copy),
            ("doc/s/index.db", Treatment::Copy),
            ("doc/s/meta_title.db", Treatment::Copy),
            ("schema.db", Treatment::Copy),
            ("raft/raft.db", Treatment::Copy),
            ("raft/snapshots/2-17-1771/1771.snapshot", Treatment::Copy),
            ("doc/1771", Treatment::Copy),
        ] {
            assert_eq!(of(path), treatment, "{path}");
        }
        assert!(is_scratch(".backup-staging-b1-doc-a1") && is_scratch(".backup.tmp") && !is_scratch("doc"));
    }

    #[test]
    fn a_joined_segment_is_missed_only_while_one_of_its_parts_is_gone() {
        let joined = "segment-1_2.l1.s5.db.tmp";
        assert!(!is_switching(&names(&["segment-1.l0.s5.db", "segment-2.l0.s5.db", joined])), "not begun");
        assert!(is_switching(&names(&["segment-2.l0.s5.db", "segment-1.l0.s5.db.9.deleteme", joined])));
        assert!(is_switching(&names(&["segment-1.l0.s5.db.9.deleteme", "segment-2.l0.s5.db.9.deleteme", joined])));
        assert!(!is_switching(&names(&["segment-2.l1.s5.db", "segment-1.l0.s5.db.9.deleteme"])), "done");
        assert!(
            !is_switching(&names(&["segment-2.db", "segment-2.db.tmp"])),
            "a cleaned segment is swapped in one step"
        );
        assert!(is_switching(&names(&["segment-1.db", "segment-22.db", joined])), "22 is not 2");
    }

    #[test]
    fn a_log_is_believed_before_what_was_made_of_it() {
        let held = names(&[
            "segment-1.l0.s5.db",
            "segment-2.l0.s5.bloom",
            "segment-2.l0.s5.db",
            "segment-2.wal",
            "segment-22.db",
        ]);
        assert_eq!(superseded(&held), ["segment-2.l0.s5.bloom", "segment-2.l0.s5.db"]);
        assert_eq!(superseded(&names(&["17", "17.sorted", "16.sorted"])), ["17.sorted"]);
        assert!(superseded(&names(&["17", "16.sorted", "segment-3.wal", "segment-2.db"])).is_empty());
        assert_eq!(contradictions(&names(&["17", "17.sorted", "x.tmp"])).len(), 2);
    }
}
