//! A point-in-time file, read from its first byte to its last without a server.
//!
//! Promises: a file that passes has the header of a version that is known, ends with the mark of its end and nothing after it, has the
//! checksum that it says, and holds as many keys in each database as the server meant to write. Values are stepped over by their
//! lengths and never held in memory. Types that a later version may bring end the count and not the check of the sum.

mod reader;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use reader::{Broken, Reader};

use crate::engine::EngineError;

/// The newest format whose values are stepped over; of a later one only the checksum is looked at.
const NEWEST: u32 = 12;

/// What a point-in-time file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// The format's name and number, such as `REDIS0010`.
    pub(super) format: String,
    /// What the server wrote about itself: `redis-ver`, `ctime`, `used-mem` and others.
    pub(super) notes: BTreeMap<String, String>,
    /// Keys by database; `None` where a type is not known.
    pub(super) keys: Option<BTreeMap<u32, u64>>,
    /// Whether the server wrote a checksum (`rdbchecksum yes`).
    pub(super) has_checksum: bool,
}

impl Summary {
    /// A note that is a number.
    pub(super) fn number(&self, note: &str) -> Option<u64> {
        self.notes.get(note)?.parse().ok()
    }

    /// The number of the format, 80 and more for Valkey's own.
    pub(super) fn version(&self) -> u32 {
        self.format.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
    }
}

/// Reads a whole file; damage is an error.
pub(super) fn check(path: &Path) -> Result<Summary, EngineError> {
    let damaged = |why: String| EngineError::Damaged { what: path.display().to_string(), why };
    let open = || File::open(path).and_then(|f| Ok((f.metadata()?.len(), f)));
    let (size, file) = open().map_err(|e| EngineError::files(path, &e))?;
    let mut reader = Reader::new(file, size);
    match scan(&mut reader) {
        Ok(summary) => Ok(summary),
        Err(Broken::Io(e)) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(EngineError::files(path, &e)),
        Err(Broken::Io(_)) => Err(damaged(format!("it ends in the middle, after {size} bytes"))),
        Err(Broken::Format(why)) => Err(damaged(format!("{why}, at byte {}", reader.position()))),
    }
}

/// Reads no more than the notes at the head.
pub(super) fn head(path: &Path) -> Option<Summary> {
    let file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut reader = Reader::new(file, size);
    let mut summary = Summary { format: header(&mut reader).ok()?, ..Summary::default() };
    while reader.byte().ok()? == opcode::NOTE {
        let (name, value) = (reader.text().ok()?, reader.text().ok()?);
        summary.notes.insert(name, value);
    }
    Some(summary)
}

mod opcode {
    pub(super) const SLOT: u8 = 0xf4;
    pub(super) const FUNCTION: u8 = 0xf5;
    pub(super) const MODULE: u8 = 0xf7;
    pub(super) const IDLE: u8 = 0xf8;
    pub(super) const FREQUENCY: u8 = 0xf9;
    pub(super) const NOTE: u8 = 0xfa;
    pub(super) const SIZES: u8 = 0xfb;
    pub(super) const EXPIRES_MS: u8 = 0xfc;
    pub(super) const EXPIRES: u8 = 0xfd;
    pub(super) const DATABASE: u8 = 0xfe;
    pub(super) const END: u8 = 0xff;
}

fn header(reader: &mut Reader) -> Result<String, Broken> {
    let magic = reader.some::<9>()?;
    let format = String::from_utf8_lossy(&magic).into_owned();
    let known = format.starts_with("REDIS") || format.starts_with("VALKEY");
    let digits = format.trim_start_matches(|c: char| c.is_ascii_uppercase());
    if known && digits.len() >= 3 && digits.bytes().all(|b| b.is_ascii_digit()) {
        Ok(format)
    } else {
        Err(Broken::Format("it does not begin as a point-in-time file does".into()))
    }
}

fn scan(reader: &mut Reader) -> Result<Summary, Broken> {
    let mut summary = Summary { format: header(reader)?, ..Summary::default() };
    if summary.version() <= NEWEST {
        summary.keys = count(reader, &mut summary.notes)?;
    }
    if summary.keys.is_none() {
        reader.skip_to_trailer(1)?;
        if reader.byte()? != opcode::END {
            return Err(Broken::Format("the mark of its end is missing".into()));
        }
    }
    if reader.position() + 8 != reader.size() {
        return Err(Broken::Format("something stands after its end".into()));
    }
    let computed = reader.checksum();
    let stored = u64::from_le_bytes(reader.some()?);
    summary.has_checksum = stored != 0;
    if summary.has_checksum && stored != computed {
        return Err(Broken::Format(format!("its checksum is {computed:016x}, and it says {stored:016x}")));
    }
    Ok(summary)
}

/// Steps from key to key to the end; `None` at a type that is not known.
fn count(reader: &mut Reader, notes: &mut BTreeMap<String, String>) -> Result<Option<BTreeMap<u32, u64>>, Broken> {
    let (mut keys, mut meant) = (BTreeMap::new(), BTreeMap::new());
    let mut database = 0_u32;
    loop {
        match reader.byte()? {
            opcode::END => break,
            opcode::NOTE => {
                let (name, value) = (reader.text()?, reader.text()?);
                notes.insert(name, value);
            }
            opcode::DATABASE => {
                database = u32::try_from(reader.length()?)
                    .map_err(|_| Broken::Format("the number of a database is too large".into()))?;
            }
            opcode::SIZES => {
                meant.insert(database, reader.length()?);
                reader.length()?;
            }
            opcode::SLOT => {
                for _ in 0..3 {
                    reader.length()?;
                }
            }
            opcode::EXPIRES_MS => reader.skip(8)?,
            opcode::EXPIRES => reader.skip(4)?,
            opcode::IDLE => {
                reader.length()?;
            }
            opcode::FREQUENCY => reader.skip(1)?,
            opcode::FUNCTION => reader.string()?,
            opcode::MODULE => {
                for _ in 0..3 {
                    reader.length()?;
                }
                reader.module()?;
            }
            kind => {
                reader.string()?;
                if !reader.value(kind)? {
                    return Ok(None);
                }
                *keys.entry(database).or_insert(0) += 1;
            }
        }
    }
    if meant.iter().any(|(database, count)| keys.get(database).unwrap_or(&0) != count) {
        return Err(Broken::Format(format!("it holds the keys {keys:?} by database, and says {meant:?}")));
    }
    Ok(Some(keys))
}

#[cfg(test)]
mod tests;
