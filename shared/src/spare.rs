//! What costs much to make, used again: memory, for one. Megabytes fresh from the system are cleared page by page when they are first
//! touched, which costs more than much of what is done with them.
//!
//! Those that wait for their next use are never more than those that were in use at the same time.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Things of one use, and so of about one size.
#[derive(Debug, Default)]
pub struct Spare<T>(Mutex<Vec<T>>);

impl<T> Spare<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(vec![]))
    }

    /// One as it was left by its last use, which comes back when it is dropped; a new one, where none waits or the one that does is of
    /// no use and gives way to it.
    pub fn lend(
        &'static self,
        is_of_use: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Lent<T>> {
        let waiting = self.waiting().pop();
        let thing = waiting.filter(is_of_use).map_or_else(make, Ok)?;
        Ok(Lent { thing: Some(thing), home: self })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare<Vec<u8>> {
    /// An empty buffer.
    pub fn buffer(&'static self) -> Lent<Vec<u8>> {
        let mut bytes = self.waiting().pop().unwrap_or_default();
        bytes.clear();
        Lent { thing: Some(bytes), home: self }
    }
}

/// One in use.
#[derive(Debug)]
pub struct Lent<T: 'static> {
    /// Absent only while it is dropped.
    thing: Option<T>,
    home: &'static Spare<T>,
}

impl<T> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        self.home.waiting().extend(self.thing.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_as_it_was_left_but_for_a_buffer_which_is_empty() {
        static HERE: Spare<Vec<u8>> = Spare::new();
        let lend = || HERE.lend(|_| true, || Ok(vec![])).expect("made");
        let (mut first, second) = (lend(), lend());
        first.extend_from_slice(b"0123456789");
        let place = first.as_ptr();
        drop(second);
        drop(first);
        let again = lend();
        assert_eq!((again.as_ptr(), &again[..]), (place, &b"0123456789"[..]));
        drop(again);
        let again = HERE.buffer();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn one_of_no_use_gives_way_to_a_new_one() {
        static HERE: Spare<usize> = Spare::new();
        let lend = |least: usize| HERE.lend(|it| *it >= least, || Ok(least)).expect("made");
        drop(lend(1));
        assert_eq!(*lend(5), 5);
        assert_eq!(HERE.waiting().len(), 1, "never more than were in use");
        assert_eq!(*lend(3), 5);
        HERE.lend(|_| false, || Err(io::ErrorKind::OutOfMemory.into())).map(|_| ()).expect_err("none can be made");
    }
}
