//! Which keys a store takes: those that mean the same object in S3 and in a folder, and that cannot leave either.

use super::StoreError;

/// S3's limit for a whole key, in bytes.
const LONGEST: usize = 1024;

/// Refuses a key that is empty, absolute, climbs out (`..`), or would not be one object everywhere.
pub fn check_key(key: &str, location: &str) -> Result<(), StoreError> {
    fault(key).map_or(Ok(()), |why| Err(StoreError::invalid(key, location, why)))
}

/// Refuses a prefix under which no good key could start. A prefix may be empty and may end anywhere in a key.
pub fn check_prefix(prefix: &str, location: &str) -> Result<(), StoreError> {
    // What completes any good beginning to a good key also shows a bad one.
    let probe = format!("{prefix}x");
    fault(&probe).map_or(Ok(()), |why| Err(StoreError::invalid(prefix, location, why)))
}

fn fault(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("the key is empty");
    }
    if key.len() > LONGEST {
        return Some("the key is longer than 1024 bytes");
    }
    if key.contains('\\') {
        return Some("the key has a backslash");
    }
    if key.chars().any(char::is_control) {
        return Some("the key has a control character");
    }
    key.split('/').find_map(|part| match part {
        "" => Some("the key starts or ends with a slash or has two in a row"),
        "." | ".." => Some("the key has a part that is . or .."),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_keys_and_prefixes_pass() {
        for key in ["a", "a/b.json", ".hidden/..x", "with space+%?#&='\"*:~/ü/日本"] {
            check_key(key, "here").expect(key);
        }
        for prefix in ["", "a", "a/", "a/b", "a/.", "a/.."] {
            check_prefix(prefix, "here").expect(prefix);
        }
    }

    #[test]
    fn bad_keys_and_prefixes_are_refused() {
        let long = "x".repeat(LONGEST + 1);
        for key in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\\b", "a\0", "a\nb", long.as_str()] {
            assert!(matches!(check_key(key, "here"), Err(StoreError::Invalid { .. })), "{key:?}");
        }
        for prefix in ["/", "a//", "../", "a/../b", "a\\", "a\0"] {
            assert!(matches!(check_prefix(prefix, "here"), Err(StoreError::Invalid { .. })), "{prefix:?}");
        }
    }
}
