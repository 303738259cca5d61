//! Chunks: pieces of a file at fixed places, the unit of change.
//!
//! Databases overwrite in place and append, so chunks lie at multiples of a size and are compared with the chunk that was there before.
//! Content-defined chunking, which finds moved data, would find nothing here and costs a pass over every byte.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The chunk size where the settings name none.
///
/// Random overwrites of small vectors change nearly every large chunk: of 1 % overwritten in pieces of 512 bytes, 16 KiB chunks
/// store about a quarter of the file, 64 KiB chunks three quarters, 1 MiB chunks all of it (the benchmark shows the figures). The
/// price is 16 bytes of index a chunk, a thousandth of the data.
pub const DEFAULT: u32 = 16 << 10;
/// The smallest chunk. BLAKE3 hashes so little several times slower, which is a third of a restore's time.
pub const SMALLEST: u32 = 2 << 10;
/// The largest chunk: a frame must hold one.
pub const LARGEST: u32 = 1 << 20;
/// A file has at most this many chunks of the default size before they grow.
const MANY: u64 = 1 << 18;

/// 128 bits of BLAKE3 of a chunk's bytes. Chunks of one file are compared by it and every restored byte is checked by it.
///
/// Half of BLAKE3's output: 2^64 chunks would have to be made to expect two with the same hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkHash(pub [u8; 16]);

/// In a manifest hexadecimal digits, in an index 16 bytes.
impl Serialize for ChunkHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&hex::encode(self.0));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ChunkHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 16];
        hex::decode_to_slice(&text, &mut hash).map_err(D::Error::custom)?;
        Ok(Self(hash))
    }
}

impl ChunkHash {
    /// Of a chunk's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::short(&blake3::hash(bytes))
    }

    /// Of a chunk's bytes in slices that follow each other.
    pub fn of_slices<'a>(mut slices: impl Iterator<Item = &'a [u8]>) -> Self {
        let first = slices.next().unwrap_or_default();
        let Some(second) = slices.next() else { return Self::of(first) };
        let mut hasher = blake3::Hasher::new();
        [first, second].into_iter().chain(slices).for_each(|slice| {
            hasher.update(slice);
        });
        Self::short(&hasher.finalize())
    }

    fn short(hash: &blake3::Hash) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The chunk size of a file that is new to its chain. Later backups of the chain keep it, however the file grows: another size
/// would find no chunk that is the same.
pub fn size_for(file_size: u64, least: u32) -> u32 {
    let wanted = file_size.div_ceil(MANY).next_power_of_two().max(u64::from(DEFAULT));
    // Smaller ones than usual grow from the same size of a file on.
    let wanted = wanted / u64::from(DEFAULT / least.min(DEFAULT));
    u32::try_from(wanted).unwrap_or(LARGEST).clamp(least, LARGEST)
}

/// How many chunks a file has.
pub fn count(file_size: u64, chunk_size: u32) -> u64 {
    file_size.div_ceil(u64::from(chunk_size))
}

/// Bytes of chunk number `index` of a file; the last one may be shorter.
pub fn length(file_size: u64, chunk_size: u32, index: u64) -> u32 {
    let left = file_size.saturating_sub(index.saturating_mul(u64::from(chunk_size)));
    u32::try_from(left).unwrap_or(u32::MAX).min(chunk_size)
}

/// Whether a chunk size can be one.
pub fn is_valid_size(size: u32) -> bool {
    size.is_power_of_two() && (SMALLEST..=LARGEST).contains(&size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_with_the_file_and_cover_it() {
        for (file, least, expected) in [
            (0, DEFAULT, 16 << 10),
            (4 << 30, DEFAULT, 16 << 10),
            ((4 << 30) + 1, DEFAULT, 32 << 10),
            (1 << 40, DEFAULT, 1 << 20),
            (1 << 50, DEFAULT, 1 << 20),
            (5, 64 << 10, 64 << 10),
            (8 << 30, 64 << 10, 64 << 10),
            (32 << 30, 64 << 10, 128 << 10),
            (4 << 30, SMALLEST, 2 << 10),
            (8 << 30, SMALLEST, 4 << 10),
            (1 << 50, SMALLEST, 1 << 20),
        ] {
            let size = size_for(file, least);
            assert_eq!(size, expected, "{file}");
            assert!(is_valid_size(size));
        }
        assert_eq!([0, 1, 32 << 10].map(|size| count(size, DEFAULT)), [0, 1, 2]);
        assert_eq!([0, 1, 2].map(|index| length(20_000, DEFAULT, index)), [16_384, 3616, 0]);
    }
}
