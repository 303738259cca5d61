use super::super::{Disk, Info, restart::startup};
use super::*;

/// A server as it should be.
fn good() -> Seen {
    let settings = [
        ("appendonly", "yes"),
        ("save", "3600 1"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "no"),
        ("auto-aof-rewrite-percentage", "100"),
        ("stop-writes-on-bgsave-error", "yes"),
        ("rdbchecksum", "yes"),
        ("dir", "/data"),
        ("dbfilename", "dump.rdb"),
        ("appendfilename", "appendonly.aof"),
        ("appenddirname", "appendonlydir"),
        ("maxmemory", "0"),
    ];
    let info = "role:master\r\nconnected_slaves:0\r\nrdb_last_bgsave_status:ok\r\naof_last_write_status:ok\r\n\
                aof_last_bgrewrite_status:ok\r\nrdb_last_save_time:940\r\nrdb_changes_since_last_save:7\r\n";
    Seen {
        info: Info::parse(info),
        settings: settings.into_iter().map(|(k, v)| (k, v.to_owned())).collect(),
        startup: Some(startup("appendonly yes\ndir /data\n")),
        config_file: "/etc/redis.conf".into(),
        disk: Disk {
            folder: "/data".into(),
            appended: Some(Appended::Whole),
            room: Some((1000, 120)),
            fleeting: None,
            overcommit: Some("1".into()),
            huge_pages: Some("always [madvise] never".into()),
        },
        writes_refused: false,
        now: 1000,
    }
}

#[track_caller]
fn says(seen: &Seen, name: &str, found: Found, word: &str) {
    let check = all(seen).into_iter().find(|c| c.name == name).expect("looked at");
    assert!(check.found == found && check.detail.contains(word), "{check:?}");
}

fn with(change: impl Fn(&mut Seen)) -> Seen {
    let mut seen = good();
    change(&mut seen);
    seen
}

fn set(name: &'static str, value: &str) -> Seen {
    with(|seen| drop(seen.settings.insert(name, value.into())))
}

fn info(line: &str) -> Seen {
    with(|seen| seen.info = Info::parse(&format!("role:master\r\n{line}\r\n")))
}

#[test]
fn a_server_as_it_should_be_is_good() {
    for check in all(&good()) {
        assert_eq!(check.found, Found::Good, "{check:?}");
    }
}

#[test]
fn what_loses_data_is_a_problem() {
    let nothing = with(|seen| {
        seen.settings.insert("appendonly", "no".into());
        seen.settings.insert("save", String::new());
    });
    says(&nothing, "persistence", Found::Problem, "nothing survives");
    let replicated = with(|seen| {
        seen.settings.insert("appendonly", "no".into());
        seen.settings.insert("save", String::new());
        seen.info = Info::parse("role:master\r\nconnected_slaves:2\r\n");
    });
    says(&replicated, "replication", Found::Problem, "2 replicas");
    let absent = with(|seen| seen.disk.appended = Some(Appended::Absent));
    says(&absent, "append-only files", Found::Problem, "next start is empty");
    let broken = with(|seen| seen.disk.appended = Some(Appended::Broken("x is missing".into())));
    says(&broken, "append-only files", Found::Problem, "x is missing");
    says(&info("rdb_last_bgsave_status:err"), "saving", Found::Problem, "last save failed");
    says(&info("aof_last_write_status:err"), "saving", Found::Problem, "last write");
    let full = with(|seen| seen.disk.room = Some((100 << 20, 120 << 20)));
    says(&full, "room to save", Found::Problem, "100 MiB free, about 120 needed");
    let fleeting = with(|seen| seen.disk.fleeting = Some("in memory (tmpfs)"));
    says(&fleeting, "place of the data", Found::Problem, "tmpfs");
}

#[test]
fn what_a_restart_would_change_is_said() {
    let drifted = with(|seen| seen.startup = Some(startup("dir /data\n")));
    says(&drifted, "restart", Found::Problem, "`appendonly` is yes");
    says(&with(|seen| seen.startup = Some(startup("appendonly yes\ndir /other"))), "restart", Found::Problem, "/other");
    let saves = with(|seen| seen.startup = Some(startup("appendonly yes\nsave \"\"\n")));
    says(&saves, "restart", Found::Warning, "has none");
    let limit = with(|seen| seen.startup = Some(startup("appendonly yes\nmaxmemory 1gb\n")));
    says(&limit, "restart", Found::Warning, "1073741824");
    let included = with(|seen| seen.startup = Some(startup("appendonly yes\ninclude more.conf\n")));
    says(&included, "restart", Found::Warning, "includes other files");
    says(&with(|seen| seen.startup = None), "restart", Found::Warning, "cannot be read");
    let bare = with(|seen| {
        seen.startup = None;
        seen.config_file.clear();
    });
    says(&bare, "restart", Found::Warning, "without a configuration file");
}

#[test]
fn what_somebody_should_think_about_is_a_warning() {
    says(&set("appendonly", "no"), "persistence", Found::Warning, "7 changes, 1 min ago");
    says(&set("appendonly", "no"), "append-only files", Found::Warning, "old ones");
    says(&set("appendfsync", "no"), "durability", Found::Warning, "appendfsync no");
    says(&set("no-appendfsync-on-rewrite", "yes"), "durability", Found::Warning, "rewrite");
    says(&info("aof_delayed_fsync:3"), "durability", Found::Warning, "too slow");
    says(&set("auto-aof-rewrite-percentage", "0"), "saving", Found::Warning, "without bound");
    says(&set("stop-writes-on-bgsave-error", "no"), "saving", Found::Warning, "unnoticed");
    says(&set("rdbchecksum", "no"), "saving", Found::Warning, "cannot be found");
    says(&info("aof_last_bgrewrite_status:err"), "saving", Found::Warning, "rewrite");
    says(&with(|seen| seen.disk.overcommit = Some("0".into())), "room to save", Found::Warning, "overcommit");
    says(
        &with(|seen| seen.disk.huge_pages = Some("[always] never".into())),
        "room to save",
        Found::Warning,
        "huge pages",
    );
    says(&with(|seen| seen.writes_refused = true), "writes", Found::Warning, "min-replicas-to-write 0");
    let replica = with(|seen| seen.info = Info::parse("role:slave\r\nmaster_link_status:down\r\n"));
    says(&replica, "replication", Found::Warning, "link down");
    let unseen = with(|seen| {
        seen.disk.appended = None;
        seen.disk.room = None;
    });
    says(&unseen, "append-only files", Found::NotChecked, "data_dir");
    says(&unseen, "room to save", Found::NotChecked, "data_dir");
}
