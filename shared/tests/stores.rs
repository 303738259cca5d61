//! The conformance suite against every store: memory, a folder, and S3 on a real server.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Builder, Credentials, SharedCredentialsProvider};
use futures_util::future::join_all;
use perennial_shared::store::cloud::CloudStore;
use perennial_shared::store::folder::FolderStore;
use perennial_shared::store::memory::MemoryStore;
use perennial_shared::store::s3::{S3Options, S3Store};
use perennial_shared::store::{Store, StoreError, Version, conformance};
use support::{Server, installed};

#[tokio::test]
async fn memory_conforms() {
    conformance::all(&MemoryStore::default()).await;
}

#[tokio::test]
async fn a_cloud_bucket_conforms() {
    let bucket = Arc::new(object_store::memory::InMemory::new());
    conformance::all(&CloudStore::new(bucket.clone(), bucket, "", "memory:")).await;

    let bucket = Arc::new(object_store::memory::InMemory::new());
    let neighbour = CloudStore::new(bucket.clone(), bucket.clone(), "teams/docs-old", "memory:");
    neighbour.create("a", "theirs".into()).await.expect("create");
    conformance::all(&CloudStore::new(bucket.clone(), bucket, "teams/docs", "memory:")).await;
    assert_eq!(neighbour.list("").await.expect("list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::all(&FolderStore::open(folder.path()).expect("opens")).await;
}

#[tokio::test]
async fn s3_conforms() {
    let server = S3Server::start();
    server.create_bucket("whole").await;
    server.create_bucket("shared").await;
    conformance::all(&S3Store::new(&server.aws(), S3Options::new("whole", ""))).await;

    // Two repositories in one bucket do not see each other, even where one's name starts with the other's.
    let neighbour = S3Store::new(&server.aws(), S3Options::new("shared", "teams/docs-old"));
    neighbour.create("a", "theirs".into()).await.expect("create");
    conformance::all(&S3Store::new(&server.aws(), S3Options::new("shared", "teams/docs"))).await;
    assert_eq!(neighbour.list("").await.expect("list").len(), 1);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_never_an_empty_one() {
    let server = S3Server::start();
    let store = S3Store::new(&server.aws(), S3Options::new("nowhere", "docs"));
    every_call_is_invalid(&store).await;
}

#[tokio::test]
async fn wrong_credentials_are_a_denial() {
    let server = S3Server::start();
    server.create_bucket("bucket").await;
    let wrong = Credentials::new(S3Server::ACCESS, "wrong", None, None, "test");
    let aws = server.aws().into_builder().credentials_provider(SharedCredentialsProvider::new(wrong)).build();
    let store = S3Store::new(&aws, S3Options::new("bucket", ""));
    for refusal in [store.get("a").await.map(drop), store.head("a").await.map(drop), store.list("").await.map(drop)] {
        assert!(matches!(refusal, Err(StoreError::Denied { .. })), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_never_an_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("mount");
    let refused = FolderStore::open(&root).expect_err("nothing to open");
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused:?}");
    every_call_is_invalid(&FolderStore::at(&root)).await;

    std::fs::create_dir(&root).expect("a folder");
    let store = FolderStore::open(&root).expect("opens");
    std::fs::remove_dir(&root).expect("it goes away");
    every_call_is_invalid(&store).await;
    assert!(!root.exists(), "the folder was made again");
}

async fn every_call_is_invalid(store: &dyn Store) {
    let version = Version::new("any");
    let refusals = [
        store.get("a").await.map(drop),
        store.read("a").await.map(drop),
        store.head("a").await.map(drop),
        store.list("").await.map(drop),
        store.list("a/b").await.map(drop),
        store.create("a", "x".into()).await.map(drop),
        store.replace("a", "x".into(), &version).await.map(drop),
        store.put("a", "x".into()).await.map(drop),
        store.delete("a").await,
        store.read_range("a", 0..1).await.map(drop),
        store.read_range("a", 0..0).await.map(drop),
        store.upload("a").await.map(drop),
        store.resume("a", "00000000000000000000000000000000").await.map(drop),
    ];
    for (call, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Err(StoreError::Invalid { .. })), "call {call}: {refusal:?}");
    }
}

/// A lock belongs to an open file, so two stores in one process stand to each other as two processes do.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_folder_cannot_both_win() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = [(); 4].map(|()| Arc::new(FolderStore::open(folder.path()).expect("opens")));
    let mut version = stores[0].create("pointer", "start".into()).await.expect("create");
    for round in 0..50 {
        let race = stores.iter().enumerate().map(|(racer, store)| {
            let (store, version) = (store.clone(), version.clone());
            tokio::spawn(async move { store.replace("pointer", format!("{round}-{racer}").into(), &version).await })
        });
        let finished = join_all(race).await.into_iter().map(|task| task.expect("no panic"));
        let (won, lost): (Vec<_>, Vec<_>) = finished.partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {won:?}");
        assert!(lost.iter().all(|lost| matches!(lost, Err(StoreError::Changed { .. }))), "{lost:?}");
        version = won.into_iter().flatten().next().expect("a winner");
    }
}

#[tokio::test]
async fn what_a_crash_left_is_neither_listed_nor_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("opens");
    store.create("a", "x".into()).await.expect("create");
    let own = folder.path().join(".perennial");
    let (fresh, old) = (own.join("fresh.tmp"), own.join("old.tmp"));
    for left in [&fresh, &old] {
        std::fs::write(left, "half").expect("a temporary file");
    }
    let days_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    std::fs::File::options().write(true).open(&old).and_then(|file| file.set_modified(days_ago)).expect("ages");

    store.create("b", "y".into()).await.expect("create");
    let listed: Vec<String> = store.list("").await.expect("list").into_iter().map(|meta| meta.key).collect();
    assert_eq!(listed, ["a", "b"]);
    assert!(store.list(".perennial/").await.expect("list").is_empty());
    assert!(fresh.exists(), "somebody may be writing it");
    assert!(!old.exists(), "nobody writes for days");
    let own = store.put(".perennial/lock", "x".into()).await.expect_err("the store's own");
    assert!(matches!(own, StoreError::Invalid { .. }), "{own:?}");
}

#[tokio::test]
async fn a_folder_cannot_have_an_object_inside_an_object() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open(folder.path()).expect("opens");
    store.create("a", "x".into()).await.expect("create");
    store.create("b/c", "x".into()).await.expect("create");
    let long = "n".repeat(300);
    for key in ["a/inside", "b", long.as_str()] {
        let refused = store.create(key, "y".into()).await.expect_err("not on a file system");
        assert!(matches!(refused, StoreError::Invalid { .. }), "{key}: {refused:?}");
        let refused = store.put(key, "y".into()).await.expect_err("not on a file system");
        assert!(matches!(refused, StoreError::Invalid { .. }), "{key}: {refused:?}");
    }
    assert!(matches!(store.get("b").await, Err(StoreError::NotFound { .. })));
}

/// A versitygw of our own, gone with its data when this is dropped.
struct S3Server {
    server: Server,
    _data: tempfile::TempDir,
}

impl S3Server {
    const ACCESS: &str = "test-access";
    const SECRET: &str = "test-secret";

    fn start() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let server = Server::start(|port| {
            let mut command = Command::new(installed("versitygw", ""));
            command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"]).arg(data.path());
            command.envs([("ROOT_ACCESS_KEY_ID", Self::ACCESS), ("ROOT_SECRET_ACCESS_KEY", Self::SECRET)]);
            command
        });
        Self { server, _data: data }
    }

    fn aws(&self) -> SdkConfig {
        let credentials = Credentials::new(Self::ACCESS, Self::SECRET, None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(format!("http://127.0.0.1:{}", self.server.port))
            .build()
    }

    async fn create_bucket(&self, name: &str) {
        let client = aws_sdk_s3::Client::from_conf(Builder::from(&self.aws()).force_path_style(true).build());
        client.create_bucket().bucket(name).send().await.expect("a bucket");
    }
}
