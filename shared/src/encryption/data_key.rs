//! The key that encrypts one chain of backups (a base and its increments), and its name.
//!
//! How it encrypts, and within which bounds, is said in [`super::sealer`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::sealer::{KEY_LEN, Sealer, Tampered, TooLong};
use crate::id::BadName;

/// The key that encrypts one chain of backups (a base and its increments). Random, 256 bits; stored only wrapped.
#[derive(Clone)]
pub struct DataKey {
    id: KeyId,
    sealer: Sealer,
}

/// `k-<96 random bits in hexadecimal>`: names a data key in manifests and its wrappings in the repository,
/// `keys/<key-id>/…`. It says nothing about the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl DataKey {
    /// A new key with a new name, from the system's random numbers.
    pub fn generate() -> Self {
        let id = KeyId(format!("k-{}", hex::encode(rand::random::<[u8; 12]>())));
        Self::of(id, Zeroizing::new(rand::random()))
    }

    /// The key that was wrapped under this name.
    pub(crate) fn of(id: KeyId, bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self { id, sealer: Sealer::new(bytes) }
    }

    /// The key itself, to be wrapped.
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        self.sealer.expose()
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Encrypts a frame for its place (which archive, which offset): nonce, ciphertext, tag. The same frame for the same
    /// place gives the same bytes.
    ///
    /// It is done in place: with [`super::OVERHEAD`] bytes of spare capacity in `plain`, nothing is allocated.
    pub fn seal(&self, place: &[u8], plain: Vec<u8>) -> Result<Vec<u8>, TooLong> {
        self.sealer.seal(place, plain)
    }

    /// Decrypts, in place, what [`DataKey::seal`] made for this very place.
    pub fn open(&self, place: &[u8], sealed: Vec<u8>) -> Result<Vec<u8>, Tampered> {
        self.sealer.open(place, sealed)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, hidden)", self.id)
    }
}

impl KeyId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let digits = text.strip_prefix("k-").unwrap_or_default();
        let fits = digits.len() == 24 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let bad = || BadName { kind: "key id", text: text.into(), example: "k-7f3a9c0d51e2b846aa907c3d" };
        if fits { Ok(Self(text.into())) } else { Err(bad()) }
    }
}

impl TryFrom<String> for KeyId {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_random_named_and_not_shown() {
        let (one, two) = (DataKey::generate(), DataKey::generate());
        assert_ne!(one.id(), two.id());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.id().as_str().parse::<KeyId>().as_ref(), Ok(one.id()));
        assert_eq!(format!("{one:?}"), format!("DataKey({}, hidden)", one.id()));
        for text in ["", "k-", "k-7F3a9c0d51e2b846aa907c3d", "7f3a9c0d51e2b846aa907c3d", "k-../../../../../../../../x"]
        {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }
}
