//! Qdrant restored over live data by the whole program, with readers that never stop, and killed at every step.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::cli::Machine;
use support::qdrant::{QdrantServer, send};
use support::recorder::Recorder;
use support::s3::S3;
use tokio::task::JoinHandle;

const SIZE: u64 = 8;
const OF_A_RESTORE: [&str; 9] = [
    "restore-staged",
    "qdrant-restore-making",
    "restore-installed",
    "qdrant-restore-committing",
    "qdrant-restore-switched",
    "qdrant-restore-deleted",
    "qdrant-restore-replaced",
    "qdrant-restore-cleaning",
    "restore-finished",
];

fn machine(s3: &S3, server: &QdrantServer) -> Machine {
    Machine::of_engine(s3, &server.settings(), None)
}

#[tokio::test]
async fn readers_by_alias_never_miss_what_is_replaced() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let machine = machine(&s3, &server);
    server.make("docs", SIZE).await;
    server.fill("docs", 0..2000, SIZE).await;
    server.alias("now", "docs").await;
    machine.run(&["backup", "create"]).exits(0);
    server.fill("docs", 2000..2500, SIZE).await;
    server.make("other", SIZE).await;
    server.fill("other", 0..10, SIZE).await;
    machine.run(&["backup", "restore"]).exits(5).says("--replace");

    let reader = Reader::start(&server, "now");
    let restoring = tokio::task::spawn_blocking(move || {
        let ran = machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
        ran.says("left as they are: other").says("docs is an alias of the collection docs.perennial-");
        machine
    });
    let machine = restoring.await.expect("restored");
    assert_eq!(reader.stop().await, [Some(2500), Some(2000)], "the old data, then the new");
    let copy = server.shown_by("docs").await.expect("an alias");
    assert_eq!(server.collections().await, [copy.as_str(), "other"]);
    assert_eq!((server.count("docs").await, server.shown_by("now").await), (2000, Some(copy)));
    machine.run(&["backup", "restore"]).exits(0).says("already");
}

/// The live data goes in the moment in which the copy takes its name: nothing else is asked of the engine between the two.
#[tokio::test(flavor = "multi_thread")]
async fn readers_by_name_find_nothing_only_between_two_requests() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let recorder = Recorder::before(&server.url()).await;
    let machine = Machine::of_engine(&s3, &format!("engine: qdrant\nurl: {}\n", recorder.url()), None);
    for name in ["same", "other"] {
        server.make(name, SIZE).await;
        server.fill(name, 0..1000, SIZE).await;
    }
    machine.run(&["backup", "create"]).exits(0);
    server.fill("same", 1000..1200, SIZE).await;
    server.ask("DELETE", "/collections/other", Value::Null).await;
    server.make("other", SIZE + 1).await;
    server.fill("other", 0..1300, SIZE + 1).await;

    let (same, other) = (Reader::start(&server, "same"), Reader::start(&server, "other"));
    let before = recorder.asked().len();
    tokio::task::spawn_blocking(move || machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0))
        .await
        .expect("restored");
    for (reader, old) in [(same, 1200), (other, 1300)] {
        let seen = reader.stop().await;
        let without_gap: Vec<_> = seen.iter().flatten().copied().collect();
        assert_eq!(without_gap, [old, 1000], "one gap at most, between the old data and the new: {seen:?}");
        assert!(seen.len() <= 3, "{seen:?}");
    }
    let asked = &recorder.asked()[before..];
    for name in ["same", "other"] {
        let deletion = format!("DELETE /collections/{name}");
        let at = asked.iter().position(|a| *a == deletion).unwrap_or_else(|| panic!("{name} is replaced: {asked:?}"));
        assert_eq!(asked[at + 1], "POST /collections/aliases", "{asked:?}");
    }
    let is_recovery = |a: &&String| a.contains("/snapshots/upload") && !a.contains(".perennial-");
    assert_eq!(asked.iter().find(is_recovery), None, "what is served is not recovered over");
}

/// A client that counts through a name and never stops.
struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Option<u64>>>,
}

impl Reader {
    fn start(server: &QdrantServer, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, url) = (Arc::clone(&stop), format!("{}/collections/{name}/points/count", server.url()));
        let task = tokio::spawn(async move {
            let client = support::http_client();
            let mut seen = vec![];
            loop {
                let last = told.load(Ordering::Relaxed);
                let (status, text) = send(&client, &url, None, "POST", &json!({"exact": true})).await;
                let answer = serde_json::from_str::<Value>(&text).unwrap_or_default();
                seen.push(answer["result"]["count"].as_u64().filter(|_| status == 200));
                seen.dedup();
                if last {
                    return seen;
                }
            }
        });
        Self { stop, task }
    }

    /// The answers that it got one after the other, where the next differed; nothing where the engine had none.
    async fn stop(self) -> Vec<Option<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("read")
    }
}

#[tokio::test]
async fn a_collection_whose_settings_changed_gets_those_of_the_backup() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let machine = machine(&s3, &server);
    server.make("docs", SIZE).await;
    server.fill("docs", 0..100, SIZE).await;
    server.make("moved", SIZE).await;
    server.fill("moved", 0..60, SIZE).await;
    machine.run(&["backup", "create"]).exits(0);
    for name in ["docs", "moved"] {
        server.ask("DELETE", &format!("/collections/{name}"), Value::Null).await;
    }
    server.make("docs", SIZE + 1).await;
    server.make("moved-2", SIZE).await;
    server.fill("moved-2", 0..5, SIZE).await;
    server.alias("moved", "moved-2").await;

    let ran = machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    ran.says("moved is an alias of the collection").says("docs is an alias of the collection");
    let info = server.ask("GET", "/collections/docs", Value::Null).await;
    assert_eq!(info["config"]["params"]["vectors"]["size"], SIZE);
    assert_eq!((server.count("docs").await, server.count("moved").await), (100, 60));
    assert_eq!(server.collections().await.len(), 2, "what was there is gone: {:?}", server.collections().await);
}

/// What a restore leaves behind an alias is backed up by the name that clients know, and comes back under it.
#[tokio::test]
async fn what_was_replaced_is_backed_up_under_its_name() {
    let s3 = S3::start();
    let (old, fresh, full) = tokio::join!(QdrantServer::ready(), QdrantServer::ready(), QdrantServer::ready());
    let source = machine(&s3, &old);
    for server in [&old, &full] {
        server.make("docs", SIZE).await;
        server.fill("docs", 0..100, SIZE).await;
        server.alias("now", "docs").await;
    }
    source.run(&["backup", "create"]).exits(0);
    source.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    let first = old.shown_by("docs").await.expect("an alias");
    old.fill("docs", 100..130, SIZE).await;

    let made = source.run(&["backup", "create", "--json"]).exits(0).json();
    let held: Vec<_> = made["collections"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
    assert_eq!(held, ["docs"], "{made}");
    assert!(old.snapshots(&first).await.is_empty(), "nothing stays on the server");
    machine(&s3, &fresh).run(&["backup", "restore"]).exits(0).says("130 objects in 1 collections");
    assert_eq!((fresh.collections().await, fresh.aliases().await), (vec!["docs".into()], vec!["now=docs".into()]));
    machine(&s3, &full).run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    assert_eq!((full.count("docs").await, full.count("now").await), (130, 130));

    old.alias("mine", &first).await;
    source.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    let second = old.shown_by("docs").await.expect("an alias");
    assert_ne!(second, first, "what is served is not recovered over");
    assert_eq!(old.collections().await, [second.as_str()], "the copy of the restore before is gone");
    let aliases = ["docs", "mine", "now"].map(|alias| format!("{alias}={second}"));
    assert_eq!(old.aliases().await, aliases, "who comes by an alias of it sees the new data, too");
    source.run(&["doctor"]).says("remains of restores");
}

/// Killed in the one moment in which nothing has the name: whatever is done next on that machine gives it the copy.
#[tokio::test]
async fn a_name_that_shows_nothing_is_made_good_by_whatever_begins_next() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let machine = machine(&s3, &server);
    server.make("docs", SIZE).await;
    server.fill("docs", 0..100, SIZE).await;
    let older = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let older = older["backup_id"].as_str().expect("an id");
    server.fill("docs", 100..120, SIZE).await;
    machine.run(&["backup", "create"]).exits(0);
    machine.crash("qdrant-restore-deleted", &["backup", "restore", "--id", older, "--replace", "--yes"]);
    assert_eq!(server.find_count("docs").await, None, "it was killed in that moment");
    machine.run(&["doctor"]).says("begin it again, delete nothing");
    machine.run(&["backup", "restore", "--dry-run", "--replace"]).exits(0);
    assert_eq!(server.find_count("docs").await, None, "a dry run changes nothing");
    machine.crash("restore-remembered", &["backup", "restore", "--replace", "--yes"]);
    assert_eq!(server.count("docs").await, 100, "by the begin of a restore of another backup");
    machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    assert_eq!((server.count("docs").await, server.collections().await.len()), (120, 1));

    server.empty().await;
    server.make("docs", SIZE).await;
    machine.crash("qdrant-restore-deleted", &["backup", "restore", "--id", older, "--replace", "--yes"]);
    assert_eq!(server.find_count("docs").await, None, "it was killed in that moment");
    let made = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((server.count("docs").await, made["collections"][0]["count_after"].as_u64()), (100, Some(100)));
}

/// A client that makes what it does not find takes the name in the one moment in which it is free.
#[tokio::test]
async fn a_collection_that_a_client_makes_in_the_gap_is_replaced_by_the_same_restore() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let machine = machine(&s3, &server);
    server.make("docs", SIZE).await;
    server.fill("docs", 0..100, SIZE).await;
    machine.run(&["backup", "create"]).exits(0);
    machine.crash("qdrant-restore-deleted", &["backup", "restore", "--replace", "--yes"]);
    server.make("docs", SIZE).await;
    machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
    assert_eq!((server.count("docs").await, server.collections().await.len()), (100, 1));
}

#[tokio::test]
async fn killed_at_every_step_of_a_restore() {
    let s3 = S3::start();
    let server = QdrantServer::ready().await;
    let source = machine(&s3, &server);
    server.make("docs", SIZE).await;
    server.fill("docs", 0..300, SIZE).await;
    server.make("more", SIZE).await;
    server.fill("more", 0..40, SIZE).await;
    server.alias("now", "docs").await;
    source.run(&["backup", "create"]).exits(0);
    for step in OF_A_RESTORE {
        for over in [Over::Collections, Over::Copies, Over::Nothing] {
            let replaces = ["qdrant-restore-deleted", "qdrant-restore-replaced"].contains(&step);
            if replaces && over != Over::Collections {
                continue;
            }
            over.prepare(&server).await;
            source.crash(step, &["backup", "restore", "--replace", "--yes"]);
            let at = format!("{step}, over {over:?}");
            if over != Over::Nothing {
                let lost = shown_old_or_new(&server, &at).await;
                assert_eq!(lost, usize::from(step == "qdrant-restore-deleted"), "{at}");
            }
            source.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
            assert_eq!((server.count("docs").await, server.count("more").await), (300, 40), "{at}");
            assert_eq!(server.count("now").await, 300, "{at}");
            let collections = server.collections().await;
            assert_eq!(collections.len(), 2, "{at}: {collections:?}");
            for collection in &collections {
                assert!(server.snapshots(collection).await.is_empty(), "{at}");
            }
        }
    }
}

/// What a restore finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Collections that are called by their own names.
    Collections,
    /// Aliases of what an earlier restore left.
    Copies,
    Nothing,
}

impl Over {
    /// Twenty points of each collection are not in the backup.
    async fn prepare(self, server: &QdrantServer) {
        if self == Self::Copies {
            server.fill("docs", 300..320, SIZE).await;
            server.fill("more", 40..60, SIZE).await;
            return;
        }
        server.empty().await;
        if self == Self::Collections {
            for (name, points) in [("docs", 320), ("more", 60)] {
                server.make(name, SIZE).await;
                server.fill(name, 0..points, SIZE).await;
            }
            server.alias("now", "docs").await;
        }
    }
}

/// Whatever has a name shows all of the old or all of the new data; how many names show nothing.
async fn shown_old_or_new(server: &QdrantServer, at: &str) -> usize {
    let mut lost = 0;
    for (name, points) in [("docs", [320, 300]), ("now", [320, 300]), ("more", [60, 40])] {
        match server.find_count(name).await {
            Some(count) => assert!(points.contains(&count), "{at}: {name} has {count}"),
            None => lost += 1,
        }
    }
    lost
}
