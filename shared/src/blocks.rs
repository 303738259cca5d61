//! Large pieces of memory that are used again, in huge pages where the kernel has them.
//!
//! What is received goes through tens of megabytes at a time. In pages of 4 KiB that is a fault for each, a tenth of all that a
//! verification costs; in pages of 2 MiB there are few, and after the first use none. Transparent huge pages are asked for (Linux,
//! `madvise(2)`, `MADV_HUGEPAGE`); a kernel without them does as it always does.

use std::io;

use memmap2::MmapMut;

use crate::spare::{Lent, Spare};

/// Size of a huge page; of most machines.
const HUGE: usize = 2 << 20;

/// A block of memory in use.
#[derive(Debug)]
pub struct Block {
    memory: Lent<MmapMut>,
    length: usize,
}

impl Block {
    /// `length` bytes of anything, which go back to `home` when they are dropped. Fails for want of memory.
    pub fn lent(home: &'static Spare<MmapMut>, length: usize) -> io::Result<Self> {
        let memory = home.lend(|memory| memory.len() >= length, || map(length))?;
        Ok(Self { memory, length })
    }
}

fn map(length: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(length.next_multiple_of(HUGE))?;
    // Advice: where it is not taken, pages are small.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_block_is_used_again_after_the_last_that_looks_into_it() {
        static HERE: Spare<MmapMut> = Spare::new();
        let mut first = Block::lent(&HERE, 3 << 20).expect("memory");
        first.as_mut()[2] = 7;
        let place = first.as_ref().as_ptr();
        let bytes = Bytes::from_owner(first);
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_ne!(Block::lent(&HERE, 1).expect("memory").as_ref().as_ptr(), place, "somebody still looks into it");
        assert_eq!(&part[..], [7, 0]);
        drop(part);
        let again: Vec<_> = (0..2).map(|_| Block::lent(&HERE, 1 << 20).expect("memory")).collect();
        assert!(
            again.iter().any(|b| b.as_ref().as_ptr() == place) && again.iter().all(|b| b.as_ref().len() == 1 << 20)
        );
    }
}
