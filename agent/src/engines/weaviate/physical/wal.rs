//! The records of a write-ahead log, checked before the log is archived.
//!
//! A record is `[type][version][length, 4 bytes, little-endian][that many bytes][CRC-32, big-endian]`, and each CRC is of all bytes
//! before it but the CRCs. A log that was caught while it was written may end within a record, which nobody was told is
//! written: the engine would cut it off, and so is done here. Anything else that does not agree is damage.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crc_fast::CrcAlgorithm::Crc32IsoHdlc;

const HEADER: u64 = 6;
const CHECKSUM: u64 = 4;
const KNOWN_VERSION: u8 = 1;
const BUFFER: usize = 256 << 10;

/// What was found in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its records are whole up to here.
    Whole(u64),
    /// The record at this place is not what was written.
    Damaged(u64),
    /// It is of a form that is not known.
    Unknown,
}

/// Checks the first `length` bytes of the log at `path`.
pub(super) fn check(path: &Path, length: u64) -> io::Result<Found> {
    let log = BufReader::with_capacity(BUFFER, File::open(path)?);
    records(log, length)
}

fn records(mut log: impl Read, length: u64) -> io::Result<Found> {
    let mut crc = crc_fast::Digest::new(Crc32IsoHdlc);
    let mut at = 0;
    let mut buffer = vec![0; BUFFER];
    while length - at >= HEADER + CHECKSUM {
        let mut header = [0; 6];
        log.read_exact(&mut header)?;
        let [kind, version, size @ ..] = header;
        if version != KNOWN_VERSION || kind > 3 {
            return Ok(if at == 0 { Found::Unknown } else { Found::Damaged(at) });
        }
        let mut left = u64::from(u32::from_le_bytes(size));
        if length - at < HEADER + left + CHECKSUM {
            break;
        }
        let end = at + HEADER + left + CHECKSUM;
        crc.update(&header);
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            log.read_exact(&mut buffer[..some])?;
            crc.update(&buffer[..some]);
            left -= some as u64;
        }
        let mut written = [0; 4];
        log.read_exact(&mut written)?;
        if u64::from(u32::from_be_bytes(written)) != crc.finalize() {
            return Ok(Found::Damaged(at));
        }
        at = end;
    }
    Ok(Found::Whole(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as the engine writes it.
    fn log(records: &[&[u8]]) -> Vec<u8> {
        let (mut log, mut crc) = (vec![], crc_fast::Digest::new(Crc32IsoHdlc));
        for record in records {
            let mut bytes = vec![0, 1];
            bytes.extend(u32::try_from(record.len()).expect("short").to_le_bytes());
            bytes.extend(*record);
            crc.update(&bytes);
            log.extend(&bytes);
            log.extend(u32::try_from(crc.finalize()).expect("32 bits").to_be_bytes());
        }
        log
    }

    fn found(log: &[u8]) -> Found {
        records(log, log.len() as u64).expect("read")
    }

    #[test]
    fn a_log_that_ends_within_a_record_is_whole_before_it() {
        let (one, two) = (log(&[b"one"]), log(&[b"one", &vec![7; 300_000]]));
        for length in one.len()..two.len() {
            if length % 997 == 0 || length < one.len() + 12 {
                assert_eq!(found(&two[..length]), Found::Whole(one.len() as u64), "{length}");
            }
        }
        assert_eq!(found(&two), Found::Whole(two.len() as u64));
        assert_eq!(found(&[]), Found::Whole(0));
    }

    #[test]
    fn a_flipped_bit_is_damage_and_another_form_is_not_known() {
        let good = log(&[b"one", b"two"]);
        for at in [8, 15, 19, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(found(&bad), Found::Damaged(_)), "{at}");
        }
        let mut other = good;
        other[1] = 2;
        assert_eq!(found(&other), Found::Unknown);
    }
}
