//! Settings of backups that Perennial makes of files itself: compression, chunks and chains, upload, commands around them.

use std::time::Duration;

use crate::archive::chunk;
use crate::archive::frame::{Algorithm, Compression};

/// How archives are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// How frames are compressed.
    pub compression: Compression,
    /// The smallest chunks, bytes: the unit of change.
    pub chunk_size: u32,
    /// Increments between two bases.
    pub max_increments: u32,
    /// Age that a base may have when another increment is put on its chain.
    pub max_chain_age: Duration,
}

/// How objects are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadSettings {
    /// Size of a multipart upload's first parts, bytes.
    pub part_size: u64,
    /// Parts under way at the same time.
    pub concurrency: u32,
    /// Bytes a second; `None` is as fast as it goes.
    pub bandwidth: Option<u64>,
}

/// Programs that are run around a capture and a restore, as words, without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commands {
    /// Makes the data keep still, or writes it out.
    pub before_capture: Vec<String>,
    /// Lets it go again; run whenever `before_capture` was, also after a failure.
    pub after_capture: Vec<String>,
    /// Stops whatever uses the data folder.
    pub before_restore: Vec<String>,
    /// Starts it again; the restore counts as done when this succeeds.
    pub after_restore: Vec<String>,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            compression: Compression::default(),
            chunk_size: chunk::DEFAULT,
            max_increments: 30,
            max_chain_age: Duration::from_secs(8 * 24 * 60 * 60),
        }
    }
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self { part_size: 16 << 20, concurrency: 4, bandwidth: None }
    }
}

/// `50MB`, `16 MiB`, `100MiB/s`: bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The levels that an algorithm has.
pub(super) fn levels(algorithm: Algorithm) -> std::ops::RangeInclusive<i32> {
    match algorithm {
        Algorithm::Zstd => 1..=19,
        Algorithm::Gzip => 1..=9,
        Algorithm::None => 0..=0,
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        let found = ["16KiB", "50MB", "1 GiB", "7", "100MiB/s", "", "5 apples", "99999999999GiB"].map(size);
        assert_eq!(found, [Some(16_384), Some(50_000_000), Some(1 << 30), Some(7), Some(100 << 20), None, None, None]);
    }
}
