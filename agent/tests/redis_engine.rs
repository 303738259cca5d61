//! The Redis engine against a real Redis.

mod support;

use std::time::Duration;

use perennial::check::Found;
use perennial::engine::files::{CaptureWish, CapturedFiles, InstallWish};
use perennial::engine::{Answer, Counted, Engine, EngineError, FileBackup, Step};
use perennial::engines::redis::Redis;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest;
use perennial_shared::settings::Method;
use support::redis::{Client, RedisServer};
use support::until;

const PATIENCE: Duration = Duration::from_secs(60);

fn silent(_: Step<'_>) {}

async fn capture(engine: &Redis) -> Result<CapturedFiles, EngineError> {
    engine.capture(&CaptureWish { parent: None, patience: PATIENCE, progress: &silent }).await
}

fn counted(name: &str, count: u64, may_expire: u64) -> Counted {
    Counted { name: name.into(), count, may_expire, ..Counted::default() }
}

/// A key of every type, in every encoding that matters, in two databases, and a function.
async fn fill_all_kinds(client: &mut Client) {
    for words in [
        "SET int 7",
        "RPUSH list a b c",
        "SADD ints 3 1 2",
        "SADD set b a c",
        "HSET hash f1 v1 f2 v2",
        "ZADD zset 1 a 2.5 b -inf c",
        "XADD stream 1-1 f v",
        "XADD stream 2-1 f w g x",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group me COUNT 1 STREAMS stream >",
        "PFADD loglog a b c",
        "GEOADD places 13.361389 38.115556 Palermo",
        "SET expiring v EX 1000",
        "SELECT 5",
        "SET other value",
        "SELECT 0",
    ] {
        client.say(&words.split(' ').collect::<Vec<_>>()).await;
    }
    client.say(&["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"]).await;
    client.say(&["SET", "long", &"compressible ".repeat(1000)]).await;
    client.say(&["SET", "any \r\n%\u{0} bytes", "v"]).await;
    for n in 0..300 {
        client.say(&["SADD", "large set", &format!("member {n}")]).await;
        client.say(&["HSET", "large hash", &format!("field {n}"), &"v".repeat(70)]).await;
        client.say(&["ZADD", "large zset", &n.to_string(), &format!("member {n}")]).await;
        client.say(&["RPUSH", "large list", &"element".repeat(30)]).await;
    }
}

#[tokio::test]
async fn what_a_server_says_of_itself() {
    let server = RedisServer::start("appendonly no").await;
    let engine = server.engine(Method::Both);
    assert!(engine.identity().await.expect("who it is").version.starts_with("7."));
    assert_eq!(engine.count().await.expect("counts"), []);
    let mut client = server.client().await;
    fill_all_kinds(&mut client).await;
    let all = engine.count().await.expect("counts");
    assert!(all.iter().all(|c| c.changes > 1000), "as many as were made: {all:?}");
    let all: Vec<_> = all.into_iter().map(|c| Counted { changes: 0, ..c }).collect();
    assert_eq!(all, [counted("db0", 16, 1), counted("db5", 1, 0)]);
    assert_eq!(engine.collections().await.expect("names"), ["db0", "db5"]);

    let samples = engine.samples("db0", 16).await.expect("samples");
    assert_eq!(samples.len(), 15, "all but the one that expires: {samples:?}");
    for sample in &samples {
        let answer = engine.ask("db0", sample).await.expect("asked again");
        assert_eq!((answer.digest.is_some(), &answer.digest), (true, &sample.digest), "{sample:?}");
    }
    let odd = samples.iter().find(|s| s.near_object.starts_with("any")).expect("a key of any bytes");
    assert_eq!(odd.near_object, "any%20%0d%0a%25%00%20bytes");
    client.say(&["DEBUG", "RELOAD"]).await;
    for sample in &samples {
        assert_eq!(engine.ask("db0", sample).await.expect("asked").digest, sample.digest, "after a reload: {sample:?}");
    }
    client.say(&["SADD", "large set", "one more"]).await;
    client.say(&["DEL", "int"]).await;
    let of = |name: &str| samples.iter().find(|s| s.near_object == name).expect("a sample");
    assert_ne!(engine.ask("db0", of("large%20set")).await.expect("asked").digest, of("large%20set").digest);
    assert_eq!(engine.ask("db0", of("int")).await.expect("asked"), Answer::default());
    client.say(&["EXPIRE", "list", "1000"]).await;
    assert_ne!(engine.ask("db0", of("list")).await.expect("asked").digest, of("list").digest, "a time is part of it");
    client.say(&["SET", "huge", &"x".repeat(2 << 20)]).await;
    let samples = engine.samples("db0", 20).await.expect("samples");
    assert!(samples.iter().all(|s| s.near_object != "huge"), "large values are not read to compare them");
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let server =
        RedisServer::start("appendonly no\nuser backup on >secret ~* +@read +ping +select +info +bgsave +config|get +config|set\nuser reader on >secret ~* +@read +ping")
            .await;
    let (backup, reader) = (Some("backup"), Some("reader"));
    server.engine_of(backup, "secret", Method::Rdb).identity().await.expect("a user of its own");
    capture(&server.engine_of(backup, "secret", Method::Rdb)).await.expect("captured");
    let own = server.engine_of(backup, "secret", Method::Rdb);
    server.client().await.say(&["SET", "key", "value"]).await;
    assert_eq!(own.samples("db0", 1).await.expect("samples").len(), 1);
    own.refuse_writes().await.expect("refused");
    own.accept_writes().await.expect("accepted");
    assert!(own.examine().await.len() > 5, "doctor needs no more rights");
    for (user, password) in [(None, "wrong"), (backup, "wrong"), (Some("nobody"), "secret")] {
        let error = server.engine_of(user, password, Method::Rdb).identity().await.expect_err("a wrong key");
        assert!(matches!(error, EngineError::Unauthorized { .. }), "{user:?}: {error}");
        assert!(!error.to_string().contains(password) || password == "wrong", "{error}");
    }
    let none = Redis::new(&server.url(), None, options()).expect("an address");
    let error = none.identity().await.expect_err("no key");
    assert!(matches!(&error, EngineError::Unauthorized { why, .. } if why.contains("NOAUTH")), "{error}");
    let error = server.engine_of(reader, "secret", Method::Rdb).identity().await.expect_err("no right");
    assert!(matches!(&error, EngineError::Forbidden { request, .. } if request == "INFO"), "{error}");

    server.script().stop();
    let error = server.engine(Method::Rdb).identity().await.expect_err("nobody listens");
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
}

fn options() -> perennial::engines::redis::Options {
    perennial::engines::redis::Options { user: None, method: Method::Both, data_dir: None, service: None, memory: None }
}

#[tokio::test]
async fn a_server_that_loads_is_not_ready() {
    let server =
        RedisServer::start("appendonly no\nloading-process-events-interval-bytes 1024\nkey-load-delay 100000").await;
    let mut client = server.client().await;
    client.fill("k", 0..2000).await;
    server.script().stop();
    server.script().start();
    let engine = server.engine(Method::Rdb);
    let seen = loop {
        match engine.health().await {
            Err(EngineError::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            seen => break seen,
        }
    };
    assert!(matches!(&seen, Err(EngineError::NotReady { why, .. }) if why.contains("LOADING")), "{seen:?}");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused() {
    // Its second port would be the first and 10,000, which may be somebody's.
    let [bus] = support::free_ports();
    let server = RedisServer::start(&format!("appendonly no\ncluster-enabled yes\ncluster-port {bus}")).await;
    let error = server.engine(Method::Rdb).identity().await.expect_err("a cluster");
    assert!(matches!(&error, EngineError::Unsupported(why) if why.contains("cluster")), "{error}");
}

#[tokio::test]
async fn writes_are_refused_and_everything_else_goes_on() {
    let server = RedisServer::start("appendonly yes\nmin-replicas-max-lag 7").await;
    let engine = server.engine(Method::Both);
    let mut client = server.client().await;
    client.say(&["SET", "key", "value"]).await;
    assert!(engine.can_refuse_writes());
    engine.refuse_writes().await.expect("refused");
    for words in [
        vec!["SET", "key", "other"],
        vec!["DEL", "key"],
        vec!["FLUSHALL"],
        vec!["EVAL", "return redis.call('SET', 'key', 'other')", "0"],
        vec!["EVAL", "#!lua\nreturn redis.call('SET', 'key', 'other')", "0"],
    ] {
        let error = client.try_say(&words).await.expect_err("refused").to_string();
        assert!(error.to_uppercase().contains("NOREPLICAS"), "{words:?}: {error}");
    }
    client.say(&["MULTI"]).await;
    client.try_say(&["SET", "key", "other"]).await.expect_err("refused in a transaction");
    client.try_say(&["EXEC"]).await.expect_err("and with it the transaction");
    assert_eq!(client.text(&["GET", "key"]).await, "value");
    let check = engine.examine().await.into_iter().find(|c| c.name == "writes").expect("looked at");
    assert_eq!(check.found, Found::Warning);
    capture(&engine).await.expect("captured while writes are refused");
    engine.release().await.expect("released");

    engine.accept_writes().await.expect("accepted");
    client.say(&["SET", "key", "other"]).await;
    let lag: Vec<String> =
        redis::from_redis_value(client.say(&["CONFIG", "GET", "min-replicas-max-lag"]).await).expect("a pair");
    assert_eq!(lag[1], "7", "as the configuration file says");
    engine.accept_writes().await.expect("again");
}

/// The names of the files below a capture.
fn names(files: &CapturedFiles) -> Vec<String> {
    let below = |path: &std::path::PathBuf| path.strip_prefix(&files.source.root).expect("below").display().to_string();
    let mut names: Vec<_> = support::files_ending(&files.source.root, "").iter().map(below).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_capture_is_what_the_settings_say() {
    let server = RedisServer::start("appendonly no").await;
    let mut client = server.client().await;
    fill_all_kinds(&mut client).await;
    let error = capture(&server.engine(Method::Aof)).await.expect_err("there are none");
    assert!(matches!(&error, EngineError::Unsupported(why) if why.contains("CONFIG SET appendonly yes")), "{error}");
    let files = capture(&server.engine(Method::Both)).await.expect("captured");
    assert_eq!(
        (names(&files), &files.collections),
        (vec!["dump.rdb".to_owned()], &vec!["db0".to_owned(), "db5".to_owned()])
    );

    client.say(&["CONFIG", "SET", "appendonly", "yes"]).await;
    let files = capture(&server.engine(Method::Aof)).await.expect("captured, behind the first rewrite");
    let appended = ["base.rdb", "incr.aof"].map(|n| format!("appendonlydir/appendonly.aof.1.{n}"));
    let expected = [appended.as_slice(), &["appendonlydir/appendonly.aof.manifest".to_owned()]].concat();
    assert_eq!((names(&files), files.source.lengths.len()), (expected.clone(), 2));
    let files = capture(&server.engine(Method::Both)).await.expect("captured");
    assert_eq!(names(&files), [expected, vec!["dump.rdb".into()]].concat());
    server.engine(Method::Both).release().await.expect("released");
    assert!(!files.source.root.exists());
}

#[tokio::test]
async fn somebody_else_s_save_is_not_taken_for_ours() {
    let server = RedisServer::start("appendonly yes\nsave \"\"\nauto-aof-rewrite-percentage 0").await;
    let mut client = server.client().await;
    client.fill("k", 0..2000).await;
    client.say(&["CONFIG", "SET", "rdb-key-save-delay", "500"]).await;
    for (other, method) in [("BGSAVE", Method::Rdb), ("BGREWRITEAOF", Method::Rdb), ("BGREWRITEAOF", Method::Both)] {
        client.say(&[other]).await;
        client.say(&["SET", other, "written behind the other one's begin"]).await;
        client.say(&["SELECT", "3"]).await;
        client.say(&["SET", other, "in a database that it does not have"]).await;
        client.say(&["SELECT", "0"]).await;
        let files = capture(&server.engine(method)).await.expect("captured");
        assert_eq!(files.collections, ["db0", "db3"], "{other}");
        client.say(&["SELECT", "3"]).await;
        client.say(&["FLUSHDB"]).await;
        client.say(&["SELECT", "0"]).await;
    }
}

#[tokio::test]
async fn a_save_that_fails_is_told() {
    let server = RedisServer::start("appendonly no\nsave \"\"").await;
    let mut client = server.client().await;
    client.fill("k", 0..2000).await;
    client.say(&["CONFIG", "SET", "rdb-key-save-delay", "500"]).await;
    let pid = server.script().pid().expect("it runs");
    let killer = async {
        let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        until("its child", async || !children().trim().is_empty()).await;
        let children = children();
        let child = children.split_whitespace().next().expect("a child");
        std::process::Command::new("/bin/kill").args(["-9", child]).status().expect("killed");
    };
    let engine = server.engine(Method::Rdb);
    let (captured, ()) = tokio::join!(capture(&engine), killer);
    let error = captured.expect_err("its child was killed");
    assert!(matches!(&error, EngineError::Failed { what: "backup", why, .. } if why.contains("err")), "{error}");
    let check = engine.examine().await.into_iter().find(|c| c.name == "saving").expect("looked at");
    assert_eq!(check.found, Found::Problem, "{check:?}");
    client.say(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).await;
    capture(&engine).await.expect("the next one is good");
}

#[tokio::test]
async fn damaged_files_never_reach_the_server() {
    let server = RedisServer::start("appendonly yes").await;
    let mut client = server.client().await;
    client.fill("k", 0..2000).await;
    let before = client.digest().await;
    let engine = server.engine(Method::Both);
    let files = capture(&engine).await.expect("captured");
    let mut manifest = manifest::example(&BackupId::new(jiff::Timestamp::now(), Generation::default()), &[]);
    manifest.engine_version = engine.identity().await.expect("who it is").version;
    manifest.method = "both".into();
    let staged = engine.staging("x").await.expect("a place");
    for (name, at, word) in [
        ("dump.rdb", Some(100), "checksum"),
        ("dump.rdb", None, "ends in the middle"),
        ("appendonlydir/appendonly.aof.1.base.rdb", Some(40), "base.rdb"),
        ("appendonlydir/appendonly.aof.1.incr.aof", Some(0), "no command"),
        ("appendonlydir/appendonly.aof.manifest", Some(0), "names no file"),
    ] {
        copy(&files.source.root, &staged);
        let mut bytes = std::fs::read(staged.join(name)).expect("read");
        match at {
            Some(at) => bytes[at] ^= 1,
            None => bytes.truncate(bytes.len() / 2),
        }
        std::fs::write(staged.join(name), bytes).expect("damaged");
        let wish =
            InstallWish { tag: "x", staged: &staged, manifest: &manifest, patience: PATIENCE, progress: &silent };
        let error = engine.install(&wish).await.expect_err(name);
        assert!(matches!(&error, EngineError::Damaged { .. }) && error.to_string().contains(word), "{name}: {error}");
        assert_eq!(client.digest().await, before, "the same connection: it was not even stopped");
    }
}

/// What was captured, as a restore stages it: without hard links.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to.join("appendonlydir")).expect("made");
    for path in support::files_ending(from, "") {
        std::fs::copy(&path, to.join(path.strip_prefix(from).expect("inside"))).expect("copied");
    }
}

#[tokio::test]
async fn what_a_restore_would_break_on_is_refused_first() {
    let server = RedisServer::start("appendonly no\ndatabases 4").await;
    let engine = server.engine(Method::Both);
    let mut manifest = manifest::example(&BackupId::new(jiff::Timestamp::now(), Generation::default()), &[]);
    manifest.collections[0].name = "db3".into();
    manifest.engine_version = engine.identity().await.expect("who it is").version;
    manifest.method = "rdb".into();
    engine.check_install(&manifest).await.expect("nothing in the way");
    let refused = async |change: &dyn Fn(&mut manifest::Manifest), word: &str| {
        let mut other = manifest.clone();
        change(&mut other);
        let error = engine.check_install(&other).await.expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(&|m| m.engine_version = "8.4.0".into(), "later one").await;
    refused(&|m| m.collections[0].name = "db4".into(), "`databases`").await;
    refused(&|m| m.method = "aof".into(), "appendonly yes").await;
    let mut client = server.client().await;
    client.say(&["REPLICAOF", "127.0.0.1", "9"]).await;
    refused(&|_| {}, "replica").await;
}
