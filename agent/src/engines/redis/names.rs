//! Names of keys as text: a key may be any bytes, and a manifest is read by people.
//!
//! Printable ASCII stays as it is; every other byte, and `%`, is written as `%` and two hexadecimal digits.

/// A key's name as text.
pub(super) fn to_text(key: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(key.len());
    for byte in key {
        if byte.is_ascii_graphic() && *byte != b'%' {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

/// The key that [`to_text`] was given; `None` for what it never writes.
pub(super) fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut key = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            key.extend(hex::decode(digits).ok()?);
            rest = after;
        } else {
            key.push(*first);
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [b"user:1000".as_slice(), b"", b"100%", b"a b\r\n\0", "schl\u{fc}ssel".as_bytes(), &all] {
            let text = to_text(key);
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
            assert_eq!(from_text(&text).as_deref(), Some(key), "{text}");
        }
        assert_eq!(to_text(b"user:1 %"), "user:1%20%25");
        assert_eq!((from_text("%2"), from_text("%zz")), (None, None));
    }
}
