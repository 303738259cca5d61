//! Qdrant by the whole program, where something went wrong that nobody says: data that is not what was backed up, bytes that change on
//! the way, snapshots whose answer never came.

mod support;

use std::process::Command;
use std::time::Duration;

use perennial_shared::settings::Engine;
use serde_json::{Value, json};
use support::cli::{Machine, PREFIX};
use support::meddler::{Harm, Meddler};
use support::qdrant::QdrantServer;
use support::recorder::Recorder;
use support::s3::{S3, tamper};
use support::{files_ending, until};

const SIZE: u64 = 8;
/// In a point's payload, and nowhere in a server's words.
const MARK: &str = "title 77";
const CREATE: [&str; 2] = ["backup", "create"];
const REPLACE: [&str; 4] = ["backup", "restore", "--replace", "--yes"];
/// From the request for a snapshot to the last second that its name can have.
const WINDOW: Duration = Duration::from_millis(3100);

fn machine(s3: &S3, url: &str) -> Machine {
    Machine::of_engine(s3, &format!("engine: qdrant\nurl: {url}\n"), None)
}

/// A server with the collection `docs` of so many points, and its alias `now`.
async fn with_docs(points: u64) -> QdrantServer {
    let server = QdrantServer::ready().await;
    server.make("docs", SIZE).await;
    server.fill("docs", 0..points, SIZE).await;
    server.alias("now", "docs").await;
    server
}

/// All that is served is `docs` with so many points, under its name and its alias, and nothing of ours is left.
async fn serves_only(server: &QdrantServer, points: u64) {
    assert_eq!((server.collections().await, server.aliases().await), (vec!["docs".into()], vec!["now=docs".into()]));
    assert_eq!((server.count("docs").await, server.count("now").await), (points, points));
    assert!(server.snapshots("docs").await.is_empty());
}

async fn serves_nothing(server: &QdrantServer) {
    assert_eq!((server.collections().await, server.aliases().await), (vec![], vec![]));
}

/// The engine takes a segment without vectors for a good one, counts its points and finds none of them.
#[tokio::test]
async fn a_backup_that_lacks_its_vectors_is_never_served() {
    let s3 = S3::start();
    let (live, fresh) = tokio::join!(with_docs(300), QdrantServer::ready());
    let source = machine(&s3, &live.url());
    let id = without_vectors(&s3, &source).await;
    live.fill("docs", 300..350, SIZE).await;
    let restore = ["backup", "restore", "--id", &id, "--replace", "--yes"];
    for target in [source, machine(&s3, &fresh.url())] {
        let ran = target.run(&restore).exits(3).says(&format!("not that of backup {id}")).says("is not what it was");
        assert!(!ran.err.contains("the manifest says"), "the counts are right: {ran:?}");
    }
    serves_only(&live, 350).await;
    serves_nothing(&fresh).await;
}

/// Makes a backup, and another of its files without those of the vectors, which is in all else what the first is; the name of that.
async fn without_vectors(s3: &S3, source: &Machine) -> String {
    let whole = source.run(&["backup", "create", "--json"]).exits(0).json();
    let files = Machine::of_files(s3, "");
    let folder = files.data().display().to_string();
    source.run(&["backup", "restore", "--to", &folder]).exits(0);
    let removed = Command::new("find")
        .args([&folder, "-name", "vector_storage*", "-prune", "-print", "-exec", "rm", "-r", "{}", "+"])
        .output()
        .expect("find");
    assert!(removed.status.success() && !removed.stdout.is_empty(), "{removed:?}");
    let made = files.run(&["backup", "create", "--json"]).exits(0).json();
    let of_the_engine = |manifest: &mut Value| {
        for key in ["engine", "engine_version", "host_name", "method", "collections"] {
            manifest[key] = whole[key].clone();
        }
    };
    tamper(&s3.repository_of(Engine::Files, PREFIX), of_the_engine).await;
    made["backup_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_restore_whose_samples_differ_is_never_served() {
    let s3 = S3::start();
    let (live, fresh) = tokio::join!(with_docs(300), QdrantServer::ready());
    let source = machine(&s3, &live.url());
    source.run(&CREATE).exits(0);
    live.fill("docs", 300..350, SIZE).await;
    for (key, value, why) in [
        ("ids", json!(["0", "424242", "424243"]), "docs: 424242 is missing, or its vector"),
        ("digest", json!("0".repeat(64)), "docs: 0 is not what it was"),
    ] {
        let change = |m: &mut Value| m["collections"][0]["samples"][0][key] = value.clone();
        tamper(&s3.repository_of(Engine::Qdrant, PREFIX), change).await;
        source.run(&REPLACE).exits(3).says(why);
        machine(&s3, &fresh.url()).run(&REPLACE).exits(3).says(why);
        serves_only(&live, 350).await;
        serves_nothing(&fresh).await;
    }
}

const DOWNLOAD: &str = "GET /collections/docs/snapshots/docs-";

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_changes_on_its_way_is_made_again() {
    let s3 = S3::start();
    let (server, fresh) = tokio::join!(with_docs(300), QdrantServer::ready());
    let meddler = Meddler::before(&server.url(), DOWNLOAD, Harm::Answer(MARK), 1).await;
    machine(&s3, &meddler.url()).run(&CREATE).exits(0).says("had to be made twice").says("it arrived as");
    assert_eq!((meddler.done(), server.snapshots_made("docs").await), (1, 2));
    assert!(server.snapshots("docs").await.is_empty(), "neither is left");
    machine(&s3, &fresh.url()).run(&["backup", "restore"]).exits(0);
    assert_eq!(fresh.points("docs").await, server.points("docs").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_always_changes_on_its_way_is_no_backup() {
    let s3 = S3::start();
    let server = with_docs(300).await;
    let meddler = Meddler::before(&server.url(), DOWNLOAD, Harm::Answer(MARK), usize::MAX).await;
    machine(&s3, &meddler.url()).run(&CREATE).exits(3).says("it arrived as");
    assert_eq!(server.snapshots_made("docs").await, 2);
    assert!(files_ending(&s3.bucket(), ".json").is_empty(), "neither a manifest nor a pointer");
    serves_only(&server, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_changes_on_its_way_back_is_refused_by_its_checksum() {
    let s3 = S3::start();
    let (live, fresh) = tokio::join!(with_docs(300), QdrantServer::ready());
    machine(&s3, &live.url()).run(&CREATE).exits(0);
    live.fill("docs", 300..350, SIZE).await;
    for (server, to) in
        [(&live, "POST /collections/docs.perennial-"), (&fresh, "POST /collections/docs/snapshots/upload")]
    {
        let meddler = Meddler::before(&server.url(), to, Harm::Request(MARK), 1).await;
        let target = machine(&s3, &meddler.url());
        target.run(&REPLACE).exits(1).says("checksum mismatch");
        assert_eq!(meddler.done(), 1);
        if server.url() == live.url() {
            serves_only(server, 350).await;
        } else {
            serves_nothing(server).await;
        }
        target.run(&REPLACE).exits(0);
        assert_eq!((server.count("docs").await, server.count("now").await), (300, 300), "begun again it is whole");
    }
}

/// Killed while it waits for the answer, the program does not know what the snapshot is called that the server goes on making.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_answer_never_came_is_deleted_and_no_other() {
    let s3 = S3::start();
    let server = with_docs(300).await;
    let before = server.snapshot("docs").await;
    let meddler = Meddler::before(&server.url(), "POST /collections/docs/snapshots?", Harm::Silence, 1).await;
    let source = machine(&s3, &meddler.url());
    let mut run = source.spawn(&CREATE);
    until("a snapshot whose answer is kept from the program", async || meddler.done() == 1).await;
    run.kill().expect("killed");
    run.wait().expect("ended");
    assert_eq!(server.snapshots("docs").await.len(), 2);
    tokio::time::sleep(WINDOW).await;
    let after = server.snapshot("docs").await;

    source.run(&CREATE).exits(0);
    assert_eq!(server.snapshots("docs").await, [before, after]);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_told_from_somebody_else_s_is_named_and_stays() {
    let s3 = S3::start();
    let server = with_docs(300).await;
    let source = machine(&s3, &server.url());
    source.crash("qdrant-snapshot-asked", &CREATE);
    tokio::time::sleep(WINDOW).await;
    let theirs = server.snapshot("docs").await;
    let told = format!("a snapshot of docs, and whether it is one of these cannot be told: {theirs}; none was deleted");
    source.run(&CREATE).exits(0).says(&told).says("DELETE /collections/docs/snapshots/NAME");
    assert_eq!(server.snapshots("docs").await, [theirs]);
    let next = source.run(&CREATE).exits(0);
    assert!(!next.out.contains("cannot be told") && !next.err.contains("cannot be told"), "it was said: {next:?}");
}

#[tokio::test]
async fn a_snapshot_of_a_collection_that_is_gone_is_told_of() {
    let s3 = S3::start();
    let server = with_docs(300).await;
    server.make("more", SIZE).await;
    let source = machine(&s3, &server.url());
    source.crash("qdrant-snapshot-made", &CREATE);
    server.ask("DELETE", "/collections/docs", Value::Null).await;
    source.run(&CREATE).exits(0).says("a snapshot of docs, which is no collection any more").says("delete it there");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_stand_apart_within_a_run_and_from_run_to_run() {
    let s3 = S3::start();
    let server = with_docs(300).await;
    server.make("more", SIZE).await;
    let recorder = Recorder::before(&server.url()).await;
    let source = machine(&s3, &recorder.url());
    let base = ["backup", "create", "--type", "base"];
    source.run(&base).exits(0);
    // It has told its snapshot's end to nobody, and the next run deletes that snapshot before it looks.
    source.crash("qdrant-snapshot-made", &base);
    source.run(&base).exits(0);
    let made = recorder.times_of("POST /collections/", "/snapshots?wait=true");
    let apart: Vec<_> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(apart.len(), 4, "two, one and two: {apart:?}");
    assert!(apart.iter().all(|time| *time >= Duration::from_millis(1100)), "{apart:?}");
}
