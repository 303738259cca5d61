//! The table: what each thing that was seen means.

use super::{Appended, Seen, restart};
use crate::check::{Check, Found};

pub(super) fn all(seen: &Seen) -> Vec<Check> {
    vec![
        persistence(seen),
        append_only_files(seen),
        restart::check(seen),
        saving(seen),
        durability(seen),
        room(seen),
        place(seen),
        role(seen),
        writes(seen),
    ]
}

/// What was found in one area: the worst of it decides, all of it is said.
pub(super) fn judged(name: &'static str, problems: Vec<String>, warnings: Vec<String>, good: String) -> Check {
    let found = match (problems.is_empty(), warnings.is_empty()) {
        (false, _) => Found::Problem,
        (true, false) => Found::Warning,
        (true, true) => return Check::good(name, good),
    };
    Check { name, found, detail: problems.into_iter().chain(warnings).collect::<Vec<_>>().join("; ") }
}

/// Whether anything outlives a restart.
fn persistence(seen: &Seen) -> Check {
    const NAME: &str = "persistence";
    match (seen.is_append_only(), seen.has_save_points()) {
        (true, _) => Check::good(NAME, "append-only files"),
        (false, false) => Check::problem(
            NAME,
            "`appendonly no` and `save \"\"`: nothing survives a restart but what a backup saved; turn one of them on",
        ),
        (false, true) => {
            let changes = seen.info.number("rdb_changes_since_last_save").unwrap_or(0);
            let age = seen.now.saturating_sub(seen.info.number("rdb_last_save_time").unwrap_or(seen.now));
            let detail = format!(
                "point-in-time files alone: a crash loses what was written since the last one ({changes} changes, {} min ago); \
                 `appendonly yes` loses a second at most",
                age / 60
            );
            Check::warning(NAME, detail)
        }
    }
}

/// Whether the files are those that the next start reads.
fn append_only_files(seen: &Seen) -> Check {
    const NAME: &str = "append-only files";
    let Some(appended) = &seen.disk.appended else {
        return Check::not_checked(NAME, "the server's data folder cannot be seen from here; set `data_dir`");
    };
    match (seen.is_append_only(), appended) {
        (true, Appended::Whole) => Check::good(NAME, "all there"),
        (true, Appended::Absent) => Check::problem(
            NAME,
            "`appendonly yes` and there are none: the next start is empty, whatever the point-in-time file holds; run BGREWRITEAOF",
        ),
        (true, Appended::Broken(why)) => Check::problem(NAME, format!("the next start fails or is empty: {why}")),
        (false, Appended::Absent) => Check::good(NAME, "none, as `appendonly no` says"),
        (false, _) => Check::warning(
            NAME,
            "`appendonly no` and there are old ones: a later `appendonly yes` and a restart would go back to their time; move \
             them away",
        ),
    }
}

/// Whether the server can write what it means to write.
fn saving(seen: &Seen) -> Check {
    let failed = |field: &str| !matches!(seen.info.text(field), "" | "ok");
    let (mut problems, mut warnings) = (vec![], vec![]);
    if failed("rdb_last_bgsave_status") {
        problems.push("the last save failed, and the server may refuse writes for it; its own log says why".to_owned());
    }
    if failed("aof_last_write_status") {
        problems.push("the last write to the append-only files failed; its own log says why".to_owned());
    }
    if failed("aof_last_bgrewrite_status") || seen.info.is_on("aof_rewrites_consecutive_failures") {
        warnings.push("the last rewrite of the append-only files failed, and they grow without bound".to_owned());
    }
    if seen.is_append_only() && seen.setting("auto-aof-rewrite-percentage") == "0" {
        warnings.push("`auto-aof-rewrite-percentage 0`: the append-only files grow without bound".to_owned());
    }
    if seen.has_save_points() && seen.setting("stop-writes-on-bgsave-error") == "no" {
        warnings.push("`stop-writes-on-bgsave-error no`: saves that fail go unnoticed".to_owned());
    }
    if seen.setting("rdbchecksum") == "no" {
        warnings.push("`rdbchecksum no`: damage to a point-in-time file cannot be found".to_owned());
    }
    judged("saving", problems, warnings, "the last save and the last write succeeded".into())
}

/// How much of what was acknowledged a power cut takes.
fn durability(seen: &Seen) -> Check {
    let mut warnings = vec![];
    if seen.is_append_only() {
        if seen.setting("appendfsync") == "no" {
            warnings.push("`appendfsync no`: a power cut takes what the system had not written, some 30 s".to_owned());
        }
        if seen.setting("no-appendfsync-on-rewrite") == "yes" {
            warnings.push(
                "`no-appendfsync-on-rewrite yes`: a power cut during a rewrite takes all written since its begin"
                    .into(),
            );
        }
        if seen.info.is_on("aof_delayed_fsync") {
            warnings.push("the disk was too slow for `appendfsync` at times (aof_delayed_fsync)".to_owned());
        }
    }
    judged("durability", vec![], warnings, "as far as the settings can".into())
}

/// What a save needs of the machine.
fn room(seen: &Seen) -> Check {
    const NAME: &str = "room to save";
    let Some((free, needed)) = seen.disk.room else {
        return Check::not_checked(NAME, "the server's data folder cannot be seen from here; set `data_dir`");
    };
    let (mut problems, mut warnings) = (vec![], vec![]);
    let summary = format!("{} MiB free, about {} needed", free >> 20, needed >> 20);
    if free < needed {
        problems.push(format!("{summary}: a save would fail, and then the server may refuse writes"));
    }
    if seen.disk.overcommit.as_deref().is_some_and(|o| o != "1") {
        warnings.push("vm.overcommit_memory is not 1: the server may have no memory to begin a save with".into());
    }
    if seen.disk.huge_pages.as_deref().is_some_and(|h| h.contains("[always]")) {
        warnings.push("transparent huge pages are on: a save makes the server slow and takes more memory".into());
    }
    judged(NAME, problems, warnings, summary)
}

/// Whether the data folder outlives the machine.
fn place(seen: &Seen) -> Check {
    const NAME: &str = "place of the data";
    match seen.disk.fleeting {
        Some(kind) => Check::problem(NAME, format!("{} is {kind} and is lost with it", seen.disk.folder)),
        None => Check::good(NAME, seen.disk.folder.clone()),
    }
}

/// Replicas copy whatever their master has, also nothing.
fn role(seen: &Seen) -> Check {
    const NAME: &str = "replication";
    if seen.info.text("role") != "master" {
        let link = seen.info.text("master_link_status");
        let behind = seen.info.number("master_last_io_seconds_ago").unwrap_or(0);
        let detail = format!(
            "this server is a replica (link {link}, heard {behind} s ago): backups are as old as its data, and a restore is \
             overwritten by its master"
        );
        return Check::warning(NAME, detail);
    }
    let replicas = seen.info.number("connected_slaves").unwrap_or(0);
    if replicas > 0 && !seen.is_append_only() && !seen.has_save_points() {
        let detail = format!("{replicas} replicas of a server that saves nothing: a restart empties it, and then them");
        return Check::problem(NAME, detail);
    }
    Check::good(NAME, format!("a master with {replicas} replicas"))
}

/// Writes that a final backup refused and nobody accepts again.
fn writes(seen: &Seen) -> Check {
    const NAME: &str = "writes";
    if seen.writes_refused {
        return Check::warning(
            NAME,
            "refused since a final backup; `CONFIG SET min-replicas-to-write 0` accepts them again",
        );
    }
    Check::good(NAME, "accepted")
}

#[cfg(test)]
mod tests;
