//! What S3 said, sorted by what follows from it. The only place that knows S3's error codes.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

use crate::store::{Cause, StoreError};

/// Why a call was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such object.
    Missing,
    /// A 404 without a body, which does not say what is missing: all that a HEAD can answer.
    Unnamed,
    /// 412: the condition of a conditional write is false.
    Condition,
    /// 409: a conflicting write was in flight, and nothing was decided.
    Conflict,
    Denied,
    Unavailable,
    Invalid,
    Full,
}

/// The decision that an SDK error asks for.
pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Refusal {
    match error {
        SdkError::ServiceError(refused) => judge(refused.raw().status().as_u16(), refused.err().code()),
        SdkError::ConstructionFailure(_) => Refusal::Invalid,
        _ => Refusal::Unavailable,
    }
}

/// Why an upload was not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// A part is missing, shorter than it has to be, or not what was named; or they do not make the whole.
    BadParts,
    /// The upload was completed, aborted or ended.
    UnknownUpload,
    /// 412: an object is there.
    Condition,
    /// 409: a conflicting write was in flight.
    Conflict,
    Other,
}

/// The decision that a refused completion asks for.
pub(super) fn at_completion<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Completion {
    if is_unknown_upload(error) {
        return Completion::UnknownUpload;
    }
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    if let Some("InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "BadDigest" | "XAmzContentChecksumMismatch") =
        code
    {
        return Completion::BadParts;
    }
    match of(error) {
        Refusal::Condition => Completion::Condition,
        Refusal::Conflict => Completion::Conflict,
        _ => Completion::Other,
    }
}

/// The reply's status, where there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|reply| reply.status().as_u16())
}

/// The upload is over, or never was.
pub(super) fn is_unknown_upload<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchUpload")
}

/// An SDK error as the store's.
pub(super) fn explain<E>(error: SdkError<E>, key: &str, location: String) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let refusal = of(&error);
    let cause = cause(error);
    match refusal {
        Refusal::Missing => StoreError::not_found(key, location, cause),
        Refusal::Condition => StoreError::changed(key, location, cause),
        Refusal::Denied => StoreError::denied(key, location, cause),
        Refusal::Conflict | Refusal::Unavailable => StoreError::unavailable(key, location, cause),
        Refusal::Unnamed | Refusal::Invalid => StoreError::invalid(key, location, cause),
        Refusal::Full => StoreError::full(key, location, cause),
    }
}

/// What the service said in one line, with the id that AWS support asks for; anything else as it is.
pub(super) fn cause<E>(error: SdkError<E>) -> Cause
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(refused) = &error else {
        return error.into();
    };
    let status = refused.raw().status().as_u16();
    let code = refused.err().code().unwrap_or("without a code");
    let message = refused.err().message().unwrap_or("no message");
    let request = refused.err().meta().request_id().unwrap_or("unknown");
    format!("S3 answered {status} {code}: {message} (request id {request})").into()
}

fn judge(status: u16, code: Option<&str>) -> Refusal {
    by_code(code.unwrap_or_default()).unwrap_or_else(|| by_status(status))
}

/// Codes that mean something else than their status says.
fn by_code(code: &str) -> Option<Refusal> {
    Some(match code {
        "NoSuchKey" => Refusal::Missing,
        // What the SDK calls every 404 without a body.
        "NotFound" => Refusal::Unnamed,
        "PreconditionFailed" => Refusal::Condition,
        "ConditionalRequestConflict" | "OperationAborted" => Refusal::Conflict,
        // 400 and 403: credentials that are no longer good.
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Refusal::Denied,
        // 403: an object moved to an archive class must be restored there first.
        "InvalidObjectState" => Refusal::Invalid,
        // 400: the request broke or was damaged on its way, and nothing was stored.
        "RequestTimeout"
        | "IncompleteBody"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => Refusal::Unavailable,
        // 400: KMS has a rate limit of its own, which S3 passes on.
        code if code.contains("Throttling") || code == "SlowDown" => Refusal::Unavailable,
        "QuotaExceeded" | "XMinioStorageFull" => Refusal::Full,
        _ => return None,
    })
}

/// A 404 with another code (`NoSuchBucket`) or in another format (somebody's proxy) is not a missing object.
fn by_status(status: u16) -> Refusal {
    match status {
        401 | 403 => Refusal::Denied,
        409 => Refusal::Conflict,
        412 => Refusal::Condition,
        507 => Refusal::Full,
        408 | 429 | 500 | 502..=599 => Refusal::Unavailable,
        300..=499 | 501 => Refusal::Invalid,
        _ => Refusal::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_asks_for_one_decision() {
        let table = [
            (404, Some("NoSuchKey"), Refusal::Missing),
            (404, Some("NotFound"), Refusal::Unnamed),
            (404, Some("NoSuchBucket"), Refusal::Invalid),
            (404, None, Refusal::Invalid),
            (403, Some("AccessDenied"), Refusal::Denied),
            (403, None, Refusal::Denied),
            (403, Some("SignatureDoesNotMatch"), Refusal::Denied),
            (403, Some("InvalidObjectState"), Refusal::Invalid),
            (400, Some("ExpiredToken"), Refusal::Denied),
            (412, Some("PreconditionFailed"), Refusal::Condition),
            (412, None, Refusal::Condition),
            (409, Some("ConditionalRequestConflict"), Refusal::Conflict),
            (503, Some("SlowDown"), Refusal::Unavailable),
            (500, Some("InternalError"), Refusal::Unavailable),
            (429, None, Refusal::Unavailable),
            (400, Some("KMS.ThrottlingException"), Refusal::Unavailable),
            (400, Some("KMS.DisabledException"), Refusal::Invalid),
            (400, Some("AuthorizationHeaderMalformed"), Refusal::Invalid),
            (301, Some("PermanentRedirect"), Refusal::Invalid),
            (501, Some("NotImplemented"), Refusal::Invalid),
            (507, None, Refusal::Full),
        ];
        for (status, code, expected) in table {
            assert_eq!(judge(status, code), expected, "{status} {code:?}");
        }
    }
}
