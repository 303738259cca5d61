//! Large pieces of memory that are used again, in huge pages where the kernel has them.
//!
//! What is received goes through tens of megabytes at a time. In pages of 4 KiB that is a fault for each, a tenth of all that a restore
//! costs; in pages of 2 MiB there are few, and after the first use none. Transparent huge pages are asked for (Linux, `madvise(2)`,
//! `MADV_HUGEPAGE`); a kernel without them does as it always does.
//!
//! Blocks that wait for their next use are never more than those that were in use at the same time.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Size of a huge page; of most machines.
const HUGE: usize = 2 << 20;

/// Blocks of one use, and so of about one size.
#[derive(Debug, Default)]
pub struct Blocks(Mutex<Vec<MmapMut>>);

impl Blocks {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(vec![]))
    }

    /// A block of `length` bytes with anything in them, which comes back when it is dropped. Fails for want of memory.
    pub fn lend(&'static self, length: usize) -> io::Result<Block> {
        let fits = self.waiting().pop().filter(|memory| memory.len() >= length);
        let memory = fits.map_or_else(|| map(length), Ok)?;
        Ok(Block { memory: Some(memory), length, home: self })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<MmapMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn map(length: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(length.next_multiple_of(HUGE))?;
    // Advice: where it is not taken, pages are small.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// A block in use.
#[derive(Debug)]
pub struct Block {
    /// Absent only while it is dropped.
    memory: Option<MmapMut>,
    length: usize,
    home: &'static Blocks,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| &memory[..self.length])
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], |memory| &mut memory[..self.length])
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.waiting().extend(self.memory.take());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_block_is_used_again_after_the_last_that_looks_into_it() {
        static HERE: Blocks = Blocks::new();
        let mut first = HERE.lend(3 << 20).expect("memory");
        first.as_mut()[2] = 7;
        let place = first.as_ref().as_ptr();
        let bytes = Bytes::from_owner(first);
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_ne!(HERE.lend(1).expect("memory").as_ref().as_ptr(), place, "somebody still looks into it");
        assert_eq!(&part[..], [7, 0]);
        drop(part);
        let again: Vec<_> = (0..2).map(|_| HERE.lend(1 << 20).expect("memory")).collect();
        assert!(
            again.iter().any(|b| b.as_ref().as_ptr() == place) && again.iter().all(|b| b.as_ref().len() == 1 << 20)
        );
    }

    #[test]
    fn one_that_is_too_small_gives_way_to_a_larger_one() {
        static HERE: Blocks = Blocks::new();
        drop(HERE.lend(1).expect("memory"));
        assert_eq!(HERE.lend(5 << 20).expect("memory").as_ref().len(), 5 << 20);
        assert_eq!(HERE.waiting().len(), 1, "never more than were in use");
    }
}
