//! The engine's API key, from where the settings say.
//!
//! [`Secret`] has no `Display`, its `Debug` hides the text, and it is never serialised, so that no log line, error,
//! manifest or command line can carry it by accident.

use std::fmt;

use crate::aws::AwsError;
use crate::aws::secrets_manager::SecretsApi;
use crate::settings::SecretSource;

/// A text that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one header it goes into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A secret that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the API key should be in the environment variable {0}, which is not set")]
    NoVariable(String),
    /// The file could not be read.
    #[error("the API key should be in the file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is there, and empty.
    #[error("the API key in {0} is empty")]
    Empty(String),
    /// Secrets Manager said no.
    #[error("the API key should be in the secret {name}: {source}")]
    SecretsManager {
        /// Name or ARN.
        name: String,
        /// What it said.
        source: AwsError,
    },
}

/// Reads the secret.
pub async fn read(source: &SecretSource, manager: &dyn SecretsApi) -> Result<Secret, SecretError> {
    let (text, place) = match source {
        SecretSource::Env(name) => {
            let text = std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?;
            (text, format!("the environment variable {name}"))
        }
        SecretSource::File(path) => {
            let path = path.display().to_string();
            let text = tokio::fs::read_to_string(&path).await;
            (text.map_err(|source| SecretError::File { path: path.clone(), source })?, format!("the file {path}"))
        }
        SecretSource::SecretsManager(name) => {
            let text = manager.secret(name).await;
            let text = text.map_err(|source| SecretError::SecretsManager { name: name.clone(), source })?;
            (text, format!("the secret {name}"))
        }
    };
    let text = text.trim();
    if text.is_empty() { Err(SecretError::Empty(place)) } else { Ok(Secret::new(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::fake::FakeAws;

    #[tokio::test]
    async fn a_secret_comes_from_each_place_and_is_not_shown() {
        let aws = FakeAws::default();
        aws.put_secret("key", "from-manager\n");
        let got = read(&SecretSource::SecretsManager("key".into()), &aws).await.expect("there");
        assert_eq!(got.expose(), "from-manager");
        assert_eq!(format!("{got:?}"), "Secret(hidden)");

        let file = tempfile::NamedTempFile::new().expect("a file");
        let from = SecretSource::File(file.path().into());
        assert!(matches!(read(&from, &aws).await, Err(SecretError::Empty(_))));
        std::fs::write(file.path(), " from-file \n").expect("written");
        assert_eq!(read(&from, &aws).await.expect("there").expose(), "from-file");

        let missing = read(&SecretSource::Env("PERENNIAL_NO_SUCH_VARIABLE".into()), &aws).await.expect_err("unset");
        assert!(missing.to_string().contains("PERENNIAL_NO_SUCH_VARIABLE"));
        let missing = read(&SecretSource::SecretsManager("other".into()), &aws).await.expect_err("absent");
        assert!(missing.to_string().contains("secretsmanager:GetSecretValue"), "{missing}");
    }
}
