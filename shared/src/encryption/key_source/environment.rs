//! A key in an environment variable. An unset variable is a missing key.

use std::env::VarError;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::KeyError;
use super::raw::KeyText;

/// The variable.
#[derive(Debug, Clone)]
pub struct Environment(String);

impl Environment {
    /// The variable of this name.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

#[async_trait]
impl KeyText for Environment {
    fn describe(&self) -> String {
        format!("the environment variable {}", self.0)
    }

    async fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        std::env::var(&self.0).map(Zeroizing::new).map_err(|error| {
            let why = match error {
                VarError::NotPresent => "it is not set",
                VarError::NotUnicode(_) => "it is not a text",
            };
            KeyError::Missing { source_name: self.describe(), why: why.into() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::DataKey;
    use crate::encryption::key_source::KeySource;
    use crate::encryption::key_source::raw::Raw;

    const NAME: &str = "PERENNIAL_TEST_WRAPPING_KEY";

    /// A process cannot safely change its own environment, so the test starts itself with the variable set.
    #[tokio::test]
    async fn a_variable_s_key_wraps_and_an_unset_one_is_missing() {
        let source = Raw(Environment::new(NAME));
        if std::env::var_os(NAME).is_some() {
            let key = DataKey::generate();
            let wrapped = source.wrap(&key).await.expect("wraps");
            assert_eq!(source.unwrap(&wrapped, key.id()).await.expect("opens").expose(), key.expose());
            return;
        }
        let missing = source.wrap(&DataKey::generate()).await.expect_err("unset");
        assert!(matches!(missing, KeyError::Missing { .. }) && missing.to_string().contains(NAME), "{missing}");

        let me = std::env::current_exe().expect("this test");
        let name = "encryption::key_source::environment::tests::a_variable_s_key_wraps_and_an_unset_one_is_missing";
        let again = std::process::Command::new(me).args(["--exact", name]).env(NAME, "ab".repeat(32)).output();
        let again = again.expect("runs");
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
    }
}
