//! `perennial run`: what the functions ask for through SSM.

mod support;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::id::{Generation, RunId};
use perennial_shared::pointer::Pointer;
use perennial_shared::repository::Repository;
use perennial_shared::run::RunResult;
use serde_json::json;
use support::claim::claim;
use support::cli::{Machine, PREFIX};
use support::data::{fill, make_collection, try_send};
use support::s3::S3;
use support::weaviate::WeaviateServer;

const ME: &str = "i-0123456789abcdef0";

async fn result(repository: &Repository, run: &str) -> RunResult {
    let run: RunId = run.parse().expect("a run");
    repository.result_of(&run).await.expect("read").expect("a result")
}

/// As the lifecycle function does after a restore.
async fn take_over(repository: &Repository, generation: u32) {
    let seen = repository.pointer().await.expect("read");
    let now = Timestamp::now();
    let base = seen.pointer().cloned().unwrap_or_else(|| Pointer::first("docs", "weaviate", Some(ME), now));
    repository.set_pointer(&seen, &base.owned_by(ME, Generation(generation), now)).await.expect("moved");
}

#[tokio::test]
async fn the_life_of_an_instance() {
    let s3 = S3::start();
    let (server, next) = WeaviateServer::two(&s3).await;
    let group = "auto_scaling: {group: docs}\nrestore: {empty_repository: allow}";
    let machine = Machine::new(&s3, &server, group).with("PERENNIAL_INSTANCE_ID", ME);
    let repository = s3.repository(PREFIX);

    machine.run(&["run", "restore-i-1-1"]).exits(5).says("nobody claimed");
    claim(&repository, "restore-i-1-1", ME, None, false).await;
    let stranger = Machine::new(&s3, &server, group).with("PERENNIAL_INSTANCE_ID", "i-0somebodyelse");
    stranger.run(&["run", "restore-i-1-1"]).exits(5).says("was claimed for");
    machine.run(&["run", "restore-i-1-1"]).exits(0).says("started with an empty database");
    assert!(result(&repository, "restore-i-1-1").await.ok);
    take_over(&repository, 1).await;

    claim(&repository, "final-i-1-1", ME, None, false).await;
    machine.run(&["run", "final-i-1-1"]).exits(1);
    let error = result(&repository, "final-i-1-1").await.error.expect("an error");
    assert_eq!(error.code, "NothingToBackUp");

    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..800, json!({})).await;
    scheduled_once(&repository, &machine, &server).await;
    interrupted(&repository, &machine).await;
    finally(&repository, &machine, &server).await;
    a_zombie_is_refused(&repository, &machine).await;
    the_next_instance(&repository, &Machine::new(&s3, &next, group).with("PERENNIAL_INSTANCE_ID", ME), &next).await;
}

async fn scheduled_once(repository: &Repository, machine: &Machine, server: &WeaviateServer) {
    let run = "backup-20261121t105500z";
    claim(repository, run, ME, None, false).await;
    machine.crash("run-done", &["run", run]);
    machine.run(&["run", run]).exits(0).says("800 objects");
    let first = result(repository, run).await;
    fill(&server.url(), "Doc", 800..900, json!({})).await;
    machine.run(&["run", run]).exits(0).says("800 objects");
    assert_eq!(result(repository, run).await, first, "a run is done once");
    let progress = repository.progress_of(&run.parse().expect("a run")).await.expect("read");
    assert!(progress.is_some(), "progress was told");
}

/// SSM cancels a command by a signal.
async fn interrupted(repository: &Repository, machine: &Machine) {
    let run = "backup-20261121t115500z";
    claim(repository, run, ME, None, false).await;
    let mut child = machine.spawn(&["run", run]);
    let capturing = |stage: &str| stage.starts_with("the engine writes backup");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let progress = repository.progress_of(&run.parse().expect("a run")).await.expect("read");
        if progress.is_some_and(|p| capturing(&p.stage)) || Instant::now() > deadline {
            break;
        }
        if child.try_wait().expect("a child").is_some() {
            break; // it was quicker than its own progress record
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let id = rustix::process::Pid::from_child(&child);
    let ended = child.try_wait().expect("a child").is_some();
    if !ended {
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signalled");
    }
    child.wait().expect("it ends");
    let result = result(repository, run).await;
    if !ended {
        assert!(result.ok || result.error.as_ref().is_some_and(|e| e.code == "Interrupted"), "{result:?}");
    }
    machine.run(&["backup", "create"]).exits(0);
}

async fn finally(repository: &Repository, machine: &Machine, server: &WeaviateServer) {
    claim(repository, "final-i-1-2", ME, None, false).await;
    machine.run(&["run", "final-i-1-2"]).exits(0).says("900 objects");
    let write = json!({"class": "Doc", "properties": {"title": "late"}});
    let (status, text) = try_send("POST", &format!("{}/v1/objects", server.url()), Some(write)).await;
    assert!(
        status == 500 && text.contains("read-only"),
        "after the final backup nothing is acknowledged: {status} {text}"
    );
    // Its first attempt may have failed later on: the second one must not find an engine that cannot be backed up.
    claim(repository, "final-i-1-3", ME, None, false).await;
    machine.run(&["run", "final-i-1-3"]).exits(0);
}

async fn a_zombie_is_refused(repository: &Repository, machine: &Machine) {
    let run = "backup-20261121t125500z";
    claim(repository, run, ME, None, false).await;
    take_over(repository, 7).await;
    machine.run(&["run", run]).exits(1);
    assert_eq!(result(repository, run).await.error.expect("an error").code, "NotOwner");
}

async fn the_next_instance(repository: &Repository, machine: &Machine, server: &WeaviateServer) {
    let newest = repository.pointer().await.expect("read").backup_id().cloned();
    claim(repository, "restore-i-2-1", ME, newest.clone(), false).await;
    machine.crash("restore-installing", &["run", "restore-i-2-1"]);
    machine.run(&["run", "restore-i-2-1"]).exits(0).says("900 objects");
    assert_eq!(server.objects().await, 900);

    let absent = "20260101t000000z-g0001-000000".parse().expect("an id");
    claim(repository, "restore-i-2-2", ME, Some(absent), true).await;
    machine.run(&["run", "restore-i-2-2"]).exits(1);
    let error = result(repository, "restore-i-2-2").await.error.expect("an error");
    assert!(error.blames_backup(), "{error:?}");
    assert_eq!(server.objects().await, 900, "nothing was deleted for a backup that is not there");
}
