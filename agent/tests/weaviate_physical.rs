//! Weaviate's files as backups, from the command line, on real servers: writers that never stop, increments, kills, damage.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use support::claim::claim;
use support::cli::{Machine, PREFIX, Ran};
use support::data::{fill, id, make_collection, object, send, try_send};
use support::s3::S3;
use support::weaviate::WeaviateServer;
use support::writer::{Part, Writer, Written};
use support::{files_ending, until};

/// A log up to this size stays in use (`PERSISTENCE_MAX_REUSE_WAL_SIZE`); bytes.
const IN_USE: u64 = 4096;
/// Files are written, joined and rotated within seconds instead of minutes.
const BUSY: [(&str, &str); 3] = [
    ("PERSISTENCE_MEMTABLES_FLUSH_DIRTY_AFTER_SECONDS", "1"),
    ("PERSISTENCE_MEMTABLES_MIN_ACTIVE_DURATION_SECONDS", "1"),
    ("PERSISTENCE_HNSW_MAX_LOG_SIZE", "400KiB"),
];

fn physical(s3: &S3, server: &WeaviateServer) -> Machine {
    Machine::new(s3, server, &format!("method: physical\n{}", server.service()))
}

/// What captures and restores put beside the data folder and should have removed.
fn left(server: &WeaviateServer) -> Vec<PathBuf> {
    let beside = server.data_dir().parent().expect("a parent").read_dir().expect("read");
    let paths = beside.flatten().map(|e| e.path());
    paths.filter(|p| p.to_string_lossy().contains("perennial-")).collect()
}

fn made(ran: &Ran) -> (String, Timestamp) {
    let manifest = ran.json();
    let text = |key: &str| manifest[key].as_str().expect("text").to_owned();
    (text("backup_id"), text("started_at").parse().expect("a time"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instant_of_all_that_is_written_comes_back() {
    let s3 = S3::start();
    let (server, other) =
        (WeaviateServer::start_with("weaviate-0", &s3, &BUSY), WeaviateServer::start("weaviate-0", &s3));
    tokio::join!(server.wait(), other.wait());
    make_collection(&server.url(), "Doc", json!({})).await;
    make_collection(&server.url(), "Ten", json!({"multiTenancyConfig": {"enabled": true}})).await;
    let tenants = json!([{"name": "ann"}, {"name": "bob"}, {"name": "away"}]);
    send("POST", &format!("{}/v1/schema/Ten/tenants", server.url()), Some(tenants)).await;
    fill(&server.url(), "Ten", 0..20, json!({"tenant": "away"})).await;
    let away = json!([{"name": "away", "activityStatus": "INACTIVE"}]);
    send("PUT", &format!("{}/v1/schema/Ten/tenants", server.url()), Some(away)).await;

    let parts = [("Doc", None), ("Ten", Some("ann")), ("Ten", Some("bob"))];
    let writers = parts.map(|(collection, tenant)| Writer::start(&server.url(), Part { collection, tenant }));
    let machine = physical(&s3, &server);
    let mut backups = vec![];
    for kind in ["base", "incremental", "incremental"] {
        for writer in &writers {
            writer.more(80).await;
        }
        let run = |words: &[&str]| tokio::task::block_in_place(|| machine.run(words)).exits(0);
        run(&["backup", "create", "--type", kind]).says("stood still for");
        let newest = run(&["backup", "show", "--json"]);
        backups.push(made(&newest));
        assert_eq!((&newest.json()["method"], &newest.json()["kind"]), (&"physical".into(), &kind.into()));
    }
    let mut written: Vec<Written> = vec![];
    for writer in writers {
        written.push(writer.stop().await);
    }
    assert!(left(&server).is_empty(), "{:?}", left(&server));

    let there = physical(&s3, &other);
    for (backup, until) in &backups {
        there.run(&["backup", "restore", "--id", backup, "--replace", "--yes"]).exits(0).says("find themselves");
        for part in &written {
            assert!(part.must_be_at(&other.url(), *until).await > 0);
        }
        let active = json!([{"name": "away", "activityStatus": "ACTIVE"}]);
        send("PUT", &format!("{}/v1/schema/Ten/tenants", other.url()), Some(active)).await;
        let away = send("GET", &format!("{}/v1/objects?class=Ten&tenant=away&limit=100", other.url()), None).await;
        assert_eq!(away["objects"].as_array().map(Vec::len), Some(20), "an inactive tenant is in the files");
        assert!(left(&other).is_empty(), "{:?}", left(&other));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_backup_leaves_clients_their_reads_where_the_settings_say_so() {
    let s3 = S3::start();
    let (server, next) = WeaviateServer::two(&s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..300, json!({})).await;
    let (me, repository) = ("i-0123456789abcdef0", s3.repository(PREFIX));
    let keeps = format!("method: physical\nbackup: {{keep_reads: true}}\n{}", server.service());
    let machine = Machine::new(&s3, &server, &keeps).with("PERENNIAL_INSTANCE_ID", me);
    machine.run(&["backup", "create"]).exits(0);

    // Clients of single objects: one writes until it is refused, one reads and never is.
    let writing = tokio::spawn(acknowledged_until_refused(server.url()));
    let told = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read(server.url(), Arc::clone(&told)));
    claim(&repository, "final-i-1-1", me, None, false).await;
    tokio::task::block_in_place(|| machine.run(&["run", "final-i-1-1"])).exits(0).says("stood still for");
    let acknowledged = writing.await.expect("it was refused");
    assert!(!acknowledged.is_empty() && !reading.is_finished(), "reads go on");
    // A second attempt finds a server that refuses already.
    claim(&repository, "final-i-1-2", me, None, false).await;
    tokio::task::block_in_place(|| machine.run(&["run", "final-i-1-2"])).exits(0);
    assert!(!reading.is_finished(), "reads go on");
    told.store(true, Ordering::Relaxed);
    assert!(reading.await.expect("every read was answered") > 0);

    physical(&s3, &next).run(&["backup", "restore", "--latest", "--replace", "--yes"]).exits(0);
    for n in (0..300).chain(acknowledged) {
        let (status, text) = try_send("GET", &format!("{}/v1/objects/Doc/{}", next.url(), id(n)), None).await;
        assert_eq!(status, 200, "object {n} was acknowledged: {text}");
    }
    fill(&next.url(), "Doc", 9000..9010, json!({})).await;
}

/// Writes objects one by one; the numbers of those that were acknowledged before the first that was refused.
async fn acknowledged_until_refused(url: String) -> Vec<u64> {
    for n in 10_000_u64.. {
        let (status, text) = try_send("POST", &format!("{url}/v1/objects"), Some(object("Doc", n, &json!({})))).await;
        if status != 200 {
            assert!(status == 500 && text.contains("read-only"), "{status} {text}");
            return (10_000..n).collect();
        }
    }
    unreachable!("numbers do not end")
}

/// Files whose bytes the engine does not change, with their inodes: a name can go to another file.
fn segments(server: &WeaviateServer) -> BTreeSet<(PathBuf, u64)> {
    let ends = [".db", ".sorted", ".condensed", ".snapshot"];
    let files = ends.iter().flat_map(|end| files_ending(&server.data_dir(), end));
    files.filter_map(|p| p.metadata().ok().map(|m| (p, m.ino()))).collect()
}

#[tokio::test]
async fn an_increment_reads_what_changed() {
    let s3 = S3::start();
    let server = WeaviateServer::start_with("weaviate-0", &s3, &BUSY);
    server.wait().await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..5000, json!({})).await;
    // What was written is in segments, which do not change any more, but for the last of it: a small log stays in use.
    let logs = || files_ending(&server.data_dir(), ".wal");
    let small = |log: &PathBuf| log.metadata().is_ok_and(|m| m.len() <= IN_USE);
    until("segments of all logs", async || logs().iter().all(small)).await;
    let machine = physical(&s3, &server);
    let read = |m: &Value| m["archive"]["read_bytes"].as_u64().expect("a number");
    // The engine joins segments into new files when it likes, and those are read: it must have let them be for once.
    for n in 0..20 {
        let before = segments(&server);
        let base = machine.run(&["backup", "create", "--type", "base", "--json"]).exits(0).json();
        let same = machine.run(&["backup", "create", "--json"]).exits(0).json();
        assert_eq!(same["kind"], "incremental");
        let between = segments(&server);
        fill(&server.url(), "Doc", 5000 + 10 * n..5010 + 10 * n, json!({})).await;
        let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
        if before == between && between.is_subset(&segments(&server)) {
            assert!(read(&same) * 10 < read(&base), "{} after {}", read(&same), read(&base));
            assert!(read(&next) * 4 < read(&base), "{} after {}", read(&next), read(&base));
            return;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    panic!("the engine joined segments between all captures");
}

#[tokio::test]
async fn killed_at_every_step_of_a_backup_the_engine_goes_on() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..100, json!({})).await;
    let machine = physical(&s3, &server);
    let steps = [
        "backup-before-capture",
        "backup-capturing",
        "backup-frozen",
        "backup-captured",
        "backup-archived",
        "backup-described",
        "backup-published",
    ];
    for (n, step) in (1..).zip(steps) {
        machine.crash(step, &["backup", "create"]);
        // The engine answers although nobody of ours is there to let it go on.
        fill(&server.url(), "Doc", 100 * n..100 * (n + 1), json!({})).await;
        machine.run(&["backup", "create"]).exits(0);
        assert!(left(&server).is_empty(), "{step}: {:?}", left(&server));
        let newest = machine.run(&["backup", "show", "--json"]).exits(0).json();
        assert_eq!(newest["collections"][0]["count_after"], 100 * (n + 1), "{step}");
    }
    machine.run(&["backup", "verify"]).exits(0);
}

#[tokio::test]
async fn killed_at_every_step_of_a_restore_the_same_command_ends_it() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..300, json!({})).await;
    let machine = physical(&s3, &server);
    machine.run(&["backup", "create"]).exits(0);
    machine.run(&["backup", "restore"]).exits(5).says("the database has Doc");
    let steps = ["staged", "stopped", "swapping", "swapped", "installed", "finished"];
    for (n, step) in (1..).zip(steps) {
        server.wait().await;
        fill(&server.url(), "Doc", 300 * n..300 * n + 50, json!({})).await;
        machine.crash(&format!("restore-{step}"), &["backup", "restore", "--replace", "--yes"]);
        machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("300 objects in 1 collections");
        assert_eq!(server.objects().await, 300, "{step}");
        assert!(left(&server).is_empty(), "{step}: {:?}", left(&server));
    }
}

/// Changes the newest manifest.
async fn tamper(s3: &S3, change: impl Fn(&mut Value)) {
    support::s3::tamper(&s3.repository(PREFIX), change).await;
}

#[tokio::test]
async fn what_differs_is_taken_back_and_what_cannot_open_is_refused() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..200, json!({})).await;
    let machine = physical(&s3, &server);
    machine.run(&["backup", "create"]).exits(0);
    fill(&server.url(), "Doc", 200..300, json!({})).await;
    let replace = ["backup", "restore", "--replace", "--yes"];

    tamper(&s3, |m| m["engine_version"] = "1.38.7".into()).await;
    machine.run(&replace).exits(5).says("does not restore on version").says("native");
    tamper(&s3, |m| m["engine_version"] = "1.39.0".into()).await;
    tamper(&s3, |m| m["host_name"] = "weaviate-9".into()).await;
    machine.run(&replace).exits(5).says("must be weaviate-9");
    tamper(&s3, |m| m["host_name"] = "weaviate-0".into()).await;
    assert_eq!(server.objects().await, 300, "nothing was touched");

    tamper(&s3, |m| (m["collections"][0]["count_before"], m["collections"][0]["count_after"]) = (7.into(), 7.into()))
        .await;
    machine.run(&replace).exits(3).says("Doc has 200 objects, the manifest says 7");
    server.wait().await;
    assert_eq!(server.objects().await, 300, "what was there before is back");
    assert!(left(&server).is_empty(), "{:?}", left(&server));

    // A process that is not the engine's is not frozen.
    let other = WeaviateServer::ready("weaviate-0", &s3).await;
    let wrong = Machine::new(&s3, &server, &format!("method: physical\n{}", other.service()));
    wrong.run(&["backup", "create"]).exits(1).says("is `service` that of the engine");
    assert!(left(&server).is_empty(), "{:?}", left(&server));
}

#[tokio::test]
async fn the_engines_own_backups_and_those_of_its_files_go_side_by_side() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..200, json!({})).await;
    let files = physical(&s3, &server);
    let native = Machine::new(&s3, &server, &format!("method: native\n{}", server.service()));
    files.run(&["backup", "create"]).exits(0);
    fill(&server.url(), "Doc", 200..250, json!({})).await;
    native.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("200 objects");
    assert_eq!(server.objects().await, 200);

    native.run(&["backup", "create"]).exits(0);
    fill(&server.url(), "Doc", 200..250, json!({})).await;
    files.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("200 objects");
    let next = files.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(next["kind"], "base", "nothing is built on a backup of the engine's own");
    files.run(&["backup", "restore"]).exits(5);
}

/// Reads one object again and again until it is told to stop: how often. Each read must be answered.
async fn read(url: String, told: Arc<AtomicBool>) -> u64 {
    let mut answered = 0;
    while !told.load(Ordering::Relaxed) {
        send("GET", &format!("{url}/v1/objects/Doc/{}", id(7)), None).await;
        answered += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_backup_has_all_that_clients_were_told_before_they_were_cut_off() {
    let s3 = S3::start();
    let (server, next) = WeaviateServer::two(&s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..200, json!({})).await;
    make_collection(&server.url(), "Busy", json!({})).await;
    let repository = s3.repository(PREFIX);
    let me = "i-0123456789abcdef0";
    let of = |server: &WeaviateServer| {
        let more = format!("method: physical\n{}\nauto_scaling: {{group: docs}}", server.service());
        Machine::new(&s3, server, &more).with("PERENNIAL_INSTANCE_ID", me)
    };
    claim(&repository, "final-i-1-1", me, None, false).await;
    // Clients are cut off: without them, and with the address gone, nothing refuses the next write.
    let writer = Writer::start(&server.url(), Part { collection: "Busy", tenant: None });
    writer.more(50).await;
    let (written, end) = (writer.stop().await, Timestamp::now());
    let told = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read(server.url(), Arc::clone(&told)));
    tokio::task::block_in_place(|| of(&server).run(&["run", "final-i-1-1"])).exits(0);
    told.store(true, Ordering::Relaxed);
    assert!(reading.await.expect("every read of those who are left was answered") > 0);
    let held = server.objects().await;

    of(&next).run(&["backup", "restore"]).exits(0).says(&format!("{held} objects"));
    assert!(written.must_be_at(&next.url(), end).await > 0);
    fill(&next.url(), "Doc", 900..901, json!({})).await;
    assert_eq!(next.objects().await, held + 1, "the restored engine takes writes");
}
