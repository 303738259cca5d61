//! A folder: the embedded repository, on any file system with hard links, `fsync` and file locks.
//!
//! Promises: what S3 promises. `create` writes a temporary file and hard-links it into place, which fails where the
//! name is taken; everything else that changes an object holds the folder's lock, so that of two processes (not only
//! tasks) one wins. A write is on the disk when it returns: file and directories are synced.
//!
//! Fails: [`StoreError`]. A folder that is not there is [`StoreError::Invalid`], never an empty repository; so it
//! must exist before it is opened (a missing mount would otherwise look like a repository without a backup).
//!
//! A crash leaves at most a temporary file in `.perennial/`, which no listing shows and which a later write removes
//! after a day. Locks die with their process.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;

mod disk;
mod lock;

use super::{Meta, Object, Reader, Store, StoreError, Version};
use disk::Disk;

/// A folder that holds a repository.
#[derive(Clone, Debug)]
pub struct FolderStore {
    disk: Disk,
}

impl FolderStore {
    /// The folder must exist.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        // Absolute, so that a later change of the working directory does not move the repository.
        let root = std::path::absolute(&root).unwrap_or_else(|_| root.as_ref().to_path_buf());
        let disk = Disk::new(root);
        disk.check_root("")?;
        Ok(Self { disk })
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

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        self.on_thread(key, Disk::head).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        self.on_thread(prefix, Disk::list).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.on_thread(key, move |disk, key| disk.create(key, &body)).await
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
