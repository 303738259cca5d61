//! A large object on its way into a bucket whose uploads in parts know no condition.
//!
//! Promises: the parts go to a name of their own. There the whole is read back and held to its checksum, as the crate
//! sends none and reports none; then it is copied to its key, inside the service, if there is no object. Reading back
//! costs the time of one download, and nothing that is not whole is ever published.
//!
//! A crash leaves parts, or the object under its own name; it cannot be resumed. See [`super`] for who removes what.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, MultipartId, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::AsyncReadExt;

use super::{CloudStore, READ_TIMEOUT, UPLOADS, refusal};
use crate::store::parts::{self, Arrived, Digest, Whole};
use crate::store::{Meta, Part, Reader, Store, StoreError, Upload};

/// A connection among many on a slow line may be this slow.
const SLOWEST: u64 = 128 * 1024;
/// Putting the parts together, or copying the whole, inside the service.
const LONG: Duration = Duration::from_secs(10 * 60);
/// Azure may answer before a copy is done.
const COPY_POLLS: u32 = 120;
const COPY_PAUSE: Duration = Duration::from_secs(5);
/// No upload is put together and copied for this long, so what is older is a crash's.
const LEFT_BEHIND: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
const BUFFER: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct CloudUpload {
    store: CloudStore,
    key: String,
    own_key: String,
    own_path: Path,
    id: MultipartId,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    arrived: BTreeMap<u32, Arrived>,
    /// The parts are one object under the upload's own name.
    is_whole: bool,
    is_over: bool,
}

impl CloudUpload {
    pub(super) async fn begin(store: &CloudStore, key: &str) -> Result<Self, StoreError> {
        store.path(key)?;
        remove_left_behind(store).await?;
        let own_key = format!("{UPLOADS}{:032x}", rand::random::<u128>());
        let own_path = store.own_path(&own_key)?;
        match store.bucket.create_multipart(&own_path).await {
            Ok(id) => {
                let (store, key) = (store.clone(), key.to_owned());
                Ok(Self { store, key, own_key, own_path, id, sent: Mutex::default() })
            }
            Err(error) => Err(store.explain(error, key).await),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.lock().is_over { Err(self.unknown()) } else { Ok(()) }
    }

    fn unknown(&self) -> StoreError {
        parts::unknown_upload(&self.key, &self.store.location)
    }

    /// The call's result within its time.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.store.explain(error, &self.key).await),
            Err(late) => Err(StoreError::unavailable(&self.key, &*self.store.location, late)),
        }
    }

    /// The parts become one object under the upload's own name, which is checked before anybody can see it.
    async fn put_together(&self, whole: Whole, parts: &[Part]) -> Result<(), StoreError> {
        parts::check_arrived(parts, &self.lock().arrived, &self.key, &self.store.location)?;
        if !self.lock().is_whole {
            let ids = parts.iter().map(|part| PartId { content_id: part.tag.clone() }).collect();
            self.within(LONG, self.store.patient.complete_multipart(&self.own_path, &self.id, ids)).await?;
            self.lock().is_whole = true;
        }
        let found = read_back(&self.store, &self.own_path, &self.own_key).await?;
        if found == whole {
            return Ok(());
        }
        let why = format!(
            "the parts make {} bytes with CRC-64/NVME {:016x}, the service has {} with {:016x}",
            whole.size, whole.crc64, found.size, found.crc64
        );
        Err(StoreError::corrupt(&self.key, &*self.store.location, why))
    }

    async fn publish(&self, whole: Whole) -> Result<Meta, StoreError> {
        let to = self.store.path(&self.key)?;
        let options = CopyOptions { mode: CopyMode::Create, ..CopyOptions::default() };
        self.within(LONG, self.store.patient.copy_opts(&self.own_path, &to, options)).await?;
        for _ in 0..COPY_POLLS {
            let meta = self.store.head(&self.key).await?;
            if meta.size == whole.size {
                return Ok(meta);
            }
            tokio::time::sleep(COPY_PAUSE).await;
        }
        let why = "the service is still copying the object to its key";
        Err(StoreError::unavailable(&self.key, &*self.store.location, why))
    }

    /// An object stands at the key, or the upload is over: perhaps it is ours, and the reply got lost.
    async fn settle(&self, whole: Whole, refused: StoreError) -> Result<Meta, StoreError> {
        match standing(&self.store, &self.key, whole).await {
            Ok(Some(meta)) => Ok(meta),
            Ok(None) => Err(refused),
            Err(other @ StoreError::AlreadyExists { .. }) => {
                // What stands at the key is the answer, whether our own can be removed now or is left to be in a week.
                let _ = self.abort().await;
                Err(other)
            }
            Err(unreadable) => Err(unreadable),
        }
    }

    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.store.bucket.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(refusal::explain(error, &self.key, &self.store.location)),
        }
    }
}

#[async_trait]
impl Upload for CloudUpload {
    fn token(&self) -> Option<String> {
        None
    }

    async fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        self.check_open()?;
        Ok(self.lock().arrived.values().map(|arrived| arrived.part.clone()).collect())
    }

    async fn send(&self, number: u32, offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError> {
        parts::check_number(number, &self.key, &self.store.location)?;
        self.check_open()?;
        let crc64 = parts::crc64nvme_of(&body, &self.key, &self.store.location).await?;
        let size = parts::size(&body);
        let limit = READ_TIMEOUT + Duration::from_secs(size / SLOWEST);
        let payload: PutPayload = body.into_iter().filter(|piece| !piece.is_empty()).collect();
        let index = number as usize - 1;
        let sent = self.within(limit, self.store.patient.put_part(&self.own_path, &self.id, index, payload)).await?;
        let part = Part { number, size, crc64, tag: sent.content_id };
        self.lock().arrived.insert(number, Arrived { offset, part: part.clone() });
        Ok(part)
    }

    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError> {
        let (whole, parts) = parts::whole(parts, &self.key, &self.store.location)?;
        if self.lock().is_over {
            return self.settle(whole, self.unknown()).await;
        }
        self.put_together(whole, &parts).await?;
        let published = match self.publish(whole).await {
            Err(refused @ StoreError::AlreadyExists { .. }) => self.settle(whole, refused).await,
            published => published,
        }?;
        self.abort().await?;
        Ok(published)
    }

    async fn abort(&self) -> Result<(), StoreError> {
        let (is_over, is_whole) = {
            let sent = self.lock();
            (sent.is_over, sent.is_whole)
        };
        if is_over {
            return Ok(());
        }
        if !is_whole {
            match self.store.bucket.abort_multipart(&self.own_path, &self.id).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => (),
                Err(error) => return Err(refusal::explain(error, &self.key, &self.store.location)),
            }
        }
        // Also where the reply that made it whole got lost.
        self.remove(&self.own_path).await?;
        self.lock().is_over = true;
        Ok(())
    }
}

/// The object at the key, if it is this one.
pub(super) async fn standing(store: &CloudStore, key: &str, whole: Whole) -> Result<Option<Meta>, StoreError> {
    let meta = match store.head(key).await {
        Ok(meta) => meta,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(unreadable) => return Err(unreadable),
    };
    if meta.size == whole.size && read_back(store, &store.path(key)?, key).await? == whole {
        return Ok(Some(meta));
    }
    Err(parts::other_bytes(key, &store.location))
}

/// Size and checksum of what really is stored.
async fn read_back(store: &CloudStore, path: &Path, key: &str) -> Result<Whole, StoreError> {
    let found = match store.bucket.get(path).await {
        Ok(found) => found,
        Err(error) => return Err(store.explain(error, key).await),
    };
    let meta = store.meta(key, &found.meta)?;
    let reader = super::body::stream(found, meta, store.location.clone());
    sum(reader).await.map_err(|error| StoreError::from_read(error, key, &*store.location))
}

async fn sum(mut reader: Reader) -> std::io::Result<Whole> {
    let (mut digest, mut size) = (Digest::default(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(Whole { size, crc64: digest.finish() }),
            count => {
                digest.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

async fn remove_left_behind(store: &CloudStore) -> Result<(), StoreError> {
    let now = jiff::Timestamp::now();
    for (key, found) in store.list_all(UPLOADS).await? {
        if now.duration_since(store.meta(&key, &found)?.modified) > LEFT_BEHIND {
            match store.bucket.delete(&found.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => (),
                Err(error) => return Err(refusal::explain(error, &key, &store.location)),
            }
        }
    }
    Ok(())
}
