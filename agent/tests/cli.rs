//! The verbs of the command line against a real Weaviate and a real S3 server.

mod support;

use std::process::Command;

use perennial::engine::Engine;
use perennial_shared::id::Generation;
use perennial_shared::pointer::PointerState;
use serde_json::json;
use support::cli::{Machine, PREFIX};
use support::data::{fill, id, make_collection, send};
use support::s3::{BUCKET, S3};
use support::until;
use support::weaviate::WeaviateServer;

#[tokio::test]
async fn from_an_empty_database_to_a_restored_one() {
    let mut s3 = S3::start();
    let (mut old, new) = WeaviateServer::two(&s3).await;
    let (machine, scratch) = (Machine::new(&s3, &old, ""), Machine::new(&s3, &new, ""));

    before_the_first_backup(&machine);
    make_collection(&old.url(), "Doc", json!({})).await;
    make_collection(&old.url(), "Img", json!({})).await;
    fill(&old.url(), "Doc", 0..1500, json!({})).await;
    fill(&old.url(), "Img", 0..200, json!({})).await;

    let first = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let first_id = first["backup_id"].as_str().expect("an id").to_owned();
    assert_eq!(first["collections"][0]["count_after"], 1500);
    assert_eq!(first["latest_snapshot"], first_id.as_str());
    the_sums_are_those_of_sha256sum(&s3, &first);
    after_a_backup(&machine, &first_id);
    only_the_owner_publishes(&s3, &machine).await;

    restoring_overwrites_nothing_unasked(&machine, &old).await;
    restoring_into_an_empty_database(&scratch, &new, &first_id).await;

    fill(&old.url(), "Doc", 1500..1600, json!({})).await;
    let second = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let second_id = second["backup_id"].as_str().expect("an id").to_owned();
    scratch.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says(&second_id);
    assert_eq!(new.objects().await, 1800);
    scratch.run(&["backup", "restore", "--id", &first_id, "--replace", "--yes"]).exits(0);
    assert_eq!(new.objects().await, 1700, "an older backup can be asked for");

    damage_is_told_and_not_restored(&s3, &scratch, &new, &second_id).await;

    s3.stop();
    machine.run(&["backup", "verify"]).exits(4);
    machine.run(&["backup", "list"]).exits(4);
    s3.resume();
    old.stop();
    machine.run(&["backup", "create"]).exits(4).says("does not answer");
    machine.run(&["status", "--json"]).exits(4);
    machine.run(&["doctor"]).exits(4).says("UNKNOWN  engine ready");
}

fn before_the_first_backup(machine: &Machine) {
    machine.run(&["doctor"]).exits(3).says("PROBLEM  newest backup").says("ok       engine ready");
    machine.run(&["status"]).exits(3).says("none");
    machine.run(&["backup", "list"]).exits(0).says("there is no complete backup");
    machine.run(&["backup", "show"]).exits(1);
    machine.run(&["backup", "restore"]).exits(1).says("no backup that could be restored");
    machine.run(&["backup", "create"]).exits(1).says("nothing to back up");
    let wrong = machine.command(&["status"]).env("TEST_API_KEY", "wrong-key").output().expect("it runs");
    assert_eq!(wrong.status.code(), Some(4));
    let wrong = machine.command(&["backup", "create"]).env("TEST_API_KEY", "wrong-key").output().expect("it runs");
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && text.contains("API key") && !text.contains("wrong-key"), "{text}");
}

fn the_sums_are_those_of_sha256sum(s3: &S3, manifest: &serde_json::Value) {
    let folder = s3.bucket().join(PREFIX).join("backups").join(manifest["backup_id"].as_str().expect("an id"));
    let objects = manifest["objects"].as_array().expect("a list");
    assert!(objects.len() >= 4, "two descriptions and two chunks at least");
    for object in objects {
        let file = folder.join(object["key"].as_str().expect("a key"));
        let said = Command::new("sha256sum").arg(&file).output().expect("coreutils").stdout;
        assert!(
            String::from_utf8_lossy(&said).starts_with(object["sha256"].as_str().expect("a sum")),
            "{}",
            file.display()
        );
    }
}

fn after_a_backup(machine: &Machine, id: &str) {
    machine.run(&["backup", "list"]).exits(0).says(id).says("latest").says("manual");
    machine.run(&["backup", "show"]).exits(0).says("1500 objects, 3 sample queries");
    machine.run(&["backup", "show", "--id", id, "--json"]).exits(0);
    machine.run(&["backup", "show", "--id", "no-such-backup"]).exits(1);
    let report = machine.run(&["backup", "verify", "--json"]).exits(0).json();
    assert_eq!((report["verdict"].as_str(), &report["objects"]), (Some("good"), &report["objects_good"]));
    machine.run(&["status"]).exits(0).says("1700 objects in 2 collections").says("nobody, generation 1");
    // Nobody answers for AWS here, so who is calling cannot be told, which is not the same as good.
    let doctor = machine.run(&["doctor", "--json"]).exits(4).json();
    for check in doctor.as_array().expect("a list") {
        let expected = if check["name"] == "AWS identity" { "could_not_tell" } else { "good" };
        assert_eq!(check["found"], expected, "{check}");
    }
}

async fn only_the_owner_publishes(s3: &S3, machine: &Machine) {
    let repository = s3.repository(PREFIX);
    let seen = repository.pointer().await.expect("read");
    let PointerState::Present { pointer, .. } = &seen else { panic!("{seen:?}") };
    let now = jiff::Timestamp::now();
    let taken = pointer.as_ref().clone().owned_by("i-0other", Generation(2), now);
    repository.set_pointer(&seen, &taken).await.expect("moved");
    machine.run(&["backup", "create"]).exits(5).says("i-0other, generation 2");
    let seen = repository.pointer().await.expect("read");
    repository.set_pointer(&seen, pointer).await.expect("moved back");
}

async fn restoring_overwrites_nothing_unasked(machine: &Machine, server: &WeaviateServer) {
    machine.run(&["backup", "restore"]).exits(5).says("not empty").says("--replace");
    machine.run(&["backup", "restore", "--replace"]).exits(5).says("--yes");
    machine.run(&["backup", "restore", "--replace", "--dry-run"]).exits(0).says("would delete Doc, Img");
    assert_eq!(server.objects().await, 1700);
}

async fn restoring_into_an_empty_database(machine: &Machine, server: &WeaviateServer, id: &str) {
    machine.run(&["backup", "restore", "--dry-run"]).exits(0).says("nothing is in the way");
    std::fs::create_dir_all(server.data_dir().join("doc/x/lsm")).expect("made");
    machine.run(&["backup", "restore"]).exits(5).says("lose data without an error");
    std::fs::remove_dir_all(server.data_dir().join("doc")).expect("removed");
    machine.run(&["backup", "restore"]).exits(0).says(id).says("1700 objects in 2 collections, as the manifest says");
    machine.run(&["backup", "restore"]).exits(0).says("in the engine already");
    assert_eq!(server.objects().await, 1700);

    // From now on it holds something that is in no backup.
    let (url, gone) = (server.url(), id_of_one());
    send("DELETE", &format!("{url}/v1/objects/Doc/{gone}"), None).await;
    machine.run(&["backup", "restore"]).exits(5).says("not empty");
    assert_eq!(server.objects().await, 1699);
}

fn id_of_one() -> String {
    id(7)
}

async fn damage_is_told_and_not_restored(s3: &S3, machine: &Machine, server: &WeaviateServer, id: &str) {
    let chunk = s3.bucket().join(format!("{PREFIX}/backups/{id}/weaviate-0/Doc/chunk-1"));
    let good = std::fs::read(&chunk).expect("a chunk");
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..middle + 32].iter_mut().for_each(|b| *b ^= 0xff);
    std::fs::write(&chunk, bad).expect("damaged");
    machine.run(&["backup", "verify"]).exits(3).says("NOT GOOD").says("chunk-1");
    let ran = machine.run(&["backup", "restore", "--replace", "--yes", "--json"]).exits(3);
    assert_eq!(ran.json()["error"]["code"], "BackupDamaged");
    assert!(server.engine().collections().await.expect("a list").is_empty());
    std::fs::write(&chunk, good).expect("mended");
    machine.run(&["backup", "restore"]).exits(0);
    assert_eq!(server.objects().await, 1800);
}

/// A bucket that only a boot script wrote: no pointer of ours, no manifest, a backup somewhere below the prefix.
#[tokio::test]
async fn a_boot_script_s_backup_is_found_and_restored() {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..50, json!({})).await;
    let url = format!("{}/v1/backups/s3", server.url());
    let config = json!({"Bucket": BUCKET, "Path": format!("{PREFIX}/weaviate-backups"), "CompressionLevel": "ZstdDefaultCompression"});
    send("POST", &url, Some(json!({"id": "nightly", "config": config}))).await;
    let status = format!("{url}/nightly?bucket={BUCKET}&path={PREFIX}/weaviate-backups");
    until("the script's backup", async || send("GET", &status, None).await["status"] == "SUCCESS").await;
    server.empty().await;
    let machine = Machine::new(&s3, &server, "");
    machine.run(&["backup", "list"]).exits(0).says("nightly");
    machine.run(&["backup", "show"]).exits(3).says("no manifest");
    machine.run(&["backup", "restore"]).exits(0).says("nightly").says("no manifest to compare");
    assert_eq!(server.objects().await, 50);
    machine.run(&["backup", "create"]).exits(0);
    machine.run(&["backup", "verify"]).exits(0);
}

#[test]
fn usage_is_documented_and_wrong_usage_is_2() {
    let perennial = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perennial")).args(words).env_clear().output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, _) = perennial(&["--help"]);
    assert!(code == Some(0) && out.contains("5  refused for safety"), "{out}");
    let (code, out, _) = perennial(&["completion", "bash"]);
    assert!(code == Some(0) && out.contains("_perennial"), "{out}");
    for words in [
        &["status"][..],
        &["--target", "/nonexistent.yaml", "status"],
        &["--target", "x.yaml", "run", "restore-$(id)"],
        &["--target", "x.yaml", "backup", "restore", "--latest", "--id", "b1"],
    ] {
        let (code, _, err) = perennial(words);
        assert_eq!(code, Some(2), "{words:?}: {err}");
        assert!(!err.is_empty());
    }
}
