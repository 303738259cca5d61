//! The encodings of a point-in-time file: lengths, strings, and the shapes of values.

use std::fs::File;
use std::io::{self, BufReader, Read};

use crc_fast::{CrcAlgorithm, Digest};

/// Why a file cannot be what it should be.
pub(super) enum Broken {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file from its beginning, with the checksum of all that was read.
pub(super) struct Reader {
    file: BufReader<File>,
    sum: Digest,
    at: u64,
    size: u64,
}

/// A length, or the mark of an encoding in its place.
enum Length {
    Plain(u64),
    Encoded(u8),
}

const BLOCK: usize = 256 << 10;
/// Notes are a few words.
const LONGEST_NOTE: u64 = 1 << 20;

impl Reader {
    pub(super) fn new(file: File, size: u64) -> Self {
        Self { file: BufReader::with_capacity(BLOCK, file), sum: Digest::new(CrcAlgorithm::Crc64Redis), at: 0, size }
    }

    pub(super) fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn checksum(&self) -> u64 {
        self.sum.finalize()
    }

    pub(super) fn some<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.took(&bytes);
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.some::<1>()?[0])
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), Broken> {
        let mut left = count;
        let mut block = [0; 8 << 10];
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.file.read_exact(&mut block[..now])?;
            self.took(&block[..now]);
            left -= now as u64;
        }
        Ok(())
    }

    /// Steps to `before` bytes before the checksum.
    pub(super) fn skip_to_trailer(&mut self, before: u64) -> Result<(), Broken> {
        let to = self.size.saturating_sub(8 + before);
        let count = to.checked_sub(self.at).ok_or_else(|| Broken::Format("it is too short".into()))?;
        self.skip(count)
    }

    fn took(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn length_or_encoding(&mut self) -> Result<Length, Broken> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        Ok(match first >> 6 {
            0 => Length::Plain(low),
            1 => Length::Plain(low << 8 | u64::from(self.byte()?)),
            2 if first == 0x80 => Length::Plain(u32::from_be_bytes(self.some()?).into()),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.some()?)),
            3 => Length::Encoded(first & 0x3f),
            _ => return Err(Broken::Format(format!("{first:#04x} is no length"))),
        })
    }

    pub(super) fn length(&mut self) -> Result<u64, Broken> {
        match self.length_or_encoding()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(Broken::Format("an encoded string stands where a length should".into())),
        }
    }

    /// Steps over a string.
    pub(super) fn string(&mut self) -> Result<(), Broken> {
        let length = match self.length_or_encoding()? {
            Length::Plain(length) => length,
            Length::Encoded(0) => 1,
            Length::Encoded(1) => 2,
            Length::Encoded(2) => 4,
            Length::Encoded(3) => {
                let compressed = self.length()?;
                self.length()?;
                compressed
            }
            Length::Encoded(other) => return Err(Broken::Format(format!("{other} is no encoding of a string"))),
        };
        self.skip(length)
    }

    /// A short string; a number that was encoded as one is written out.
    pub(super) fn text(&mut self) -> Result<String, Broken> {
        let length = match self.length_or_encoding()? {
            Length::Plain(length) if length <= LONGEST_NOTE => length,
            Length::Encoded(0) => return Ok(i8::from_le_bytes(self.some()?).to_string()),
            Length::Encoded(1) => return Ok(i16::from_le_bytes(self.some()?).to_string()),
            Length::Encoded(2) => return Ok(i32::from_le_bytes(self.some()?).to_string()),
            _ => return Err(Broken::Format("a note is not a short string".into())),
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact(&mut bytes)?;
        self.took(&bytes);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn strings(&mut self, each: u64) -> Result<(), Broken> {
        for _ in 0..self.length()?.saturating_mul(each) {
            self.string()?;
        }
        Ok(())
    }

    fn lengths(&mut self, count: usize) -> Result<(), Broken> {
        for _ in 0..count {
            self.length()?;
        }
        Ok(())
    }

    /// Steps over a value of this type; false where the type is not known.
    pub(super) fn value(&mut self, kind: u8) -> Result<bool, Broken> {
        match kind {
            // A string, and everything that is kept as one: small lists, sets, hashes and sorted sets.
            0 | 9..=13 | 16 | 17 | 20 => self.string()?,
            // A list, a set, a list of small lists.
            1 | 2 | 14 => self.strings(1)?,
            3 => self.sorted_set_of_texts()?,
            4 => self.strings(2)?,
            5 => {
                for _ in 0..self.length()? {
                    self.string()?;
                    self.skip(8)?;
                }
            }
            7 => {
                self.length()?;
                self.module()?;
            }
            18 => {
                for _ in 0..self.length()? {
                    self.length()?;
                    self.string()?;
                }
            }
            15 => self.stream(1)?,
            19 => self.stream(2)?,
            21 => self.stream(3)?,
            // Hashes whose fields expire.
            24 => {
                self.skip(8)?;
                for _ in 0..self.length()? {
                    self.length()?;
                    self.string()?;
                    self.string()?;
                }
            }
            25 => {
                self.skip(8)?;
                self.string()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Scores as texts, whose lengths have three values for what is not a number.
    fn sorted_set_of_texts(&mut self) -> Result<(), Broken> {
        for _ in 0..self.length()? {
            self.string()?;
            let length = self.byte()?;
            if length < 253 {
                self.skip(length.into())?;
            }
        }
        Ok(())
    }

    /// What a module wrote: marks and values up to the mark of the end.
    pub(super) fn module(&mut self) -> Result<(), Broken> {
        loop {
            match self.length()? {
                0 => return Ok(()),
                1 | 2 => self.lengths(1)?,
                3 => self.skip(4)?,
                4 => self.skip(8)?,
                5 => self.string()?,
                other => return Err(Broken::Format(format!("{other} is no part of a module's value"))),
            }
        }
    }

    fn stream(&mut self, version: u8) -> Result<(), Broken> {
        self.strings(2)?;
        // How many entries and the last one's id; then the first one's, the largest deleted one's, and how many there ever were.
        self.lengths(if version >= 2 { 8 } else { 3 })?;
        for _ in 0..self.length()? {
            self.string()?;
            self.lengths(if version >= 2 { 3 } else { 2 })?;
            for _ in 0..self.length()? {
                self.skip(16 + 8)?;
                self.length()?;
            }
            for _ in 0..self.length()? {
                self.string()?;
                self.skip(if version >= 3 { 16 } else { 8 })?;
                let pending = self.length()?;
                self.skip(pending.saturating_mul(16))?;
            }
        }
        Ok(())
    }
}
