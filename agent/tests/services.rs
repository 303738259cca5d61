//! Engines that a service manager starts and stops. The engines are a real Redis and a real Weaviate, the managers are programs with
//! their names that know one unit or container and answer as systemd 252 and Docker 28 were seen to: what they print, and how they end.
//! Where Docker answers, `make containers` runs the last test, too, on a real one.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use support::cli::Machine;
use support::data::{fill, make_collection};
use support::docker::Container;
use support::free_ports;
use support::redis::{Client, PASSWORD, RedisServer};
use support::s3::S3;
use support::weaviate::{API_KEY, WeaviateServer};

/// A service manager by the name that the settings and its program have.
struct Manager {
    setting: &'static str,
    program: &'static str,
    /// Its program, for the engine's scripts `start`, `stop` and `pid`.
    text: &'static str,
    calls: &'static [&'static str],
    /// What it says of a name that it does not know.
    unknown: &'static str,
}

const SYSTEMD: Manager = Manager {
    setting: "systemd",
    program: "systemctl",
    text: r#"
case "$1" in
start) [ "$2" = engine.service ] || { echo "Failed to start $2: Unit $2 not found." >&2; exit 5; }; exec sh start ;;
stop) [ "$2" = engine.service ] || { echo "Failed to stop $2: Unit $2 not loaded." >&2; exit 5; }; exec sh stop ;;
show)
    [ "$2 $3 $4" = "--property MainPID --value" ] || exit 1
    pid=$([ "$5" != engine.service ] || sh pid)
    echo "${pid:-0}" ;;
*) echo "Unknown command verb $1." >&2; exit 1 ;;
esac
"#,
    calls: &["stop engine.service", "start engine.service"],
    unknown: "Unit other.service not loaded.",
};

const DOCKER: Manager = Manager {
    setting: "docker",
    program: "docker",
    text: r#"
no() { echo "Error response from daemon: No such container: $1" >&2; exit 1; }
case "$1" in
start) [ "$2" = engine.service ] || no "$2"; sh start; echo "$2" ;;
stop)
    [ "$2" = "-t" ] && [ "$3" -gt 0 ] || { echo "unknown flag: $2" >&2; exit 125; }
    [ "$4" = engine.service ] || no "$4"
    sh stop; echo "$4" ;;
inspect)
    [ "$2 $3" = "--format {{.State.Pid}}" ] || exit 1
    [ "$4" = engine.service ] || { echo "Error: No such object: $4" >&2; exit 1; }
    pid=$(sh pid); echo "${pid:-0}" ;;
*) echo "docker: '$1' is not a docker command." >&2; exit 1 ;;
esac
"#,
    calls: &["stop -t SECONDS engine.service", "start engine.service"],
    unknown: "No such container: other.service",
};

impl Manager {
    /// Puts its program into a folder beside the engine's scripts, which are in `engine`; it is to be the `PATH`.
    fn install(&self, engine: &Path) -> PathBuf {
        let folder = engine.join(self.setting);
        std::fs::create_dir(&folder).expect("made");
        let program = folder.join(self.program);
        let text =
            format!("#!/bin/sh\necho \"$*\" >>{}\ncd {}\n{}", self.log(engine).display(), engine.display(), self.text);
        std::fs::write(&program, text).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
        folder
    }

    fn log(&self, engine: &Path) -> PathBuf {
        engine.join(format!("{}.log", self.setting))
    }

    /// What it was told to change.
    fn calls(&self, engine: &Path) -> Vec<String> {
        let calls = std::fs::read_to_string(self.log(engine)).expect("it was asked");
        let changes = calls.lines().filter(|c| !c.starts_with("show") && !c.starts_with("inspect"));
        let without_time = |word| if str::parse::<u64>(word).is_ok() { "SECONDS" } else { word };
        changes.map(|c| c.split(' ').map(without_time).collect::<Vec<_>>().join(" ")).collect()
    }

    /// A machine whose engine has these settings, and this name for its manager.
    fn machine(&self, s3: &S3, settings: &str, key: &str, programs: &Path, name: &str) -> Machine {
        let engine = format!("{settings}\nservice: {{{}: {name}}}", self.setting);
        Machine::of_engine(s3, &engine, Some(key)).with("PATH", &format!("{}:/usr/bin:/bin", programs.display()))
    }
}

async fn an_engine_of_a_service_manager_is_restored(manager: &Manager) {
    let s3 = S3::start();
    let server = RedisServer::start("save \"\"").await;
    let programs = manager.install(server.folder());
    let settings = format!("engine: redis\nmethod: rdb\nurl: {}", server.url());
    let machine = |name: &str| manager.machine(&s3, &settings, PASSWORD, &programs, name);
    server.client().await.fill("k", 0..500).await;
    let digest = server.client().await.digest().await;
    let docs = machine("engine.service");
    docs.run(&["backup", "create"]).exits(0);
    server.client().await.say(&["FLUSHALL"]).await;

    machine("other.service")
        .run(&["backup", "restore", "--latest", "--replace", "--yes"])
        .exits(1)
        .says(manager.unknown);
    assert_eq!(server.client().await.digest().await.trim_matches('0'), "", "a refused restore changes nothing");
    std::fs::remove_file(manager.log(server.folder())).expect("it was asked");

    docs.run(&["backup", "restore", "--latest", "--replace", "--yes"]).exits(0).says("as the manifest says");
    assert_eq!(server.client().await.digest().await, digest);
    assert_eq!(manager.calls(server.folder()), manager.calls);
}

#[tokio::test]
async fn an_engine_of_systemd_is_restored() {
    an_engine_of_a_service_manager_is_restored(&SYSTEMD).await;
}

#[tokio::test]
async fn an_engine_of_docker_is_restored() {
    an_engine_of_a_service_manager_is_restored(&DOCKER).await;
}

/// Its files are captured while the process that the manager names is held still, and put back while it is stopped.
async fn a_weaviate_of_a_service_manager_is_restored(manager: &Manager) {
    let s3 = S3::start();
    let server = WeaviateServer::ready("weaviate-0", &s3).await;
    let programs = manager.install(server.folder());
    let (url, data) = (server.url(), server.data_dir());
    let settings =
        format!("engine: weaviate\nmethod: physical\nurl: {url}\nhost_name: weaviate-0\ndata_dir: {}", data.display());
    let machine = |name: &str| manager.machine(&s3, &settings, API_KEY, &programs, name);
    make_collection(&url, "Doc", json!({})).await;
    fill(&url, "Doc", 0..200, json!({})).await;
    machine("other.service").run(&["backup", "create"]).exits(1).says("check `service` in the settings");
    let docs = machine("engine.service");
    docs.run(&["backup", "create"]).exits(0).says("stood still for");
    fill(&url, "Doc", 200..250, json!({})).await;
    let pid = server.pid();

    let restore = ["backup", "restore", "--latest", "--replace", "--yes"];
    machine("other.service").run(&restore).exits(1).says(manager.unknown);
    assert_eq!((server.objects().await, server.pid()), (250, pid), "a refused restore changes nothing");
    std::fs::remove_file(manager.log(server.folder())).expect("it was asked");
    docs.run(&restore).exits(0).says("asked for find themselves");
    assert_eq!(server.objects().await, 200);
    assert_ne!(server.pid(), pid, "it was started anew");
    assert_eq!(manager.calls(server.folder()), manager.calls);
}

#[tokio::test]
async fn a_weaviate_of_systemd_is_restored() {
    a_weaviate_of_a_service_manager_is_restored(&SYSTEMD).await;
}

#[tokio::test]
async fn a_weaviate_of_docker_is_restored() {
    a_weaviate_of_a_service_manager_is_restored(&DOCKER).await;
}

#[tokio::test]
#[ignore = "needs Docker; `make containers` runs it"]
async fn an_engine_in_a_real_container_is_restored() {
    let image = std::env::var("REDIS_IMAGE").expect("`make containers` sets it");
    let s3 = S3::start();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let [port] = free_ports();
    let (published, mounted) = (format!("127.0.0.1:{port}:6379"), format!("{}:/data", data.display()));
    // As the user of the tests, who has to be able to remove the files.
    let user = std::fs::metadata(&data).expect("made").uid().to_string();
    let redis = ["redis-server", "--save", "", "--requirepass", PASSWORD, "--enable-debug-command", "yes"];
    let options = ["--user", &user, "--publish", &published, "--volume", &mounted, &image];
    let container = Container::run(&[&options[..], &redis].concat(), &[]);
    let url = format!("redis://127.0.0.1:{port}");
    let mut client = client(&url, &container).await;
    client.fill("k", 0..500).await;
    let digest = client.digest().await;

    let machine = |name: &str| {
        let engine = format!(
            "engine: redis\nmethod: rdb\nurl: {url}\ndata_dir: {}\nservice: {{docker: {name}}}",
            data.display()
        );
        let machine = Machine::of_engine(&s3, &engine, Some(PASSWORD));
        let of_docker = ["PATH", "HOME", "DOCKER_HOST"].into_iter().filter_map(|v| Some((v, std::env::var(v).ok()?)));
        of_docker.fold(machine, |machine, (variable, value)| machine.with(variable, &value))
    };
    machine(container.name()).run(&["backup", "create"]).exits(0);
    client.say(&["FLUSHALL"]).await;
    let restore = ["backup", "restore", "--latest", "--replace", "--yes"];
    machine("perennial-test-nowhere").run(&restore).exits(1).says("perennial-test-nowhere");
    machine(container.name()).run(&restore).exits(0).says("as the manifest says");
    assert_eq!(self::client(&url, &container).await.digest().await, digest);
}

/// A client of what runs in the container, as soon as it answers.
async fn client(url: &str, container: &Container) -> Client {
    for _ in 0..300 {
        if let Some(client) = Client::of(url).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not answer:\n{}", container.log());
}
