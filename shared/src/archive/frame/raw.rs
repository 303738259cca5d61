//! A zstd frame that holds its content as it is: what hardly shrinks is copied, which is ten times as fast as the fastest level that
//! finds nothing. RFC 8878, sections 3.1.1.1 (the header) and 3.1.1.2 (raw blocks).

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

use super::Content;
use super::cursor::Cursor;

const MAGIC: u32 = 0xfd2f_b528;
/// The content's size in eight bytes, a single segment, a checksum.
const DESCRIPTOR: u8 = 0b1110_0100;
/// Type of a block that holds its content as it is.
const RAW: u32 = 0;
/// No block of any frame is larger.
const BLOCK: usize = 128 << 10;

/// The frame of `plain`.
pub(super) fn frame(plain: &[u8]) -> Vec<u8> {
    let blocks = plain.len().div_ceil(BLOCK).max(1);
    let mut frame = Vec::with_capacity(4 + 1 + 8 + blocks * 3 + plain.len() + 4);
    frame.extend_from_slice(&MAGIC.to_le_bytes());
    frame.push(DESCRIPTOR);
    frame.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    for number in 0..blocks {
        let block = &plain[number * BLOCK..plain.len().min((number + 1) * BLOCK)];
        let is_last = number + 1 == blocks;
        let header = (block.len() << 3) | usize::from(is_last);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    // The low four bytes.
    let sum = xxh64(plain, 0).to_le_bytes();
    frame.extend_from_slice(&sum[..4]);
    frame
}

/// The content of a frame as [`frame`] makes them, where it stands; `None` for any other. Its checksum is not looked at.
pub(super) fn content(frame: &[Bytes]) -> Option<Content<'_>> {
    let mut rest = Cursor::new(frame);
    if u32::from_le_bytes(rest.array()?) != MAGIC || rest.array()? != [DESCRIPTOR] {
        return None;
    }
    let size = u64::from_le_bytes(rest.array()?);
    let (mut content, mut is_last) = (Content::default(), false);
    while !is_last {
        let [low, middle, high] = rest.array()?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let (kind, length) = (header >> 1 & 0b11, (header >> 3) as usize);
        is_last = header & 1 == 1;
        if kind != RAW || length > BLOCK || (!is_last && length < BLOCK) {
            return None;
        }
        let mut left = length;
        while left > 0 {
            let slice = rest.some(left)?;
            left -= slice.len();
            content.extend([slice]);
        }
    }
    let _checksum: [u8; 4] = rest.array()?;
    (rest.some(1).is_none() && content.size() as u64 == size).then_some(content)
}

/// `frame` as it may arrive.
#[cfg(test)]
pub(super) fn in_pieces(frame: &[u8], each: usize) -> Vec<Bytes> {
    frame.chunks(each).map(Bytes::copy_from_slice).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::frame::{Algorithm, Decompressor, LARGEST};

    /// A frame as anybody may write one: blocks of any kind and length, right in all else.
    fn anybodys(blocks: &[(u32, usize)]) -> Vec<u8> {
        let plain: Vec<u8> =
            (0..blocks.iter().map(|(_, length)| length).sum()).map(|n: usize| (n / 7).to_le_bytes()[0]).collect();
        let mut frame = frame(&plain)[..13].to_vec();
        let mut rest = &plain[..];
        for (number, (kind, length)) in blocks.iter().enumerate() {
            let is_last = u32::from(number + 1 == blocks.len());
            let header = (u32::try_from(*length).expect("small") << 3) | (kind << 1) | is_last;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            let (block, after) = rest.split_at(*length);
            frame.extend_from_slice(block);
            rest = after;
        }
        frame.extend_from_slice(&xxh64(&plain, 0).to_le_bytes()[..4]);
        frame
    }

    proptest! {
        /// What zstd reads too is the same, wherever the blocks end.
        #[test]
        fn no_frame_is_read_otherwise_than_zstd_reads_it(
            blocks in prop::collection::vec(
                (prop_oneof![9 => Just(RAW), 1 => 1_u32..4], prop_oneof![Just(BLOCK), 0..300_usize, BLOCK - 1..BLOCK + 2]),
                1..4,
            ),
            piece in 1_usize..300_000,
        ) {
            let frame = anybodys(&blocks);
            let mut plain = vec![];
            let read = Decompressor::new().expect("made").decompress(Algorithm::Zstd, &frame, &mut plain);
            if let (Ok(()), Some(content)) = (read, content(&in_pieces(&frame, piece))) {
                prop_assert!(content.slices(0, content.size()).collect::<Vec<_>>().concat() == plain);
            }
        }
    }

    #[test]
    fn zstd_reads_it() {
        for size in [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, LARGEST] {
            let plain: Vec<u8> = (0..size).map(|n: usize| ((n * n) >> 3).to_le_bytes()[0]).collect();
            let mut back = vec![];
            let mut decompressor = Decompressor::new().expect("made");
            decompressor.decompress(Algorithm::Zstd, &frame(&plain), &mut back).expect("a frame");
            assert!(back == plain, "{size}");
            for each in [1, 7, 1000, BLOCK, BLOCK + 16, LARGEST + 1000] {
                let framed = in_pieces(&frame(&plain), each);
                let content = content(&framed).expect("one of ours");
                assert!(content.slices(0, size).collect::<Vec<_>>().concat() == plain, "{size} by {each}");
            }
        }
    }

    #[test]
    fn other_frames_are_not_taken_for_it() {
        let noise: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        let is_one = |frame: &[u8]| content(&[Bytes::copy_from_slice(frame)]).is_some();
        assert!(!is_one(&zstd::bulk::compress(&noise, 1).expect("compressed")));
        let whole = Bytes::from(frame(&noise));
        for length in 0..whole.len() {
            assert!(content(&[whole.slice(..length)]).is_none(), "{length}");
        }
        assert!(!is_one(&[&whole[..], b"x"].concat()));
        for place in [0, 4, 5, 13, 14] {
            let mut other = whole.to_vec();
            other[place] ^= 2;
            assert!(!is_one(&other), "{place}");
        }
    }

    #[test]
    fn its_checksum_is_looked_at() {
        let mut bad = frame(&[7; 1000]);
        bad[500] ^= 1;
        let mut decompressor = Decompressor::new().expect("made");
        decompressor.decompress(Algorithm::Zstd, &bad, &mut vec![]).expect_err("damaged");
    }
}
