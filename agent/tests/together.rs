//! Several targets at once: `backup create --targets`.

mod support;

use serde_json::{Value, json};
use support::cli::{Machine, PREFIX, Ran};
use support::data::{fill, make_collection};
use support::gate::Meeting;
use support::redis::{PASSWORD, RedisServer};
use support::s3::S3;
use support::weaviate::WeaviateServer;

#[test]
fn several_targets_are_backed_up_at_once_and_one_failure_fails_the_whole() {
    let s3 = S3::start();
    let (notes, mut lost) = (Machine::of_files(&s3, ""), Machine::of_files(&s3, ""));
    for machine in [&notes, &lost] {
        std::fs::write(machine.data().join("a"), "a").expect("written");
    }
    let path = |machine: &Machine| machine.settings().display().to_string();
    rename(&lost, "lost");
    let targets = format!("{},{}", path(&notes), path(&lost));
    let made = notes.run(&["backup", "create", "--targets", &targets, "--json"]).exits(0).json();
    for result in made["targets"].as_array().expect("a result each") {
        assert!(result["manifest"]["backup_id"].is_string(), "{result}");
    }

    std::fs::remove_dir_all(lost.data()).expect("removed");
    let ran = notes.run(&["backup", "create", "--targets", &targets]).exits(1).says("FAILED");
    assert!(ran.out.contains("increment"), "the other target's backup was made all the same: {ran:?}");
    let found = notes.run(&["backup", "list", "--json"]).exits(0).json();
    assert_eq!(found["backups"].as_array().expect("a list").len(), 2);

    let twice = format!("{0},{0}", path(&notes));
    notes.run(&["backup", "create", "--targets", &twice]).exits(2).says("twice");
    lost = lost.with("PERENNIAL_TARGET", "nobody");
    lost.run(&["backup", "create", "--targets", "/no/such.yaml"]).exits(2).says("/no/such.yaml");
}

/// Two databases of one application, of which the backups should be of about the same moment: each request for a
/// capture is held at a door until the other one stands before its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_databases_are_captured_at_the_same_time_and_each_for_itself() {
    let s3 = S3::start();
    let (weaviate, redis) = tokio::join!(WeaviateServer::ready("weaviate-0", &s3), RedisServer::start("save \"\""));
    make_collection(&weaviate.url(), "Doc", json!({})).await;
    fill(&weaviate.url(), "Doc", 0..200, json!({})).await;
    redis.client().await.fill("k", 0..300).await;

    let meeting = Meeting::of(2);
    let docs = Machine::new(&s3, &weaviate, "").with("TEST_PASSWORD", PASSWORD);
    behind(&docs, &weaviate.url(), meeting.door(port(&weaviate.url()), "POST /v1/backups/").await);
    let cache = Machine::of_engine(&s3, &redis.settings("method: rdb\napi_key: {env: TEST_PASSWORD}"), None);
    behind(&cache, &redis.url(), meeting.door(port(&redis.url()), "BGSAVE").await);
    rename(&cache, "cache");
    let targets = [&docs, &cache].map(|machine| machine.settings().display().to_string());
    let create = ["backup", "create", "--json", "--targets", &targets.join(",")];
    let run = |machine: &Machine| {
        let mut command = machine.command(&create);
        tokio::task::block_in_place(|| Ran::of(&mut command))
    };

    let made = run(&docs).exits(0).json();
    let results = made["targets"].as_array().expect("a result each");
    let told: Vec<_> = results.iter().map(|r| (r["target"].as_str(), r["manifest"]["engine"].as_str())).collect();
    assert_eq!(told, [(Some(&*targets[0]), Some("weaviate")), (Some(&*targets[1]), Some("redis"))]);
    assert!(meeting.took_place(), "one was captured after the other: {made}");
    assert_eq!([0, 1].map(|n| held(&results[n]["manifest"])), [200, 300]);

    let ran = run(&docs.with("TEST_PASSWORD", "another")).exits(2);
    let (written, failed) = (&ran.json()["targets"][0]["manifest"], &ran.json()["targets"][1]["error"]);
    assert_eq!((held(written), failed["code"].as_str()), (200, Some("EngineDenied")), "{ran:?}");
    let newest = s3.repository(PREFIX).pointer().await.expect("read").backup_id().map(ToString::to_string);
    assert_eq!(newest.as_deref(), written["backup_id"].as_str(), "what could be backed up was published");
}

/// Objects in a backup.
fn held(manifest: &Value) -> u64 {
    let collections = manifest["collections"].as_array().expect("a list");
    collections.iter().map(|c| c["count_after"].as_u64().expect("a count")).sum()
}

fn port(url: &str) -> u16 {
    url.rsplit(':').next().expect("a port").parse().expect("a port")
}

/// The machine finds its engine at another port.
fn behind(machine: &Machine, url: &str, door: u16) {
    let text = std::fs::read_to_string(machine.settings()).expect("settings");
    let text = text.replace(url, &url.replace(&port(url).to_string(), &door.to_string()));
    std::fs::write(machine.settings(), text).expect("written");
}

fn rename(machine: &Machine, name: &str) {
    let text = std::fs::read_to_string(machine.settings()).expect("settings");
    let text = text.replace("name: docs", &format!("name: {name}")).replace("/docs\n", &format!("/{name}\n"));
    std::fs::write(machine.settings(), text).expect("written");
}
