//! A key in AWS KMS, which wraps over there and never shows its key.
//!
//! The data key's name is KMS's encryption context, so it stands in `CloudTrail` and can be asked for by a key policy
//! (`kms:EncryptionContext:perennial:key-id`). Unwrapping names the configured key and not the one in the record:
//! whoever can write to the repository cannot make us take a data key that a KMS key of theirs wrapped.
//!
//! An alias that was pointed at another key makes older wrappings [`KeyError::Wrong`]: name the old key's ARN under
//! `encryption.previous`. A disabled key, or one that waits for its deletion, is [`KeyError::Missing`], with KMS's words.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KeyError, KeySource, Wrapped, data_key};
use crate::aws::kms::KmsApi;
use crate::encryption::data_key::{DataKey, KeyId};

/// A KMS key.
#[derive(Debug, Clone)]
pub struct KmsKey<K> {
    key: String,
    kms: K,
}

impl<K> KmsKey<K> {
    /// The key with this id, ARN or alias.
    pub fn new(key: &str, kms: K) -> Self {
        Self { key: key.to_owned(), kms }
    }
}

#[async_trait]
impl<K: KmsApi> KeySource for KmsKey<K> {
    fn describe(&self) -> String {
        format!("the KMS key {}", self.key)
    }

    async fn wrap(&self, key: &DataKey) -> Result<Wrapped, KeyError> {
        let encrypted = self.kms.encrypt(&self.key, key.expose(), key.id().as_str()).await;
        let encrypted = encrypted.map_err(|e| KeyError::of_aws(self.describe(), &e))?;
        Ok(Wrapped::Kms { key_arn: encrypted.key_arn, ciphertext: STANDARD.encode(encrypted.ciphertext) })
    }

    async fn unwrap(&self, wrapped: &Wrapped, id: &KeyId) -> Result<DataKey, KeyError> {
        let Wrapped::Kms { ciphertext, .. } = wrapped else {
            return Err(self.wrong(id, wrapped));
        };
        let tampered = |why: String| KeyError::Tampered { id: id.clone(), why };
        let ciphertext = STANDARD.decode(ciphertext).map_err(|e| tampered(e.to_string()))?;
        match self.kms.decrypt(&self.key, ciphertext, id.as_str()).await {
            Ok(plain) => data_key(id, plain),
            Err(e) if e.code.contains("IncorrectKey") => Err(self.wrong(id, wrapped)),
            Err(e) if e.code.contains("InvalidCiphertext") => Err(tampered(e.to_string())),
            Err(e) => Err(KeyError::of_aws(self.describe(), &e)),
        }
    }
}

impl<K> KmsKey<K> {
    fn wrong(&self, id: &KeyId, wrapped: &Wrapped) -> KeyError {
        KeyError::Wrong {
            id: id.clone(),
            source_name: format!("the KMS key {}", self.key),
            offered: self.key.clone(),
            wrapped_by: wrapped.fingerprint().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsErrorKind;
    use crate::aws::fake::FakeAws;

    #[tokio::test]
    async fn kms_wraps_and_each_refusal_keeps_its_meaning() {
        let aws = FakeAws::default();
        let (old, new) = (aws.add_kms_key("old"), aws.add_kms_key("new"));
        let source = KmsKey::new("old", aws);
        let key = DataKey::generate();
        let wrapped = source.wrap(&key).await.expect("wraps");
        assert_eq!(wrapped.fingerprint(), old);
        assert_eq!(source.unwrap(&wrapped, key.id()).await.expect("opens").expose(), key.expose());
        assert_ne!(source.wrap(&key).await.expect("wraps"), wrapped, "KMS never gives the same twice");

        let error = source.unwrap(&wrapped, DataKey::generate().id()).await.expect_err("another context");
        assert!(matches!(error, KeyError::Tampered { .. }), "{error}");
        let damaged = Wrapped::Kms { key_arn: old.clone(), ciphertext: STANDARD.encode("garbage") };
        let error = source.unwrap(&damaged, key.id()).await.expect_err("garbage");
        assert!(matches!(error, KeyError::Tampered { .. }), "{error}");

        let other = KmsKey::new(&new, source.kms);
        let error = other.unwrap(&wrapped, key.id()).await.expect_err("another key");
        assert!(matches!(&error, KeyError::Wrong { wrapped_by, .. } if *wrapped_by == old), "{error}");
        let source = KmsKey::new("old", other.kms);
        for (kind, call) in [(AwsErrorKind::Denied, "kms:Decrypt"), (AwsErrorKind::Unavailable, "kms:Decrypt")] {
            source.kms.fail_next(call, kind);
            let error = source.unwrap(&wrapped, key.id()).await.expect_err("refused");
            let denied = matches!(error, KeyError::Denied { .. });
            assert_eq!(denied, kind == AwsErrorKind::Denied, "{error}");
            assert!(denied || matches!(error, KeyError::Unavailable { .. }), "{error}");
        }
        source.kms.disable_kms_key("old");
        let error = source.unwrap(&wrapped, key.id()).await.expect_err("disabled");
        assert!(matches!(error, KeyError::Missing { .. }) && error.to_string().contains("disabled"), "{error}");
        let error = KmsKey::new("absent", source.kms).wrap(&key).await.expect_err("absent");
        assert!(matches!(error, KeyError::Missing { .. }), "{error}");
    }
}
