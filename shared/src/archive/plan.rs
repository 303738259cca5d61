//! The plan of a restore or a check: which parts of which objects bring which chunks. Pure.
//!
//! Wanted chunks are grouped by the frame that holds them, so that a frame is fetched and decompressed once however many files have a
//! part of it, and frames that are near each other are fetched together.

use std::collections::BTreeMap;

use super::chunk::{self, ChunkHash};
use super::entry::{Extent, FrameRef};
use super::frame::Content;
use super::objects::{Fetch, fetches};

/// Chunks of one file that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<F> {
    /// The file.
    pub file: F,
    /// The file's size.
    pub size: u64,
    /// The file's chunk size.
    pub chunk_size: u32,
    /// Number of the first wanted chunk.
    pub first: u64,
    /// Where they are.
    pub extent: Extent,
}

/// A part of a frame that goes to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<F> {
    /// The file.
    pub file: F,
    /// First byte in the file.
    pub offset: u64,
    /// First byte in the decompressed frame.
    pub at: u32,
    /// Bytes.
    pub length: u32,
    /// The file's chunk size; the last chunk of a piece may be shorter.
    pub chunk_size: u32,
    /// Of its chunks.
    pub hashes: Vec<ChunkHash>,
}

/// One request, and what is to be done with the frames that it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<F> {
    /// What to fetch.
    pub fetch: Fetch,
    /// The frames in it, in their order.
    pub frames: Vec<(FrameRef, Vec<Piece<F>>)>,
}

/// The steps that bring everything wanted. No step fetches more than `largest` bytes, but for a frame that is larger.
pub fn steps<F: Clone>(wanted: &[Wanted<F>], largest: u64) -> Vec<Step<F>> {
    let mut by_frame: BTreeMap<FrameRef, Vec<Piece<F>>> = BTreeMap::new();
    for want in wanted {
        if let Some((frame, piece)) = want.clone().into_piece() {
            by_frame.entry(frame).or_default().push(piece);
        }
    }
    // Frames that are near each other, together.
    let places: Vec<FrameRef> = by_frame.keys().copied().collect();
    fetches(&places, largest)
        .into_iter()
        .map(|fetch| {
            let of = |n: &usize| (places[*n], by_frame.remove(&places[*n]).unwrap_or_default());
            let frames = fetch.parts.iter().map(of).collect();
            Step { fetch, frames }
        })
        .collect()
}

impl<F> Wanted<F> {
    /// The frame that holds it, and the part of that frame; `None` for a hole.
    pub fn into_piece(self) -> Option<(FrameRef, Piece<F>)> {
        let Self { file, size, chunk_size, first, extent } = self;
        let Extent::Stored { frame, at, hashes } = extent else { return None };
        let length = (0..hashes.len() as u64).map(|n| chunk::length(size, chunk_size, first + n)).sum();
        Some((frame, Piece { file, offset: first * u64::from(chunk_size), at, length, chunk_size, hashes }))
    }
}

impl<F> Piece<F> {
    /// The piece's bytes in its frame's content, once all of its chunks were found to be what the index says.
    pub fn checked<'c, 'a>(
        &self,
        frame: &'c Content<'a>,
    ) -> Result<impl Iterator<Item = &'a [u8]> + use<'c, 'a, F>, String> {
        let (begin, end) = (self.at as usize, self.at as usize + self.length as usize);
        if end > frame.size() {
            return Err("the frame is shorter than the index says".into());
        }
        let begins = (begin..end).step_by(self.chunk_size as usize);
        let of = |at: usize| ChunkHash::of_slices(frame.slices(at, end.min(at + self.chunk_size as usize)));
        let is_good = begins.len() == self.hashes.len() && begins.zip(&self.hashes).all(|(at, hash)| of(at) == *hash);
        if is_good { Ok(frame.slices(begin, end)) } else { Err("a chunk is not what the index says".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = chunk::SMALLEST;

    fn extent(object: u32, offset: u64, at: u32, chunks: &[&[u8]]) -> Extent {
        let frame = FrameRef { object, offset, length: 100 };
        Extent::Stored { frame, at, hashes: chunks.iter().map(|c| ChunkHash::of(c)).collect() }
    }

    #[test]
    fn a_frame_is_fetched_once_for_all_who_want_it() {
        let want = |file, first, extent| Wanted { file, size: 3 * u64::from(SIZE), chunk_size: SIZE, first, extent };
        let wanted = [
            want("a", 0, extent(0, 0, 0, &[b"x"])),
            want("b", 1, extent(0, 0, SIZE, &[b"y"])),
            want("b", 2, extent(1, 700, 0, &[b"z"])),
            want("c", 0, Extent::Hole(3)),
            want("c", 0, extent(0, 100, 5, &[b"w"])),
        ];
        let steps = steps(&wanted, 1 << 20);
        let said: Vec<_> =
            steps.iter().map(|s| (s.fetch.object, s.fetch.offset, s.fetch.length, s.frames.len())).collect();
        assert_eq!(said, [(0, 0, 200, 2), (1, 700, 100, 1)]);
        let files: Vec<_> = steps[0].frames[0].1.iter().map(|p| (p.file, p.offset)).collect();
        assert_eq!(files, [("a", 0), ("b", u64::from(SIZE))]);
    }

    #[test]
    fn a_piece_is_taken_only_as_a_whole_and_only_when_right() {
        let last = [7_u8; 100];
        let size = u64::from(SIZE) + 100;
        let whole: Vec<u8> = std::iter::repeat_n(1, SIZE as usize).chain(last).collect();
        let extent = extent(0, 0, 3, &[&whole[..SIZE as usize], &last]);
        let steps = steps(&[Wanted { file: (), size, chunk_size: SIZE, first: 0, extent }], 1);
        let piece = &steps[0].frames[0].1[0];
        let mut frame = [&[0; 3][..], &whole, b"more"].concat();
        let checked =
            |frame: &[u8]| piece.checked(&Content::whole(frame)).map(|slices| slices.collect::<Vec<_>>().concat());
        assert_eq!(checked(&frame).expect("right"), whole);
        frame[50] ^= 1;
        checked(&frame).expect_err("wrong");
        checked(&frame[..100]).expect_err("short");
    }
}
