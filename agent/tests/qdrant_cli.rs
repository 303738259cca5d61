//! Qdrant backed up and restored by the whole program, with writers that never stop, and killed at every step of a backup.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use support::cli::Machine;
use support::qdrant::{API_KEY, QdrantServer, point, send};
use support::s3::S3;

const SIZE: u64 = 8;
const OF_A_BACKUP: [&str; 4] = ["qdrant-snapshot-asked", "qdrant-snapshot-made", "backup-captured", "backup-archived"];

fn machine(s3: &S3, server: &QdrantServer) -> Machine {
    Machine::of_engine(s3, &server.settings(), None)
}

#[tokio::test]
async fn from_a_full_server_to_a_fresh_one() {
    let s3 = S3::start();
    let old = QdrantServer::with_key(Some(API_KEY)).await;
    let new = QdrantServer::with_key(Some(API_KEY)).await;
    let of = |server: &QdrantServer, key| Machine::of_engine(&s3, &server.settings(), Some(key));
    let (source, target) = (of(&old, API_KEY), of(&new, API_KEY));
    source.run(&["backup", "create"]).exits(1).says("no collections");
    old.make("docs", SIZE).await;
    old.fill("docs", 0..3000, SIZE).await;
    old.make("still", SIZE).await;
    old.fill("still", 0..1000, SIZE).await;
    old.alias("now", "docs").await;
    of(&old, "wrong").run(&["backup", "create"]).exits(2).says("does not accept the API key");
    machine(&s3, &old).run(&["backup", "create"]).exits(2).says("does not accept the API key");
    old.flushed().await;

    let base = source.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(base["collections"][0]["count_after"], 3000);
    assert_eq!((base["method"].as_str(), base["kind"].as_str()), (Some("snapshot"), Some("base")));
    let nothing = source.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(nothing["kind"], "incremental");
    assert_eq!(old.snapshots_made("docs").await + old.snapshots_made("still").await, 2, "a 304 each, no snapshot");
    old.fill("docs", 3000..3030, SIZE).await;
    let some = source.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((old.snapshots_made("docs").await, old.snapshots_made("still").await), (2, 1));
    let new_bytes = |backup: &Value| backup["archive"]["new_bytes"].as_u64().expect("a number");
    assert!(new_bytes(&nothing) < 100_000 && new_bytes(&some) < new_bytes(&base), "{nothing} {some}");
    assert!(old.snapshots("docs").await.is_empty());
    source.run(&["backup", "verify"]).exits(0);

    target.run(&["backup", "restore"]).exits(0).says("samples are what they were");
    assert_eq!(new.collections().await, ["docs", "still"]);
    assert_eq!(new.aliases().await, ["now=docs"]);
    assert_eq!((new.count("now").await, new.count("still").await), (3030, 1000));
    for n in [0, 1500, 2999, 3029] {
        assert_eq!(new.point("docs", n).await, old.point("docs", n).await);
    }
    target.run(&["backup", "restore"]).exits(0).says("already");
    target.run(&["doctor"]).says("single node");
}

/// Texts that are stored many times have one vector: which of them a search names is the index's choice, and the restored one is another.
#[tokio::test]
async fn objects_with_the_same_vector_are_no_difference() {
    let s3 = S3::start();
    let (old, new) = tokio::join!(QdrantServer::ready(), QdrantServer::ready());
    let index_soon =
        json!({"vectors": {"size": 2, "distance": "Cosine"}, "optimizers_config": {"indexing_threshold": 1}});
    old.ask("PUT", "/collections/docs", index_soon).await;
    let twin = |n: u64| json!({"id": n, "vector": [n % 2, 1], "payload": {"n": n}});
    let (source, target) = (machine(&s3, &old), machine(&s3, &new));
    old.ask("PUT", "/collections/docs/points?wait=true", json!({"points": (0..2000).map(twin).collect::<Vec<_>>()}))
        .await;
    source.run(&["backup", "create"]).exits(0);
    target.run(&["backup", "restore"]).exits(0).says("samples are what they were");
    assert_eq!(new.count("docs").await, 2000);

    // All of it again, in another order: a search may name others, and it is no other data.
    for server in [&old, &new] {
        let all: Vec<u64> = (0..2000).collect();
        server.ask("POST", "/collections/docs/points/delete?wait=true", json!({ "points": all })).await;
        let points: Vec<_> = all.into_iter().rev().map(twin).collect();
        server.ask("PUT", "/collections/docs/points?wait=true", json!({ "points": points })).await;
    }
    target.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("samples are what they were");
    source.run(&["backup", "create", "--type", "base"]).exits(0);
    assert_eq!((old.count("docs").await, new.count("docs").await), (2000, 2000));
}

/// What was acknowledged to a client that adds at the end, deletes at the begin, and overwrites in between, one after the other.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    added: u64,
    deleted: u64,
    /// The last revision of each point that was overwritten.
    revisions: BTreeMap<u64, u64>,
}

/// What the client overwrites again and again, and never deletes.
const OVERWRITTEN: std::ops::Range<u64> = 5900..6000;

/// A point of which payload and vector tell its revision; the first is that of [`point`].
fn revised(id: u64, revision: u64) -> Value {
    let mut revised = point(id + revision * 1009, SIZE);
    revised["id"] = json!(id);
    revised["payload"] = json!({"title": format!("title {id}"), "n": id, "revision": revision});
    revised
}

#[allow(clippy::cast_possible_truncation)] // to what the engine stores
fn vector(point: &Value) -> Vec<f32> {
    point["vector"].as_array().expect("a vector").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_missing_under_a_writer_that_never_stops() {
    let s3 = S3::start();
    let (old, new) = tokio::join!(QdrantServer::ready(), QdrantServer::ready());
    let (source, target) = (machine(&s3, &old), machine(&s3, &new));
    // Of a point's vector the engine keeps the cosine's direction only; its dot it keeps as it is.
    old.ask("PUT", "/collections/docs", json!({"vectors": {"size": SIZE, "distance": "Dot"}})).await;
    old.fill("docs", 0..6000, SIZE).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (told, url) = (Arc::clone(&stop), format!("{}/collections/docs/points", old.url()));
    let acknowledged = Arc::new(Mutex::new(Acknowledged { added: 6000, ..Acknowledged::default() }));
    let (ledger, seen) = (Arc::clone(&acknowledged), Arc::clone(&acknowledged));
    let writing = tokio::spawn(async move {
        let client = support::http_client();
        let sent = async |path: &str, method: &str, body: Value| {
            let (status, text) = send(&client, &format!("{url}{path}?wait=true"), None, method, &body).await;
            assert_eq!(status, 200, "{text}");
        };
        for id in OVERWRITTEN.cycle() {
            let Acknowledged { added, deleted, revisions } = ledger.lock().expect("a lock").clone();
            sent("", "PUT", json!({"points": [point(added, SIZE)]})).await;
            ledger.lock().expect("a lock").added = added + 1;
            sent("/delete", "POST", json!({"points": [deleted]})).await;
            ledger.lock().expect("a lock").deleted = deleted + 1;
            let revision = revisions.get(&id).map_or(1, |last| last + 1);
            sent("", "PUT", json!({"points": [revised(id, revision)]})).await;
            ledger.lock().expect("a lock").revisions.insert(id, revision);
            if told.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    let before = tokio::task::spawn_blocking(move || {
        source.run(&["backup", "create"]).exits(0);
        let before = seen.lock().expect("a lock").clone();
        source.run(&["backup", "create"]).exits(0);
        before
    })
    .await
    .expect("backed up");
    stop.store(true, Ordering::Relaxed);
    writing.await.expect("written");
    let after = acknowledged.lock().expect("a lock").clone();

    assert!(before.added > 6000 && !before.revisions.is_empty(), "the writer wrote meanwhile");
    assert!(after.deleted <= OVERWRITTEN.start, "what is overwritten is never deleted");
    target.run(&["backup", "restore"]).exits(0);
    let restored = new.points("docs").await;
    let is_overwritten = |n: &u64| after.revisions.contains_key(n);
    // Only a delete that came during the capture may be in it or not.
    for n in (after.deleted..before.added).filter(|n| !is_overwritten(n)) {
        let found =
            restored.get(&n).unwrap_or_else(|| panic!("{n} was acknowledged before the capture and is missing"));
        let expected = point(n, SIZE);
        assert_eq!((&found["payload"], vector(found)), (&expected["payload"], vector(&expected)));
    }
    let back: Vec<_> = (0..before.deleted).filter(|n| restored.contains_key(n)).collect();
    assert!(back.is_empty(), "deleted before the capture and back: {back:?}");
    // An overwriting that came during the capture may be in it or not; whichever is, is there whole.
    for (id, last) in &after.revisions {
        let (found, at_least) = (&restored[id], before.revisions.get(id).copied().unwrap_or(0));
        let revision = found["payload"]["revision"].as_u64().unwrap_or(0);
        assert!((at_least..=*last).contains(&revision), "{id}: {revision} came back, {at_least} was acknowledged");
        assert_eq!(vector(found), vector(&revised(*id, revision)), "{id}: the vector is another revision's");
    }
}

/// What an optimizer has in its hands it cannot change: deletes are noted beside it, and a snapshot that has the segments without their
/// log brings back what was deleted.
#[tokio::test]
#[ignore = "the tests' own server has no optimizer; `make containers` runs it on Qdrant's image"]
async fn what_was_deleted_while_the_optimizer_works_stays_deleted() {
    let s3 = S3::start();
    let (old, new) = tokio::join!(QdrantServer::ready(), QdrantServer::ready());
    // One segment on the disk, whose index takes a minute and more to make as soon as it may begin.
    let slow = json!({"m": 64, "ef_construct": 2000, "max_indexing_threads": 1});
    let wait = json!({"indexing_threshold": 0, "default_segment_number": 1});
    let settings =
        json!({"vectors": {"size": 64, "distance": "Cosine"}, "hnsw_config": slow, "optimizers_config": wait});
    old.ask("PUT", "/collections/docs", settings.clone()).await;
    old.fill("docs", 0..20_000, 64).await;
    old.flushed().await;
    old.ask("PATCH", "/collections/docs", json!({"optimizers_config": {"indexing_threshold": 1}})).await;
    is_optimized(&old).await;
    let gone: Vec<u64> = (0..20_000).step_by(20).collect();
    old.ask("POST", "/collections/docs/points/delete?wait=true", json!({"points": gone})).await;
    old.flushed().await;

    machine(&s3, &old).run(&["backup", "create"]).exits(0);
    let without_log = old.streamed("docs").await;
    is_optimized(&old).await;
    new.ask("PUT", "/collections/trap", settings).await;
    new.put_streamed("trap", without_log).await;
    assert_eq!(new.count("trap").await, 20_000, "the trap is set");
    new.ask("DELETE", "/collections/trap", Value::Null).await;
    machine(&s3, &new).run(&["backup", "restore"]).exits(0);
    assert_eq!(new.count("docs").await, 19_000);
    let there = new.points("docs").await;
    let back: Vec<_> = gone.iter().filter(|id| there.contains_key(id)).collect();
    assert!(back.is_empty(), "{back:?}");
}

/// Waits until the optimizer works on a collection.
async fn is_optimized(server: &QdrantServer) {
    for _ in 0..100 {
        let work = server.ask("GET", "/collections/docs/optimizations", Value::Null).await;
        if work["running"].as_array().is_some_and(|running| !running.is_empty()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no optimizer works:\n{}", server.log());
}

#[tokio::test]
async fn killed_at_every_step_of_a_backup() {
    let s3 = S3::start();
    let (old, new) = tokio::join!(QdrantServer::ready(), QdrantServer::ready());
    let (source, target) = (machine(&s3, &old), machine(&s3, &new));
    old.make("docs", SIZE).await;
    let mut points = 0;
    for step in OF_A_BACKUP {
        old.fill("docs", points..points + 100, SIZE).await;
        points += 100;
        source.crash(step, &["backup", "create"]);
        source.run(&["backup", "create"]).exits(0);
        assert!(old.snapshots("docs").await.is_empty(), "{step}: no snapshot of ours is left");
        let newest = source.run(&["backup", "show", "--json"]).exits(0).json();
        assert_eq!(newest["collections"][0]["count_after"], points, "{step}");
    }
    target.run(&["backup", "restore"]).exits(0);
    assert_eq!(new.count("docs").await, points);
}
