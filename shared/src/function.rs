//! What every function does at its start and at its edge: configuration, structured logs, and failures with a stable type.

use lambda_runtime::Diagnostic;
use tracing_subscriber::EnvFilter;

use crate::aws::ssm::{Ssm, SsmApi};
use crate::aws::{self, AwsErrorKind, chain};
use crate::repository::Repository;
use crate::settings::{self, RepositorySettings, Target};

/// A failed invocation: Lambda reports `code` as the error type, on which alarms and filters can rest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// Stable word, such as `RepositoryDenied`.
    pub code: &'static str,
    /// A sentence for a person.
    pub message: String,
}

impl Failure {
    /// A failure with its own sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure that an error explains, with all its causes.
    pub fn of(code: &'static str, error: &dyn std::error::Error) -> Self {
        Self::new(code, chain(error))
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self { error_type: failure.code.into(), error_message: failure.message }
    }
}

/// A function of one target.
#[derive(Debug)]
pub struct Function {
    /// Credentials, region and endpoints.
    pub aws: aws_config::SdkConfig,
    /// Systems Manager, where the settings are.
    pub ssm: Ssm,
    /// SNS topic for alerts.
    pub topic: String,
    name: String,
}

impl Function {
    /// Reads the environment and starts logging, as JSON lines.
    pub async fn start() -> Result<Self, Failure> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        // Fails only when a logger is there already, which then does its work.
        let _ = tracing_subscriber::fmt()
            .json()
            .with_env_filter(filter)
            .with_current_span(false)
            .with_ansi(false)
            .try_init();
        let variable = |name: &'static str| {
            std::env::var(name)
                .map_err(|_| Failure::new("NotConfigured", format!("the environment variable {name} is not set")))
        };
        let (name, topic) = (variable("PERENNIAL_TARGET")?, variable("PERENNIAL_TOPIC_ARN")?);
        let aws = aws::config().await;
        Ok(Self { ssm: Ssm::new(&aws), aws, topic, name })
    }

    /// The target's settings, read anew for each invocation so that a change takes effect at once.
    pub async fn target(&self) -> Result<Target, Failure> {
        let parameter = Target::parameter_name(&self.name);
        let text = self.ssm.parameter(&parameter).await.map_err(|e| {
            let code = if e.kind == AwsErrorKind::NotFound { "SettingsMissing" } else { "SettingsUnreadable" };
            Failure::of(code, &e)
        })?;
        settings::parse(&parameter, &text).map_err(|e| Failure::of("SettingsInvalid", &e))
    }

    /// The target's repository.
    pub fn repository(&self, target: &Target) -> Result<Repository, Failure> {
        self.open(&target.repository, target)
    }

    /// The target's replicas in S3, in the order of its settings: a function has no rights anywhere else, and would wait for ever for
    /// what it can never read.
    pub fn replicas(&self, target: &Target) -> Result<Vec<Repository>, Failure> {
        let in_s3 = target.replicas.iter().filter(|settings| matches!(settings, RepositorySettings::S3 { .. }));
        in_s3.map(|settings| self.open(settings, target)).collect()
    }

    fn open(&self, settings: &RepositorySettings, target: &Target) -> Result<Repository, Failure> {
        Repository::open(settings, target.engine, &self.aws).map_err(|e| Failure::of("RepositoryUnusable", &e))
    }
}
