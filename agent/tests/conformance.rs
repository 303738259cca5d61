//! One suite for every engine and every method of capturing it: real engines, the real program, a real S3 server.
//!
//! In `make test` with few rows, for right or wrong only; `make bench-engines` prints the report of 100,000 rows, by the program as it
//! is released.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use perennial::engine::{Answer, EngineError};
use perennial::service;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::Sample;
use perennial_shared::repository::Repository;
use perennial_shared::settings::Method;
use perennial_shared::verify::sha256_hex;
use serde_json::Value;
use support::cli::{Machine, PREFIX, Ran};
use support::s3::S3;
use support::subject::qdrant::QdrantSubject;
use support::subject::redis::RedisSubject;
use support::subject::weaviate::WeaviateSubject;
use support::subject::{Subject, Writer, settled, waits};

/// For stopping and starting.
const PATIENCE: Duration = Duration::from_mins(2);
/// Later than any engine is.
const LATER: &str = "99.0.0";

fn rows() -> u64 {
    std::env::var("PERENNIAL_ROWS").ok().map_or(2000, |n| n.parse().expect("a number of rows"))
}

#[tokio::test(flavor = "multi_thread")]
async fn weaviate_native() {
    weaviate("native").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weaviate_physical() {
    weaviate("physical").await;
}

async fn weaviate(method: &'static str) {
    let s3 = S3::start();
    let used = WeaviateSubject::start(&s3, method, true).await;
    let fresh = WeaviateSubject::start(&s3, method, false).await;
    conforms(&s3, used, fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qdrant_snapshot() {
    let s3 = S3::start();
    conforms(&s3, QdrantSubject::start(true).await, QdrantSubject::start(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_rdb() {
    redis(Method::Rdb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_aof() {
    redis(Method::Aof).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_both() {
    redis(Method::Both).await;
}

async fn redis(method: Method) {
    let s3 = S3::start();
    conforms(&s3, RedisSubject::start(method).await, RedisSubject::start(method).await).await;
}

/// `used` has an empty collection, `fresh` is the engine of a new instance.
#[allow(clippy::print_stdout)] // the report
async fn conforms(s3: &S3, used: impl Subject + 'static, mut fresh: impl Subject + 'static) {
    tells_who_it_is(&used).await;
    let used: Arc<dyn Subject> = Arc::new(used);
    used.load(0..rows()).await;
    counts_and_samples(&*used).await;

    let (old, new) = (machine(s3, &*used), machine(s3, &fresh));
    let base = captured_while_written_to(&old, Arc::clone(&used), rows()).await;
    let restored = Instant::now();
    new.run(&["backup", "restore", "--latest"]).exits(0);
    let restore_seconds = restored.elapsed().as_secs_f64();
    let found = fresh.rows().await;
    let missing = base.lost(&found);

    let again = captured_after_one_percent(&old, &*used).await;
    replaces_only_when_told(&new, &fresh, &*used).await;
    refuses_writes_and_answers_reads(&*used).await;
    refuses_another_version(s3, &fresh, &old, &new).await;
    stops_and_starts(&fresh).await;
    fresh.restart().await;
    assert_eq!(fresh.rows().await, used.rows().await, "what was restored is on the disk");

    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    println!(
        "{:20} {} rows; missing {missing}, deleted and back {}; client waited p50 {:.1} p99 {:.1} longest {:.1} ms; \
         base {:.1} s {} MB; 1 % changed {:.1} s {} MB; restored in {:.1} s",
        used.name(),
        rows(),
        base.back(&found),
        base.waits[0],
        base.waits[1],
        base.waits[2],
        base.seconds,
        megabytes(base.bytes),
        again.0,
        megabytes(again.1),
        restore_seconds
    );
    assert_eq!((missing, base.back(&found)), (0, 0));
}

fn machine(s3: &S3, subject: &dyn Subject) -> Machine {
    Machine::of_engine(s3, &subject.settings(), Some(subject.key()))
}

async fn tells_who_it_is(subject: &dyn Subject) {
    let engine = subject.engine(None);
    engine.health().await.expect("it serves");
    assert!(!engine.identity().await.expect("an identity").version.is_empty());
    let wrong = subject.engine(Some("not-the-key")).identity().await.expect_err("another key");
    assert!(matches!(wrong, EngineError::Unauthorized { .. }), "{wrong}");
    let nobody = subject.nowhere().identity().await.expect_err("nobody there");
    assert!(nobody.is_absence(), "{nobody}");
}

async fn counts_and_samples(subject: &dyn Subject) {
    let (engine, name) = (subject.engine(None), subject.collection());
    let counted = engine.count().await.expect("counts");
    assert_eq!(counted.iter().find(|c| c.name == name).expect("the collection").count, rows());
    assert!(engine.collections().await.expect("names").contains(&name.to_owned()));
    let samples = engine.samples(name, 3).await.expect("samples");
    assert_eq!(samples.len(), 3);
    for sample in &samples {
        let answer = engine.ask(name, sample).await.expect("asked");
        assert!(answer.twins || answer.ids == sample.ids, "{answer:?} {sample:?}");
        assert!(answer.itself || sample.ids.is_empty(), "{answer:?} {sample:?}");
        assert_eq!(answer.digest, sample.digest);
    }
    let gone = Sample { near_object: subject.object(u64::from(u32::MAX)), ..samples[0].clone() };
    assert_eq!(engine.ask(name, &gone).await.expect("asked"), Answer::default(), "what is gone is no error");
}

/// A backup that was taken while a client went on writing.
struct Captured {
    there: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    waits: [f64; 3],
    seconds: f64,
    bytes: u64,
}

impl Captured {
    fn lost(&self, found: &BTreeSet<u64>) -> usize {
        (0..rows()).chain(self.there.iter().copied()).filter(|row| !found.contains(row)).count()
    }

    fn back(&self, found: &BTreeSet<u64>) -> usize {
        self.gone.intersection(found).count()
    }
}

async fn captured_while_written_to(machine: &Machine, subject: Arc<dyn Subject>, first: u64) -> Captured {
    let writer = Writer::start(subject, first);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let begun = Instant::now();
    let made = create(machine, &["--type", "base"]).await;
    let ended = Instant::now();
    let acts = writer.stop().await;
    let (there, gone) = settled(&acts, begun);
    assert!(there.len() > 10, "the client wrote before the capture");
    let during: Vec<_> = acts.into_iter().filter(|a| a.at >= begun && a.at <= ended + a.took).collect();
    let bytes = made["size_bytes"].as_u64().expect("bytes");
    Captured { there, gone, waits: waits(&during), seconds: (ended - begun).as_secs_f64(), bytes }
}

async fn create(machine: &Machine, words: &[&str]) -> Value {
    let mut command = machine.command(&[&["backup", "create", "--json"], words].concat());
    let ran = tokio::task::spawn_blocking(move || Ran::of(&mut command)).await.expect("it ran");
    ran.exits(0).json()
}

/// Seconds and bytes.
async fn captured_after_one_percent(machine: &Machine, subject: &dyn Subject) -> (f64, u64) {
    for row in (0..rows()).step_by(100) {
        assert!(subject.delete(row).await && subject.write(row).await, "row {row} changed");
    }
    let begun = Instant::now();
    let made = create(machine, &[]).await;
    (begun.elapsed().as_secs_f64(), made["size_bytes"].as_u64().expect("bytes"))
}

async fn replaces_only_when_told(machine: &Machine, fresh: &dyn Subject, used: &dyn Subject) {
    let before = fresh.rows().await;
    machine.run(&["backup", "restore", "--latest"]).exits(5).says("--replace");
    assert_eq!(fresh.rows().await, before, "a refused restore changes nothing");
    machine.run(&["backup", "restore", "--latest", "--replace", "--yes"]).exits(0);
    assert_eq!(fresh.rows().await, used.rows().await);
}

async fn refuses_writes_and_answers_reads(subject: &dyn Subject) {
    let engine = subject.engine(None);
    // Further than any row that is written while a backup is made.
    let new = rows() * 10_000;
    let refused = engine.refuse_writes().await;
    assert!(refused.is_ok() || !engine.can_refuse_writes(), "{refused:?}");
    if refused.is_ok() {
        assert!(!subject.write(new).await, "a write is refused");
        assert!(!subject.rows().await.is_empty(), "reads are answered");
        engine.accept_writes().await.expect("accepted");
    }
    assert!(subject.write(new).await && subject.delete(new).await, "a write is accepted");
}

/// As a restore does it that swaps the data folder. Stopping what does not run is fine.
async fn stops_and_starts(subject: &dyn Subject) {
    let Some(service) = subject.service() else { return };
    let (engine, before) = (subject.engine(None), subject.rows().await);
    assert!(service::pid(&service).await.expect("asked").is_some());
    for _ in 0..2 {
        service::stop(&service, PATIENCE).await.expect("stopped");
        assert!(engine.health().await.expect_err("it is gone").is_absence());
    }
    service::start(&service, PATIENCE).await.expect("started");
    engine.wait_until_ready(PATIENCE).await.expect("it serves");
    assert_eq!(subject.rows().await, before, "what it held is what it holds");
}

/// A backup by a much later version is not put into this one, and nothing is touched for it, not even where `--replace` was said.
async fn refuses_another_version(s3: &S3, fresh: &dyn Subject, used: &Machine, machine: &Machine) {
    let id: BackupId = create(used, &[]).await["backup_id"].as_str().expect("an id").parse().expect("an id");
    // What the pointer names has to be as it was published.
    create(used, &["--type", "base"]).await;
    made_by_a_later_version(&s3.repository(PREFIX), &id).await;
    let before = fresh.rows().await;
    for more in [&[][..], &["--dry-run"]] {
        let words = [&["backup", "restore", "--id", id.as_str(), "--replace", "--yes"], more].concat();
        machine.run(&words).exits(5).says(LATER);
        assert_eq!(fresh.rows().await, before, "a refused restore changes nothing");
    }
}

/// Writes over who made the backup: in its manifest, and in the engine's own description where the engine wrote it.
async fn made_by_a_later_version(repository: &Repository, id: &BackupId) {
    let mut manifest = repository.manifest(id).await.expect("a manifest");
    manifest.engine_version = LATER.into();
    let prefix = Repository::backup_prefix(id);
    let description = manifest.objects.iter_mut().find(|o| o.key == "backup_config.json");
    if let Some(entry) = description {
        let key = format!("{prefix}{}", entry.key);
        let body = repository.store().get(&key).await.expect("there").body;
        let mut config: Value = serde_json::from_slice(&body).expect("json");
        config["serverVersion"] = LATER.into();
        let body = config.to_string();
        (entry.size, entry.sha256) = (body.len() as u64, sha256_hex(body.as_bytes()));
        repository.store().put(&key, body.into()).await.expect("written");
    }
    let body = serde_json::to_vec(&manifest).expect("json");
    repository.store().put(&Repository::manifest_key(id), body.into()).await.expect("written");
}
