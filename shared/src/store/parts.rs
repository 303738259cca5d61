//! The parts of an [`super::Upload`], and the checksum that a whole object has by theirs.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc64Nvme;

use super::StoreError;

/// S3's limit for one object.
pub const MOST_PARTS: u32 = 10_000;

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// CRC-64/NVME.
    pub crc64: u64,
    /// The store's own name for these bytes, such as an `ETag`.
    pub tag: String,
}

/// CRC-64/NVME of bytes as they come.
#[derive(Debug)]
pub(super) struct Digest(crc_fast::Digest);

impl Digest {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self(crc_fast::Digest::new(Crc64Nvme))
    }
}

/// CRC-64/NVME of the pieces, one after the other.
pub fn crc64nvme(pieces: &[Bytes]) -> u64 {
    let mut digest = Digest::default();
    for piece in pieces {
        digest.update(piece);
    }
    digest.finish()
}

/// [`crc64nvme`] on a thread that may be kept busy: half a gigabyte takes a while.
pub(super) async fn crc64nvme_of(body: &[Bytes], key: &str, location: &str) -> Result<u64, StoreError> {
    let pieces = body.to_vec();
    let computed = tokio::task::spawn_blocking(move || crc64nvme(&pieces)).await;
    computed.map_err(|error| StoreError::unavailable(key, location, error))
}

/// What an object is by its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) size: u64,
    pub(super) crc64: u64,
}

impl Whole {
    pub(super) fn is(self, size: u64, crc64: u64) -> bool {
        (self.size, self.crc64) == (size, crc64)
    }
}

/// The object that these parts make, which must be numbered from 1 without a gap, in whatever order.
pub(super) fn whole(parts: &[Part], key: &str, location: &str) -> Result<(Whole, Vec<Part>), StoreError> {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|part| part.number);
    if parts.is_empty() || parts.len() > MOST_PARTS as usize {
        let why = format!("an object has 1 to {MOST_PARTS} parts, not {}", parts.len());
        return Err(StoreError::invalid(key, location, why));
    }
    let mut whole = Whole { size: 0, crc64: 0 };
    for (part, number) in parts.iter().zip(1..) {
        if part.number < number {
            let why = format!("part {} is there twice, or is none", part.number);
            return Err(StoreError::invalid(key, location, why));
        }
        if part.number > number {
            return Err(StoreError::corrupt(key, location, format!("part {number} is missing")));
        }
        whole.crc64 = crc_fast::checksum_combine(Crc64Nvme, whole.crc64, part.crc64, part.size);
        whole.size += part.size;
    }
    Ok((whole, parts))
}

/// A part where it lies, for stores that keep the parts themselves.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Arrived {
    pub(super) offset: u64,
    pub(super) part: Part,
}

/// Refuses parts (sorted) that have not arrived just so, one behind the other.
pub(super) fn check_arrived(
    parts: &[Part],
    arrived: &BTreeMap<u32, Arrived>,
    key: &str,
    location: &str,
) -> Result<(), StoreError> {
    let mut offset = 0;
    for part in parts {
        let fault = match arrived.get(&part.number) {
            None => Some("has not arrived".to_owned()),
            Some(other) if other.part != *part => Some("arrived with other bytes".to_owned()),
            Some(other) if other.offset != offset => Some(format!("lies at {} and not at {offset}", other.offset)),
            Some(_) => None,
        };
        if let Some(fault) = fault {
            return Err(StoreError::corrupt(key, location, format!("part {} {fault}", part.number)));
        }
        offset += part.size;
    }
    Ok(())
}

/// Refuses a range that runs backwards.
pub(super) fn check_range(range: &Range<u64>, key: &str, location: &str) -> Result<(), StoreError> {
    if range.start <= range.end {
        return Ok(());
    }
    Err(StoreError::invalid(key, location, format!("the range {} to {} runs backwards", range.start, range.end)))
}

/// For an object that ends before a range does.
pub(super) fn too_short(range: &Range<u64>, size: u64, key: &str, location: &str) -> StoreError {
    let why = format!("it has {size} bytes and was asked for {} to {}", range.start, range.end);
    StoreError::corrupt(key, location, why)
}

/// For an upload that the store does not know, or no longer.
pub(super) fn unknown_upload(key: &str, location: &str) -> StoreError {
    StoreError::not_found(key, location, "the store does not know this upload (any more): begin it again")
}

/// For an object that is not the one that some parts make.
pub(super) fn other_bytes(key: &str, location: &str) -> StoreError {
    StoreError::already_exists(key, location, "it holds other bytes")
}

/// Refuses a part number that S3 would not take.
pub(super) fn check_number(number: u32, key: &str, location: &str) -> Result<(), StoreError> {
    if (1..=MOST_PARTS).contains(&number) {
        return Ok(());
    }
    Err(StoreError::invalid(key, location, format!("part {number}: parts are numbered from 1 to {MOST_PARTS}")))
}

/// Bytes of all pieces.
pub(super) fn size(body: &[Bytes]) -> u64 {
    body.iter().map(|piece| piece.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, body: &'static [u8]) -> Part {
        let pieces = [Bytes::from_static(body)];
        Part { number, size: body.len() as u64, crc64: crc64nvme(&pieces), tag: String::new() }
    }

    #[test]
    fn the_checksum_is_the_published_one_however_it_is_cut() {
        assert_eq!(crc64nvme(&[Bytes::from_static(b"123456789")]), 0xae8b_1486_0a79_9888);
        assert_eq!(crc64nvme(&["1234".into(), Bytes::new(), "56789".into()]), 0xae8b_1486_0a79_9888);
        assert_eq!(crc64nvme(&[]), 0);
        for parts in [
            vec![part(1, b"123456789")],
            vec![part(2, b"3456789"), part(1, b"12")],
            vec![part(1, b"1234"), part(2, b""), part(3, b"56789")],
        ] {
            let (whole, sorted) = whole(&parts, "key", "here").expect("complete");
            assert_eq!((whole.size, whole.crc64), (9, 0xae8b_1486_0a79_9888));
            assert!(sorted.is_sorted_by_key(|part| part.number));
        }
    }

    #[test]
    fn parts_that_make_no_object_are_refused() {
        let refused = |parts: &[Part]| whole(parts, "key", "here").expect_err("no object");
        assert!(matches!(refused(&[]), StoreError::Invalid { .. }));
        assert!(matches!(refused(&[part(0, b"a"), part(1, b"b")]), StoreError::Invalid { .. }));
        assert!(matches!(refused(&[part(1, b"a"), part(1, b"b")]), StoreError::Invalid { .. }));
        assert!(matches!(refused(&[part(2, b"a")]), StoreError::Corrupt { .. }));
        assert!(matches!(refused(&[part(1, b"a"), part(3, b"b")]), StoreError::Corrupt { .. }));
        let many: Vec<Part> = (1..=MOST_PARTS + 1).map(|number| part(number, b"a")).collect();
        assert!(matches!(refused(&many), StoreError::Invalid { .. }));
        whole(&many[..MOST_PARTS as usize], "key", "here").expect("as many as there may be");
    }
}
