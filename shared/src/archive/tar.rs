//! Headers of the tar file that a base backup decompresses to.
//!
//! POSIX.1-2001 (pax) interchange format: a record for whatever the old header has no room for (long and non-UTF-8 names, sizes of
//! 8 GiB and more, nanoseconds), and GNU's sparse format 1.0 for files with holes. GNU tar, bsdtar and Python read it.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_05>,
//! <https://www.gnu.org/software/tar/manual/html_node/PAX-1.html>

use std::fmt::Write;

use super::entry::{Entry, Kind, Time};

/// Everything in a tar file is padded to this.
pub const BLOCK: usize = 512;
/// Ends a tar file.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What stands before an entry's content.
///
/// `data` are the stretches of a file that are stored, as (offset, length); one that covers all of it is the usual case. The
/// content that must follow is exactly these stretches, padded with [`padding`] of the sum of their lengths.
pub fn header(entry: &Entry, size: u64, data: &[(u64, u64)]) -> Vec<u8> {
    let stored: u64 = data.iter().map(|(_, length)| length).sum();
    let sparse = matches!(entry.kind, Kind::File(_)) && stored != size;
    let map = if sparse { sparse_map(size, data) } else { vec![] };
    let name = name_of(entry);

    let mut records = vec![];
    if sparse {
        record(&mut records, "GNU.sparse.major", b"1");
        record(&mut records, "GNU.sparse.minor", b"0");
        record(&mut records, "GNU.sparse.name", &name);
        record(&mut records, "GNU.sparse.realsize", size.to_string().as_bytes());
    }
    let link: &[u8] = if let Kind::Link(to) = &entry.kind { to } else { b"" };
    let body = if matches!(entry.kind, Kind::File(_)) { stored + map.len() as u64 } else { 0 };
    pax_records(&mut records, entry, &name, link, body);

    let mut out = vec![];
    if !records.is_empty() {
        out.extend(block(&Fields {
            name: b"PaxHeaders/x",
            mode: 0o644,
            size: records.len() as u64,
            kind: b'x',
            ..Fields::default()
        }));
        pad(&mut out, &records);
    }
    let kind = match entry.kind {
        Kind::Folder => b'5',
        Kind::Link(_) => b'2',
        Kind::File(_) => b'0',
    };
    out.extend(block(&Fields {
        name: &name,
        link,
        mode: entry.mode,
        uid: u64::from(entry.uid),
        gid: u64::from(entry.gid),
        size: body,
        mtime: u64::try_from(entry.mtime.seconds).unwrap_or(0),
        kind,
    }));
    out.extend(map);
    out
}

/// Zeros that follow content of `length` bytes.
pub fn padding(length: u64) -> usize {
    let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// The archived folder is `./`; a name with a slash at its end is a folder to old programs too.
fn name_of(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    if entry.kind == Kind::Folder {
        if name.is_empty() {
            name.push(b'.');
        }
        name.push(b'/');
    }
    name
}

fn pax_records(records: &mut Vec<u8>, entry: &Entry, name: &[u8], link: &[u8], body: u64) {
    let plain = |text: &[u8]| text.len() <= 100 && text.is_ascii();
    if !plain(name) {
        record(records, "path", name);
    }
    if !plain(link) {
        record(records, "linkpath", link);
    }
    if body > 0o777_7777_7777 {
        record(records, "size", body.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > 0o777_7777 {
            record(records, key, id.to_string().as_bytes());
        }
    }
    if entry.mtime.nanos != 0 || !(0..=0o777_7777_7777).contains(&entry.mtime.seconds) {
        record(records, "mtime", decimal(entry.mtime).as_bytes());
    }
}

/// `-1.5` is half a second before -1, but stored as -2 s and 500,000,000 ns.
fn decimal(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds, time.nanos) {
        (seconds, 0) => return seconds.to_string(),
        (seconds, nanos) if seconds < 0 => ("-", -(seconds + 1), 1_000_000_000 - nanos),
        (seconds, nanos) => ("", seconds, nanos),
    };
    let mut text = format!("{sign}{seconds}.{nanos:09}");
    text.truncate(text.trim_end_matches('0').len());
    text
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}=").into_bytes());
    out.extend(value);
    out.push(b'\n');
}

/// GNU's sparse map: the number of stretches, then offset and length of each, a line each, padded. A file that ends with a hole ends
/// with an empty stretch.
fn sparse_map(size: u64, data: &[(u64, u64)]) -> Vec<u8> {
    let ends = data.last().is_some_and(|(offset, length)| offset + length == size);
    let end = if ends { None } else { Some(&(size, 0)) };
    let mut text = format!("{}\n", data.len() + usize::from(!ends));
    for (offset, length) in data.iter().chain(end) {
        let _ = write!(text, "{offset}\n{length}\n");
    }
    let mut out = vec![];
    pad(&mut out, text.as_bytes());
    out
}

fn pad(out: &mut Vec<u8>, content: &[u8]) {
    out.extend(content);
    out.resize(out.len() + padding(content.len() as u64), 0);
}

#[derive(Default)]
struct Fields<'a> {
    name: &'a [u8],
    link: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    kind: u8,
}

/// A ustar header. What does not fit is cut: a pax record says it in full.
fn block(fields: &Fields<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let text = |block: &mut [u8; BLOCK], at: usize, room: usize, text: &[u8]| {
        let length = text.len().min(room);
        block[at..at + length].copy_from_slice(&text[..length]);
    };
    let number = |block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64| {
        let most = (1_u64 << (3 * digits)) - 1;
        let octal = format!("{:0digits$o}\0", if value > most { 0 } else { value });
        block[at..=at + digits].copy_from_slice(octal.as_bytes());
    };
    text(&mut block, 0, 100, fields.name);
    number(&mut block, 100, 7, u64::from(fields.mode));
    number(&mut block, 108, 7, fields.uid);
    number(&mut block, 116, 7, fields.gid);
    number(&mut block, 124, 11, fields.size);
    number(&mut block, 136, 11, fields.mtime);
    block[156] = fields.kind;
    text(&mut block, 157, 100, fields.link);
    text(&mut block, 257, 8, b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::super::path::RelPath;
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value in [1, 86, 87, 88, 89, 980, 990] {
            let mut out = vec![];
            record(&mut out, "path", &vec![b'x'; value]);
            let said: usize = std::str::from_utf8(&out)
                .expect("text")
                .split(' ')
                .next()
                .expect("a number")
                .parse()
                .expect("a number");
            assert_eq!(said, out.len());
        }
    }

    #[test]
    fn times_before_1970_and_nanoseconds_are_decimals() {
        let time = |seconds, nanos| decimal(Time { seconds, nanos });
        assert_eq!(time(5, 0), "5");
        assert_eq!(time(5, 120_000_000), "5.12");
        assert_eq!(time(-2, 500_000_000), "-1.5");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
    }

    #[test]
    fn a_header_is_whole_blocks() {
        let path = RelPath::checked("a/".repeat(80).trim_end_matches('/').as_bytes()).expect("good");
        let mtime = Time { seconds: 1, nanos: 5 };
        let entry = Entry { path, mode: 0o755, uid: 0, gid: 3_000_000, mtime, kind: Kind::Folder };
        let header = header(&entry, 0, &[]);
        assert_eq!(header.len() % BLOCK, 0);
        assert_eq!(&header[257..262], b"ustar");
    }
}
