//! A folder: the embedded repository, on any file system with hard links, `fsync` and file locks.
//!
//! Promises: what S3 promises. `create` writes a temporary file and hard-links it into place, which fails where the
//! name is taken; everything else that changes an object holds the folder's lock, so that of two processes (not only
//! tasks) one wins. A write is on the disk when it returns: file and directories are synced.
//!
//! Fails: [`StoreError`]. A folder that is not there is [`StoreError::Invalid`], never an empty repository; so it
//! must exist before it is used (a missing mount would otherwise look like a repository without a backup).
//!
//! A crash leaves at most a temporary file in `.perennial/`, which no listing shows and which a later write removes
//! after a day; an upload's files wait for a week after its last part, to be taken up again. Locks die with their
//! process.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

mod disk;
mod lock;
mod upload;

use super::{Meta, Object, Part, Reader, Store, StoreError, Upload, Version, parts};
use disk::Disk;
use upload::DiskUpload;

/// A folder that holds a repository.
#[derive(Clone, Debug)]
pub struct FolderStore {
    disk: Disk,
}

impl FolderStore {
    /// The folder must exist.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self::at(root);
        store.disk.check_root("")?;
        Ok(store)
    }

    /// Nothing is looked at yet: where there is no such folder, every call says so.
    pub fn at(root: impl AsRef<Path>) -> Self {
        // Absolute, so that a later change of the working directory does not move the repository.
        let root = std::path::absolute(&root).unwrap_or_else(|_| root.as_ref().to_path_buf());
        Self { disk: Disk::new(root) }
    }

    /// File systems block, so they are waited for on threads that may.
    async fn on_thread<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Disk, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (disk, owned) = (self.disk.clone(), key.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&disk, &owned)).await;
        done.unwrap_or_else(|error| Err(StoreError::unavailable(key, self.location(), error)))
    }
}

#[async_trait]
impl Store for FolderStore {
    async fn get(&self, key: &str) -> Result<Object, StoreError> {
        self.on_thread(key, Disk::get).await
    }

    async fn read(&self, key: &str) -> Result<Reader, StoreError> {
        let file = self.on_thread(key, Disk::open).await?;
        Ok(Box::pin(tokio::fs::File::from_std(file)))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.on_thread(key, move |disk, key| disk.read_range(key, &range)).await
    }

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        self.on_thread(key, Disk::head).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        self.on_thread(prefix, Disk::list).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.on_thread(key, move |disk, key| disk.create(key, &body)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let upload = self.on_thread(key, |disk, key| DiskUpload::begin(disk.clone(), key)).await?;
        Ok(Box::new(FolderUpload { store: self.clone(), upload: Arc::new(upload) }))
    }

    async fn resume(&self, key: &str, token: &str) -> Result<Option<Box<dyn Upload>>, StoreError> {
        let token = token.to_owned();
        let upload = self.on_thread(key, move |disk, key| DiskUpload::resume(disk.clone(), key, &token)).await?;
        Ok(upload
            .map(|upload| Box::new(FolderUpload { store: self.clone(), upload: Arc::new(upload) }) as Box<dyn Upload>))
    }

    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError> {
        let (whole, _) = parts::whole(parts, key, &self.location())?;
        self.on_thread(key, move |disk, key| upload::standing(disk, key, whole)).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        let expected = expected.clone();
        self.on_thread(key, move |disk, key| disk.replace(key, &body, &expected)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.on_thread(key, move |disk, key| disk.put(key, &body)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.on_thread(key, Disk::delete).await
    }

    fn location(&self) -> String {
        self.disk.location()
    }
}

/// An object whose parts are written to their places in one temporary file.
#[derive(Debug)]
struct FolderUpload {
    store: FolderStore,
    upload: Arc<DiskUpload>,
}

impl FolderUpload {
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DiskUpload) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let upload = self.upload.clone();
        self.store.on_thread(self.upload.key(), move |_, _| work(&upload)).await
    }
}

#[async_trait]
impl Upload for FolderUpload {
    fn token(&self) -> Option<String> {
        Some(self.upload.token().to_owned())
    }

    async fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        self.on_thread(DiskUpload::arrived).await
    }

    async fn send(&self, number: u32, offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError> {
        self.on_thread(move |upload| upload.send(number, offset, &body)).await
    }

    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError> {
        let (whole, parts) = parts::whole(parts, self.upload.key(), &self.store.location())?;
        self.on_thread(move |upload| upload.complete(whole, &parts)).await
    }

    async fn abort(&self) -> Result<(), StoreError> {
        self.on_thread(DiskUpload::abort).await
    }
}
