//! What a key holds, as a digest that is the same on every server.
//!
//! Sets, hashes and sorted sets are listed by each server in an order of its own, so their elements are sorted; every part is
//! preceded by its length, so that no two values have the same form. A key that is large, or of a module's type, has no digest.

use redis::Value;
use sha2::{Digest, Sha256};

use super::client::{Link, bytes, list, number, text};
use crate::engine::EngineError;

/// Larger values are not read only to be compared: asking for one would hold the server up.
const LARGEST: i64 = 1 << 20;

/// What was found under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Gone,
    /// Something that is not compared.
    Unsuitable,
    /// Its digest, and whether it expires.
    Value { digest: String, expires: bool },
}

/// Looks at a key.
pub(super) async fn find(link: &mut Link, key: &[u8]) -> Result<Found, EngineError> {
    let kind = text(link.call(&[b"TYPE".as_slice(), key]).await?);
    if kind == "none" {
        return Ok(Found::Gone);
    }
    let memory = link.call(&[b"MEMORY".as_slice(), b"USAGE", key]).await?;
    if number(&memory).is_none_or(|bytes| bytes > LARGEST) {
        return Ok(if memory == Value::Nil { Found::Gone } else { Found::Unsuitable });
    }
    let Some(parts) = read(link, &kind, key).await? else { return Ok(Found::Unsuitable) };
    let at = number(&link.call(&[b"PEXPIRETIME".as_slice(), key]).await?).unwrap_or(-1);
    // -2 is a key that went away meanwhile.
    Ok(if at == -2 { Found::Gone } else { Found::Value { digest: digest(&kind, &parts, at), expires: at >= 0 } })
}

/// The value's parts, each element in one, in an order that does not depend on the server. `None` for types that are not known.
async fn read(link: &mut Link, kind: &str, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>, EngineError> {
    let (words, width): (Vec<&[u8]>, _) = match kind {
        "string" => return Ok(Some(vec![bytes(link.call(&[b"GET".as_slice(), key]).await?)])),
        "list" => return Ok(Some(all(link.call(&[b"LRANGE".as_slice(), key, b"0", b"-1"]).await?))),
        "stream" => return Ok(Some(all(link.call(&[b"XRANGE".as_slice(), key, b"-", b"+"]).await?))),
        "set" => (vec![b"SMEMBERS", key], 1),
        "hash" => (vec![b"HGETALL", key], 2),
        "zset" => (vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], 2),
        _ => return Ok(None),
    };
    let parts = all(link.call(&words).await?);
    let mut elements: Vec<_> = parts.chunks(width).map(<[Vec<u8>]>::to_vec).collect();
    elements.sort_unstable();
    Ok(Some(elements.into_iter().flatten().collect()))
}

/// Every string of an answer, in its order; a list inside a list (an entry of a stream) is preceded by its length.
fn all(value: Value) -> Vec<Vec<u8>> {
    let mut parts = vec![];
    for value in list(value) {
        match value {
            Value::Array(inner) => {
                parts.push(inner.len().to_string().into_bytes());
                parts.extend(all(Value::Array(inner)));
            }
            other => parts.push(bytes(other)),
        }
    }
    parts
}

fn digest(kind: &str, parts: &[Vec<u8>], expires_at: i64) -> String {
    let mut hash = Sha256::new();
    let head = [kind.as_bytes(), &expires_at.to_be_bytes()];
    for part in head.into_iter().chain(parts.iter().map(Vec::as_slice)) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_values_have_different_digests() {
        let parts = |list: &[&str]| list.iter().map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>();
        let mut digests = vec![
            digest("list", &parts(&["a", "b"]), -1),
            digest("list", &parts(&["ab"]), -1),
            digest("list", &parts(&["a", "b", ""]), -1),
            digest("set", &parts(&["a", "b"]), -1),
            digest("list", &parts(&["a", "b"]), 7),
        ];
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn entries_of_a_stream_keep_their_shape() {
        let text = |t: &str| Value::BulkString(t.into());
        let one = Value::Array(vec![Value::Array(vec![text("1-1"), Value::Array(vec![text("f"), text("v")])])]);
        assert_eq!(all(one), ["2", "1-1", "2", "f", "v"].map(|t| t.as_bytes().to_vec()));
    }
}
