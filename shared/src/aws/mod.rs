//! The few AWS calls that the core makes, as small traits with plain data.
//!
//! One file a service; each implements its trait with the AWS SDK. `fake` implements all of them in memory and keeps AWS's
//! rules, so that a mistake shows in a unit test. What a caller decides on is in [`AwsError`]; everything else is text.

#[cfg(feature = "lambda")]
pub mod auto_scaling;
#[cfg(feature = "lambda")]
pub mod ec2;
#[cfg(all(feature = "lambda", any(test, feature = "testing")))]
pub mod fake;
pub mod kms;
pub mod secrets_manager;
pub mod sns;
pub mod ssm;
pub mod sts;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};

/// An AWS call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {code}: {message}{}", kind.advice())]
pub struct AwsError {
    /// The call, such as `ec2:AssociateAddress`.
    pub call: &'static str,
    /// What a caller can decide on.
    pub kind: AwsErrorKind,
    /// AWS's error code, such as `InvalidInstanceID`, or what the connection said.
    pub code: String,
    /// AWS's message.
    pub message: String,
}

/// What a caller can decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsErrorKind {
    /// The thing is not there. Never used for a denied call.
    NotFound,
    /// The caller may not.
    Denied,
    /// Throttled, or the service failed or was not reached: the call may be repeated later.
    Unavailable,
    /// AWS's rules forbid it in the present state; it may succeed later, or never.
    Refused,
}

impl AwsErrorKind {
    fn advice(self) -> &'static str {
        match self {
            Self::Denied => " (add the action to the role's policy)",
            Self::Unavailable => " (it will be tried again)",
            Self::NotFound | Self::Refused => "",
        }
    }

    /// By AWS's error code.
    pub fn of_code(code: &str) -> Self {
        let ends = |words: &[&str]| words.iter().any(|w| code.contains(w));
        if ends(&[
            "AccessDenied",
            "UnauthorizedOperation",
            "Unauthorized",
            "OptInRequired",
            "ExpiredToken",
            "InvalidClientTokenId",
        ]) {
            Self::Denied
        } else if ends(&["NotFound", "ParameterNotFound", "DoesNotExist"]) {
            Self::NotFound
        } else if ends(&[
            "Throttl",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "Timeout",
        ]) {
            Self::Unavailable
        } else {
            Self::Refused
        }
    }
}

/// Translates an SDK error at the edge.
pub(crate) fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(
    call: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> AwsError {
    if let Some(service) = error.as_service_error() {
        let code = service.code().unwrap_or("NoErrorCode");
        let mut kind = AwsErrorKind::of_code(code);
        let status = error.raw_response().map_or(0, |r| r.status().as_u16());
        if kind == AwsErrorKind::Refused && status >= 500 {
            kind = AwsErrorKind::Unavailable;
        }
        let message = service.message().unwrap_or("(no message)").to_owned();
        return AwsError { call, kind, code: code.into(), message };
    }
    let message = chain(error);
    AwsError { call, kind: AwsErrorKind::Unavailable, code: "NoAnswer".into(), message }
}

/// An answer of AWS that lacks what it must have.
pub(crate) fn odd(call: &'static str, message: &str) -> AwsError {
    AwsError { call, kind: AwsErrorKind::Unavailable, code: "OddAnswer".into(), message: message.into() }
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The configuration of clients that are made and never asked: looking for credentials takes seconds where there are none.
pub fn no_account() -> SdkConfig {
    SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build()
}

/// The configuration of every client: the caller's own credentials and region, bounded time and retries.
///
/// A Lambda function of this project has a minute; three attempts of ten seconds leave time to report.
pub async fn config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(30))
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .load()
        .await
}
