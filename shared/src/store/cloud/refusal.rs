//! What the crate `object_store` said, sorted by what follows from it.

use object_store::Error;

use crate::store::StoreError;

/// The crate's error as the store's. Its 404 may be the bucket's; whoever can ask does so before believing it.
pub(super) fn explain(error: Error, key: &str, location: &str) -> StoreError {
    match error {
        Error::NotFound { source, .. } => StoreError::not_found(key, location, source),
        Error::AlreadyExists { source, .. } => StoreError::already_exists(key, location, source),
        Error::Precondition { source, .. } => StoreError::changed(key, location, source),
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            StoreError::denied(key, location, source)
        }
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => StoreError::invalid(key, location, error),
        // Some calls of the crate do not look at the status; its words are all that is left of it.
        _ if says_denied(&error) => StoreError::denied(key, location, error),
        _ => StoreError::unavailable(key, location, error),
    }
}

fn says_denied(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("403 Forbidden") || text.contains("401 Unauthorized") {
            return true;
        }
        cause = error.source();
    }
    false
}
