//! `repository`: where the backups are.
//!
//! The URL's scheme chooses the store, and a key that the chosen store has no use for is refused: whoever wrote
//! `kms_key` next to `gs://` believes something about encryption that is not so.

use std::path::PathBuf;

use serde::Deserialize;

use super::parse::{Check, SettingsError};

/// Where the repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositorySettings {
    /// `s3://bucket/prefix`
    S3 {
        /// Bucket name.
        bucket: String,
        /// Key prefix without slashes at either end; may be empty.
        prefix: String,
        /// Region of the bucket; `None` for the caller's own.
        region: Option<String>,
        /// KMS key id or ARN for SSE-KMS; `None` for the bucket's default encryption.
        kms_key: Option<String>,
        /// Account id that must own the bucket, so that a bucket name taken over by somebody else is refused.
        bucket_owner: Option<String>,
    },
    /// `gs://bucket/prefix`; credentials come from the environment or the metadata service.
    Google {
        /// Bucket name.
        bucket: String,
        /// Name prefix without slashes at either end; may be empty.
        prefix: String,
    },
    /// `az://container/prefix`; credentials come from the environment or the managed identity.
    Azure {
        /// Storage account.
        account: String,
        /// Container name.
        container: String,
        /// Name prefix without slashes at either end; may be empty.
        prefix: String,
    },
    /// `file:///path`
    Folder {
        /// Absolute path.
        path: PathBuf,
    },
}

impl std::fmt::Display for RepositorySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Google { bucket, prefix } => write!(f, "gs://{bucket}/{prefix}"),
            Self::Azure { container, prefix, .. } => write!(f, "az://{container}/{prefix}"),
            Self::Folder { path } => write!(f, "file://{}", path.display()),
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a URL such as s3://bucket/prefix, gs://bucket/prefix or file:///path, or a map with url, region, \
                 kms_key, bucket_owner, account"
)]
pub(super) enum RawRepository {
    Url(String),
    Map(RawMap),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMap {
    url: String,
    region: Option<String>,
    kms_key: Option<String>,
    bucket_owner: Option<String>,
    account: Option<String>,
}

impl RawRepository {
    pub(super) fn check(self, check: &Check) -> Result<RepositorySettings, SettingsError> {
        let (key, map) = match self {
            Self::Url(url) => {
                ("repository", RawMap { url, region: None, kms_key: None, bucket_owner: None, account: None })
            }
            Self::Map(map) => ("repository.url", map),
        };
        let allowed = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH";
        match map.url.split_once("://") {
            Some(("s3", _)) => map.s3(key, check),
            Some(("gs", _)) => map.google(key, check),
            Some(("az", _)) => map.azure(key, check),
            Some(("file", _)) => map.folder(key, check),
            _ => Err(check.error(key, allowed)),
        }
    }
}

impl RawMap {
    fn s3(self, key: &str, check: &Check) -> Result<RepositorySettings, SettingsError> {
        let (bucket, prefix) = self.name_and_prefix(key, check)?;
        let fits = (3..=63).contains(&bucket.len()) && bucket.bytes().all(|b| is_low(b) || b == b'-' || b == b'.');
        check.that(fits, key, "s3://BUCKET/PREFIX with a bucket name of 3 to 63 lower-case letters, digits, - or .")?;
        if let Some(owner) = &self.bucket_owner {
            let digits = owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_digit());
            check.that(digits, "repository.bucket_owner", "an AWS account id: 12 digits in quotes")?;
        }
        self.without_account(check)?;
        Ok(RepositorySettings::S3 {
            bucket,
            prefix,
            region: self.region,
            kms_key: self.kms_key,
            bucket_owner: self.bucket_owner,
        })
    }

    fn google(self, key: &str, check: &Check) -> Result<RepositorySettings, SettingsError> {
        let (bucket, prefix) = self.name_and_prefix(key, check)?;
        let fits = (3..=222).contains(&bucket.len())
            && bucket.bytes().all(|b| is_low(b) || b"-_.".contains(&b))
            && bucket.split('.').all(|part| (1..=63).contains(&part.len()));
        check.that(
            fits,
            key,
            "gs://BUCKET/PREFIX with a bucket name of 3 to 222 lower-case letters, digits, - _ or .",
        )?;
        self.without_aws(check)?;
        self.without_account(check)?;
        Ok(RepositorySettings::Google { bucket, prefix })
    }

    fn azure(self, key: &str, check: &Check) -> Result<RepositorySettings, SettingsError> {
        let (container, prefix) = self.name_and_prefix(key, check)?;
        let fits = (3..=63).contains(&container.len())
            && container.bytes().all(|b| is_low(b) || b == b'-')
            && container.split('-').all(|part| !part.is_empty());
        check.that(
            fits,
            key,
            "az://CONTAINER/PREFIX with a container name of 3 to 63 lower-case letters, digits or single -",
        )?;
        self.without_aws(check)?;
        let account = self.account.unwrap_or_default();
        let fits = (3..=24).contains(&account.len()) && account.bytes().all(is_low);
        check.that(fits, "repository.account", "the storage account of az://: 3 to 24 lower-case letters or digits")?;
        Ok(RepositorySettings::Azure { account, container, prefix })
    }

    fn folder(self, key: &str, check: &Check) -> Result<RepositorySettings, SettingsError> {
        let path = PathBuf::from(self.url.trim_start_matches("file://"));
        check.that(path.is_absolute(), key, "file:// with an absolute path, such as file:///var/backups/docs")?;
        self.without_aws(check)?;
        self.without_account(check)?;
        Ok(RepositorySettings::Folder { path })
    }

    fn name_and_prefix(&self, key: &str, check: &Check) -> Result<(String, String), SettingsError> {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let fits = prefix.split('/').all(|part| part != "." && part != "..")
            && !prefix.contains("//")
            && !prefix.starts_with('/')
            && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.=".contains(c));
        check.that(fits, key, "a prefix of letters, digits and / - _ . = without empty, . or .. parts")?;
        Ok((name.into(), prefix.into()))
    }

    fn without_aws(&self, check: &Check) -> Result<(), SettingsError> {
        let none = self.region.is_none() && self.kms_key.is_none() && self.bucket_owner.is_none();
        check.that(none, "repository", "without them: region, kms_key and bucket_owner go with s3://")
    }

    fn without_account(&self, check: &Check) -> Result<(), SettingsError> {
        check.that(self.account.is_none(), "repository.account", "nothing here: account goes with az://")
    }
}

fn is_low(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn repository(text: &str) -> Result<RepositorySettings, SettingsError> {
        parse("t.yaml", &format!("{{name: t, engine: weaviate, repository: {text}}}")).map(|target| target.repository)
    }

    #[test]
    fn the_scheme_chooses_the_store() {
        let google =
            |bucket: &str, prefix: &str| RepositorySettings::Google { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(
            repository("'gs://my_backups.example.com/prod/docs/'"),
            Ok(google("my_backups.example.com", "prod/docs"))
        );
        assert_eq!(repository("'gs://backups'"), Ok(google("backups", "")));
        let azure = RepositorySettings::Azure {
            account: "acct1".into(),
            container: "my-backups".into(),
            prefix: "prod".into(),
        };
        assert_eq!(repository("{url: 'az://my-backups/prod', account: acct1}"), Ok(azure.clone()));
        assert_eq!(azure.to_string(), "az://my-backups/prod");
        assert_eq!(repository("{url: 'file:///b'}"), Ok(RepositorySettings::Folder { path: "/b".into() }));
        assert!(matches!(repository("'s3://backups/p'"), Ok(RepositorySettings::S3 { .. })));
    }

    #[test]
    fn what_does_not_fit_the_store_is_refused() {
        let rows = [
            ("'ftp://backups/p'", "repository: ", "gs://BUCKET/PREFIX"),
            ("backups", "repository: ", "file:///PATH"),
            ("'file://b'", "repository: ", "absolute"),
            ("'gs://Backups/p'", "repository: ", "lower-case"),
            ("'gs://backups//p'", "repository: ", "without empty"),
            ("'gs://backups/../p'", "repository: ", "without empty"),
            ("{url: 'gs://backups/p', kms_key: k}", "repository: ", "go with s3://"),
            ("{url: 'gs://backups/p', account: acct1}", "repository.account: ", "goes with az://"),
            ("{url: 's3://backups/p', account: acct1}", "repository.account: ", "goes with az://"),
            ("{url: 'file:///b', region: us-east-1}", "repository: ", "go with s3://"),
            ("'az://backups/p'", "repository.account: (nothing)", "3 to 24"),
            ("{url: 'az://backups/p', account: Acct_1}", "repository.account: ", "3 to 24"),
            ("{url: 'az://back--ups/p', account: acct1}", "repository.url: ", "single -"),
            ("{url: 'az://backups/p', account: acct1, bucket_owner: '123456789012'}", "repository: ", "go with s3://"),
            ("{url: 'az://backups/p', account: acct1, key: secret}", "repository: ", "a map with url"),
        ];
        for (text, key, allowed) in rows {
            let error = repository(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("t.yaml: {key}")), "{text}: {error}");
            assert!(error.contains(allowed), "{text}: {error}");
        }
    }
}
