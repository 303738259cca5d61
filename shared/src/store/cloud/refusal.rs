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
        _ if says(&error, &["401 Unauthorized", "403 Forbidden"]) => StoreError::denied(key, location, error),
        _ if says(&error, &["404 Not Found"]) => StoreError::not_found(key, location, error),
        _ => StoreError::unavailable(key, location, error),
    }
}

/// The same for a listing: no object is an empty list, so a 404 means the bucket.
pub(super) fn explain_listing(error: Error, prefix: &str, location: &str) -> StoreError {
    match explain(error, prefix, location) {
        StoreError::NotFound { source, .. } => StoreError::invalid(prefix, location, source),
        explained => explained,
    }
}

fn says(error: &Error, words: &[&str]) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if words.iter().any(|word| text.contains(word)) {
            return true;
        }
        cause = error.source();
    }
    false
}
