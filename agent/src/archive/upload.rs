//! One object on its way into a store: hashed as a whole, cut into parts, several of them under way.
//!
//! Promises: the object appears whole or not at all; its size and checksum are compared with the store's before
//! [`ObjectWriter::finish`] returns. Memory: the parts under way, as many as `concurrency` says, and the one that is being filled.
//!
//! A crash leaves an upload that nothing names, or an object. With a [`Resume`] the next run knows of it and compares
//! what has arrived with what it would send: equal parts are not sent again. Nothing else of a crashed run is believed.
//!
//! Fails with [`StoreError::AlreadyExists`] where another object stands at the key, and where an object that a crashed
//! run completed is another one than this run makes: at the first part that differs, with nothing sent.

mod pace;
mod resume;

use std::io;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::{Meta, Part, Store, StoreError, crc64nvme};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::create::ArchiveError;
pub use pace::Pace;
pub use resume::Resume;
use resume::Way;

/// S3's limit, and so everybody's.
const MOST_PARTS: u64 = 10_000;
/// Parts of an object before the next one is begun, so that the last frame fits in, too.
const FULL: u64 = 9_000;
/// S3 takes objects of up to 5 TiB.
const LARGEST: u64 = 4 << 40;
const MIB: u64 = 1 << 20;

/// Bytes after which an object is full and the next one is begun: parts stay as small as the settings say, and so does memory,
/// whatever the size of the data.
pub fn full_at(settings: &UploadSettings) -> u64 {
    (settings.part_size * FULL).min(LARGEST)
}

/// For an object of a size that is known and not ours to choose: parts are larger where it would have too many, and fewer are under way.
pub fn settings_for(settings: UploadSettings, size: u64) -> UploadSettings {
    let part_size = settings.part_size.max(size.div_ceil(FULL).next_multiple_of(MIB));
    let in_flight = settings.part_size * u64::from(settings.concurrency) / part_size;
    UploadSettings { part_size, concurrency: u32::try_from(in_flight).unwrap_or(u32::MAX).max(1), ..settings }
}

/// An object that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Key in the repository.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, as `sha256sum` prints it.
    pub sha256: String,
    /// The store's own name of this state.
    pub etag: String,
    /// Bytes that an earlier run had sent already.
    pub resumed: u64,
}

/// Where an object goes, and how.
#[derive(Clone)]
pub struct Destination {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Key in the repository.
    pub key: String,
    /// How it is sent.
    pub settings: UploadSettings,
    /// The settings' bandwidth, of all that is sent at the same time.
    pub pace: Pace,
    /// What is remembered across a crash.
    pub resume: Option<Arc<dyn Resume + Sync>>,
}

impl Destination {
    /// Whether an object is there already.
    pub(super) async fn stands(&self) -> Result<bool, StoreError> {
        match self.store.head(&self.key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(unreadable) => Err(unreadable),
        }
    }
}

/// Takes an object's bytes in their order. For threads that may block.
pub struct ObjectWriter {
    to: Destination,
    handle: Handle,
    hash: Sha256,
    size: u64,
    /// Bytes of the parts that are full.
    passed_on: u64,
    part: Vec<Bytes>,
    part_bytes: u64,
    number: u32,
    way: Option<Way>,
    resumed: u64,
    sent: Vec<Part>,
    sending: JoinSet<Result<Part, StoreError>>,
    room: Arc<Semaphore>,
}

impl ObjectWriter {
    /// Begins an object. Nothing is sent before a part is full.
    pub fn new(to: Destination, handle: Handle) -> Self {
        let room = usize::try_from(to.settings.concurrency).unwrap_or(1).max(1);
        Self {
            hash: Sha256::new(),
            size: 0,
            passed_on: 0,
            part: vec![],
            part_bytes: 0,
            number: 0,
            way: None,
            resumed: 0,
            sent: vec![],
            sending: JoinSet::new(),
            room: Arc::new(Semaphore::new(room)),
            to,
            handle,
        }
    }

    /// Key in the repository.
    pub fn key(&self) -> &str {
        &self.to.key
    }

    /// SHA-256 of what was appended so far.
    pub fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Where the next byte will be.
    pub fn position(&self) -> u64 {
        self.size
    }

    /// Appends, and tells where. Waits while too much is under way.
    pub fn append(&mut self, bytes: Bytes) -> Result<u64, ArchiveError> {
        let at = self.size;
        self.hash.update(&bytes);
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.to.settings.part_size - self.part_bytes;
            let now = rest.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(rest.len()));
            self.part_bytes += now.len() as u64;
            self.part.push(now);
            if self.part_bytes == self.to.settings.part_size {
                self.send()?;
            }
        }
        Ok(at)
    }

    /// The object appears; `None` when nothing was appended.
    pub fn finish(mut self) -> Result<Option<Stored>, ArchiveError> {
        if self.size == 0 {
            return Ok(None);
        }
        let meta = if self.number == 0 { self.put()? } else { self.complete()? };
        if meta.size != self.size {
            let why = format!("{} bytes were sent, the store has {}", self.size, meta.size);
            return Err(StoreError::corrupt(&self.to.key, self.to.store.location(), why).into());
        }
        Ok(Some(Stored {
            key: self.to.key,
            size: self.size,
            sha256: hex::encode(self.hash.finalize()),
            etag: meta.version.as_str().into(),
            resumed: self.resumed,
        }))
    }

    /// Gives the object up. What was sent of it is removed, as far as the store takes that; else its rule for unfinished uploads does it.
    pub fn abandon(mut self) {
        let upload = self.way.and_then(|way| way.upload);
        self.handle.block_on(async {
            self.sending.shutdown().await;
            if let Some(upload) = upload {
                let _ = upload.abort().await;
            }
        });
    }

    /// A small object goes in one request.
    fn put(&mut self) -> Result<Meta, ArchiveError> {
        let body = Bytes::from(self.part.concat());
        let part =
            Part { number: 1, size: body.len() as u64, crc64: crc64nvme(slice::from_ref(&body)), tag: String::new() };
        if let Some(meta) = self.handle.block_on(resume::completed(&self.to, &part))? {
            self.resumed = part.size;
            return Ok(meta);
        }
        resume::completing(&self.to, &[part])?;
        let (store, key) = (&self.to.store, &self.to.key);
        let done = self.handle.block_on(async {
            self.to.pace.wait(body.len() as u64).await;
            store.create(key, body).await?;
            store.head(key).await
        });
        Ok(done?)
    }

    /// What was sent becomes the object, or is the one that stands there.
    fn complete(&mut self) -> Result<Meta, ArchiveError> {
        if !self.part.is_empty() {
            self.send()?;
        }
        while let Some(sent) = self.handle.block_on(self.sending.join_next()) {
            self.sent.push(sent.map_err(io::Error::other)??);
        }
        self.sent.sort_by_key(|p| p.number);
        let (store, key) = (Arc::clone(&self.to.store), self.to.key.clone());
        if let Some(upload) = self.way()?.upload.clone() {
            resume::completing(&self.to, &self.sent)?;
            return Ok(self.handle.block_on(upload.complete(&self.sent))?);
        }
        let gone = || StoreError::unavailable(&key, store.location(), "it was there when the backup began and is gone");
        Ok(self.handle.block_on(store.completed(&key, &self.sent))?.ok_or_else(gone)?)
    }

    /// Sends the part that is full.
    fn send(&mut self) -> Result<(), ArchiveError> {
        self.number += 1;
        if u64::from(self.number) > MOST_PARTS {
            let why = "it would have more than 10,000 parts: raise `upload.part_size` in the settings";
            return Err(StoreError::invalid(&self.to.key, self.to.store.location(), why).into());
        }
        let (number, size) = (self.number, std::mem::take(&mut self.part_bytes));
        let (offset, body) = (self.passed_on, std::mem::take(&mut self.part));
        self.passed_on += size;
        let way = self.way()?;
        let (there, upload) = (way.arrived.remove(&number), way.upload.clone());
        if let Some(there) = there.filter(|there| there.size == size && there.crc64 == crc64nvme(&body)) {
            self.resumed += size;
            self.sent.push(there);
            return Ok(());
        }
        let Some(upload) = upload else {
            let why = format!("an earlier run completed it, and part {number} is another now");
            return Err(StoreError::already_exists(&self.to.key, self.to.store.location(), why).into());
        };
        self.collect()?;
        crate::failpoint::reach(&format!("backup-part-{number}"));
        let room = Arc::clone(&self.room);
        let permit = self.handle.block_on(async {
            self.to.pace.wait(size).await;
            room.acquire_owned().await
        });
        let permit = permit.map_err(io::Error::other)?;
        self.sending.spawn_on(
            async move {
                let sent = upload.send(number, offset, body).await;
                drop(permit);
                sent
            },
            &self.handle,
        );
        Ok(())
    }

    /// Learns of parts that failed, before more are sent.
    fn collect(&mut self) -> Result<(), ArchiveError> {
        while let Some(sent) = self.sending.try_join_next() {
            self.sent.push(sent.map_err(io::Error::other)??);
        }
        Ok(())
    }

    /// Asked for only when there is something to send: most indexes are one request.
    fn way(&mut self) -> Result<&mut Way, ArchiveError> {
        let way = match self.way.take() {
            Some(way) => way,
            None => self.handle.block_on(resume::find(&self.to))?,
        };
        Ok(self.way.insert(way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_has_too_many_parts_and_memory_stays() {
        let settings = UploadSettings::default();
        let part_size = settings.part_size;
        assert!(full_at(&settings) + 500 * part_size < MOST_PARTS * part_size, "room for the last frame");
        assert_eq!(full_at(&UploadSettings { part_size: 5 << 30, ..settings }), LARGEST);
        for (size, parts, concurrency) in [(1, 1, 4), (100 << 30, 1, 4), (200 << 30, 2, 2), (2 << 40, 15, 1)] {
            let UploadSettings { part_size: found, concurrency: under_way, .. } = settings_for(settings, size);
            assert_eq!((found.div_ceil(part_size), under_way), (parts, concurrency), "{size}");
            assert!(size.div_ceil(found) <= MOST_PARTS);
        }
    }
}
