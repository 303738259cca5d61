//! Frames: what is compressed, encrypted and fetched in one piece.
//!
//! Frames are independent: any can be fetched and decompressed alone, in any order and on any core. One after another they are a
//! valid `.zst` (or `.gz`) file, because both formats allow members to be put one behind the other (RFC 8878 section 3, RFC 1952
//! section 2.2).

mod content;
mod cursor;
mod raw;

pub use content::Content;

use std::io::{Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::DParameter::{self, ForceIgnoreChecksum};

use crate::spare::{Lent, Spare};

/// A frame is cut once it holds this many bytes.
pub const TARGET: usize = 1 << 20;
/// No frame decompresses to more than this: the target, and the block of a file that filled it.
pub const LARGEST: usize = 4 << 20;

/// zstd's level when the settings name none. Level 3 costs twice the time of level 1 and gives a percent or two.
const DEFAULT_LEVEL: i32 = 1;
/// What must be gained for compressing to pay, as one part of so many; what gives less is stored as it is. Vectors of floating-point numbers give a thirteenth
/// and cost five times the time of everything else that is done to them, and half a second a gibibyte again on the day of the restore.
const WORTH: usize = 8;
/// Of a frame's beginning, middle and end this much is tried.
const SAMPLE: usize = 8 << 10;

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Zstandard.
    #[default]
    Zstd,
    /// gzip.
    Gzip,
    /// Not at all.
    None,
}

impl Algorithm {
    /// What the object's name ends in, after `.tar`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::None => "",
        }
    }
}

/// How a backup's frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    /// By what.
    pub algorithm: Algorithm,
    /// 1 to 19 for zstd, 1 to 9 for gzip; `None` adapts to each frame.
    pub level: Option<i32>,
}

/// One thread's means of compressing.
pub struct Compressor {
    compression: Compression,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// Fails only for want of memory.
    pub fn new(compression: Compression) -> std::io::Result<Self> {
        let level = compression.level.unwrap_or(DEFAULT_LEVEL);
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        // So that a damaged frame is known as one without its index, too.
        zstd.include_checksum(true)?;
        Ok(Self { compression, zstd })
    }

    /// Compresses one frame. The same bytes always give the same frame.
    pub fn compress(&mut self, plain: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self.compression.algorithm {
            Algorithm::None => Ok(plain),
            Algorithm::Gzip => {
                let level = self.compression.level.unwrap_or(6).clamp(1, 9).cast_unsigned();
                let out = Vec::with_capacity(plain.len() / 2);
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
                encoder.write_all(&plain)?;
                encoder.finish()
            }
            Algorithm::Zstd => {
                let pays = self.compression.level.is_some() || self.shrinks(&plain)?;
                if pays { self.zstd.compress(&plain) } else { Ok(raw::frame(&plain)) }
            }
        }
    }

    /// Vectors hardly shrink, whatever they cost; text shrinks to a quarter, lists of neighbours by a fifth. A few kilobytes tell.
    fn shrinks(&mut self, plain: &[u8]) -> std::io::Result<bool> {
        if plain.len() < 4 * SAMPLE {
            return Ok(true);
        }
        let mut sample = Vec::with_capacity(3 * SAMPLE);
        for start in [0, (plain.len() - SAMPLE) / 2, plain.len() - SAMPLE] {
            sample.extend_from_slice(&plain[start..start + SAMPLE]);
        }
        let shrunk = self.zstd.compress(&sample)?.len();
        Ok(shrunk + sample.len() / WORTH <= sample.len())
    }
}

/// What frames are decompressed into.
pub static PLAIN: Spare<Vec<u8>> = Spare::new();
/// Where frames that came in pieces are put together.
static WHOLE: Spare<Vec<u8>> = Spare::new();

/// One thread's means of decompressing. Its hundreds of kilobytes of tables are used again after it was dropped.
pub struct Decompressor {
    zstd: Lent<zstd::bulk::Decompressor<'static>>,
}

static DECOMPRESSORS: Spare<zstd::bulk::Decompressor<'static>> = Spare::new();

impl Decompressor {
    /// Fails only for want of memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: DECOMPRESSORS.lend(|_| true, zstd::bulk::Decompressor::new)? })
    }

    /// The content of one frame, which is in pieces as it arrived; decompressed into `plain` where it does not stand in the frame as it
    /// is. For somebody who knows what it should be: a checksum of the frame's own is not looked at.
    pub fn content<'a>(
        &mut self,
        algorithm: Algorithm,
        frame: &'a [Bytes],
        plain: &'a mut Vec<u8>,
    ) -> std::io::Result<Content<'a>> {
        let as_it_is = match algorithm {
            Algorithm::None => {
                let mut content = Content::default();
                content.extend(frame.iter().map(|piece| &piece[..]));
                Some(content)
            }
            Algorithm::Zstd => raw::content(frame),
            Algorithm::Gzip => None,
        };
        if let Some(content) = as_it_is.filter(|c| c.size() <= LARGEST) {
            return Ok(content);
        }
        let unchecked = ForceIgnoreChecksum(true);
        if let [whole] = frame {
            self.expand(algorithm, whole, plain, unchecked)?;
        } else {
            let mut whole = WHOLE.buffer();
            for piece in frame {
                whole.extend_from_slice(piece);
            }
            self.expand(algorithm, &whole, plain, unchecked)?;
        }
        Ok(Content::whole(plain))
    }

    /// Decompresses one frame into memory that is used again; what it held before is gone. What would become larger than any frame
    /// is refused before it does.
    pub fn decompress(&mut self, algorithm: Algorithm, frame: &[u8], plain: &mut Vec<u8>) -> std::io::Result<()> {
        self.expand(algorithm, frame, plain, ForceIgnoreChecksum(false))
    }

    fn expand(
        &mut self,
        algorithm: Algorithm,
        frame: &[u8],
        plain: &mut Vec<u8>,
        checksum: DParameter,
    ) -> std::io::Result<()> {
        plain.clear();
        match algorithm {
            Algorithm::None if frame.len() > LARGEST => Err(too_large()),
            Algorithm::None => {
                plain.extend_from_slice(frame);
                Ok(())
            }
            Algorithm::Gzip => {
                plain.reserve(TARGET + TARGET / 4);
                flate2::read::GzDecoder::new(frame).take(LARGEST as u64 + 1).read_to_end(plain)?;
                if plain.len() > LARGEST { Err(too_large()) } else { Ok(()) }
            }
            Algorithm::Zstd => {
                let claimed = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten();
                let size = claimed.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= LARGEST);
                plain.reserve(size.ok_or_else(too_large)?);
                self.zstd.set_parameter(checksum)?;
                self.zstd.decompress_to_buffer(frame, plain).map(|_| ())
            }
        }
    }
}

fn too_large() -> std::io::Error {
    std::io::Error::other("the frame decompresses to more than any frame holds")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> [Compression; 4] {
        [
            Compression::default(),
            Compression { algorithm: Algorithm::Zstd, level: Some(9) },
            Compression { algorithm: Algorithm::Gzip, level: None },
            Compression { algorithm: Algorithm::None, level: None },
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_compressed_comes_back(
            plain in prop::collection::vec(any::<u8>(), 0..80_000), repeat in 1_usize..20, piece in 1_usize..100_000,
        ) {
            let plain = plain.repeat(repeat);
            for compression in all() {
                let frame = Compressor::new(compression).expect("made").compress(plain.clone()).expect("compressed");
                let mut back = b"of before".to_vec();
                let mut decompressor = Decompressor::new().expect("made");
                decompressor.decompress(compression.algorithm, &frame, &mut back).expect("decompressed");
                prop_assert!(back == plain);
                let pieces = raw::in_pieces(&frame, piece);
                let content = decompressor.content(compression.algorithm, &pieces, &mut back).expect("a frame");
                prop_assert!(content.slices(0, content.size()).collect::<Vec<_>>().concat() == plain);
            }
        }

        #[test]
        fn hostile_frames_end(
            bytes in prop::collection::vec(any::<u8>(), 0..4000), kept in 0..40_usize, piece in 1..5000_usize,
        ) {
            // As they come, and behind a beginning that is right.
            let raw = raw::frame(&[7; 100]);
            let zstd = zstd::bulk::compress(&[7; 100], 1).expect("compressed");
            for begin in [&raw[..kept], &zstd[..kept.min(zstd.len())], &[]] {
                let frame = [begin, &bytes].concat();
                for algorithm in [Algorithm::Zstd, Algorithm::Gzip, Algorithm::None] {
                    let (mut decompressor, mut plain) = (Decompressor::new().expect("made"), vec![]);
                    let _ = decompressor.decompress(algorithm, &frame, &mut plain);
                    let pieces = raw::in_pieces(&frame, piece);
                    if let Ok(content) = decompressor.content(algorithm, &pieces, &mut plain) {
                        let slices = content.slices(0, content.size());
                        prop_assert_eq!(slices.map(<[u8]>::len).sum::<usize>(), content.size());
                    }
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = vec![0; LARGEST + 1];
        for compression in all() {
            let frame = Compressor::new(compression).expect("made").compress(bomb.clone()).expect("compressed");
            let mut decompressor = Decompressor::new().expect("made");
            decompressor.decompress(compression.algorithm, &frame, &mut vec![]).expect_err("too large");
        }
    }
}
