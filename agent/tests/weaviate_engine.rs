//! The Weaviate engine against a real Weaviate and a real S3 server.
//!
//! Starting a Weaviate takes ten seconds, so a test here is a story about one or two of them.

mod support;

use std::path::Path;
use std::time::Duration;

use perennial::check::Found;
use perennial::engine::native::{Description, Place, Root};
use perennial::engine::{Counted, Engine, EngineError, NativeBackup, Step};
use perennial::engines::weaviate::{Options, Weaviate};
use perennial_shared::secret::Secret;
use serde_json::json;
use support::data::{fill, id, make_collection, object, send, try_send};
use support::s3::{BUCKET, S3};
use support::weaviate::{API_KEY, WeaviateServer};

const PATIENCE: Duration = Duration::from_secs(120);

fn in_bucket(id: &str) -> Place {
    Place { root: Root::Bucket(BUCKET.into()), path: "docs/backups".into(), id: id.into() }
}

fn silent(_: Step<'_>) {}

fn counted(name: &str, count: u64, uncounted_tenants: u64) -> Counted {
    Counted { name: name.into(), count, uncounted_tenants, ..Counted::default() }
}

/// Plain, with tenants of which one is inactive, with two named vectors, and without vectors.
async fn fill_all_kinds(url: &str) {
    make_collection(url, "Plain", json!({})).await;
    make_collection(url, "Tens", json!({"multiTenancyConfig": {"enabled": true}})).await;
    make_collection(
        url,
        "Named",
        json!({"vectorConfig": {
        "first": {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"},
        "second": {"vectorizer": {"none": {}}, "vectorIndexType": "flat"}}}),
    )
    .await;
    make_collection(url, "Novec", json!({"vectorIndexConfig": {"skip": true}})).await;
    let tenants: Vec<_> = (0..120).map(|n| json!({"name": format!("t{n}")})).collect();
    send("POST", &format!("{url}/v1/schema/Tens/tenants"), Some(json!(tenants))).await;
    fill(url, "Plain", 0..2000, json!({})).await;
    fill(url, "Tens", 0..30, json!({"tenant": "t0"})).await;
    fill(url, "Tens", 0..12, json!({"tenant": "t119"})).await;
    fill(url, "Tens", 0..5, json!({"tenant": "t7"})).await;
    fill(url, "Named", 0..50, json!({"vectors": ["first", "second"]})).await;
    fill(url, "Novec", 0..5, json!({"without_vector": true})).await;
    let inactive = json!([{"name": "t7", "activityStatus": "COLD"}]);
    send("PUT", &format!("{url}/v1/schema/Tens/tenants"), Some(inactive)).await;
}

fn all_kinds() -> Vec<Counted> {
    vec![counted("Named", 50, 0), counted("Novec", 5, 0), counted("Plain", 2000, 0), counted("Tens", 42, 1)]
}

#[tokio::test]
async fn what_a_server_says_of_itself_and_how_it_is_interrupted() {
    let s3 = S3::start();
    let mut server = WeaviateServer::ready("weaviate-0", &s3).await;
    let engine = server.engine();
    let (url, id0) = (server.url(), id(0));

    let identity = engine.identity().await.expect("who it is");
    assert_eq!((identity.version.as_str(), identity.host_name.as_str()), ("1.39.0", "weaviate-0"));
    assert_eq!(engine.count().await.expect("counts"), []);
    let nothing = engine.capture(&in_bucket("empty"), PATIENCE, &silent).await;
    assert!(matches!(nothing, Err(EngineError::Empty)), "{nothing:?}");

    fill_all_kinds(&url).await;
    assert_eq!(engine.count().await.expect("counts"), all_kinds());
    samples_of_every_kind(&engine).await;
    a_wrong_key_is_named(&url).await;
    a_pinned_name_is_enforced(&url).await;

    engine.refuse_writes().await.expect("read-only");
    let write = json!({"class": "Plain", "properties": {"title": "late"}});
    let (status, text) = try_send("POST", &format!("{url}/v1/objects"), Some(write.clone())).await;
    assert!(status == 500 && text.contains("read-only"), "{status} {text}");
    let (status, _) = try_send("DELETE", &format!("{url}/v1/objects/Tens/{id0}?tenant=t0"), None).await;
    assert_eq!(status, 500);
    // Why clients are cut off before a final backup: of a batch the first object is refused, and the others are acknowledged and lost.
    let batch = [object("Plain", 7001, &json!({})), object("Plain", 7002, &json!({}))];
    let answers = send("POST", &format!("{url}/v1/batch/objects"), Some(json!({ "objects": batch }))).await;
    let said = |n: usize| answers[n]["result"]["status"].as_str().unwrap_or_default().to_owned();
    assert_eq!((said(0).as_str(), said(1).as_str(), engine.can_refuse_writes()), ("FAILED", "SUCCESS", false));
    assert_eq!(engine.count().await.expect("reads go on"), all_kinds());
    let refused = engine.capture(&in_bucket("read-only"), PATIENCE, &silent).await.expect_err("a known limit");
    assert!(matches!(&refused, EngineError::Failed { why, .. } if why.contains("read-only")), "{refused}");
    engine.accept_writes().await.expect("writable");
    send("POST", &format!("{url}/v1/objects"), Some(write)).await;

    too_slow_is_cancelled(&engine).await;
    one_at_a_time(&engine).await;
    a_restart_in_the_middle_is_noticed(&mut server).await;
}

async fn samples_of_every_kind(engine: &Weaviate) {
    let plain = engine.samples("Plain", 3).await.expect("samples");
    assert_eq!(plain.len(), 3);
    for sample in &plain {
        assert_eq!((sample.ids.len(), &sample.ids[0]), (5, &sample.near_object), "an object is nearest to itself");
        assert_eq!(engine.ask("Plain", sample).await.expect("asked again").ids, sample.ids);
    }
    let of_tenants = engine.samples("Tens", 3).await.expect("samples");
    assert!(of_tenants.iter().all(|s| s.tenant.is_some()) && !of_tenants.is_empty(), "{of_tenants:?}");
    let named = engine.samples("Named", 2).await.expect("samples");
    assert_eq!(named[0].vector.as_deref(), Some("first"));
    assert_eq!(engine.samples("Novec", 3).await.expect("no vectors, no samples"), []);
}

async fn a_wrong_key_is_named(url: &str) {
    let wrong = Weaviate::new(url, Some(&Secret::new("wrong-key")), Options::default()).expect("an address");
    let error = wrong.identity().await.expect_err("a wrong key");
    assert!(matches!(error, EngineError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("api_key") && !error.to_string().contains("wrong-key"), "{error}");
    wrong.health().await.expect("readiness needs no key");
}

async fn a_pinned_name_is_enforced(url: &str) {
    let options = Options { host_name: Some("weaviate-7".into()), ..Options::default() };
    let other = Weaviate::new(url, Some(&Secret::new(API_KEY)), options).expect("an address");
    let error = other.capture(&in_bucket("misnamed"), PATIENCE, &silent).await.expect_err("another name");
    assert!(matches!(error, EngineError::HostNameDiffers { .. }), "{error}");
}

async fn too_slow_is_cancelled(engine: &Weaviate) {
    let place = in_bucket("slow");
    let error = engine.capture(&place, Duration::ZERO, &silent).await.expect_err("no time at all");
    assert!(matches!(&error, EngineError::TimedOut { outcome, .. } if outcome == "it was cancelled"), "{error}");
    engine.cancel_capture(&place).await.expect("cancelling what is over is fine");
}

async fn one_at_a_time(engine: &Weaviate) {
    let (first, second) = (in_bucket("first"), in_bucket("second"));
    let later = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        engine.capture(&second, PATIENCE, &silent).await
    };
    let (first, second) = tokio::join!(engine.capture(&first, PATIENCE, &silent), later);
    first.expect("a backup");
    assert!(matches!(&second, Err(EngineError::Busy { what: "backup", id }) if id == "first"), "{second:?}");
}

async fn a_restart_in_the_middle_is_noticed(server: &mut WeaviateServer) {
    let engine = server.engine();
    let place = in_bucket("interrupted");
    let interruption = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.restart();
    };
    let (result, ()) = tokio::join!(engine.capture(&place, PATIENCE, &silent), interruption);
    let error = result.expect_err("its server went away");
    assert!(matches!(&error, EngineError::Abandoned { status, .. } if status == "STARTED"), "{error}");
}

#[tokio::test]
async fn a_backup_restores_on_another_server_or_says_why_not() {
    let s3 = S3::start();
    let (old, new) = (WeaviateServer::start("weaviate-0", &s3), WeaviateServer::start("weaviate-1", &s3));
    tokio::join!(old.wait(), new.wait());
    let (from, to) = (old.engine(), new.engine());
    fill_all_kinds(&old.url()).await;
    let samples = from.samples("Plain", 3).await.expect("samples");

    let place = in_bucket("good");
    let seen = std::sync::Mutex::new(vec![]);
    let told = |step: Step<'_>| seen.lock().expect("unpoisoned").push(step.state.to_owned());
    from.capture(&place, PATIENCE, &told).await.expect("a backup");
    assert!(seen.lock().expect("unpoisoned").contains(&"STARTED".to_owned()), "progress is told");

    let folder = s3.bucket().join("docs/backups/good");
    let description = described(&from, &folder);
    assert_eq!(description.collections, ["Named", "Novec", "Plain", "Tens"]);
    every_expected_object_exists(&from, &description, &folder);

    let exists = from.check_install(&description).await.expect_err("it is all there");
    assert!(matches!(&exists, EngineError::CollectionExists { names } if names.len() == 4), "{exists}");
    orphans_are_refused(&to, &new.data_dir(), &description).await;
    to.check_install(&description).await.expect("nothing in the way");
    absent_is_said(&to, &description).await;

    // An old cancellation that never finished: the server answers "STARTED" and does nothing, for ever.
    std::fs::write(folder.join("restore_config.json"), STUCK).expect("written");
    let stuck = to.install(&place, &description, PATIENCE, &silent).await.expect_err("stuck");
    assert!(matches!(&stuck, EngineError::Abandoned { status, .. } if status == "CANCELLING"), "{stuck}");
    // An old success, of a restore that happened elsewhere.
    std::fs::write(folder.join("restore_config.json"), STUCK.replace("CANCELLING", "SUCCESS")).expect("written");

    to.install(&place, &description, PATIENCE, &silent).await.expect("restored under another name");
    assert_eq!(to.count().await.expect("counts"), all_kinds());
    for sample in &samples {
        assert_eq!(to.ask("Plain", sample).await.expect("asked").ids, sample.ids);
    }
    assert_eq!(left_over(&to).await, (Found::Good, "none".into()));

    damage_is_found(&to, &place, &description, &folder).await;
    through_a_folder(&from, &to).await;
}

const STUCK: &str = r#"{"startedAt":"2026-11-21T11:15:58Z","id":"good","nodes":{"weaviate-0":{"classes":["Plain"],"status":"SUCCESS"}},
    "status":"CANCELLING","version":"2.1","serverVersion":"1.39.0"}"#;

fn described(engine: &Weaviate, folder: &Path) -> Description {
    let body = std::fs::read(folder.join(engine.description_key())).expect("a description");
    engine.describe(&body).expect("a finished backup")
}

fn every_expected_object_exists(engine: &Weaviate, description: &Description, folder: &Path) {
    let mut expected = 0;
    for part in engine.part_keys(description) {
        let body = std::fs::read(folder.join(&part)).expect("a part");
        for key in engine.expected_keys(&part, &body).expect("a good part") {
            assert!(folder.join(&key).is_file(), "{key}");
            expected += 1;
        }
    }
    assert!(expected >= 4, "{expected} chunks");
}

/// What `doctor` says of folders that the engine does not know.
async fn left_over(engine: &Weaviate) -> (Found, String) {
    let check = engine.examine().await.into_iter().find(|c| c.name == "left-over folders").expect("looked at");
    (check.found, check.detail)
}

async fn orphans_are_refused(engine: &Weaviate, data_dir: &Path, description: &Description) {
    std::fs::create_dir_all(data_dir.join("plain/shard/lsm")).expect("made");
    let error = engine.check_install(description).await.expect_err("an orphan");
    assert!(matches!(&error, EngineError::OrphanFolder { folders } if folders[0].ends_with("/plain")), "{error}");
    let (found, detail) = left_over(engine).await;
    assert!(found == Found::Problem && detail.contains(&data_dir.join("plain").display().to_string()), "{detail}");
    std::fs::remove_dir_all(data_dir.join("plain")).expect("removed");
}

async fn absent_is_said(engine: &Weaviate, description: &Description) {
    let error = engine.install(&in_bucket("absent"), description, PATIENCE, &silent).await.expect_err("no such backup");
    assert!(matches!(error, EngineError::NotFound { .. }), "{error}");
}

async fn damage_is_found(engine: &Weaviate, place: &Place, description: &Description, folder: &Path) {
    engine.remove_collections(&description.collections).await.expect("removed");
    let chunk = folder.join("weaviate-0/Plain/chunk-1");
    let good = std::fs::read(&chunk).expect("a chunk");
    // Cut short, not flipped: the engine unpacks some flipped bytes without a word, which the layer above finds by its hashes.
    std::fs::write(&chunk, &good[..good.len() / 2]).expect("damaged");
    let error = engine.install(place, description, PATIENCE, &silent).await.expect_err("damaged");
    assert!(matches!(&error, EngineError::Failed { what: "restore", .. }), "{error}");
    assert!(engine.collections().await.expect("a list").is_empty(), "nothing of a damaged backup is put in place");

    std::fs::write(&chunk, good).expect("mended");
    engine.install(place, description, PATIENCE, &silent).await.expect("a failed restore is not in the way");
    assert_eq!(engine.count().await.expect("counts"), all_kinds());
}

async fn through_a_folder(from: &Weaviate, to: &Weaviate) {
    let shared = tempfile::tempdir().expect("a folder");
    let root = Root::Folder(shared.path().display().to_string());
    let place = Place { root, path: "docs/backups".into(), id: "in-a-folder".into() };
    from.capture(&place, PATIENCE, &silent).await.expect("a backup");
    let description = described(from, &shared.path().join("docs/backups/in-a-folder"));
    to.remove_collections(&description.collections).await.expect("removed");
    to.install(&place, &description, PATIENCE, &silent).await.expect("restored");
    assert_eq!(to.count().await.expect("counts"), all_kinds());
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_said_to_be_so() {
    let [port] = support::free_ports();
    let engine = Weaviate::new(&format!("http://127.0.0.1:{port}"), None, Options::default()).expect("an address");
    let error = engine.identity().await.expect_err("nobody listens");
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    engine.wait_until_ready(Duration::from_secs(1)).await.expect_err("nobody listens");
}
