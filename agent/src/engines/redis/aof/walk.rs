//! Steps through commands in a file, and tells where it can be cut: behind a whole command that is in no transaction.
//!
//! A file that is still written to ends anywhere. What stands behind the cut was not acknowledged: the server writes a command, and a
//! whole transaction, before it answers. Bytes that are no command are damage, not an end.

use std::io::{self, BufRead, Read};

/// How far a file is made of whole commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Walked {
    /// Bytes up to the last place where it can be cut.
    pub(in super::super) whole: u64,
    /// Whole commands up to there.
    pub(in super::super) commands: u64,
}

/// No number is longer than this in words of the protocol.
const LONGEST_LINE: u64 = 32;
/// No argument is longer than this; a length that says so was not written by the server.
const LONGEST_ARGUMENT: u64 = 4 << 30;
/// The names of commands that open and close a transaction are no longer.
const LONGEST_NAME: u64 = 8;

/// Why a command could not be read.
enum Stop {
    End,
    Bad(String),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::End } else { Self::Io(error) }
    }
}

/// Steps through all of `file`. What is no command is an error of the kind `InvalidData`.
pub(in super::super) fn walk(file: &mut impl BufRead) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let (mut at, mut in_transaction, mut pending) = (0, false, 0);
    loop {
        let (length, name) = match command(file) {
            Ok(command) => command,
            Err(Stop::End) => return Ok(walked),
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Bad(why)) => {
                let why = format!("behind byte {at} stands no command: {why}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        };
        at += length;
        pending += u64::from(!name.is_empty());
        match name.as_slice() {
            b"MULTI" => in_transaction = true,
            b"EXEC" => in_transaction = false,
            _ => {}
        }
        if !in_transaction {
            walked = Walked { whole: at, commands: walked.commands + pending };
            pending = 0;
        }
    }
}

/// One command: its length and its name in capital letters, cut short where it is long. A remark has no name.
fn command(file: &mut impl BufRead) -> Result<(u64, Vec<u8>), Stop> {
    let mut first = [0];
    file.read_exact(&mut first)?;
    if !matches!(first[0], b'#' | b'*') {
        return Err(Stop::Bad(format!("the byte {:#04x}", first[0])));
    }
    let (head, mut length) = line(file)?;
    length += 1;
    if first[0] == b'#' {
        return Ok((length, vec![]));
    }
    let mut name = vec![];
    for part in 0..count(&head)? {
        let mut mark = [0];
        file.read_exact(&mut mark)?;
        if mark != *b"$" {
            return Err(Stop::Bad(format!("the byte {:#04x} where an argument should begin", mark[0])));
        }
        let (head, digits) = line(file)?;
        let size = count(&head)?;
        if size > LONGEST_ARGUMENT {
            return Err(Stop::Bad(format!("an argument of {size} bytes")));
        }
        if part == 0 && size <= LONGEST_NAME {
            name = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_exact(&mut name)?;
            name.make_ascii_uppercase();
        } else {
            skip(file, size)?;
            if part == 0 {
                name = b"other".to_vec();
            }
        }
        let mut end = [0; 2];
        file.read_exact(&mut end)?;
        if end != *b"\r\n" {
            return Err(Stop::Bad("an argument that is longer than it says".into()));
        }
        length += 1 + digits + size + 2;
    }
    if name.is_empty() { Err(Stop::Bad("a command without a name".into())) } else { Ok((length, name)) }
}

/// A line without its end, and its length with it.
fn line(file: &mut impl BufRead) -> Result<(Vec<u8>, u64), Stop> {
    let mut text = vec![];
    file.take(LONGEST_LINE).read_until(b'\n', &mut text)?;
    let length = text.len() as u64;
    if text.ends_with(b"\r\n") {
        text.truncate(text.len() - 2);
        Ok((text, length))
    } else if length < LONGEST_LINE && !text.ends_with(b"\n") {
        Err(Stop::End)
    } else {
        Err(Stop::Bad("a line that does not end".into()))
    }
}

fn count(digits: &[u8]) -> Result<u64, Stop> {
    let number = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
    number.ok_or_else(|| Stop::Bad(format!("{:?} is no number", String::from_utf8_lossy(digits))))
}

fn skip(file: &mut impl BufRead, count: u64) -> Result<(), Stop> {
    let skipped = io::copy(&mut file.take(count), &mut io::sink())?;
    if skipped == count { Ok(()) } else { Err(Stop::End) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        bytes
    }

    fn whole(bytes: &[u8]) -> Walked {
        walk(&mut io::Cursor::new(bytes)).expect("commands")
    }

    #[test]
    fn a_file_that_ends_anywhere_is_cut_behind_a_whole_command_in_no_transaction() {
        let parts = [
            command(&["SELECT", "0"]),
            b"#TS:1700000000\r\n".to_vec(),
            command(&["SET", "key", "a value\r\n*1\r\n that looks like a command"]),
            [command(&["multi"]), command(&["INCR", "n"]), command(&["EXEC"])].concat(),
            command(&["RESTORE-ASKING", "k"]),
        ];
        let file = parts.concat();
        let mut ends = vec![0];
        ends.extend(parts.iter().scan(0, |at, p| {
            *at += p.len();
            Some(*at)
        }));
        for cut in 0..=file.len() {
            let expected = ends.iter().rev().find(|e| **e <= cut).copied().expect("0 is one");
            assert_eq!(whole(&file[..cut]).whole, expected as u64, "cut at {cut}");
        }
        assert_eq!(whole(&file).commands, 6);
    }

    #[test]
    fn what_is_no_command_is_damage() {
        let good = command(&["SET", "a", "1"]);
        for bad in ["\0\0\0\0", "garbage", "*x\r\n", "*1\r\n#3\r\nabc\r\n", "*1\r\n$2\r\nabc\r\n", "*0\r\n", "\n"] {
            let bytes = [good.as_slice(), bad.as_bytes()].concat();
            let error = walk(&mut io::Cursor::new(&bytes)).expect_err(bad);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
    }
}
