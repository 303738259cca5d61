//! Where a repository's objects live: one small trait, implemented by S3 ([`s3`]), Google Cloud Storage and Azure Blob
//! Storage ([`cloud`]), and by a folder ([`folder`]).
//!
//! It promises what the rest of Perennial is built on:
//!
//! * [`Store::create`] and [`Store::replace`] are atomic: of any number of racing writers one wins, and a reader sees
//!   an object whole or not at all. A crash in the middle leaves the old state or the new one.
//! * An [`Upload`] publishes a large object as [`Store::create`] does, at once and only where there is none.
//! * An answer is never guessed: a denied, throttled or failed read is an error, never "absent" or "empty".
//! * Writing is safe to repeat. A reply can get lost after the write was done, and the repeated write then finds its
//!   own first attempt in the way. So a refused `create` or `replace` reads the object back, and where the stored bytes
//!   are byte for byte the caller's, it succeeded. That makes it the caller's duty to put a nonce (a run, an
//!   instance, a random id) into every body that must have one winner: two writers with equal bodies both win.
//!
//! How it fails: [`StoreError`], whose variants are the caller's decisions.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::io::AsyncRead;

pub mod cloud;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod folder;
mod key;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod parts;
pub mod s3;

pub use error::{Cause, StoreError};
pub use key::{check_key, check_prefix};
pub use parts::{MOST_PARTS, Part, crc64nvme};

/// A range is streamed by requests of this many bytes where one request cannot be read as it arrives.
const PIECE: usize = 8 << 20;

/// A place for objects that are read whole, streamed, listed, and written atomically.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// A small object, whole: manifests, pointers, records.
    async fn get(&self, key: &str) -> Result<Object, StoreError>;

    /// A large object as a stream, to hash it or copy it. A failure in mid-stream is an [`std::io::Error`];
    /// [`StoreError::from_read`] tells which decision it asks for.
    async fn read(&self, key: &str) -> Result<Reader, StoreError>;

    /// The bytes `range` of an object (its end is exclusive), whole and of exactly that length: frames and index
    /// pages, some MiB at most. A range that ends past the object's end is [`StoreError::Corrupt`], as the object is
    /// shorter than whatever named the range says.
    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The bytes `range` of an object in pieces, as they arrive: for what is too large to be held. Nothing comes before the
    /// first is asked for. Fails like [`Store::read_range`]; what came before an error is right all the same.
    fn stream_range(&self, key: &str, range: Range<u64>) -> Pieces<'_> {
        let (key, begins) = (key.to_owned(), range.clone().step_by(PIECE));
        let read = move |begin: u64| {
            let (key, end) = (key.clone(), range.end.min(begin + PIECE as u64));
            async move { self.read_range(&key, begin..end).await }
        };
        stream::iter(begins).then(read).boxed()
    }

    /// What is known of an object without reading it.
    async fn head(&self, key: &str) -> Result<Meta, StoreError>;

    /// Every object whose key starts with `prefix` (a string, not a folder), sorted by key; `""` means all, and no
    /// object is an empty list.
    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError>;

    /// Writes an object that must not exist yet, else [`StoreError::AlreadyExists`].
    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError>;

    /// Begins a large object that comes in parts and must not exist yet. Nothing is seen of it before
    /// [`Upload::complete`], which is also where an object that stands in its place is told.
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Takes up the upload that an earlier process began and noted the [`Upload::token`] of. `None` where the store no
    /// longer knows it (completed, aborted, expired), knows it under another key, or cannot do that at all.
    async fn resume(&self, key: &str, token: &str) -> Result<Option<Box<dyn Upload>>, StoreError>;

    /// The object at `key`, if it has the size and checksum of these parts: what an upload of them left that was
    /// completed, here or in an earlier process. `None` where there is no object, [`StoreError::AlreadyExists`] where
    /// there is another. The checksum is the store's where it keeps one of the bytes that it stored (S3); else the
    /// object is read.
    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError>;

    /// Writes over exactly the `expected` version, else [`StoreError::Changed`], or [`StoreError::NotFound`] where the
    /// object is gone.
    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError>;

    /// Writes whatever is there. The last writer wins, so this is for advisory records only.
    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError>;

    /// Removes an object; an absent one is fine.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Where this store is, for messages: `s3://bucket/prefix` or `file:///path`.
    fn location(&self) -> String;
}

/// A large object on its way out, in parts. Dropping it neither completes nor aborts it.
///
/// An upload that the store no longer knows is [`StoreError::NotFound`] from every call but [`Upload::abort`]: begin it
/// again.
#[async_trait]
pub trait Upload: Send + Sync + fmt::Debug {
    /// What [`Store::resume`] takes, also in another process; `None` where this store cannot resume.
    fn token(&self) -> Option<String>;

    /// The parts that the store has, sorted by number.
    async fn arrived(&self) -> Result<Vec<Part>, StoreError>;

    /// Sends part `number` (1 to [`MOST_PARTS`]), which lies at `offset` of the object: several at the same time, in
    /// any order, and again after a failure. It comes in pieces, so that nothing has to be copied together. S3 wants
    /// every part but the last to have 5 MiB at least.
    async fn send(&self, number: u32, offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError>;

    /// The object appears, whole, if no other stands at its key; else [`StoreError::AlreadyExists`]. An object there
    /// with the size and checksum of these parts counts as ours (a lost reply). Either way the upload is of no more use
    /// and aborted, as far as the store takes that. Size and checksum are checked with the store: a missing, short or
    /// changed part is [`StoreError::Corrupt`].
    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError>;

    /// Forgets it; nothing stays behind, once no part is on its way any more. Repeatable.
    async fn abort(&self) -> Result<(), StoreError>;
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The bytes.
    pub body: Bytes,
    /// What is known of exactly these bytes: replacing `meta.version` replaces them and nothing newer.
    pub meta: Meta,
}

/// What a store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The key, relative to the store.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// For [`Store::replace`].
    pub version: Version,
    /// When it was written, by the store's clock.
    pub modified: jiff::Timestamp,
}

/// Names one state of an object. Opaque: an S3 `ETag`, or what a folder derives from the content; only equality counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Version {
    /// A version as the store (or a record that kept one) spells it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As the store spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of an object on its way in.
pub type Pieces<'a> = BoxStream<'a, Result<Bytes, StoreError>>;

/// A large object on its way in.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
