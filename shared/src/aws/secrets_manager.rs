//! Secrets Manager: the engine's API key.

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;

use super::{AwsError, failed, odd};

/// The call of the core.
#[async_trait]
pub trait SecretsApi: Send + Sync {
    /// A secret's text. It must not be logged.
    async fn secret(&self, name: &str) -> Result<String, AwsError>;
}

/// The real service.
#[derive(Debug, Clone)]
pub struct SecretsManager(Client);

impl SecretsManager {
    /// A client.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self(Client::new(config))
    }
}

#[async_trait]
impl SecretsApi for SecretsManager {
    async fn secret(&self, name: &str) -> Result<String, AwsError> {
        let call = "secretsmanager:GetSecretValue";
        let answer = self.0.get_secret_value().secret_id(name).send().await.map_err(|e| failed(call, &e))?;
        answer.secret_string().map(Into::into).ok_or_else(|| odd(call, "the secret is binary, not a text"))
    }
}
