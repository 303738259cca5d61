//! The program is killed at every step of a backup and of a restore. Afterwards the pointer names a backup that restores, and the same
//! command begun again succeeds.

mod support;

use serde_json::json;
use support::cli::{Machine, PREFIX};
use support::data::{fill, id, make_collection, send};
use support::s3::S3;
use support::weaviate::WeaviateServer;

const OF_A_BACKUP: [&str; 6] = [
    "backup-before-capture",
    "backup-capturing",
    "backup-captured",
    "backup-hashed",
    "backup-described",
    "backup-published",
];
const OF_A_RESTORE: [&str; 5] =
    ["restore-remembered", "restore-removed", "restore-installing", "restore-installed", "restore-finished"];

#[tokio::test]
async fn killed_at_every_step_of_a_backup() {
    let s3 = S3::start();
    let (server, other) = WeaviateServer::two(&s3).await;
    let (machine, scratch) = (Machine::new(&s3, &server, ""), Machine::new(&s3, &other, ""));
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..100, json!({})).await;
    machine.run(&["backup", "create"]).exits(0);

    let repository = s3.repository(PREFIX);
    let mut objects = 100;
    for step in OF_A_BACKUP {
        let before = repository.pointer().await.expect("read").backup_id().cloned();
        fill(&server.url(), "Doc", objects..objects + 10, json!({})).await;
        objects += 10;
        machine.crash(step, &["backup", "create"]);

        let after = repository.pointer().await.expect("read").backup_id().cloned();
        assert_eq!(before == after, step != "backup-published", "{step}: the pointer moves in the last step only");
        machine.run(&["backup", "verify"]).exits(0);

        machine.run(&["backup", "create"]).exits(0);
        let newest = machine.run(&["backup", "show", "--json"]).exits(0).json();
        assert_eq!(newest["collections"][0]["count_after"], objects, "{step}");
    }
    scratch.run(&["backup", "restore"]).exits(0);
    assert_eq!(other.objects().await, objects);
}

#[tokio::test]
async fn killed_at_every_step_of_a_restore() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    let machine = Machine::new(&s3, &server, "");
    make_collection(&server.url(), "Doc", json!({})).await;
    make_collection(&server.url(), "Img", json!({})).await;
    fill(&server.url(), "Doc", 0..1000, json!({})).await;
    fill(&server.url(), "Img", 0..100, json!({})).await;
    machine.run(&["backup", "create"]).exits(0);
    for step in OF_A_RESTORE {
        // Somebody's data, which the restore is told to delete.
        server.empty().await;
        make_collection(&server.url(), "Old", json!({})).await;
        fill(&server.url(), "Old", 0..10, json!({})).await;
        machine.crash(step, &["backup", "restore", "--replace", "--yes"]);

        // Up to here nothing was deleted, so deleting needs to be asked for again.
        let again: &[&str] = match step {
            "restore-remembered" => &["backup", "restore", "--replace", "--yes"],
            _ => &["backup", "restore"],
        };
        machine.run(again).exits(0).says("1100 objects in 2 collections");
        assert_eq!(server.objects().await, 1100, "{step}");
        machine.run(&["backup", "restore"]).exits(0).says("in the engine already");
    }
}

/// A killed restore left the engine at work, and then another backup is wanted.
#[tokio::test]
async fn another_backup_than_the_one_that_was_interrupted() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    let machine = Machine::new(&s3, &server, "");
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..300, json!({})).await;
    let older = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let older = older["backup_id"].as_str().expect("an id");
    fill(&server.url(), "Doc", 300..400, json!({})).await;
    machine.run(&["backup", "create"]).exits(0);
    server.empty().await;
    machine.crash("restore-installing", &["backup", "restore", "--id", older]);
    machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("400 objects");
    assert_eq!(server.objects().await, 400);

    // A finished restore is somebody's database, even while its counts are still those of the backup.
    let changed = json!({"class": "Doc", "id": id(5), "properties": {"title": "new"}, "vector": vec![0.25; 16]});
    send("PUT", &format!("{}/v1/objects/Doc/{}", server.url(), id(5)), Some(changed)).await;
    machine.run(&["backup", "restore"]);
    let kept = send("GET", &format!("{}/v1/objects/Doc/{}", server.url(), id(5)), None).await;
    assert_eq!(kept["properties"]["title"], "new", "nothing was deleted unasked");
}

/// The engine dies with the program in the middle of a restore, as a machine does.
#[tokio::test]
async fn the_whole_machine_dies_in_the_middle_of_a_restore() {
    let s3 = S3::start();
    let mut server = WeaviateServer::ready("weaviate-0", &s3).await;
    let machine = Machine::new(&s3, &server, "");
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..1000, json!({})).await;
    machine.run(&["backup", "create"]).exits(0);
    server.empty().await;
    machine.crash("restore-installing", &["backup", "restore"]);
    server.restart();
    machine.run(&["backup", "restore"]).exits(0).says("1000 objects in 1 collections");
    assert_eq!(server.objects().await, 1000);
}
