//! Ranges of objects: checked to be those that were asked for, and gone on with where a connection breaks off.

use std::ops::Range;

use aws_sdk_s3::config::{Builder, ResponseChecksumValidation};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, TryStreamExt};
use memmap2::MmapMut;

use super::{REPEATS, S3Store, refusal};
use crate::blocks::Block;
use crate::spare::Spare;
use crate::store::{Pieces, Store, StoreError, check_key, parts};

/// Ranges of this size and more are received into memory that is used again; whoever got a smaller one may keep it for long.
const LARGE: usize = 1 << 20;
static LARGE_RANGES: Spare<MmapMut> = Spare::new();

/// A range that is being received.
struct Receiving<'a> {
    store: &'a S3Store,
    key: String,
    left: Range<u64>,
    body: Option<ByteStream>,
    repeats: u32,
}

/// The range as it arrives. What breaks off is asked for again from there on.
pub(super) fn pieces<'a>(store: &'a S3Store, key: &str, range: Range<u64>) -> Pieces<'a> {
    let receiving = Receiving { store, key: key.to_owned(), left: range, body: None, repeats: 0 };
    stream::try_unfold(receiving, |mut receiving: Receiving<'_>| async move {
        Ok(receiving.next().await?.map(|piece| (piece, receiving)))
    })
    .boxed()
}

/// The range, whole.
pub(super) async fn whole(store: &S3Store, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
    parts::check_range(&range, key, &store.location())?;
    if range.is_empty() {
        // HTTP has no empty range.
        let size = store.head(key).await?.size;
        let fits = range.end <= size;
        return fits.then(Bytes::new).ok_or_else(|| parts::too_short(&range, size, key, &store.location()));
    }
    let local = |error: std::io::Error| StoreError::unavailable(key, "this machine", error);
    let length = usize::try_from(range.end - range.start).map_err(|e| local(std::io::Error::other(e)))?;
    let mut arriving = pieces(store, key, range);
    if length < LARGE {
        let mut bytes = Vec::with_capacity(length);
        while let Some(piece) = arriving.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        return Ok(bytes.into());
    }
    let mut block = Block::lent(&LARGE_RANGES, length).map_err(local)?;
    let mut filled = 0;
    while let Some(piece) = arriving.try_next().await? {
        block.as_mut()[filled..filled + piece.len()].copy_from_slice(&piece);
        filled += piece.len();
    }
    Ok(Bytes::from_owner(block))
}

impl Receiving<'_> {
    /// The next bytes; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.left.is_empty() {
            // The SDK's own attempts end with the reply's head.
            let body = match &mut self.body {
                Some(body) => body,
                None => self.body.insert(ask(self.store, &self.key, &self.left).await?),
            };
            let error = match body.try_next().await {
                Ok(Some(piece)) if piece.len() as u64 <= self.left.end - self.left.start => {
                    self.left.start += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(Some(_)) => self.corrupt("more came than was announced"),
                Ok(None) => self.corrupt("less came than was announced"),
                Err(error) => StoreError::unavailable(&self.key, self.store.location(), error),
            };
            if self.repeats == REPEATS {
                return Err(error);
            }
            self.body = None;
            self.store.pause(self.repeats).await;
            self.repeats += 1;
        }
        Ok(None)
    }

    fn corrupt(&self, why: &'static str) -> StoreError {
        StoreError::corrupt(&self.key, self.store.location(), why)
    }
}

/// The body of the reply to one request for a range that is not empty.
async fn ask(store: &S3Store, key: &str, range: &Range<u64>) -> Result<ByteStream, StoreError> {
    check_key(key, &store.location())?;
    let asked = store
        .client
        .get_object()
        .bucket(&store.options.bucket)
        .key(store.full_key(key))
        .range(format!("bytes={}-{}", range.start, range.end - 1))
        .set_expected_bucket_owner(store.owner())
        .customize()
        // S3 keeps no checksum of a range, so asking for one only costs.
        .config_override(Builder::new().response_checksum_validation(ResponseChecksumValidation::WhenRequired))
        .send()
        .await;
    let reply = asked.map_err(|error| match refusal::status(&error) {
        Some(416) => StoreError::corrupt(key, store.location(), refusal::cause(error)),
        _ => refusal::explain(error, key, store.location()),
    })?;
    let (first, last, size) = reply.content_range.as_deref().and_then(content_range).ok_or_else(|| {
        StoreError::unavailable(key, store.location(), "the reply does not say which range of the object it is")
    })?;
    if range.end > size {
        return Err(parts::too_short(range, size, key, &store.location()));
    }
    if first != range.start || last.checked_add(1) != Some(range.end) {
        let why = format!("bytes {first} to {last} came, asked for were {} to {}", range.start, range.end - 1);
        return Err(StoreError::unavailable(key, store.location(), why));
    }
    Ok(reply.body)
}

/// `bytes 0-9/100`: first, last, and the object's size.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}
