//! A key in Secrets Manager: the secret's string is the key.
//!
//! A denied call is [`KeyError::Denied`], an absent or deleted secret is [`KeyError::Missing`].

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::KeyError;
use super::raw::KeyText;
use crate::aws::secrets_manager::SecretsApi;

/// The secret.
#[derive(Debug, Clone)]
pub struct ManagedSecret<S> {
    name: String,
    manager: S,
}

impl<S> ManagedSecret<S> {
    /// The secret of this name or ARN.
    pub fn new(name: &str, manager: S) -> Self {
        Self { name: name.to_owned(), manager }
    }
}

#[async_trait]
impl<S: SecretsApi> KeyText for ManagedSecret<S> {
    fn describe(&self) -> String {
        format!("the secret {}", self.name)
    }

    async fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let text = self.manager.secret(&self.name).await.map_err(|e| KeyError::of_aws(self.describe(), &e))?;
        Ok(Zeroizing::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsErrorKind;
    use crate::aws::fake::FakeAws;
    use crate::encryption::DataKey;
    use crate::encryption::key_source::KeySource;
    use crate::encryption::key_source::raw::Raw;

    #[tokio::test]
    async fn a_secret_wraps_and_absent_denied_and_unreachable_differ() {
        let aws = FakeAws::default();
        aws.put_secret("backup-key", &format!("{}\n", "0f".repeat(32)));
        let source = Raw(ManagedSecret::new("backup-key", aws));
        let key = DataKey::generate();
        let wrapped = source.wrap(&key).await.expect("wraps");
        assert_eq!(source.unwrap(&wrapped, key.id()).await.expect("opens").expose(), key.expose());

        let call = "secretsmanager:GetSecretValue";
        source.0.manager.fail_next(call, AwsErrorKind::Denied);
        let error = source.wrap(&key).await.expect_err("denied");
        assert!(matches!(error, KeyError::Denied { .. }) && error.to_string().contains(call), "{error}");
        source.0.manager.fail_next(call, AwsErrorKind::Unavailable);
        let error = source.wrap(&key).await.expect_err("throttled");
        assert!(matches!(error, KeyError::Unavailable { .. }), "{error}");
        source.0.manager.state().secrets.clear();
        let error = source.wrap(&key).await.expect_err("absent");
        assert!(matches!(error, KeyError::Missing { .. }) && error.to_string().contains("backup-key"), "{error}");
        source.0.manager.put_secret("backup-key", "correct horse battery staple");
        let error = source.wrap(&key).await.expect_err("not a key").to_string();
        assert!(error.contains("32 bytes") && !error.contains("horse"), "{error}");
    }
}
