//! From YAML to checked [`Target`]s.
//!
//! Two steps: serde takes the text apart and refuses unknown keys, then each value is checked by the rule of its
//! kind. Both report through [`SettingsError::Key`], so a person reads the same sentence for a typo and for a bad value.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;

use crate::archive::chunk;
use crate::archive::frame::{Algorithm, Compression};

use super::archive::{self, ArchiveSettings, Commands, UploadSettings};
use super::encryption::{self, RawEncryption};
use super::endpoint::RawEndpoint;
use super::engine::RawService;
use super::repository::RawRepository;
use super::{AutoScaling, BackupPolicy, Checks, EmptyRepository, Engine, Method, RestorePolicy, SecretSource, Target};

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not YAML at all.
    #[error("{file}: not readable as YAML: {message}")]
    Syntax {
        /// File or SSM parameter.
        file: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// One key is unknown, missing or has a value that is not allowed.
    #[error("{file}: {key}: {value} is not allowed; {allowed}")]
    Key {
        /// File or SSM parameter.
        file: String,
        /// Dotted path of the key.
        key: String,
        /// The value as given, or `(nothing)`.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// Parses and checks the settings in `text`; `file` is what errors call it.
pub fn parse(file: &str, text: &str) -> Result<Target, SettingsError> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|e| SettingsError::Syntax { file: file.into(), message: e.to_string() })?;
    let raw: Raw = serde_path_to_error::deserialize(&value).map_err(|e| {
        let key = e.path().to_string();
        Check { file, all: &value }.unreadable(&key, &e.into_inner().to_string())
    })?;
    raw.check(&Check { file, all: &value })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    engine: String,
    method: Option<String>,
    url: Option<String>,
    debug_url: Option<String>,
    user: Option<String>,
    api_key: Option<RawSecret>,
    host_name: Option<String>,
    data_dir: Option<PathBuf>,
    service: Option<RawService>,
    repository: RawRepository,
    encryption: Option<RawEncryption>,
    auto_scaling: Option<RawAutoScaling>,
    endpoint: Option<RawEndpoint>,
    #[serde(default)]
    backup: RawBackup,
    #[serde(default)]
    restore: RawRestore,
    #[serde(default)]
    compression: RawCompression,
    #[serde(default)]
    archive: RawArchive,
    #[serde(default)]
    upload: RawUpload,
    #[serde(default)]
    commands: RawCommands,
    #[serde(default)]
    replicas: Vec<RawRepository>,
    #[serde(default)]
    checks: RawChecks,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    secret: Option<String>,
    env: Option<String>,
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAutoScaling {
    group: String,
    launch_hook: Option<String>,
    terminate_hook: Option<String>,
    document: Option<String>,
    registration_timeout: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawBackup {
    max_age: Option<String>,
    timeout: Option<String>,
    #[serde(default)]
    keep_reads: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawRestore {
    timeout: Option<String>,
    stalled_after: Option<String>,
    attempts: Option<u32>,
    empty_repository: Option<String>,
    fall_over_after: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawCompression {
    algorithm: Option<String>,
    level: Option<i32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    chunk_size: Option<String>,
    max_increments: Option<u32>,
    max_chain_age: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawUpload {
    part_size: Option<String>,
    concurrency: Option<u32>,
    bandwidth: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawCommands {
    before_capture: Vec<String>,
    after_capture: Vec<String>,
    before_restore: Vec<String>,
    after_restore: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawChecks {
    min_free_disk_gib: Option<u64>,
    min_free_memory_percent: Option<u64>,
    max_load_per_cpu: Option<f64>,
}

/// The first step of a key.
fn area(key: &str) -> &str {
    key.split(['.', '[']).next().unwrap_or_default()
}

/// Said for every mistake below `api_key`: serde's own message would repeat the value.
const API_KEY_ALLOWED: &str =
    "exactly one of: secret (name or ARN in Secrets Manager), env (variable name), file (absolute path)";

/// What the checks need to name what is wrong.
pub(super) struct Check<'a> {
    file: &'a str,
    all: &'a Value,
}

impl Check<'_> {
    /// A value that is of the wrong shape; below a secret's place serde's words are not repeated, for they quote it.
    fn unreadable(&self, key: &str, message: &str) -> SettingsError {
        let allowed = match area(key) {
            "api_key" => API_KEY_ALLOWED,
            "encryption" => encryption::SHAPE,
            _ => message,
        };
        self.error(key, allowed)
    }

    pub(super) fn error(&self, key: &str, allowed: &str) -> SettingsError {
        // Whoever puts the key itself where only its place belongs must not meet it again in a log.
        let secret = ["api_key", "encryption"].contains(&area(key));
        let value = match self.find(key) {
            Some(_) if secret => "(hidden)".into(),
            Some(Value::Object(map)) => format!("{{{}}}", map.keys().cloned().collect::<Vec<_>>().join(", ")),
            Some(value) => value.to_string(),
            None => "(nothing)".into(),
        };
        let key = if key.is_empty() || key == "." { "(top level)" } else { key };
        SettingsError::Key { file: self.file.into(), key: key.into(), value, allowed: allowed.into() }
    }

    /// What stands at `a.b[0].c`.
    fn find(&self, key: &str) -> Option<&Value> {
        let mut steps = key.split(['.', '[']).map(|step| step.trim_end_matches(']'));
        steps.try_fold(self.all, |node, step| match node {
            Value::Array(all) => all.get(step.parse::<usize>().ok()?),
            node => node.get(step),
        })
    }

    pub(super) fn that(&self, fits: bool, key: &str, allowed: &str) -> Result<(), SettingsError> {
        if fits { Ok(()) } else { Err(self.error(key, allowed)) }
    }

    /// A name of letters, digits and `extra`, as long as AWS lets it be.
    pub(super) fn name(&self, key: &str, value: &str, longest: usize, extra: &str) -> Result<(), SettingsError> {
        let fits = (1..=longest).contains(&value.len())
            && value.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
        self.that(fits, key, &format!("1 to {longest} letters, digits or any of {extra:?}"))
    }

    /// An address that begins in one of two ways.
    fn address(&self, key: &str, value: &str, schemes: [&str; 2]) -> Result<(), SettingsError> {
        let host = schemes.iter().find_map(|scheme| value.strip_prefix(scheme));
        let plain = host.is_some_and(|h| !h.is_empty() && !h.contains(['/', '?', '#', '@', ' ']));
        let allowed = format!("{}HOST:PORT or {}HOST:PORT, without path or user name", schemes[0], schemes[1]);
        self.that(plain, key, &allowed)
    }

    fn duration(
        &self,
        key: &str,
        value: Option<&String>,
        default: &str,
        least: &str,
        most: &str,
    ) -> Result<Duration, SettingsError> {
        let of = |text: &str| text.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let (low, high) = (of(least).unwrap_or_default(), of(most).unwrap_or(Duration::MAX));
        let text = value.map_or(default, String::as_str);
        of(text)
            .filter(|d| (low..=high).contains(d))
            .ok_or_else(|| self.error(key, &format!("a duration from {least} to {most}, such as {default}")))
    }
}

impl Raw {
    fn check(self, check: &Check) -> Result<Target, SettingsError> {
        check.that(
            (1..=40).contains(&self.name.len())
                && self.name.starts_with(|c: char| c.is_ascii_lowercase())
                && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "name",
            "1 to 40 lower-case letters, digits or -, beginning with a letter",
        )?;
        let engine = Engine::parse(&self.engine, check)?;
        let method = engine.method(self.method.as_deref(), check)?;
        let url = self.url.unwrap_or_else(|| engine.default_url().into());
        check.address("url", &url, engine.schemes())?;
        if let Some(url) = &self.debug_url {
            check.that(engine == Engine::Weaviate, "debug_url", "only with `engine: weaviate`")?;
            check.address("debug_url", url, engine.schemes())?;
        }
        if let Some(user) = &self.user {
            check.name("user", user, 255, "-_.@")?;
            check.that(
                engine == Engine::Redis,
                "user",
                "only with `engine: redis`: the other engines' keys have no user",
            )?;
        }
        if let Some(host) = &self.host_name {
            check.name("host_name", host, 253, "-.")?;
        }
        if let Some(dir) = &self.data_dir {
            check.that(dir.is_absolute(), "data_dir", "an absolute path")?;
        }
        let has_data = engine != Engine::Files || self.data_dir.is_some();
        check.that(has_data, "data_dir", "with `engine: files`, the absolute path of the folder to back up")?;
        Ok(Target {
            engine,
            method,
            url,
            debug_url: self.debug_url,
            user: self.user,
            service: self.service.map(|s| s.check(engine, check)).transpose()?,
            archive: self.archive.check(&self.compression, check)?,
            upload: self.upload.check(check)?,
            commands: self.commands.check(check)?,
            replicas: self.replicas.into_iter().map(|r| r.check(check)).collect::<Result<_, _>>()?,
            api_key: self.api_key.map(|s| s.check(check)).transpose()?,
            repository: self.repository.check(check)?,
            encryption: self.encryption.map(|e| e.check(check)).transpose()?,
            auto_scaling: self.auto_scaling.map(|a| a.check(&self.name, check)).transpose()?,
            endpoint: self.endpoint.map(|e| e.check(check)).transpose()?,
            backup: self.backup.check(method, check)?,
            restore: self.restore.check(check)?,
            checks: self.checks.check(check)?,
            name: self.name,
            host_name: self.host_name,
            data_dir: self.data_dir,
        })
    }
}

impl RawSecret {
    fn check(self, check: &Check) -> Result<SecretSource, SettingsError> {
        match (self.secret, self.env, self.file) {
            (Some(name), None, None) if !name.is_empty() => Ok(SecretSource::SecretsManager(name)),
            (None, Some(name), None) if !name.is_empty() => Ok(SecretSource::Env(name)),
            (None, None, Some(path)) if path.is_absolute() => Ok(SecretSource::File(path)),
            _ => Err(check.error("api_key", API_KEY_ALLOWED)),
        }
    }
}

impl RawAutoScaling {
    fn check(self, target: &str, check: &Check) -> Result<AutoScaling, SettingsError> {
        let launch_hook = self.launch_hook.unwrap_or_else(|| "perennial-launch".into());
        let terminate_hook = self.terminate_hook.unwrap_or_else(|| "perennial-terminate".into());
        let document = self.document.unwrap_or_else(|| format!("perennial-{target}"));
        let group_fits = (1..=255).contains(&self.group.len()) && !self.group.contains(':');
        check.that(
            group_fits,
            "auto_scaling.group",
            "the name (not the ARN) of an Auto Scaling group, 1 to 255 characters",
        )?;
        check.name("auto_scaling.launch_hook", &launch_hook, 255, "-_/")?;
        check.name("auto_scaling.terminate_hook", &terminate_hook, 255, "-_/")?;
        check.name("auto_scaling.document", &document, 128, "-_.")?;
        let key = "auto_scaling.registration_timeout";
        let registration_timeout = check.duration(key, self.registration_timeout.as_ref(), "15m", "1s", "2h")?;
        Ok(AutoScaling { group: self.group, launch_hook, terminate_hook, document, registration_timeout })
    }
}

impl RawBackup {
    fn check(self, method: Method, check: &Check) -> Result<BackupPolicy, SettingsError> {
        check.that(
            !self.keep_reads || method == Method::Physical,
            "backup.keep_reads",
            "only with `engine: weaviate` and `method: physical`: Redis keeps reads anyhow, nothing else can",
        )?;
        Ok(BackupPolicy {
            keep_reads: self.keep_reads,
            max_age: check.duration("backup.max_age", self.max_age.as_ref(), "26h", "1m", "8784h")?,
            timeout: check.duration("backup.timeout", self.timeout.as_ref(), "2h", "10s", "48h")?,
        })
    }
}

impl RawRestore {
    fn check(self, check: &Check) -> Result<RestorePolicy, SettingsError> {
        let attempts = self.attempts.unwrap_or(2);
        check.that((1..=10).contains(&attempts), "restore.attempts", "1 to 10")?;
        let empty_repository = match self.empty_repository.as_deref() {
            None | Some("refuse") => EmptyRepository::Refuse,
            Some("allow") => EmptyRepository::Allow,
            Some(_) => return Err(check.error("restore.empty_repository", "one of: refuse, allow")),
        };
        let fall_over_after = |given| check.duration("restore.fall_over_after", Some(given), "15m", "10s", "48h");
        Ok(RestorePolicy {
            timeout: check.duration("restore.timeout", self.timeout.as_ref(), "2h", "10s", "48h")?,
            stalled_after: check.duration("restore.stalled_after", self.stalled_after.as_ref(), "10m", "5s", "48h")?,
            attempts,
            empty_repository,
            fall_over_after: self.fall_over_after.as_ref().map(fall_over_after).transpose()?,
        })
    }
}

impl RawArchive {
    fn check(self, compression: &RawCompression, check: &Check) -> Result<ArchiveSettings, SettingsError> {
        let algorithm = match compression.algorithm.as_deref() {
            None | Some("zstd") => Algorithm::Zstd,
            Some("gzip") => Algorithm::Gzip,
            Some("none") => Algorithm::None,
            Some(_) => return Err(check.error("compression.algorithm", "one of: zstd, gzip, none")),
        };
        let levels = archive::levels(algorithm);
        let allowed = format!("{} to {}, or no level, which adapts to the data", levels.start(), levels.end());
        check.that(compression.level.is_none_or(|l| levels.contains(&l)), "compression.level", &allowed)?;
        let defaults = ArchiveSettings::default();
        let chunk_size = match &self.chunk_size {
            None => defaults.chunk_size,
            Some(text) => archive::size(text)
                .and_then(|size| u32::try_from(size).ok())
                .filter(|size| chunk::is_valid_size(*size))
                .ok_or_else(|| check.error("archive.chunk_size", "a power of two from 2KiB to 1MiB, such as 16KiB"))?,
        };
        let max_increments = self.max_increments.unwrap_or(defaults.max_increments);
        check.that(max_increments <= 1000, "archive.max_increments", "0 to 1000")?;
        Ok(ArchiveSettings {
            compression: Compression { algorithm, level: compression.level },
            chunk_size,
            max_increments,
            max_chain_age: check.duration(
                "archive.max_chain_age",
                self.max_chain_age.as_ref(),
                "192h",
                "1m",
                "8784h",
            )?,
        })
    }
}

impl RawUpload {
    fn check(self, check: &Check) -> Result<UploadSettings, SettingsError> {
        let defaults = UploadSettings::default();
        let size = |key: &str, text: Option<&String>, least: u64, most: u64, allowed: &str| match text {
            None => Ok(None),
            Some(text) => archive::size(text)
                .filter(|size| (least..=most).contains(size))
                .map(Some)
                .ok_or_else(|| check.error(key, allowed)),
        };
        // S3 takes no part below 5 MiB but the last (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
        let allowed = "a size from 5MiB to 1GiB, such as 50MB";
        let part_size = size("upload.part_size", self.part_size.as_ref(), 5 << 20, 1 << 30, allowed)?;
        let allowed = "bytes a second, at least 64KiB/s, such as 100MiB/s";
        let bandwidth = size("upload.bandwidth", self.bandwidth.as_ref(), 64 << 10, u64::MAX, allowed)?;
        let concurrency = self.concurrency.unwrap_or(defaults.concurrency);
        check.that((1..=64).contains(&concurrency), "upload.concurrency", "1 to 64")?;
        Ok(UploadSettings { part_size: part_size.unwrap_or(defaults.part_size), concurrency, bandwidth })
    }
}

impl RawCommands {
    fn check(self, check: &Check) -> Result<Commands, SettingsError> {
        let Self { before_capture, after_capture, before_restore, after_restore } = self;
        for (key, words) in [
            ("commands.before_capture", &before_capture),
            ("commands.after_capture", &after_capture),
            ("commands.before_restore", &before_restore),
            ("commands.after_restore", &after_restore),
        ] {
            let fits = words.first().is_none_or(|program| program.starts_with('/'));
            check.that(fits, key, "a program's absolute path and its arguments, as a list of words")?;
        }
        Ok(Commands { before_capture, after_capture, before_restore, after_restore })
    }
}

impl RawChecks {
    fn check(self, check: &Check) -> Result<Checks, SettingsError> {
        let percent = self.min_free_memory_percent.unwrap_or(5);
        check.that(percent <= 100, "checks.min_free_memory_percent", "0 to 100")?;
        let load = self.max_load_per_cpu.unwrap_or(4.0);
        check.that(load > 0.0 && load.is_finite(), "checks.max_load_per_cpu", "a number above 0")?;
        Ok(Checks {
            min_free_disk_gib: self.min_free_disk_gib.unwrap_or(10),
            min_free_memory_percent: percent,
            max_load_per_cpu: load,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RepositorySettings;

    const FULL: &str = r#"
name: docs
engine: weaviate
url: http://127.0.0.1:8080
debug_url: http://127.0.0.1:6061
api_key: {secret: perennial/docs/weaviate-api-key}
host_name: weaviate-0
data_dir: /workspace/weaviate/data
repository: {url: "s3://my-backups/weaviate/prod/", region: us-east-1, kms_key: alias/backups, bucket_owner: "123456789012"}
auto_scaling: {group: docs}
endpoint: {kind: elastic_ip, tag: {key: Name, value: weaviate-eip}, allocate: true}
backup: {max_age: 26h, timeout: 90m}
restore: {timeout: 1h, stalled_after: 5m, attempts: 3, empty_repository: allow}
checks: {min_free_disk_gib: 20, min_free_memory_percent: 10, max_load_per_cpu: 2.5}
"#;

    #[test]
    fn everything_can_be_set() {
        let target = parse("docs.yaml", FULL).expect("valid");
        assert_eq!(target.api_key, Some(SecretSource::SecretsManager("perennial/docs/weaviate-api-key".into())));
        assert_eq!(target.debug_url.as_deref(), Some("http://127.0.0.1:6061"));
        assert_eq!(target.repository.to_string(), "s3://my-backups/weaviate/prod");
        let group = target.auto_scaling.expect("a group");
        assert_eq!((group.launch_hook.as_str(), group.document.as_str()), ("perennial-launch", "perennial-docs"));
        assert_eq!(target.backup.timeout, Duration::from_secs(5400));
        assert_eq!(target.restore.empty_repository, EmptyRepository::Allow);
    }

    #[test]
    fn little_must_be_set_and_defaults_are_safe() {
        let target = parse("t.yaml", "{name: t, engine: weaviate, repository: 'file:///b'}").expect("valid");
        assert_eq!(target.restore.empty_repository, EmptyRepository::Refuse);
        assert_eq!(target.repository, RepositorySettings::Folder { path: "/b".into() });
        assert_eq!(target.auto_scaling, None);
    }

    /// One bad value a row: what replaces what, the key named, and a word of what is allowed.
    #[test]
    fn a_bad_value_is_named_with_its_file_and_key() {
        let rows = [
            ("name: docs", "name: Docs", "name", "lower-case"),
            ("engine: weaviate", "engine: mysql", "engine", "one of: weaviate, qdrant, redis, files"),
            ("http://127.0.0.1:8080", "http://u:p@h/x", "url", "http://HOST:PORT"),
            ("http://127.0.0.1:6061", "http://h:6060/debug", "debug_url", "http://HOST:PORT"),
            ("engine: weaviate", "engine: qdrant", "debug_url", "only with `engine: weaviate`"),
            ("host_name: weaviate-0", "host_name: 'a b'", "host_name", "letters"),
            ("data_dir: /workspace", "data_dir: workspace", "data_dir", "absolute"),
            ("s3://my-backups/", "s3://My_Backups/", "repository.url", "bucket name"),
            ("weaviate/prod/", "weaviate/../prod", "repository.url", "without empty"),
            ("\"123456789012\"", "\"12345\"", "repository.bucket_owner", "12 digits"),
            ("{group: docs}", "{group: 'arn:aws:x'}", "auto_scaling.group", "not the ARN"),
            ("{group: docs}", "{group: docs, document: 'a b'}", "auto_scaling.document", "letters"),
            ("timeout: 90m", "timeout: soon", "backup.timeout", "a duration from"),
            ("timeout: 90m", "timeout: 72h", "backup.timeout", "to 48h"),
            ("attempts: 3", "attempts: 0", "restore.attempts", "1 to 10"),
            ("empty_repository: allow", "empty_repository: maybe", "restore.empty_repository", "refuse, allow"),
            (
                "min_free_memory_percent: 10",
                "min_free_memory_percent: 101",
                "checks.min_free_memory_percent",
                "0 to 100",
            ),
            ("engine: weaviate", "compression: {level: 20}\nengine: weaviate", "compression.level", "1 to 19"),
            ("engine: weaviate", "archive: {chunk_size: 5KiB}\nengine: weaviate", "archive.chunk_size", "power of two"),
            ("engine: weaviate", "upload: {part_size: 1MB}\nengine: weaviate", "upload.part_size", "5MiB"),
            (
                "engine: weaviate",
                "commands: {before_capture: [sync]}\nengine: weaviate",
                "commands.before_capture",
                "absolute",
            ),
            ("attempts: 3", "attempts: many", "restore.attempts", "expected u32"),
            ("attempts: 3", "atempts: 3", "restore.atempts", "unknown field"),
            ("backup: {", "backups: {", "backups", "unknown field"),
            ("backup: {", "backup: {keep_reads: true, ", "backup.keep_reads", "method: physical"),
        ];
        for (old, new, key, allowed) in rows {
            assert!(FULL.contains(old), "{old}");
            let error = parse("docs.yaml", &FULL.replacen(old, new, 1)).expect_err(new).to_string();
            assert!(error.starts_with(&format!("docs.yaml: {key}: ")), "{new}: {error}");
            assert!(error.contains(allowed), "{new}: {error}");
        }
    }

    #[test]
    fn a_service_that_nobody_would_stop_is_refused() {
        let of = |engine: &str| {
            let text = "{name: t, repository: 'file:///b', data_dir: /d, service: {docker: db}, engine: ";
            parse("docs.yaml", &format!("{text}{engine}}}")).map(|target| target.service.is_some())
        };
        assert_eq!((of("weaviate"), of("redis")), (Ok(true), Ok(true)));
        for (engine, why) in [("qdrant", "through its API while it runs"), ("files", "`commands`")] {
            let error = of(engine).expect_err(engine).to_string();
            assert!(
                error.starts_with("docs.yaml: service: {docker} is not allowed; ") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = parse("t.yaml", "{name: t, engine: weaviate}").expect_err("no repository").to_string();
        assert!(error.contains("repository"), "{error}");
    }

    #[test]
    fn a_key_written_into_the_settings_is_refused_and_not_repeated() {
        let text = FULL.replace("{secret: perennial/docs/weaviate-api-key}", "sk-very-secret");
        let error = parse("docs.yaml", &text).expect_err("a plain key").to_string();
        assert!(error.contains("api_key: (hidden)") && !error.contains("sk-very"), "{error}");
        let text = FULL.replace("{secret: perennial/docs/weaviate-api-key}", "{key: sk-very-secret}");
        let error = parse("docs.yaml", &text).expect_err("a plain key").to_string();
        assert!(!error.contains("sk-very"), "{error}");
    }

    #[test]
    fn text_that_is_not_yaml_says_where() {
        let error = parse("docs.yaml", "name: [").expect_err("bad").to_string();
        assert!(error.starts_with("docs.yaml: not readable as YAML"), "{error}");
    }
}
