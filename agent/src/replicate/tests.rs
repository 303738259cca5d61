//! Copying between folders, with replicas that do not keep what they are sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use perennial_shared::aws;
use perennial_shared::id::Generation;
use perennial_shared::manifest::{Manifest, example};
use perennial_shared::repository::Repository;
use perennial_shared::settings::{self, Engine};
use perennial_shared::store::Store;
use perennial_shared::store::faulty::{Fault, FaultyStore};
use perennial_shared::store::folder::FolderStore;

use super::*;
use crate::watch::{Nobody, Progress};

fn context(store: Arc<dyn Store>) -> Context {
    let target =
        settings::parse("t.yaml", "name: docs\nengine: weaviate\nrepository: file:///nowhere\n").expect("good");
    Context { target, aws: aws::no_account(), repository: Repository::new(store, Engine::Weaviate) }
}

/// A repository in a folder, and the folder.
fn repository() -> (Context, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (context(Arc::new(FolderStore::at(folder.path()))), folder)
}

/// Puts a backup of two objects, made in this second, into the repository.
async fn made(context: &Context, second: i64) -> Manifest {
    made_of(context, second, &[("chunk-1", b"data"), ("chunk-2", b"more")]).await
}

async fn made_of(context: &Context, second: i64, objects: &[(&str, &[u8])]) -> Manifest {
    let at = Timestamp::from_second(1_800_000_000 + second).expect("in range");
    let manifest = example(&BackupId::new(at, Generation(1)), objects);
    let prefix = Repository::backup_prefix(&manifest.backup_id);
    for (key, body) in objects {
        let stored = context.repository.store().create(&format!("{prefix}{key}"), Bytes::copy_from_slice(body)).await;
        stored.expect("stored");
    }
    context.repository.create_manifest(&manifest).await.expect("stored");
    manifest
}

/// Takes a file away whenever it is told something.
struct Thief(PathBuf);

impl Watch for Thief {
    fn see(&self, _: &Progress) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn is_published(replica: &Path, id: &BackupId) -> bool {
    replica.join(Repository::manifest_key(id)).exists()
}

#[tokio::test]
async fn what_a_replica_lost_again_is_not_called_copied() {
    let ((first, _kept), (replica, folder)) = (repository(), repository());
    let id = made(&first, 0).await.backup_id;
    let thief = Thief(folder.path().join(Repository::backup_prefix(&id)).join("chunk-1"));
    let failure: Failure = copy::backup(&first, &replica, &id, &thief).await.expect_err("one is gone").into();
    assert!(failure.code == "ReplicaDamaged" && failure.message.contains("chunk-1 is missing"), "{failure}");
    assert!(!is_published(folder.path(), &id));
    assert_eq!(
        copy::backup(&first, &replica, &id, &Nobody).await.expect("copied"),
        4,
        "only what is not there is sent"
    );
    assert!(is_published(folder.path(), &id));
}

#[tokio::test]
async fn a_manifest_that_reads_differently_is_not_called_copied() {
    let (first, _kept) = repository();
    let id = made(&first, 0).await.backup_id;
    let copied = async |faults: &[(usize, Fault)]| {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(FaultyStore::at(Arc::new(FolderStore::at(folder.path())), faults.iter().copied()));
        let done = copy::backup(&first, &context(Arc::clone(&store) as Arc<dyn Store>), &id, &Nobody).await;
        (done, store.operations())
    };
    let (done, operations) = copied(&[]).await;
    assert_eq!(done.expect("copied"), 8);
    let (done, _) = copied(&[(operations - 1, Fault::Corrupt)]).await;
    let failure: Failure = done.expect_err("it was looked at").into();
    assert!(failure.code == "ReplicaDamaged" && failure.message.contains("reads differently"), "{failure}");
}

#[tokio::test]
async fn what_a_backup_is_at_fault_for_is_told_from_what_a_repository_is() {
    let ((first, kept), (replica, folder)) = (repository(), repository());
    let id = made(&first, 0).await.backup_id;
    let object = kept.path().join(Repository::backup_prefix(&id)).join("chunk-2");
    let copied = async || copy::backup(&first, &replica, &id, &Nobody).await.expect_err("not copied");
    for (body, why) in [("moRe", "chunk-2 in file:///"), ("mor", "chunk-2 has 3 bytes")] {
        std::fs::write(&object, body).expect("damaged");
        let error = copied().await;
        assert!(matches!(&error, copy::CopyError::Backup(e) if e.message.contains(why)), "{why}: {error:?}");
    }
    std::fs::write(&object, "more").expect("mended");
    std::fs::rename(folder.path(), kept.path().join("away")).expect("moved");
    let error = copied().await;
    assert!(matches!(&error, copy::CopyError::Repository(e) if e.code == "RepositoryInvalid"), "{error:?}");
    std::fs::rename(kept.path().join("away"), folder.path()).expect("moved");
    std::fs::remove_dir_all(kept.path().join("backups")).expect("removed");
    assert!(matches!(copied().await, copy::CopyError::Backup(e) if e.code == "NotInRepository"));
}

/// Files below a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    std::fs::read_dir(folder).expect("read").flat_map(|entry| below(entry.expect("read").path())).collect()
}

#[tokio::test]
async fn nothing_is_left_of_an_object_that_turned_out_damaged_on_the_way() {
    let ((first, kept), (replica, folder)) = (repository(), repository());
    let large = vec![7; 3 * usize::try_from(first.target.upload.part_size).expect("in memory")];
    let id = made_of(&first, 0, &[("chunk-1", &large)]).await.backup_id;
    let object = kept.path().join(Repository::backup_prefix(&id)).join("chunk-1");
    std::fs::write(&object, vec![8; large.len()]).expect("damaged");
    let error = copy::backup(&first, &replica, &id, &Nobody).await.expect_err("damaged");
    assert!(matches!(error, copy::CopyError::Backup(_)), "{error:?}");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "parts had been sent");
}

#[tokio::test]
async fn once_the_time_is_up_the_rest_is_left_for_the_next_copying() {
    let ((first, _kept), (replica, folder)) = (repository(), repository());
    let (old, new) = (made(&first, 0).await.backup_id, made(&first, 1).await.backup_id);
    let told = lacking::bring(&first, &replica, Some(Instant::now()), &Nobody).await.expect("told");
    assert!(told.len() == 1 && told[0].contains("still lacks 2 backups"), "{told:?}");
    assert!(!is_published(folder.path(), &new));
    let told = lacking::bring(&first, &replica, None, &Nobody).await.expect("copied");
    assert!(told.len() == 2 && told[0].contains(new.as_str()) && told[1].contains(old.as_str()), "{told:?}");
    assert!(is_published(folder.path(), &new) && is_published(folder.path(), &old));
    assert_eq!(lacking::bring(&first, &replica, None, &Nobody).await.expect("all is there"), Vec::<String>::new());
}

/// Remembers what it is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Watch for Told {
    fn see(&self, progress: &Progress) {
        self.0.lock().expect("unpoisoned").push(progress.stage.clone());
    }
}

#[tokio::test]
async fn every_replica_gets_the_newest_before_one_gets_what_it_missed() {
    let (mut first, _kept) = repository();
    let (old, new) = (made(&first, 0).await.backup_id, made(&first, 1).await.backup_id);
    let replicas = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let urls: Vec<_> = replicas.iter().map(|folder| format!("'file://{}'", folder.path().display())).collect();
    let text = format!("name: docs\nengine: weaviate\nrepository: file:///nowhere\nreplicas: [{}]\n", urls.join(", "));
    first.target = settings::parse("t.yaml", &text).expect("good");
    let told = Told::default();
    everywhere(&first, &new, None, &told).await.expect("copied");
    let told = told.0.into_inner().expect("unpoisoned");
    let missed = told.iter().position(|stage| stage.contains(old.as_str())).expect("it was missed");
    let newest = told.iter().rposition(|stage| stage.contains(new.as_str())).expect("it was copied");
    assert!(newest < missed, "{told:#?}");
    assert!(replicas.iter().all(|r| is_published(r.path(), &old) && is_published(r.path(), &new)));
}
