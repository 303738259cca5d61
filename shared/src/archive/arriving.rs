//! A range of an object, taken piece by piece as it arrives.
//!
//! What is taken is still in the processor's cache when it is worked on, and a request may be as large as saves requests, while no more
//! of it is held than what is being worked on. It stands where the connection put it: whoever lets it go before taking the next has
//! the connection write to the same memory again.
//!
//! Fails: [`ReadError`]. What ends too early, or is said to be damaged or gone, is asked for once more from there on.

use bytes::Bytes;
use futures_util::StreamExt;

use super::objects::{Objects, ReadError};
use crate::store::Pieces;

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

    /// The `length` bytes at `offset`, which is not before what was taken last, in pieces as they came; what is between is let go by.
    pub async fn take(&mut self, offset: u64, length: u64) -> Result<Vec<Bytes>, ReadError> {
        while self.at < offset {
            self.some(offset - self.at).await?;
        }
        let (end, mut taken) = (self.at + length, vec![]);
        while self.at < end {
            taken.push(self.some(end - self.at).await?);
        }
        Ok(taken)
    }

    /// Takes what comes next: one byte at least, `most` at most.
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
        let some = self.held.split_to(self.held.len().min(most));
        self.at += some.len() as u64;
        Ok(some)
    }
}
