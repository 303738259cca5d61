//! Reads slices that follow each other as if they were one, without copying what is more than a few bytes.

use bytes::Bytes;

/// Stands before the first byte that was not read.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    following: std::slice::Iter<'a, Bytes>,
}

impl<'a> Cursor<'a> {
    /// Before the first byte of `pieces`.
    pub(super) fn new(pieces: &'a [Bytes]) -> Self {
        Self { rest: &[], following: pieces.iter() }
    }

    /// The next bytes where they stand: one at least, `most` at most; `None` at the end.
    pub(super) fn some(&mut self, most: usize) -> Option<&'a [u8]> {
        while self.rest.is_empty() {
            self.rest = self.following.next()?;
        }
        let (some, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        Some(some)
    }

    /// The next `N` bytes; `None` where fewer are left.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (mut array, mut filled) = ([0; N], 0);
        while filled < N {
            let some = self.some(N - filled)?;
            array[filled..filled + some.len()].copy_from_slice(some);
            filled += some.len();
        }
        Some(array)
    }
}
