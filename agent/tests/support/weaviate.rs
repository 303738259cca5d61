//! A real Weaviate with API-key authentication, one node under a pinned host name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use perennial::engine::{Engine, NativeBackup};
use perennial::engines::weaviate::{Options, Weaviate};
use perennial_shared::secret::Secret;

use super::s3::{ACCESS_KEY, BUCKET, S3, SECRET_KEY};
use super::scripted::Scripted;
use super::{free_ports, installed};

/// The one API key.
pub const API_KEY: &str = "test-api-key";

/// A running Weaviate with its own data folder.
#[derive(Debug)]
pub struct WeaviateServer {
    server: Scripted,
    folder: tempfile::TempDir,
    host_name: String,
    ports: [u16; 7],
}

impl WeaviateServer {
    /// Begins to start it; it is ready some seconds later.
    pub fn start(host_name: &str, s3: &S3) -> Self {
        Self::start_with(host_name, s3, &[])
    }

    /// Like [`WeaviateServer::start`], with more environment variables.
    pub fn start_with(host_name: &str, s3: &S3, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("data")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("native")).expect("a folder");
        let ports = free_ports();
        let mut command = command(host_name, folder.path(), ports, &s3.address());
        command.envs(more.iter().copied());
        let server = Scripted::new(folder.path(), &command);
        server.start();
        Self { server, folder, host_name: host_name.into(), ports }
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(host_name: &str, s3: &S3) -> Self {
        let server = Self::start(host_name, s3);
        server.wait().await;
        server
    }

    /// Two of one host name, ready: what one had is restored on the other.
    pub async fn two(s3: &S3) -> (Self, Self) {
        let two = (Self::start("weaviate-0", s3), Self::start("weaviate-0", s3));
        tokio::join!(two.0.wait(), two.1.wait());
        two
    }

    /// Waits until it is ready.
    pub async fn wait(&self) {
        let ready = self.engine().wait_until_ready(Duration::from_secs(90)).await;
        ready.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
    }

    /// Kills it without warning and begins to start it again on the same data.
    pub fn restart(&mut self) {
        self.stop();
        self.server.start();
    }

    /// Stops it as its owner would, does something to its data folder, and begins to start it again.
    pub fn restart_after(&mut self, work: impl FnOnce(&Path)) {
        self.server.stop();
        work(&self.data_dir());
        self.server.start();
    }

    /// Takes it away.
    pub fn stop(&mut self) {
        self.server.kill();
        // Waits until it is gone.
        self.server.stop();
    }

    /// The settings' `service`: how the product starts and stops it.
    pub fn service(&self) -> String {
        self.server.settings()
    }

    /// The folder that everything of it is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.pid().expect("it was started")
    }

    /// A client of the product for it.
    pub fn engine(&self) -> Weaviate {
        Weaviate::new(&self.url(), Some(&Secret::new(API_KEY)), self.options()).expect("an address")
    }

    /// What the product is told of it.
    pub fn options(&self) -> Options {
        Options {
            debug_url: Some(self.debug_url()),
            host_name: Some(self.host_name.clone()),
            data_dir: Some(self.data_dir()),
            service: Some(self.server.service()),
            physical: false,
        }
    }

    /// Deletes every collection.
    pub async fn empty(&self) {
        let engine = self.engine();
        let names = engine.collections().await.expect("a list");
        engine.remove_collections(&names).await.expect("removed");
    }

    /// Objects in all collections.
    pub async fn objects(&self) -> u64 {
        self.engine().count().await.expect("counts").iter().map(|c| c.count).sum()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The address of its profiling port, which answers where `GO_PROFILING_DISABLE` is set to `false`.
    pub fn debug_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.server.log()
    }
}

fn command(host_name: &str, folder: &Path, ports: [u16; 7], s3: &str) -> Command {
    let [http, raft, raft_internal, gossip, data, grpc, profiling] = ports.map(|p| p.to_string());
    let mut command = Command::new(installed("weaviate-server"));
    command.args(["--scheme", "http", "--host", "127.0.0.1", "--port", &http]).current_dir(folder);
    command.env("PERSISTENCE_DATA_PATH", folder.join("data")).env("BACKUP_FILESYSTEM_PATH", folder.join("native"));
    command.envs([
        ("CLUSTER_HOSTNAME", host_name),
        ("RAFT_BOOTSTRAP_EXPECT", "1"),
        ("RAFT_PORT", &raft),
        ("RAFT_INTERNAL_RPC_PORT", &raft_internal),
        ("CLUSTER_GOSSIP_BIND_PORT", &gossip),
        ("CLUSTER_DATA_BIND_PORT", &data),
        ("CLUSTER_ADVERTISE_ADDR", "127.0.0.1"),
        ("CLUSTER_BIND_ADDR", "127.0.0.1"),
        ("CLUSTER_IN_LOCALHOST", "true"),
        ("GRPC_PORT", &grpc),
        ("GO_PROFILING_DISABLE", "true"),
        ("GO_PROFILING_PORT", &profiling),
        ("GOMEMLIMIT", "1GiB"),
        ("DISABLE_TELEMETRY", "true"),
        ("API_BASED_MODULES_DISABLED", "true"),
        ("DEFAULT_VECTORIZER_MODULE", "none"),
        ("LOG_LEVEL", "warning"),
        ("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", "false"),
        ("AUTHENTICATION_APIKEY_ENABLED", "true"),
        ("AUTHENTICATION_APIKEY_ALLOWED_KEYS", API_KEY),
        ("AUTHENTICATION_APIKEY_USERS", "admin"),
        ("AUTHORIZATION_ADMINLIST_ENABLED", "true"),
        ("AUTHORIZATION_ADMINLIST_USERS", "admin"),
        ("ENABLE_MODULES", "backup-s3,backup-filesystem"),
        ("BACKUP_S3_BUCKET", BUCKET),
        ("BACKUP_S3_PATH", "the-engine-s-own-default"),
        ("BACKUP_S3_ENDPOINT", s3),
        ("BACKUP_S3_USE_SSL", "false"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ]);
    command
}
