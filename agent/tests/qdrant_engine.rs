//! Qdrant, asked and backed up through the engine interface.

mod support;

use std::path::Path;
use std::time::Duration;

use perennial::check::Found;
use perennial::engine::files::{CaptureWish, CapturedFiles, InstallWish, Installed};
use perennial::engine::{Answer, Engine, EngineError, FileBackup};
use perennial::engines::qdrant::Qdrant;
use perennial_shared::manifest::{Manifest, Sample};
use serde_json::{Value, json};
use support::files_ending;
use support::qdrant::{API_KEY, QdrantServer};

const PATIENCE: Duration = Duration::from_secs(120);
/// A restore's tag is its backup's id.
const TAG: &str = "20261121t105501z-g0003-7f3a9c";

#[tokio::test]
async fn a_server_is_asked_who_it_is_and_what_it_holds() {
    let server = QdrantServer::with_key(Some(API_KEY)).await;
    let engine = server.engine();
    server.make("docs", 4).await;
    server.fill("docs", 1..301, 4).await;
    server.make("empty", 4).await;
    server.alias("now", "docs").await;

    engine.health().await.expect("ready");
    let identity = engine.identity().await.expect("known");
    assert!(identity.version.starts_with("1.") && identity.host_name.is_empty(), "{identity:?}");
    assert_eq!(engine.collections().await.expect("a list"), ["docs", "empty"], "an alias is no collection");
    let counts: Vec<_> = engine.count().await.expect("counts").into_iter().map(|c| (c.name, c.count)).collect();
    assert_eq!(counts, [("docs".into(), 300), ("empty".into(), 0)]);

    let samples = engine.samples("docs", 3).await.expect("samples");
    assert_eq!(samples.len(), 3, "{samples:?}");
    for sample in &samples {
        assert_eq!(sample.ids.len(), 5);
        assert_eq!(sample.ids[0], sample.near_object, "nearest first");
        let Answer { ids, itself, digest, .. } = engine.ask("docs", sample).await.expect("asked");
        assert_eq!((&ids, itself, &digest), (&sample.ids, true, &sample.digest));
    }
    let gone = Sample { near_object: "99999".into(), ..samples[0].clone() };
    assert_eq!(engine.ask("docs", &gone).await.expect("asked"), Answer::default());
    assert_eq!(engine.ask("nowhere", &gone).await.expect("asked"), Answer::default());

    assert!(!engine.can_refuse_writes());
    assert!(matches!(engine.refuse_writes().await, Err(EngineError::Unsupported(why)) if why.contains("port")));
    engine.accept_writes().await.expect("nothing to do");

    for key in [None, Some("wrong")] {
        let stranger = server.engine_with(key);
        stranger.health().await.expect("everybody may know that it is ready");
        let error = stranger.identity().await.expect_err("no key");
        assert!(matches!(error, EngineError::Unauthorized { .. }), "{error}");
        assert!(!error.to_string().contains("wrong,"), "{error}");
    }
    let checks = engine.examine().await;
    assert!(checks.iter().all(|c| c.found == Found::Good), "{checks:?}");
}

#[tokio::test]
async fn points_of_every_kind_are_samples() {
    let server = QdrantServer::ready().await;
    let engine = server.engine();
    let named =
        json!({"vectors": {"small": {"size": 2, "distance": "Dot"}, "large": {"size": 3, "distance": "Euclid"}}});
    server.ask("PUT", "/collections/named", named).await;
    let points: Vec<_> = (0..40)
        .map(|n| {
            let id = format!("{n:02x}000000-0000-4000-8000-000000000000");
            json!({"id": id, "vector": {"small": [n, 1], "large": [n, 2, 3]}, "payload": {"n": n, "s": {"b": 1, "a": [1.5]}}})
        })
        .collect();
    server.ask("PUT", "/collections/named/points?wait=true", json!({ "points": points })).await;
    server.ask("PUT", "/collections/bare", json!({"sparse_vectors": {"words": {}}})).await;
    server
        .ask(
            "PUT",
            "/collections/bare/points?wait=true",
            json!({"points": [{"id": 1, "vector": {}, "payload": {"a": 1}}]}),
        )
        .await;

    let found = engine.samples("named", 3).await.expect("samples");
    assert!(found.iter().all(|s| s.vector.as_deref() == Some("large") && s.ids.len() == 5), "{found:?}");
    let bare = engine.samples("bare", 3).await.expect("samples");
    assert_eq!(bare.len(), 1);
    assert!(bare[0].ids.is_empty() && bare[0].digest.is_some(), "{bare:?}");

    server.ask("POST", "/collections/bare/points/payload?wait=true", json!({"payload": {"a": 2}, "points": [1]})).await;
    assert_ne!(
        engine.ask("bare", &bare[0]).await.expect("asked").digest,
        bare[0].digest,
        "a digest is of the payload, too"
    );
    let checks = engine.examine().await;
    assert!(checks.iter().any(|c| c.name == "API key" && c.found == Found::Warning), "{checks:?}");
}

#[tokio::test]
async fn a_capture_comes_back_with_everything_its_owner_set() {
    let (from, to) = tokio::join!(QdrantServer::ready(), QdrantServer::ready());
    let settings = json!({"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 2, "hnsw_config": {"m": 8}});
    from.ask("PUT", "/collections/docs", settings).await;
    from.ask("PUT", "/collections/docs/index?wait=true", json!({"field_name": "n", "field_schema": "integer"})).await;
    from.fill("docs", 1..501, 4).await;
    from.ask("POST", "/collections/docs/points/delete?wait=true", json!({"points": [7, 8, 9]})).await;
    from.make("a b%ü", 4).await;
    from.fill("a b%ü", 0..10, 4).await;
    from.alias("now", "docs").await;
    let samples = from.engine().samples("docs", 5).await.expect("samples");

    let engine = from.engine();
    let captured = capture(&engine, None).await;
    assert_eq!(captured.collections, ["a b%ü", "docs"]);
    assert!(from.snapshots("docs").await.is_empty(), "nothing stays on the server");
    assert!(!files_ending(&captured.source.root, "/segment.json").is_empty(), "segments are taken apart");
    assert!(files_ending(&captured.source.root, "/telemetry.json").is_empty());

    let target = to.engine();
    let installed = install(&target, &captured.source.root).await.expect("installed");
    assert!(installed.names.is_empty() && installed.findings.is_empty(), "{installed:?}");
    target.commit(&installed).await.expect("committed");
    target.commit(&installed).await.expect("twice is as good");
    assert_eq!(to.collections().await, ["a b%ü", "docs"]);
    assert_eq!(to.aliases().await, ["now=docs"]);
    assert_eq!(to.count("now").await, 497);
    assert!(to.snapshots("docs").await.is_empty(), "the uploaded file is deleted");
    for sample in &samples {
        let answer = target.ask("docs", sample).await.expect("asked");
        // By dot product a sample does not say that it finds itself, though it may.
        let others = |ids: &[String]| ids.iter().filter(|id| **id != sample.near_object).cloned().collect::<Vec<_>>();
        assert_eq!((others(&answer.ids), &answer.digest), (others(&sample.ids), &sample.digest), "the same to the bit");
    }
    let info = to.ask("GET", "/collections/docs", Value::Null).await;
    assert_eq!(info["config"]["hnsw_config"]["m"], 8);
    assert_eq!(info["payload_schema"]["n"]["data_type"], "integer");

    engine.release().await.expect("released");
    assert!(!captured.source.root.exists());
}

#[tokio::test]
async fn an_unchanged_collection_costs_no_snapshot() {
    let mut server = QdrantServer::ready().await;
    for name in ["still", "moving"] {
        server.make(name, 4).await;
        server.fill(name, 0..200, 4).await;
    }
    server.flushed().await;
    let engine = server.engine();
    let first = capture(&engine, None).await;
    assert!(first.source.kept.is_empty());
    engine.release().await.expect("released");

    server.fill("moving", 200..201, 4).await;
    let second = capture(&engine, first.remember.as_ref()).await;
    let kept: Vec<_> = second.source.kept.iter().map(|p| p.as_path().display().to_string()).collect();
    assert_eq!(kept, ["collections/still"]);
    assert_eq!((server.snapshots_made("still").await, server.snapshots_made("moving").await), (1, 2));
    assert_eq!(second.collections, ["moving", "still"]);

    server
        .ask("PUT", "/collections/still/index?wait=true", json!({"field_name": "n", "field_schema": "integer"}))
        .await;
    let third = capture(&engine, second.remember.as_ref()).await;
    assert_eq!(
        third.source.kept.len(),
        1,
        "an index is a change, what moved stands still now: {:?}",
        third.source.kept
    );

    server.restart().await;
    let fourth = capture(&server.engine(), third.remember.as_ref()).await;
    assert!(fourth.findings.iter().any(|f| f.contains("did not change")), "{:?}", fourth.findings);
    assert_eq!(fourth.source.kept.len(), 2, "a restart changes nothing");
}

#[tokio::test]
async fn after_a_restore_nothing_is_taken_for_unchanged() {
    let server = QdrantServer::ready().await;
    server.make("docs", 4).await;
    server.fill("docs", 0..50, 4).await;
    let engine = server.engine();
    let first = capture(&engine, None).await;
    let backup = tempfile::tempdir().expect("a folder");
    copy(&first.source.root, backup.path());
    let installed = install(&engine, backup.path()).await.expect("installed");
    engine.commit(&installed).await.expect("committed");
    let second = capture(&engine, first.remember.as_ref()).await;
    assert!(second.source.kept.is_empty(), "numbers may have been given anew");
}

#[tokio::test]
async fn a_damaged_archive_leaves_what_is_there() {
    let server = QdrantServer::ready().await;
    server.make("docs", 4).await;
    server.fill("docs", 0..50, 4).await;
    let engine = server.engine();
    let captured = capture(&engine, None).await;
    server.fill("docs", 50..80, 4).await;
    for (what, damage) in [
        (
            "a segment",
            (|root: &Path| {
                for file in files_ending(root, "/segment.json") {
                    std::fs::write(file, "garbage").expect("written");
                }
            }) as fn(&Path),
        ),
        ("the log", |root: &Path| {
            std::fs::remove_dir_all(root.join("collections/docs/snapshot/0/wal")).expect("removed");
        }),
        ("the configuration", |root: &Path| {
            std::fs::write(root.join("collections/docs/snapshot/config.json"), "{").expect("written");
        }),
    ] {
        let backup = tempfile::tempdir().expect("a folder");
        copy(&captured.source.root, backup.path());
        damage(backup.path());
        let error = install(&engine, backup.path()).await.expect_err(what);
        assert!(
            matches!(error, EngineError::Failed { what: "restore", .. } | EngineError::Files { .. }),
            "{what}: {error}"
        );
        engine.take_back(&Installed { tag: TAG.into(), ..Installed::default() }).await.expect("taken back");
        assert_eq!(server.collections().await, ["docs"], "{what}");
        assert_eq!(server.count("docs").await, 80, "{what}");
    }
}

#[tokio::test]
async fn a_replacement_that_fails_is_made_good_by_the_same_restore() {
    let server = QdrantServer::ready().await;
    for name in ["docs", "more"] {
        server.make(name, 4).await;
        server.fill(name, 0..50, 4).await;
    }
    server.alias("now", "docs").await;
    let engine = server.engine();
    let captured = capture(&engine, None).await;
    let backup = tempfile::tempdir().expect("a folder");
    copy(&captured.source.root, backup.path());
    server.fill("docs", 50..80, 4).await;

    let installed = install(&engine, backup.path()).await.expect("installed");
    assert_eq!(server.count("now").await, 80, "nothing is replaced before it was compared");
    server.ask("DELETE", &format!("/collections/{}", installed.names["more"]), Value::Null).await;
    let error = engine.commit(&installed).await.expect_err("the engine lost what was proved");
    assert!(error.to_string().contains("nothing was deleted"), "{error}");
    assert_eq!((server.count("docs").await, server.count("more").await), (80, 50), "the old data serves");
    let error = engine.take_back(&installed).await.expect_err("too late");
    assert!(error.to_string().contains("begin the same restore again"), "{error}");

    let again = install(&engine, backup.path()).await.expect("the lost copy is made again");
    assert_eq!(again.names, installed.names);
    assert_eq!(server.count(&again.names["more"]).await, 50);
    let findings = engine.commit(&again).await.expect("committed");
    let copies = [&again.names["docs"], &again.names["more"]];
    assert_eq!(
        findings,
        [
            format!("docs is an alias of the collection {} now", copies[0]),
            format!("more is an alias of the collection {} now", copies[1]),
            format!("aliases: now of {}", copies[0])
        ]
    );
    assert_eq!((server.count("docs").await, server.count("now").await), (50, 50));
    assert_eq!(server.collections().await.iter().collect::<Vec<_>>(), copies);
    assert_eq!(engine.collections().await.expect("a list"), ["docs", "more"], "as clients call them");
    assert!(engine.commit(&again).await.expect("twice is as good").is_empty());
}

#[tokio::test]
async fn only_snapshots_of_ours_are_removed() {
    let server = QdrantServer::ready().await;
    server.make("docs", 4).await;
    server.fill("docs", 0..50, 4).await;
    let theirs = server.snapshot("docs").await;
    let engine = server.engine();
    capture(&engine, None).await;
    assert_eq!(server.snapshots("docs").await, std::slice::from_ref(&theirs));

    tokio::time::sleep(Duration::from_millis(1100)).await;
    let ours = server.snapshot("docs").await;
    let record = json!({"collection": "docs", "before": [theirs], "asked_at": 0, "name": ours});
    std::fs::write(server.scratch().join("snapshot.json"), record.to_string()).expect("written");
    engine.release().await.expect("released");
    assert_eq!(server.snapshots("docs").await, std::slice::from_ref(&theirs));

    // A name that never came: there is only theirs, and the end of a run has nobody to tell.
    let record = json!({"collection": "docs", "before": [], "asked_at": 0, "name": null});
    std::fs::write(server.scratch().join("snapshot.json"), record.to_string()).expect("written");
    engine.release().await.expect("released");
    let told = capture(&engine, None).await.findings;
    assert!(told.iter().any(|f| f.contains("cannot be told") && f.contains(&theirs)), "{told:?}");
    assert_eq!(server.snapshots("docs").await, [theirs]);
}

#[tokio::test]
async fn a_snapshot_of_a_real_server_is_made_again_and_accepted() {
    let server = QdrantServer::ready().await;
    let recorded = Path::new("../tests/qdrant_server/recordings/archives");
    let backup = tempfile::tempdir().expect("a folder");
    let collection = backup.path().join("collections/real");
    let snapshot = collection.join("snapshot");
    std::fs::create_dir_all(&snapshot).expect("made");
    unpack(&recorded.join("collection-snapshot.tar.gz"), &snapshot);
    for segment in files_ending(&snapshot, ".tar") {
        let packed = segment.with_extension("packed");
        std::fs::rename(&segment, &packed).expect("renamed");
        std::fs::create_dir(&segment).expect("made");
        unpack(&packed, &segment);
        std::fs::remove_file(packed).expect("removed");
    }
    std::fs::write(collection.join("settings.json"), "{}").expect("written");
    std::fs::write(backup.path().join("aliases.json"), r#"{"now": "real"}"#).expect("written");

    let engine = server.engine();
    let installed = install(&engine, backup.path()).await.expect("installed");
    engine.commit(&installed).await.expect("committed");
    let restored = server.points("now").await;
    let body = std::fs::read(recorded.join("points-at-the-end.json")).expect("a recording");
    let mut expected: std::collections::BTreeMap<u64, Value> = serde_json::from_slice(&body).expect("points");
    // It was read after the archive was made: 40 to 42 had come and 9 had gone.
    expected.retain(|id, _| *id < 40);
    let nine = json!({"payload": {"city": "Paris", "n": 9, "r": 0, "step": 68}, "vector": [9.0, 0.0, 2.0, 3.0]});
    expected.insert(9, nine);
    assert!(restored.keys().eq(expected.keys()), "{:?}", restored.keys());
    for (id, point) in &expected {
        let found = &restored[id];
        assert_eq!((&found["payload"], &found["vector"]), (&point["payload"], &point["vector"]), "{id}");
    }
}

fn unpack(archive: &Path, folder: &Path) {
    let ended = std::process::Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder).status().expect("tar");
    assert!(ended.success());
}

async fn capture(engine: &Qdrant, known: Option<&Value>) -> CapturedFiles {
    let id = TAG.parse().expect("an id");
    let wish = CaptureWish { parent: known.map(|known| (&id, known)), patience: PATIENCE, progress: &|_| () };
    engine.capture(&wish).await.expect("captured")
}

async fn install(engine: &Qdrant, staged: &Path) -> Result<Installed, EngineError> {
    // As the shared flow does: the files are where the engine said.
    let staging = engine.staging(TAG).await?;
    let _ = std::fs::remove_dir_all(&staging);
    copy(staged, &staging);
    let manifest = manifest();
    let wish = InstallWish { tag: TAG, staged: &staging, manifest: &manifest, patience: PATIENCE, progress: &|_| () };
    engine.install(&wish).await
}

fn manifest() -> Manifest {
    perennial_shared::manifest::example(&TAG.parse().expect("an id"), &[])
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    let mut command = std::process::Command::new("cp");
    let ended = command.args(["-a", "--sparse=always"]).arg(from.join(".")).arg(to).status().expect("cp");
    assert!(ended.success());
}
