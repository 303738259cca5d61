//! KMS: wraps the keys of encrypted backups.

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region};
use aws_sdk_kms::primitives::Blob;

use super::{AwsError, failed, odd};

/// The name of the encryption context that binds a ciphertext to a data key.
const CONTEXT: &str = "perennial:key-id";

/// The calls of the core. `context` is the value of `perennial:key-id`.
#[async_trait]
pub trait KmsApi: Send + Sync {
    /// Encrypts at most 4096 bytes.
    async fn encrypt(&self, key: &str, plain: &[u8], context: &str) -> Result<Encrypted, AwsError>;
    /// Decrypts what this very key encrypted in this very context.
    async fn decrypt(&self, key: &str, ciphertext: Vec<u8>, context: &str) -> Result<Vec<u8>, AwsError>;
}

/// What KMS made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The key behind the id or alias that was asked for.
    pub key_arn: String,
    /// Opaque, and another one each time.
    pub ciphertext: Vec<u8>,
}

/// The real service.
#[derive(Debug, Clone)]
pub struct Kms(Client);

impl Kms {
    /// A client in the region of the key, which an ARN names; an id or alias is in the caller's region.
    pub fn of_key(config: &aws_config::SdkConfig, key: &str) -> Self {
        let mut builder = Builder::from(config);
        if let Some(region) = region(key) {
            builder = builder.region(Region::new(region.to_owned()));
        }
        Self(Client::from_conf(builder.build()))
    }
}

/// The region in an ARN.
fn region(key: &str) -> Option<&str> {
    key.starts_with("arn:").then(|| key.split(':').nth(3)).flatten().filter(|region| !region.is_empty())
}

#[async_trait]
impl KmsApi for Kms {
    async fn encrypt(&self, key: &str, plain: &[u8], context: &str) -> Result<Encrypted, AwsError> {
        let call = "kms:Encrypt";
        let sent = self.0.encrypt().key_id(key).plaintext(Blob::new(plain)).encryption_context(CONTEXT, context);
        let answer = sent.send().await.map_err(|e| failed(call, &e))?;
        let ciphertext = answer.ciphertext_blob().map(|blob| blob.as_ref().to_vec());
        let key_arn = answer.key_id().map(Into::into);
        let encrypted = ciphertext.zip(key_arn).map(|(ciphertext, key_arn)| Encrypted { key_arn, ciphertext });
        encrypted.ok_or_else(|| odd(call, "no ciphertext or no key"))
    }

    async fn decrypt(&self, key: &str, ciphertext: Vec<u8>, context: &str) -> Result<Vec<u8>, AwsError> {
        let call = "kms:Decrypt";
        let sent =
            self.0.decrypt().key_id(key).ciphertext_blob(Blob::new(ciphertext)).encryption_context(CONTEXT, context);
        let answer = sent.send().await.map_err(|e| failed(call, &e))?;
        answer.plaintext.map(Blob::into_inner).ok_or_else(|| odd(call, "no plain text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region() {
        assert_eq!(region("arn:aws:kms:eu-west-1:111122223333:key/1234abcd"), Some("eu-west-1"));
        assert_eq!(region("arn:aws:kms::111122223333:alias/backups"), None);
        assert_eq!(region("alias/backups"), None);
    }
}
