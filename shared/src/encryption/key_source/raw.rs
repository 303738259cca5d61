//! Sources that yield 32 bytes: the wrapping is done here, by AES-256-GCM, bound to the data key's name.
//!
//! The key is read anew for every wrapping and unwrapping and wiped afterwards. The same data key wrapped again by the same
//! key gives the same bytes, so a wrapping whose reply got lost is simply made again.

use async_trait::async_trait;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::{KeyError, KeySource, Wrapped, data_key};
use crate::encryption::data_key::{DataKey, KeyId};
use crate::encryption::sealer::{KEY_LEN, OVERHEAD, Sealer};

/// What the check value is derived for; it must never change.
const CHECK_CONTEXT: &str = "perennial 2026-11 wrapping key: check value";

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// Both alphabets, with padding or without: people paste what their tool printed.
const BASE64: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&alphabet::STANDARD, LENIENT), GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT)];

/// A place that holds a key as a text.
#[async_trait]
pub trait KeyText: Send + Sync {
    /// Which place this is. No secret.
    fn describe(&self) -> String;

    /// The text: 32 bytes in hexadecimal or base64. It must not be logged.
    async fn text(&self) -> Result<Zeroizing<String>, KeyError>;
}

/// Wraps with the key that a place holds.
#[derive(Debug, Clone)]
pub struct Raw<T>(pub T);

struct WrappingKey {
    check: String,
    sealer: Sealer,
}

impl<T: KeyText> Raw<T> {
    async fn key(&self) -> Result<WrappingKey, KeyError> {
        let text = self.0.text().await?;
        let bytes = decode(text.trim()).map_err(|why| KeyError::Missing { source_name: self.0.describe(), why })?;
        let derived = Zeroizing::new(blake3::derive_key(CHECK_CONTEXT, bytes.as_slice()));
        Ok(WrappingKey { check: hex::encode(&derived[..8]), sealer: Sealer::new(bytes) })
    }
}

#[async_trait]
impl<T: KeyText> KeySource for Raw<T> {
    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn wrap(&self, key: &DataKey) -> Result<Wrapped, KeyError> {
        let WrappingKey { check, sealer } = self.key().await?;
        // Room for the nonce and the tag, so that no copy of the key is left behind by a growing vector.
        let mut plain = Vec::with_capacity(KEY_LEN + OVERHEAD);
        plain.extend_from_slice(key.expose());
        let sealed = sealer.seal(&place(key.id()), plain);
        let sealed = sealed.map_err(|e| KeyError::Tampered { id: key.id().clone(), why: e.to_string() })?;
        Ok(Wrapped::Raw { check, sealed: STANDARD.encode(sealed) })
    }

    async fn unwrap(&self, wrapped: &Wrapped, id: &KeyId) -> Result<DataKey, KeyError> {
        let WrappingKey { check: offered, sealer } = self.key().await?;
        let Wrapped::Raw { check, sealed } = wrapped else {
            return Err(self.wrong(id, offered, wrapped));
        };
        if *check != offered {
            return Err(self.wrong(id, offered, wrapped));
        }
        let tampered = |why: String| KeyError::Tampered { id: id.clone(), why };
        let sealed = STANDARD.decode(sealed).map_err(|e| tampered(e.to_string()))?;
        let plain = sealer.open(&place(id), sealed).map_err(|_| tampered("the right key does not open it".into()))?;
        data_key(id, plain)
    }
}

impl<T: KeyText> Raw<T> {
    fn wrong(&self, id: &KeyId, offered: String, wrapped: &Wrapped) -> KeyError {
        let wrapped_by = wrapped.fingerprint().to_owned();
        KeyError::Wrong { id: id.clone(), source_name: self.0.describe(), offered, wrapped_by }
    }
}

fn place(id: &KeyId) -> Vec<u8> {
    format!("perennial data key {id}").into_bytes()
}

/// 32 bytes out of 64 hexadecimal digits or base64.
fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, String> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    if text.len() == 2 * KEY_LEN && hex::decode_to_slice(text, bytes.as_mut_slice()).is_ok() {
        return Ok(bytes);
    }
    if text.is_empty() {
        return Err("it is empty".into());
    }
    // A little more room than a key needs: the decoder wants whole groups.
    let mut room = Zeroizing::new([0; KEY_LEN + 4]);
    let decoded = BASE64.iter().find_map(|base64| base64.decode_slice(text, room.as_mut_slice()).ok());
    if decoded == Some(KEY_LEN) {
        bytes.copy_from_slice(&room[..KEY_LEN]);
        return Ok(bytes);
    }
    Err(format!(
        "its {} characters are not a key of 32 bytes in base64 or hexadecimal, as `openssl rand -base64 32` prints one",
        text.chars().count()
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key by its byte, or none.
    #[derive(Debug, Clone)]
    pub(crate) struct Fixed(pub(crate) Result<u8, KeyError>);

    impl Fixed {
        pub(crate) fn source(byte: u8) -> Raw<Self> {
            Raw(Self(Ok(byte)))
        }
    }

    #[async_trait]
    impl KeyText for Fixed {
        fn describe(&self) -> String {
            self.0.as_ref().map_or("no key".into(), |byte| format!("key {byte}"))
        }

        async fn text(&self) -> Result<Zeroizing<String>, KeyError> {
            self.0.clone().map(|byte| Zeroizing::new(STANDARD.encode([byte; KEY_LEN])))
        }
    }

    #[test]
    fn a_key_is_read_as_people_write_it() {
        let bytes: [u8; KEY_LEN] = std::array::from_fn(|i| u8::try_from(i * 8 + 7).expect("small"));
        let base64 = STANDARD.encode(bytes);
        let url_safe = base64.replace('+', "-").replace('/', "_");
        for text in [&hex::encode(bytes), &hex::encode_upper(bytes), &base64, base64.trim_end_matches('='), &url_safe] {
            assert_eq!(decode(text).expect(text).as_slice(), bytes, "{text}");
        }
        for text in ["", "secret", &base64[..40], &format!("{base64}AAAA"), &hex::encode(&bytes[..31])] {
            let why = decode(text).expect_err(text);
            assert!(text.is_empty() || !why.contains(text), "{why}");
        }
    }

    #[tokio::test]
    async fn wrong_tampered_and_misplaced_are_told_apart() {
        let (key, source) = (DataKey::generate(), Fixed::source(1));
        let wrapped = source.wrap(&key).await.expect("wraps");
        assert_eq!(source.wrap(&key).await.expect("wraps"), wrapped, "again the same");
        assert_eq!(source.unwrap(&wrapped, key.id()).await.expect("opens").expose(), key.expose());

        let wrong = Fixed::source(2).unwrap(&wrapped, key.id()).await.expect_err("another key");
        assert!(matches!(&wrong, KeyError::Wrong { wrapped_by, .. } if wrapped_by == wrapped.fingerprint()), "{wrong}");
        let other = source.unwrap(&wrapped, DataKey::generate().id()).await.expect_err("another name");
        assert!(matches!(other, KeyError::Tampered { .. }), "{other}");

        let Wrapped::Raw { check, sealed } = wrapped else { panic!("wrapped here") };
        for sealed in [sealed.replacen(|_| true, "!", 1), String::new(), STANDARD.encode([0; 60])] {
            let damaged = Wrapped::Raw { check: check.clone(), sealed };
            let error = source.unwrap(&damaged, key.id()).await.expect_err("damaged");
            assert!(matches!(error, KeyError::Tampered { .. }), "{error}");
        }
        let by_kms = Wrapped::Kms { key_arn: "arn:aws:kms:…".into(), ciphertext: String::new() };
        let error = source.unwrap(&by_kms, key.id()).await.expect_err("KMS's");
        assert!(matches!(error, KeyError::Wrong { .. }) && error.to_string().contains("arn:aws:kms"), "{error}");
    }

    /// What is stored must open in every later version.
    #[tokio::test]
    async fn a_stored_wrapping_still_opens() {
        let id: KeyId = "k-000000000000000000000001".parse().expect("an id");
        let sealed = "A4Iw8iTVhF04TPpa2AyT8VLmmDCMQkv6cjXKkC/vZyu+4TrtloN/7oqDrtJVHNdaRsJf2szT6QfW9IFX";
        let wrapped = Wrapped::Raw { check: "189daecb12cef743".into(), sealed: sealed.into() };
        let key = Fixed::source(1).unwrap(&wrapped, &id).await.expect("opens");
        assert_eq!(key.expose(), &[9; KEY_LEN]);
    }
}
