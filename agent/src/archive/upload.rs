//! One object on its way into a store: hashed as a whole, cut into parts, several of them under way.
//!
//! Promises: the object appears whole or not at all; its size and checksum are compared with the store's before
//! [`ObjectWriter::finish`] returns. Memory: the parts under way, together no more than `part_size` times `concurrency`, and one more.
//!
//! A crash leaves an upload that nothing names. With a [`Resume`] its token is remembered on this machine, and the next run
//! compares what has arrived with what it would send: equal parts are not sent again. Nothing else of a crashed run is believed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::{Meta, Part, Store, StoreError, Upload, crc64nvme};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::create::ArchiveError;

/// S3's limit, and so everybody's.
const MOST_PARTS: u32 = 10_000;
const MIB: u64 = 1 << 20;

/// Bytes that may be under way.
fn in_flight(settings: &UploadSettings) -> u64 {
    settings.part_size * u64::from(settings.concurrency)
}

/// Size of part `number`: it grows by its first size every 500 parts, so that 10,000 parts of 16 MiB hold 1.7 TiB, while a
/// hundred gibibytes stay below 100 MiB a part.
fn size_of(settings: &UploadSettings, number: u32) -> u64 {
    settings.part_size + settings.part_size * u64::from(number) / 500
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

/// Remembers an upload across a crash.
pub trait Resume: Send {
    /// Token of the upload of `key` that an earlier run began.
    fn token(&self, key: &str) -> Option<String>;
    /// The upload of `key` was begun.
    fn begun(&self, key: &str, token: &str) -> io::Result<()>;
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
    /// What is remembered across a crash.
    pub resume: Option<Arc<dyn Resume + Sync>>,
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
    part_size: u64,
    number: u32,
    upload: Option<Arc<dyn Upload>>,
    arrived: HashMap<u32, Part>,
    resumed: u64,
    sent: Vec<Part>,
    sending: JoinSet<Result<Part, StoreError>>,
    room: Arc<Semaphore>,
    pace: Pace,
}

impl ObjectWriter {
    /// Begins an object. Nothing is sent before a part is full.
    pub fn new(to: Destination, handle: Handle) -> Self {
        let room = usize::try_from(in_flight(&to.settings) / MIB).unwrap_or(1).max(1);
        Self {
            hash: Sha256::new(),
            size: 0,
            passed_on: 0,
            part: vec![],
            part_size: 0,
            number: 0,
            upload: None,
            arrived: HashMap::new(),
            resumed: 0,
            sent: vec![],
            sending: JoinSet::new(),
            room: Arc::new(Semaphore::new(room)),
            pace: Pace::new(to.settings.bandwidth),
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
            let room = size_of(&self.to.settings, self.number + 1) - self.part_size;
            let now = rest.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(rest.len()));
            self.part_size += now.len() as u64;
            self.part.push(now);
            if self.part_size == size_of(&self.to.settings, self.number + 1) {
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

    /// A small object goes in one request.
    fn put(&mut self) -> Result<Meta, ArchiveError> {
        let body = Bytes::from(self.part.concat());
        let (store, key) = (&self.to.store, &self.to.key);
        let done = self.handle.block_on(async {
            self.pace.wait(body.len() as u64).await;
            store.create(key, body).await?;
            store.head(key).await
        });
        Ok(done?)
    }

    fn complete(&mut self) -> Result<Meta, ArchiveError> {
        if !self.part.is_empty() {
            self.send()?;
        }
        let upload = self.begun()?;
        while let Some(sent) = self.handle.block_on(self.sending.join_next()) {
            self.sent.push(sent.map_err(io::Error::other)??);
        }
        self.sent.sort_by_key(|p| p.number);
        Ok(self.handle.block_on(upload.complete(&self.sent))?)
    }

    /// Sends the part that is full.
    fn send(&mut self) -> Result<(), ArchiveError> {
        self.number += 1;
        if self.number > MOST_PARTS {
            let why = "it would have more than 10,000 parts: raise `upload.part_size` in the settings";
            return Err(StoreError::invalid(&self.to.key, self.to.store.location(), why).into());
        }
        let upload = self.begun()?;
        let (number, size) = (self.number, std::mem::take(&mut self.part_size));
        let (offset, body) = (self.passed_on, std::mem::take(&mut self.part));
        self.passed_on += size;
        if let Some(there) = self.arrived.remove(&number)
            && there.size == size
            && there.crc64 == crc64nvme(&body)
        {
            self.resumed += size;
            self.sent.push(there);
            return Ok(());
        }
        self.collect()?;
        crate::failpoint::reach(&format!("backup-part-{number}"));
        let permits = u32::try_from(size.div_ceil(MIB).min(in_flight(&self.to.settings) / MIB)).unwrap_or(1).max(1);
        let room = Arc::clone(&self.room);
        let permit = self.handle.block_on(async {
            self.pace.wait(size).await;
            room.acquire_many_owned(permits).await
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

    /// The upload: taken up again where an earlier run began one, else begun.
    fn begun(&mut self) -> Result<Arc<dyn Upload>, ArchiveError> {
        if let Some(upload) = &self.upload {
            return Ok(Arc::clone(upload));
        }
        let token = self.to.resume.as_ref().and_then(|r| r.token(&self.to.key));
        let upload = self.handle.block_on(open(&*self.to.store, &self.to.key, token.as_deref()))?;
        let upload: Arc<dyn Upload> = match upload {
            (upload, arrived) if !arrived.is_empty() => {
                self.arrived = arrived.into_iter().map(|p| (p.number, p)).collect();
                upload
            }
            (upload, _) => upload,
        };
        if let (Some(resume), Some(token)) = (&self.to.resume, upload.token()) {
            resume.begun(&self.to.key, &token)?;
        }
        self.upload = Some(Arc::clone(&upload));
        Ok(upload)
    }
}

async fn open(store: &dyn Store, key: &str, token: Option<&str>) -> Result<(Arc<dyn Upload>, Vec<Part>), StoreError> {
    if let Some(token) = token
        && let Some(upload) = store.resume(key, token).await?
    {
        let arrived = upload.arrived().await?;
        return Ok((Arc::from(upload), arrived));
    }
    Ok((Arc::from(store.upload(key).await?), vec![]))
}

/// Keeps to a number of bytes a second.
struct Pace {
    rate: Option<u64>,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until `size` more bytes may go.
    async fn wait(&mut self, size: u64) {
        if let Some(begin) = self.begin(size, Instant::now()) {
            tokio::time::sleep_until(begin.into()).await;
        }
    }

    /// When `size` more bytes may go that are ready `now`. Time in which nothing was ready is not made up for.
    fn begin(&mut self, size: u64, now: Instant) -> Option<Instant> {
        let rate = self.rate.filter(|r| *r > 0)?;
        let begin = self.next.max(now);
        #[allow(clippy::cast_precision_loss)] // a second more or less in a petabyte
        let takes = Duration::from_secs_f64(size as f64 / rate as f64);
        self.next = begin + takes;
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_a_terabyte_and_a_half() {
        let settings = UploadSettings::default();
        let all: u64 = (1..=MOST_PARTS).map(|n| size_of(&settings, n)).sum();
        assert!(all > 3 << 39, "{all}");
        let mut sum = 0;
        let largest = (1..MOST_PARTS).map(|n| size_of(&settings, n)).find(|size| {
            sum += size;
            sum > 100 << 30
        });
        assert!(largest < Some(100 * MIB), "{largest:?}");
    }

    #[test]
    fn a_bandwidth_is_kept_to_and_lost_time_is_not_made_up_for() {
        let mut pace = Pace::new(Some(4 * MIB));
        let start = pace.next;
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        // Each part goes when those before it had their time, however early it is ready.
        for (size, ready, goes) in [(8, 0, 0), (8, 0, 2), (4, 1, 4), (0, 1, 5), (4, 100, 100), (4, 100, 101)] {
            assert_eq!(pace.begin(size * MIB, at(ready)), Some(at(goes)), "{size} MiB, ready after {ready} s");
        }
        for none in [None, Some(0)] {
            assert_eq!(Pace::new(none).begin(MIB, start), None);
        }
    }
}
