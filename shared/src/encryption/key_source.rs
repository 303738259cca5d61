//! Where the key comes from that wraps data keys (the key-encrypting key), and what can go wrong with it.
//!
//! Two kinds of source. Most yield 32 bytes, with which [`raw`] wraps here: an environment variable, a secret, Vault, a command.
//! [`kms`] never shows its key and wraps over there. Each file owns one source and says how it fails.
//!
//! What a caller has to tell apart is [`KeyError`]: a wrong key, no key, a denied key and a damaged record need
//! different people to do different things, and none of them is "there is no backup".

pub mod command;
pub mod environment;
pub mod kms;
pub mod raw;
pub mod secrets_manager;
pub mod vault;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::command::Command;
use self::environment::Environment;
use self::kms::KmsKey;
use self::raw::Raw;
use self::secrets_manager::ManagedSecret;
use self::vault::Vault;
use super::data_key::{DataKey, KeyId};
use super::sealer::KEY_LEN;
use crate::aws::kms::Kms;
use crate::aws::secrets_manager::SecretsManager;
use crate::aws::{AwsError, AwsErrorKind};
use crate::settings::{EncryptionSettings, KeySettings};

/// Something that wraps data keys.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// Which source this is, such as `the environment variable BACKUP_KEY`. No secret.
    fn describe(&self) -> String;

    /// Wraps a data key.
    async fn wrap(&self, key: &DataKey) -> Result<Wrapped, KeyError>;

    /// The data key called `id`, out of what [`KeySource::wrap`] made of it.
    async fn unwrap(&self, wrapped: &Wrapped, id: &KeyId) -> Result<DataKey, KeyError>;
}

/// A wrapped data key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Wrapped {
    /// By 32 bytes that the source yields: AES-256-GCM.
    Raw {
        /// Eight bytes derived from the wrapping key, in hexadecimal: tells a wrong key from damage.
        check: String,
        /// Nonce, ciphertext and tag, in base64.
        sealed: String,
    },
    /// By AWS KMS, with the encryption context `perennial:key-id`.
    Kms {
        /// The key that KMS used.
        key_arn: String,
        /// KMS's ciphertext, in base64.
        ciphertext: String,
    },
}

impl Wrapped {
    /// Which key wrapped this. No secret.
    pub fn fingerprint(&self) -> &str {
        match self {
            Self::Raw { check, .. } => check,
            Self::Kms { key_arn, .. } => key_arn,
        }
    }
}

/// Why a data key could not be wrapped or unwrapped. Each variant is a different thing to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The source has a key, and another one wrapped this.
    #[error(
        "{id} was wrapped by another key ({wrapped_by}) than the one of {source_name} ({offered}): give the key it was \
         wrapped by, under encryption.key or encryption.previous"
    )]
    Wrong {
        /// The data key.
        id: KeyId,
        /// The source that was asked.
        source_name: String,
        /// Fingerprint of the source's key.
        offered: String,
        /// Fingerprint of the key that is needed.
        wrapped_by: String,
    },
    /// The source was reached and has no key that could be used.
    #[error("{source_name} has no usable key: {why}")]
    Missing {
        /// The source.
        source_name: String,
        /// What it lacks and what to do.
        why: String,
    },
    /// The source refused.
    #[error("{source_name} denied its key: {why}")]
    Denied {
        /// The source.
        source_name: String,
        /// What it said and what to do.
        why: String,
    },
    /// The right key does not open the record.
    #[error(
        "the wrapping of {id} is damaged or was tampered with ({why}): older wrappings, or a copy of keys/{id}/ from an \
         older version of the bucket, still open what it protects"
    )]
    Tampered {
        /// The data key.
        id: KeyId,
        /// What was found.
        why: String,
    },
    /// A newer version of Perennial wrote the record.
    #[error("the wrapping of {id} has format {format}: a newer version of Perennial wrote it; update this one")]
    Newer {
        /// The data key.
        id: KeyId,
        /// The record's format.
        format: u32,
    },
    /// The source did not answer; it may later.
    #[error("{source_name} did not give its key: {why}; try again later")]
    Unavailable {
        /// The source.
        source_name: String,
        /// What happened.
        why: String,
    },
}

impl KeyError {
    /// Whether the source has no key at all just now, so that asking it for the next record is of no use. A denial may be for one
    /// data key only: KMS's policies know their names.
    pub(crate) fn is_for_every_record(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Unavailable { .. })
    }

    /// What an AWS service said of a source's key.
    pub(crate) fn of_aws(source_name: String, error: &AwsError) -> Self {
        let why = error.to_string();
        match error.kind {
            AwsErrorKind::Denied => Self::Denied { source_name, why },
            AwsErrorKind::Unavailable => Self::Unavailable { source_name, why },
            AwsErrorKind::NotFound | AwsErrorKind::Refused => Self::Missing { source_name, why },
        }
    }
}

/// The bytes of a data key that was unwrapped.
fn data_key(id: &KeyId, plain: Vec<u8>) -> Result<DataKey, KeyError> {
    let plain = Zeroizing::new(plain);
    let bytes: [u8; KEY_LEN] = plain.as_slice().try_into().map_err(|_| KeyError::Tampered {
        id: id.clone(),
        why: format!("it holds {} bytes instead of {KEY_LEN}", plain.len()),
    })?;
    Ok(DataKey::of(id.clone(), Zeroizing::new(bytes)))
}

/// The sources of one target.
pub struct KeySources {
    /// Wraps what is new, and is asked first.
    pub current: Box<dyn KeySource>,
    /// Asked for what `current` does not open.
    pub previous: Vec<Box<dyn KeySource>>,
}

impl KeySources {
    /// The sources that the settings name. None is asked yet.
    pub fn new(settings: &EncryptionSettings, aws: &aws_config::SdkConfig) -> Result<Self, KeyError> {
        Ok(Self {
            current: of_settings(&settings.key, aws)?,
            previous: settings.previous.iter().map(|key| of_settings(key, aws)).collect::<Result<_, _>>()?,
        })
    }

    /// All of them, in the order in which they are asked.
    pub fn all(&self) -> Vec<&dyn KeySource> {
        std::iter::once(&self.current).chain(&self.previous).map(|source| &**source).collect()
    }
}

fn of_settings(settings: &KeySettings, aws: &aws_config::SdkConfig) -> Result<Box<dyn KeySource>, KeyError> {
    Ok(match settings {
        KeySettings::Env(name) => Box::new(Raw(Environment::new(name))),
        KeySettings::Kms(key) => Box::new(KmsKey::new(key, Kms::of_key(aws, key))),
        KeySettings::Secret(name) => Box::new(Raw(ManagedSecret::new(name, SecretsManager::new(aws)))),
        KeySettings::Vault(vault) => Box::new(Raw(Vault::new(vault.clone())?)),
        KeySettings::Command(words) => Box::new(Raw(Command::new(words.clone()))),
    })
}
