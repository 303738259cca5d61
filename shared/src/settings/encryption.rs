//! `encryption`: which key wraps the data keys of encrypted backups, and which did before.
//!
//! Only the place of a key stands in the settings. Whoever puts the key itself there must not meet it again in a log, so
//! every value below `encryption` is hidden in errors.

use std::path::PathBuf;

use serde::Deserialize;

use super::parse::{Check, SettingsError};

/// How a target's backups are encrypted before they leave the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionSettings {
    /// Wraps the data keys of new backups.
    pub key: KeySettings,
    /// Earlier keys, for backups that were made under them and not wrapped again yet.
    pub previous: Vec<KeySettings>,
}

/// Where a wrapping key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySettings {
    /// An environment variable.
    Env(String),
    /// A KMS key: id, ARN or `alias/…`.
    Kms(String),
    /// Name or ARN in Secrets Manager.
    Secret(String),
    /// A field of a secret in Vault.
    Vault(VaultSettings),
    /// A program and its arguments; it prints the key.
    Command(Vec<String>),
}

/// A field of a secret in `HashiCorp` Vault's key-value engine, version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSettings {
    /// `https://HOST:PORT`; `http://` for this machine only.
    pub address: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// The secret's path below it.
    pub path: String,
    /// The secret's field.
    pub field: String,
    /// Where the token is.
    pub token: TokenSource,
    /// The namespace, in Vault Enterprise and `OpenBao`.
    pub namespace: Option<String>,
}

/// Where Vault's token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// An environment variable.
    Env(String),
    /// A file, such as the sink of Vault's agent.
    File(PathBuf),
}

/// Said for every mistake in the shape: serde's own message would repeat the value.
pub(super) const SHAPE: &str = "key must be, and each of previous may be, exactly one of: {env: VARIABLE}, {kms: KEY ID, \
     ARN or alias/NAME}, {secret: NAME or ARN}, {vault: {address, mount, path, field, token: {env or file}, namespace}}, \
     {command: [PROGRAM, ARGUMENT, ...]}";

const VARIABLE: &str = "the name of an environment variable: letters, digits and _";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEncryption {
    key: RawKey,
    #[serde(default)]
    previous: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    env: Option<String>,
    kms: Option<String>,
    secret: Option<String>,
    vault: Option<RawVault>,
    command: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVault {
    address: String,
    mount: Option<String>,
    path: String,
    field: Option<String>,
    token: RawToken,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl RawEncryption {
    pub(super) fn check(self, check: &Check) -> Result<EncryptionSettings, SettingsError> {
        let key = self.key.check("encryption.key", check)?;
        let numbered = self.previous.into_iter().enumerate();
        let previous = numbered.map(|(n, previous)| previous.check(&format!("encryption.previous[{n}]"), check));
        let previous: Vec<_> = previous.collect::<Result<_, _>>()?;
        check.that(!previous.contains(&key), "encryption.previous", "keys other than encryption.key")?;
        Ok(EncryptionSettings { key, previous })
    }
}

impl RawKey {
    fn check(self, at: &str, check: &Check) -> Result<KeySettings, SettingsError> {
        let of = |name: &str| format!("{at}.{name}");
        Ok(match (self.env, self.kms, self.secret, self.vault, self.command) {
            (Some(name), None, None, None, None) => {
                check.that(is_variable(&name), &of("env"), VARIABLE)?;
                KeySettings::Env(name)
            }
            (None, Some(key), None, None, None) => {
                check.name(&of("kms"), &key, 2048, "-_:/")?;
                KeySettings::Kms(key)
            }
            (None, None, Some(name), None, None) => {
                check.name(&of("secret"), &name, 2048, "-_:/+=.@!")?;
                KeySettings::Secret(name)
            }
            (None, None, None, Some(vault), None) => KeySettings::Vault(vault.check(&of("vault"), check)?),
            (None, None, None, None, Some(words)) => {
                let program = words.first().is_some_and(|program| program.starts_with('/'));
                let allowed = "a list of words, no shell; the first is the program's absolute path";
                check.that(program, &of("command"), allowed)?;
                KeySettings::Command(words)
            }
            _ => return Err(check.error(at, SHAPE)),
        })
    }
}

impl RawVault {
    fn check(self, at: &str, check: &Check) -> Result<VaultSettings, SettingsError> {
        let of = |name: &str| format!("{at}.{name}");
        let address = self.address.trim_end_matches('/').to_owned();
        let allowed =
            "https://HOST:PORT, or http://127.0.0.1:PORT for a Vault (agent) on this machine; no path or user";
        check.that(is_safe_address(&address), &of("address"), allowed)?;
        let mount = self.mount.unwrap_or_else(|| "secret".into());
        let field = self.field.unwrap_or_else(|| "key".into());
        let steps = "names of letters, digits, - _ . and between them /";
        check.that(is_path(&mount), &of("mount"), steps)?;
        check.that(is_path(&self.path), &of("path"), steps)?;
        check.that(!field.is_empty() && field.len() <= 255, &of("field"), "1 to 255 characters")?;
        if let Some(namespace) = &self.namespace {
            check.that(is_path(namespace), &of("namespace"), steps)?;
        }
        let token = match (self.token.env, self.token.file) {
            (Some(name), None) if is_variable(&name) => TokenSource::Env(name),
            (None, Some(path)) if path.is_absolute() => TokenSource::File(path),
            _ => return Err(check.error(&of("token"), "exactly one of: env (variable name), file (absolute path)")),
        };
        Ok(VaultSettings { address, mount, path: self.path, field, token, namespace: self.namespace })
    }
}

fn is_variable(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A token and a key travel there.
fn is_safe_address(address: &str) -> bool {
    let plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    if let Some(host) = address.strip_prefix("https://") {
        return plain(host);
    }
    let host = address.strip_prefix("http://").filter(|host| plain(host)).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

fn is_path(path: &str) -> bool {
    let step = |step: &str| {
        !["", ".", ".."].contains(&step) && step.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    path.len() <= 1024 && path.split('/').all(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn read(encryption: &str) -> Result<EncryptionSettings, SettingsError> {
        let text = format!("{{name: t, engine: weaviate, repository: 'file:///b', encryption: {encryption}}}");
        parse("t.yaml", &text).map(|target| target.encryption.expect("set"))
    }

    const VAULT: &str =
        "{key: {vault: {address: 'https://vault:8200/', path: backup/docs, token: {file: /run/token}}}}";

    #[test]
    fn each_source_can_be_set() {
        let text = "{key: {env: BACKUP_KEY}, previous: [{kms: alias/backups}, {secret: perennial/key}, {command: [/bin/k, -x]}]}";
        let settings = read(text).expect("valid");
        assert_eq!(settings.key, KeySettings::Env("BACKUP_KEY".into()));
        let previous = [
            KeySettings::Kms("alias/backups".into()),
            KeySettings::Secret("perennial/key".into()),
            KeySettings::Command(vec!["/bin/k".into(), "-x".into()]),
        ];
        assert_eq!(settings.previous, previous);

        let KeySettings::Vault(vault) = read(VAULT).expect("valid").key else { panic!("Vault") };
        assert_eq!(
            (vault.address.as_str(), vault.mount.as_str(), vault.field.as_str()),
            ("https://vault:8200", "secret", "key")
        );
        assert_eq!(vault.token, TokenSource::File("/run/token".into()));
    }

    /// One bad text a row: the key named, and a word of what is allowed. No value is repeated.
    #[test]
    fn a_bad_value_is_named_and_hidden() {
        let vault = |old: &str, new: &str| VAULT.replacen(old, new, 1);
        let rows = [
            ("sk-secret".into(), "encryption", "exactly one of"),
            ("{}".into(), "encryption", "exactly one of"),
            ("{key: sk-secret}".into(), "encryption.key", "exactly one of"),
            ("{key: {}}".into(), "encryption.key", "exactly one of"),
            ("{key: {env: A, kms: sk-secret}}".into(), "encryption.key", "exactly one of"),
            ("{key: {raw: sk-secret}}".into(), "encryption.key.raw", "exactly one of"),
            ("{key: {env: sk-secret}}".into(), "encryption.key.env", "environment variable"),
            ("{key: {env: [sk-secret]}}".into(), "encryption.key.env", "exactly one of"),
            ("{key: {kms: 'sk secret'}}".into(), "encryption.key.kms", "letters"),
            ("{key: {secret: ''}}".into(), "encryption.key.secret", "letters"),
            ("{key: {command: echo sk-secret}}".into(), "encryption.key.command", "exactly one of"),
            ("{key: {command: [echo, sk-secret]}}".into(), "encryption.key.command", "absolute path"),
            ("{key: {command: []}}".into(), "encryption.key.command", "absolute path"),
            (
                "{key: {env: A}, previous: [{env: B}, {env: sk-secret}]}".into(),
                "encryption.previous[1].env",
                "variable",
            ),
            ("{key: {env: A}, previous: [{env: A}]}".into(), "encryption.previous", "other than"),
            ("{key: {env: A}, algorithm: sk-secret}".into(), "encryption.algorithm", "exactly one of"),
            (vault("https", "http"), "encryption.key.vault.address", "https://"),
            (vault("vault:8200/", "sk-secret@vault"), "encryption.key.vault.address", "https://"),
            (vault("backup/docs", "../sk-secret"), "encryption.key.vault.path", "between them"),
            (vault("path:", "mount: a/, path:"), "encryption.key.vault.mount", "between them"),
            (vault("path:", "namespace: 'a b', path:"), "encryption.key.vault.namespace", "between them"),
            (vault("path:", "field: '', path:"), "encryption.key.vault.field", "1 to 255"),
            (vault("{file: /run/token}", "{file: run/token}"), "encryption.key.vault.token", "absolute path"),
            (vault("{file: /run/token}", "hvs.sk-secret"), "encryption.key.vault.token", "exactly one of"),
            (
                vault("{file: /run/token}", "{value: hvs.sk-secret}"),
                "encryption.key.vault.token.value",
                "exactly one of",
            ),
        ];
        for (text, key, allowed) in rows {
            let error = read(&text).expect_err(&text).to_string();
            assert!(error.starts_with(&format!("t.yaml: {key}: (")), "{text}: {error}");
            assert!(error.contains(allowed) && !error.contains("sk-secret"), "{text}: {error}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for address in ["http://127.0.0.1:8200", "http://localhost", "http://[::1]:8200", "https://vault.example:8200"]
        {
            assert!(is_safe_address(address), "{address}");
        }
        for address in ["http://127.0.0.1.example", "http://localhost@evil", "http://vault", "https://", "ftp://x", ""]
        {
            assert!(!is_safe_address(address), "{address}");
        }
    }
}
