//! A real S3 server whose objects are plain files, so that a test can damage one.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use perennial_shared::repository::Repository;
use perennial_shared::settings::Engine;
use perennial_shared::store::s3::{S3Options, S3Store};
use perennial_shared::verify::sha256_hex;
use serde_json::Value;

use super::process::Server;
use super::{free_ports, installed};

/// The one access key.
pub const ACCESS_KEY: &str = "test-access-key";
/// Its secret.
pub const SECRET_KEY: &str = "test-secret-key";
/// The one bucket.
pub const BUCKET: &str = "backups";

/// Where it notes its requests.
const REQUESTS: &str = "requests.log";

/// A running S3 server with one bucket.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    folder: tempfile::TempDir,
    port: u16,
}

impl S3 {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("a bucket");
        let [port] = free_ports();
        let server = Self::launch(folder.path(), port);
        let s3 = Self { server, folder, port };
        s3.wait();
        s3
    }

    fn launch(folder: &Path, port: u16) -> Server {
        let mut command = Command::new(installed("versitygw"));
        command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "--access-log"]).arg(folder.join(REQUESTS));
        command.arg("posix").arg(folder.join("data"));
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
        Server::start(&mut command, &folder.join("s3.log"))
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the S3 server did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("s3.log")).unwrap_or_default()
    }

    /// What it was asked so far, a line each, as S3's own logs have them.
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join(REQUESTS)).expect("it notes its requests");
        log.lines().map(str::to_owned).collect()
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder whose files are the bucket's objects.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }

    /// Takes it away, as a network failure would.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// Brings it back at the same address.
    pub fn resume(&mut self) {
        self.server = Self::launch(self.folder.path(), self.port);
        self.wait();
    }

    /// The repository of a Weaviate below `prefix`, as the product sees it.
    pub fn repository(&self, prefix: &str) -> Repository {
        self.repository_of(Engine::Weaviate, prefix)
    }

    /// The same of any engine.
    pub fn repository_of(&self, engine: Engine, prefix: &str) -> Repository {
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                ACCESS_KEY, SECRET_KEY, None, None, "test",
            )))
            .endpoint_url(format!("http://{}", self.address()))
            .build();
        Repository::new(Arc::new(S3Store::new(&aws, S3Options::new(BUCKET, prefix))), engine)
    }

    /// The environment of a program that uses it through the AWS SDK. Other services are at a port where nobody listens: nothing
    /// of a test leaves this machine.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_ENDPOINT_URL_S3", format!("http://{}", self.address())),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("AWS_REGION", "us-east-1".into()),
        ]
    }
}

/// Changes the newest manifest and the pointer that has its hash.
pub async fn tamper(repository: &Repository, change: impl Fn(&mut Value)) {
    let id = repository.pointer().await.expect("read").backup_id().cloned().expect("a backup");
    let before = repository.manifest_bytes(&id).await.expect("read");
    let mut value: Value = serde_json::from_slice(&before).expect("JSON");
    change(&mut value);
    let after = serde_json::to_vec(&value).expect("JSON");
    let (store, key) = (repository.store(), repository.pointer_key());
    let pointer = store.get(&key).await.expect("read").body;
    let pointer = String::from_utf8_lossy(&pointer).replace(&sha256_hex(&before), &sha256_hex(&after));
    store.put(&Repository::manifest_key(&id), after.into()).await.expect("written");
    store.put(&key, pointer.into()).await.expect("written");
}
