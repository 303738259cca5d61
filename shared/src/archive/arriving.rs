//! A range of an object, taken piece by piece as it arrives.
//!
//! What is taken is still in the processor's cache when it is worked on, and a request may be as large as saves requests, while no more
//! of it is held than what is being worked on.
//!
//! Fails: [`ReadError`]. What ends too early, or is said to be damaged or gone, is asked for once more from there on.

use bytes::Bytes;
use futures_util::StreamExt;

use super::objects::{Objects, ReadError};
use crate::blocks::Blocks;
use crate::store::{Pieces, StoreError};

/// What is taken stands in memory that is used again.
static TAKEN: Blocks = Blocks::new();

/// A range on its way.
pub struct Arriving<'a> {
    objects: &'a Objects,
    object: u32,
    /// The next byte that will be taken.
    at: u64,
    end: u64,
    pieces: Pieces<'a>,
    /// What arrived and was not taken.
    held: Bytes,
    asked_again: bool,
}

impl<'a> Arriving<'a> {
    /// Asks for nothing before the first byte is taken.
    pub(super) fn new(objects: &'a Objects, object: u32, at: u64, end: u64) -> Self {
        let pieces = objects.pieces(object, at..end);
        Self { objects, object, at, end, pieces, held: Bytes::new(), asked_again: false }
    }

    /// The `length` bytes at `offset`, which is not before what was taken last; what is between is let go by.
    pub async fn take(&mut self, offset: u64, length: u64) -> Result<Bytes, ReadError> {
        while self.at < offset {
            let skipped = self.some(offset - self.at).await?.len();
            self.took(skipped);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut block = TAKEN.lend(length).map_err(|e| self.local(e))?;
        let mut filled = 0;
        while filled < length {
            let some = self.some((length - filled) as u64).await?;
            block.as_mut()[filled..filled + some.len()].copy_from_slice(&some);
            filled += some.len();
            self.took(some.len());
        }
        Ok(Bytes::from_owner(block))
    }

    /// Bytes that come next: one at least, `most` at most.
    async fn some(&mut self, most: u64) -> Result<Bytes, ReadError> {
        while self.held.is_empty() {
            let ended = || ReadError::Damaged {
                key: self.objects.key(self.object),
                why: format!("it ends before {}", self.end),
            };
            match self.pieces.next().await.map_or_else(|| Err(ended()), |piece| piece.map_err(ReadError::from)) {
                Ok(piece) => self.held = piece,
                Err(e) if e.is_damage() && !self.asked_again => {
                    self.asked_again = true;
                    self.pieces = self.objects.pieces(self.object, self.at..self.end);
                }
                Err(e) => return Err(e),
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(self.held.slice(..self.held.len().min(most)))
    }

    fn took(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.held = self.held.split_off(bytes);
    }

    fn local(&self, error: std::io::Error) -> ReadError {
        StoreError::unavailable(&self.objects.key(self.object), "this machine", error).into()
    }
}
