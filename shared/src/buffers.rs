//! Memory that is used again. Megabytes fresh from the system are cleared page by page when they are first touched, which costs more
//! than much of what is done with them.
//!
//! Buffers that wait for their next use are never more, and never larger, than those that were in use at the same time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Buffers of one use, and so of about one size.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(vec![]))
    }

    /// An empty buffer, which comes back when it is dropped.
    pub fn lend(&'static self) -> Lent {
        let mut bytes = self.waiting().pop().unwrap_or_default();
        bytes.clear();
        Lent { bytes, home: self }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer in use.
#[derive(Debug)]
pub struct Lent {
    bytes: Vec<u8>,
    home: &'static Buffers,
}

impl Deref for Lent {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// For `Bytes::from_owner`.
impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.waiting().push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_is_used_again_after_the_last_that_looks_into_it() {
        static HERE: Buffers = Buffers::new();
        let mut first = HERE.lend();
        first.extend_from_slice(b"0123456789");
        let place = first.as_ptr();
        let bytes = Bytes::from_owner(first);
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_ne!(HERE.lend().as_ptr(), place, "somebody still looks into it");
        assert_eq!(&part[..], b"23");
        drop(part);
        let again: Vec<_> = (0..2).map(|_| HERE.lend()).collect();
        assert!(again.iter().any(|b| b.as_ptr() == place) && again.iter().all(|b| b.is_empty()));
    }
}
