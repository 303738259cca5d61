//! The headers of tar entries, in the old GNU form that Qdrant reads: plain files, folders, files with holes, long names.
//!
//! Owner, mode and time are always the same, so that an archive's bytes follow from its files alone.

const BLOCK: usize = 512;
/// Runs of data that are described in a sparse header, and in each block after it.
const IN_HEADER: usize = 4;
const IN_EXTENSION: usize = 21;
const RUN: usize = 24;

/// A run of data in a file: offset and length.
pub(super) type Run = (u64, u64);

/// The end of an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Before the bytes of a file.
pub(super) fn file(name: &str, size: u64) -> Vec<u8> {
    named(name, |header| finish(header, b'0', 0o644, size))
}

/// A folder; nothing follows.
pub(super) fn folder(name: &str) -> Vec<u8> {
    named(&format!("{name}/"), |header| finish(header, b'5', 0o755, 0))
}

/// Before the runs of a file of `size` bytes that has holes. An empty run marks the end, without which a file that ends in a hole
/// is refused.
pub(super) fn sparse(name: &str, size: u64, runs: &[Run]) -> Vec<u8> {
    let stored = runs.iter().map(|(_, length)| length).sum();
    let table: Vec<Run> = runs.iter().copied().chain([(size, 0)]).collect();
    let (first, more) = table.split_at(table.len().min(IN_HEADER));
    let mut bytes = named(name, |header| {
        put_runs(&mut header[386..], first);
        header[482] = u8::from(!more.is_empty());
        header[483..495].copy_from_slice(&number(size));
        finish(header, b'S', 0o644, stored);
    });
    let extensions = more.chunks(IN_EXTENSION);
    let last = extensions.len().saturating_sub(1);
    for (at, runs) in extensions.enumerate() {
        let mut block = [0; BLOCK];
        put_runs(&mut block, runs);
        block[504] = u8::from(at < last);
        bytes.extend(block);
    }
    bytes
}

/// Zeros that fill the last block of so many bytes.
pub(super) fn padding(size: u64) -> usize {
    (BLOCK - usize::try_from(size % BLOCK as u64).unwrap_or(0)) % BLOCK
}

fn named(name: &str, describe: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut bytes = vec![];
    if name.len() >= 100 {
        let mut long = [0; BLOCK];
        long[..13].copy_from_slice(b"././@LongLink");
        finish(&mut long, b'L', 0o644, name.len() as u64 + 1);
        bytes.extend(long);
        bytes.extend(name.as_bytes());
        bytes.resize(bytes.len() + 1 + padding(name.len() as u64 + 1), 0);
    }
    let mut header = [0; BLOCK];
    let short = &name.as_bytes()[..name.len().min(100)];
    header[..short.len()].copy_from_slice(short);
    describe(&mut header);
    bytes.extend(header);
    bytes
}

fn finish(header: &mut [u8; BLOCK], kind: u8, mode: u32, size: u64) {
    header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(&number(size));
    header[136..148].copy_from_slice(&number(0));
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn put_runs(into: &mut [u8], runs: &[Run]) {
    for (place, (offset, length)) in into.chunks_mut(RUN).zip(runs) {
        place[..12].copy_from_slice(&number(*offset));
        place[12..].copy_from_slice(&number(*length));
    }
}

/// Octal up to 8 GiB, binary above.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}
