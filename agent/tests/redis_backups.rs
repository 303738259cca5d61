//! Redis from the command line: a real server, a real S3 server, the program itself.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use perennial_shared::id::Generation;
use perennial_shared::pointer::nonce;
use perennial_shared::repository::{Claimed, Repository};
use perennial_shared::run::Claim;
use support::cli::{Machine, PREFIX, Ran};
use support::redis::{PASSWORD, RedisServer};
use support::s3::S3;
use support::until;

fn machine(s3: &S3, server: &RedisServer, more: &str) -> Machine {
    Machine::of_engine(s3, &server.settings(more), Some(PASSWORD))
}

fn restore(machine: &Machine) -> Ran {
    machine.run(&["backup", "restore", "--latest", "--replace", "--yes"])
}

/// What of ours is left beside the data folder or in it.
fn left_over(server: &RedisServer) -> Vec<String> {
    let names = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).expect("read").flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let all = names(server.folder()).into_iter().chain(names(&server.data()));
    all.filter(|name| name.contains("perennial")).collect()
}

/// A client that never stops writing.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// The keys `w0`, `w1` and so on, and two counters in one transaction.
    fn start(server: &RedisServer) -> Self {
        Self::doing(server, |connection, n| {
            redis::cmd("SET").arg(format!("w{n}")).arg(n).exec(connection).expect("acknowledged");
            let mut both = redis::pipe();
            both.atomic().cmd("INCR").arg("a").cmd("INCR").arg("b");
            both.exec(connection).expect("acknowledged");
        })
    }

    /// Forty keys that come and go, one after the other.
    fn coming_and_going(server: &RedisServer) -> Self {
        Self::doing(server, |connection, n| {
            let word = if n % 80 < 40 { "SET" } else { "DEL" };
            let mut command = redis::cmd(word);
            command.arg(format!("g{}", n % 40));
            if word == "SET" {
                command.arg(n);
            }
            command.exec(connection).expect("acknowledged");
        })
    }

    fn doing(server: &RedisServer, act: impl Fn(&mut redis::Connection, u64) + Send + 'static) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter, url) = (Arc::clone(&stop), Arc::clone(&acknowledged), server.url());
        let thread = std::thread::spawn(move || {
            let client = redis::Client::open(url).expect("an address");
            let mut connection = client.get_connection().expect("it answers");
            redis::cmd("AUTH").arg(PASSWORD).exec(&mut connection).expect("let in");
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                act(&mut connection, n);
                counter.store(n + 1, Ordering::SeqCst);
            }
        });
        Self { stop, acknowledged, thread }
    }

    /// Keys that were acknowledged up to now.
    async fn acknowledged(&self) -> u64 {
        until("a hundred keys", async || self.acknowledged.load(Ordering::SeqCst) >= 100).await;
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it wrote to its end");
    }
}

/// All that was acknowledged is there, and no transaction is torn.
async fn nothing_is_missing(server: &RedisServer, acknowledged: u64) {
    let mut client = server.client().await;
    let mut missing = 0;
    for n in 0..acknowledged {
        let found = client.try_say(&["GET", &format!("w{n}")]).await.expect("an answer");
        missing += u64::from(redis::from_redis_value::<Option<u64>>(found).expect("a number") != Some(n));
    }
    let counters = (client.text(&["GET", "a"]).await, client.text(&["GET", "b"]).await);
    assert_eq!((missing, &counters.0), (0, &counters.1), "of {acknowledged}");
}

async fn everything_acknowledged_comes_back(method: &str, configuration: &str) {
    let s3 = S3::start();
    let server = RedisServer::start(configuration).await;
    server.client().await.fill("k", 0..5000).await;
    let more = format!("method: {method}");
    let docs = machine(&s3, &server, &more);
    let writer = Writer::start(&server);
    let before_base = writer.acknowledged().await;
    let base = docs.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((&base["kind"], &base["method"]), (&"base".into(), &method.into()));
    let before_increment = writer.acknowledged().await;
    assert!(before_increment > before_base, "it never stopped");
    let next = docs.run(&["backup", "create", "--type", "incremental", "--json"]).exits(0).json();
    assert_eq!(next["parent"], base["backup_id"]);
    writer.stop();
    docs.run(&["backup", "verify"]).exits(0);
    assert!(left_over(&server).is_empty(), "{:?}", left_over(&server));

    server.client().await.say(&["FLUSHALL"]).await;
    restore(&docs).exits(0).says("as the manifest says");
    nothing_is_missing(&server, before_increment).await;
    assert!(left_over(&server).is_empty(), "{:?}", left_over(&server));
    // What came back stays: it is what the server reads when it starts again, killed or stopped.
    server.script().kill();
    server.script().start();
    server.wait().await;
    nothing_is_missing(&server, before_increment).await;

    let fresh = RedisServer::start(configuration).await;
    let elsewhere = machine(&s3, &fresh, &more);
    elsewhere.run(&["backup", "restore", "--id", base["backup_id"].as_str().expect("an id")]).exits(0);
    nothing_is_missing(&fresh, before_base).await;
    restore(&elsewhere).exits(0);
    nothing_is_missing(&fresh, before_increment).await;
}

#[tokio::test]
async fn keys_that_come_and_go_while_a_backup_is_made_are_no_reason_to_refuse_it() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly yes").await;
    let docs = machine(&s3, &server, "method: aof");
    server.client().await.fill("k", 0..20).await;
    for _ in 0..5 {
        let writer = Writer::coming_and_going(&server);
        writer.acknowledged().await;
        docs.run(&["backup", "create"]).exits(0);
        writer.stop();
        restore(&docs).exits(0).says("as the manifest says");
    }
}

#[tokio::test]
async fn a_repository_in_a_folder_needs_no_cloud() {
    let (server, folder) = (RedisServer::start("appendonly yes").await, tempfile::tempdir().expect("a folder"));
    let settings = format!(
        "name: docs\nrepository: file://{}\napi_key: {{env: KEY}}\n\
         checks: {{min_free_disk_gib: 0, min_free_memory_percent: 0, max_load_per_cpu: 1000}}\n{}",
        folder.path().display(),
        server.settings("")
    );
    let (target, state) = (folder.path().join("docs.yaml"), folder.path().join("state"));
    std::fs::write(&target, settings).expect("written");
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.arg("--target").arg(&target).args(words).env_clear();
        Ran::of(command.env("KEY", PASSWORD).env("PERENNIAL_STATE_DIR", &state))
    };
    server.client().await.fill("k", 0..100).await;
    let digest = server.client().await.digest().await;
    run(&["backup", "create"]).exits(0);
    run(&["doctor"]).exits(0);
    server.client().await.say(&["FLUSHALL"]).await;
    run(&["backup", "restore", "--latest", "--replace", "--yes"]).exits(0);
    assert_eq!(server.client().await.digest().await, digest);
}

#[tokio::test]
async fn everything_acknowledged_comes_back_from_point_in_time_files() {
    everything_acknowledged_comes_back("rdb", "appendonly no").await;
}

#[tokio::test]
async fn everything_acknowledged_comes_back_from_append_only_files() {
    let rewriting = "appendonly yes\nauto-aof-rewrite-min-size 64kb\nauto-aof-rewrite-percentage 20";
    everything_acknowledged_comes_back("aof", rewriting).await;
}

#[tokio::test]
async fn everything_acknowledged_comes_back_from_both() {
    everything_acknowledged_comes_back("both", "appendonly yes\nsave \"\"\naof-timestamp-enabled yes").await;
}

/// With `appendonly yes` a server that has a point-in-time file alone starts empty, and with `appendonly no` it does not look at the others.
#[tokio::test]
async fn a_backup_comes_back_whatever_the_server_reads() {
    let s3 = S3::start();
    let names = "dbfilename data.rdb\nappenddirname log\nappendfilename writes.aof";
    for (taken, method, read) in [
        ("appendonly no", "rdb", format!("appendonly yes\n{names}")),
        ("appendonly yes", "rdb", format!("appendonly no\n{names}")),
        ("appendonly yes", "both", "appendonly no".to_owned()),
        ("appendonly yes\naof-use-rdb-preamble no", "aof", format!("appendonly yes\n{names}")),
    ] {
        let from = RedisServer::start(taken).await;
        let mut client = from.client().await;
        client.fill("k", 0..1000).await;
        client.say(&["SELECT", "3"]).await;
        client.fill("k", 0..10).await;
        machine(&s3, &from, &format!("method: {method}")).run(&["backup", "create", "--type", "base"]).exits(0);

        let to = RedisServer::start(&read).await;
        std::fs::write(to.data().join("users.acl"), "user x on").expect("written");
        to.client().await.fill("old", 0..10).await;
        restore(&machine(&s3, &to, &format!("method: {method}"))).exits(0);
        assert_eq!(to.client().await.digest().await, client.digest().await, "{method}: {taken}, then {read}");
        to.script().stop();
        to.script().start();
        to.wait().await;
        assert_eq!(to.client().await.digest().await, client.digest().await, "after one more start");
        assert!(to.data().join("users.acl").is_file(), "what is no data comes along");
        let appended = to.data().join("appendonlydir").exists() || to.data().join("log").exists();
        assert_eq!(appended, read.contains("appendonly yes"), "what is not read is not left for a later start");
    }
    let from = RedisServer::start("appendonly yes").await;
    from.client().await.fill("k", 0..1000).await;
    machine(&s3, &from, "method: aof").run(&["backup", "create", "--type", "base"]).exits(0);
    let to = RedisServer::start("appendonly no").await;
    to.client().await.fill("old", 0..10).await;
    let before = to.client().await.digest().await;
    restore(&machine(&s3, &to, "method: aof")).exits(1).says("CONFIG SET appendonly yes");
    assert_eq!(to.client().await.digest().await, before);
}

#[tokio::test]
async fn keys_that_expire_meanwhile_do_not_spoil_a_restore() {
    let s3 = S3::start();
    for (method, configuration) in [("rdb", "appendonly no"), ("aof", "appendonly yes")] {
        let server = RedisServer::start(configuration).await;
        let mut client = server.client().await;
        client.fill("k", 0..100).await;
        for database in ["0", "7"] {
            client.say(&["SELECT", database]).await;
            for n in 0..50 {
                client.say(&["SET", &format!("e{n}"), "v", "PX", "1500"]).await;
            }
        }
        let docs = machine(&s3, &server, &format!("method: {method}"));
        docs.run(&["backup", "create", "--type", "base"]).exits(0);
        until("its expiry", async || client.say(&["EXISTS", "e49"]).await == redis::Value::Int(0)).await;
        restore(&docs).exits(0);
        let mut client = server.client().await;
        assert_eq!(client.say(&["EXISTS", "k99"]).await, redis::Value::Int(1));
        assert_eq!(client.say(&["EXISTS", "e49"]).await, redis::Value::Int(0));
    }
}

#[tokio::test]
async fn a_restore_that_differs_is_taken_back() {
    let s3 = S3::start();
    for configuration in ["appendonly no\nsave \"\"", "appendonly yes"] {
        let server = RedisServer::start(configuration).await;
        let mut client = server.client().await;
        client.fill("k", 0..100).await;
        machine(&s3, &server, "").run(&["backup", "create", "--type", "base"]).exits(0);
        client.fill("later", 0..100).await;
        let before = client.digest().await;

        // Somebody deletes keys as soon as the restored server has loaded its data.
        let start = server.folder().join("start");
        let cli = support::installed("redis-cli");
        let script = format!(
            "{}\nuntil {} -e -u {} -a {PASSWORD} DEL $(seq -f k%g 0 99) >/dev/null 2>&1; do sleep 0.05; done\n",
            std::fs::read_to_string(&start).expect("read"),
            cli.display(),
            server.url()
        );
        std::fs::write(server.folder().join("start-and-delete"), script).expect("written");
        let more = server.settings("").replacen("/start]", "/start-and-delete]", 1);
        let careless = Machine::of_engine(&s3, &more, Some(PASSWORD));
        restore(&careless).exits(3).says("is not that of backup");
        let mut client = server.client().await;
        // The careless start has deleted from what was put back, too; all else is what it was.
        client.fill("k", 0..100).await;
        assert_eq!(client.digest().await, before);
        assert!(left_over(&server).is_empty(), "{:?}", left_over(&server));
    }
}

#[tokio::test]
async fn what_was_restored_once_is_restored_again_where_that_is_said() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly yes").await;
    server.client().await.fill("k", 0..2000).await;
    let docs = machine(&s3, &server, "");
    docs.run(&["backup", "create"]).exits(0);
    let before = server.client().await.digest().await;
    restore(&docs).exits(0);
    docs.run(&["backup", "restore"]).exits(0).says("in the engine already");
    // Counts and most samples say nothing of it.
    let mut client = server.client().await;
    for n in 0..2000 {
        client.say(&["SET", &format!("k{n}"), "an accident"]).await;
    }
    restore(&docs).exits(0);
    assert_eq!(server.client().await.digest().await, before);

    // A restore that died before it changed anything entitles nobody to replace what was written since.
    server.client().await.say(&["FLUSHALL"]).await;
    docs.crash("restore-staged", &["backup", "restore", "--latest"]);
    server.client().await.fill("new", 0..50).await;
    let written = server.client().await.digest().await;
    docs.run(&["backup", "restore"]).exits(5).says("--replace");
    assert_eq!(server.client().await.digest().await, written);

    // Nor does one that was put in place and used since; what it kept is older than that.
    docs.crash("restore-installed", &["backup", "restore", "--latest", "--replace", "--yes"]);
    server.client().await.fill("used", 0..50).await;
    docs.run(&["backup", "restore"]).exits(5).says("--replace");
    restore(&docs).exits(0);
    assert_eq!(server.client().await.digest().await, before);
    assert!(left_over(&server).is_empty(), "{:?}", left_over(&server));
}

#[tokio::test]
async fn killed_at_every_step() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly yes").await;
    server.client().await.fill("k", 0..2000).await;
    let docs = machine(&s3, &server, "method: both");
    for (n, step) in ["backup-capturing", "backup-captured", "backup-archived", "backup-published"].iter().enumerate() {
        server.client().await.fill(step, 0..10 * (n as u64 + 1)).await;
        docs.crash(step, &["backup", "create"]);
        docs.run(&["backup", "create"]).exits(0);
        assert!(left_over(&server).is_empty(), "{step}: {:?}", left_over(&server));
    }
    docs.run(&["backup", "verify"]).exits(0);
    let before = server.client().await.digest().await;
    for step in [
        "restore-remembered",
        "restore-staged",
        "restore-stopped",
        "restore-swapping",
        "restore-swapped",
        "restore-installed",
        "restore-finished",
    ] {
        if server.client_if_up().await.is_none() {
            server.script().start();
            server.wait().await;
        }
        server.client().await.fill("accident", 0..7).await;
        docs.crash(step, &["backup", "restore", "--latest", "--replace", "--yes"]);
        restore(&docs).exits(0);
        assert_eq!(server.client().await.digest().await, before, "{step}");
        assert!(left_over(&server).is_empty(), "{step}: {:?}", left_over(&server));
    }
}

const ME: &str = "i-0123456789abcdef0";

async fn claim(repository: &Repository, run: &str) {
    let claim = Claim {
        run: run.parse().expect("a run"),
        target: "docs".into(),
        instance: ME.into(),
        backup_id: None,
        pointer_version: None,
        generation: Generation::default(),
        replace: false,
        claimed_at: jiff::Timestamp::now(),
        nonce: nonce(),
    };
    assert_eq!(repository.claim(&claim).await.expect("claimed"), Claimed::Won);
}

#[tokio::test]
async fn a_final_backup_loses_nothing_and_doctor_knows_the_server() {
    let s3 = S3::start();
    let server = RedisServer::start("appendonly yes").await;
    server.client().await.fill("k", 0..1000).await;
    let group = "auto_scaling: {group: docs}";
    let docs = machine(&s3, &server, group).with("PERENNIAL_INSTANCE_ID", ME);
    docs.run(&["doctor"]).says("append-only files").says("room to save");
    claim(&s3.repository(PREFIX), "final-i-1-1").await;
    docs.run(&["run", "final-i-1-1"]).exits(0).says("1000 objects");
    let error = server.client().await.try_say(&["SET", "late", "1"]).await.expect_err("refused");
    assert_eq!(error.code(), Some("NOREPLICAS"));
    let before = server.client().await.digest().await;

    let fresh = RedisServer::start("appendonly yes").await;
    machine(&s3, &fresh, "").run(&["backup", "restore", "--latest"]).exits(0);
    assert_eq!(fresh.client().await.digest().await, before);

    let object = support::files_ending(&s3.bucket().join(PREFIX), "data-0.tar.zst").remove(0);
    let mut bytes = std::fs::read(&object).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, bytes).expect("damaged");
    let third = RedisServer::start("appendonly yes").await;
    third.client().await.fill("old", 0..10).await;
    restore(&machine(&s3, &third, "")).exits(3);
    assert_eq!(third.client().await.say(&["DBSIZE"]).await, redis::Value::Int(10), "nothing of it was changed");
}
