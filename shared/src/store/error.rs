//! What can go wrong with a store, sorted by what the caller has to decide.
//!
//! The messages name the object, the store and the next step; the cause (what the service or the system said) is the
//! error's source, so print errors with their chain (`{:#}` of `anyhow`).

use std::io;

use thiserror::Error;

/// What the service or the operating system said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A store's refusal or failure. Each variant is a different decision of the caller.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store answered, and there is no such object. Never made from a denial, a missing bucket or a failure.
    #[error("{location} has no object {key}")]
    NotFound {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// Another writer created the object first, with other bytes.
    #[error("{location} already has another object {key}: read it to learn who was first")]
    AlreadyExists {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// Another writer replaced the object since the caller read it.
    #[error("{key} in {location} was changed by somebody else meanwhile: read it again and decide anew")]
    Changed {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// Refused for lack of rights. S3 also answers 403 instead of 404 for a missing key when the caller lacks
    /// `s3:ListBucket`, and 403 when the bucket is not the expected owner's: so this says nothing about existence.
    #[error(
        "access to {} in {location} was denied: check the role's permissions (s3:ListBucket too, without which S3 \
         denies a missing key), the bucket's policy and owner, and the KMS key",
        named(key)
    )]
    Denied {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// Throttled, broken or out of reach, after bounded retries. May be tried again later; a write may have happened,
    /// and repeating it with the same bytes is safe.
    #[error("{location} did not answer properly for {}, even after retries: try again later", named(key))]
    Unavailable {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// The bytes that came are not the bytes that were stored.
    #[error("{key} in {location} arrived damaged: do not use it, take another copy or an older backup")]
    Corrupt {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// The request can never work as it is: a bad key, no such bucket or folder, the wrong region, an unusable KMS key.
    #[error("{location} cannot take this request for {}: correct the repository's settings or the key", quoted(key))]
    Invalid {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },

    /// No room for the object.
    #[error("{location} is full and did not take {key}: free space or raise the quota")]
    Full {
        /// The object, relative to the store.
        key: String,
        /// The store.
        location: String,
        /// What the service or the system said.
        source: Cause,
    },
}

/// A listing of everything is asked for by an empty key.
fn named(key: &str) -> &str {
    if key.is_empty() { "its list of objects" } else { key }
}

/// A key that is refused may have anything in it.
fn quoted(key: &str) -> String {
    if key.is_empty() { named(key).into() } else { format!("{key:?}") }
}

macro_rules! constructors {
    ($($name:ident => $variant:ident),* $(,)?) => {
        impl StoreError {
            $(
                #[doc = concat!("A [`StoreError::", stringify!($variant), "`].")]
                pub fn $name(key: &str, location: impl Into<String>, source: impl Into<Cause>) -> Self {
                    Self::$variant { key: key.to_owned(), location: location.into(), source: source.into() }
                }
            )*

            /// The object it is about, relative to the store.
            pub fn key(&self) -> &str {
                match self { $( Self::$variant { key, .. } )|* => key }
            }

            /// The store it is about.
            pub fn location(&self) -> &str {
                match self { $( Self::$variant { location, .. } )|* => location }
            }
        }
    };
}

constructors! {
    not_found => NotFound,
    already_exists => AlreadyExists,
    changed => Changed,
    denied => Denied,
    unavailable => Unavailable,
    corrupt => Corrupt,
    invalid => Invalid,
    full => Full,
}

impl StoreError {
    /// What a failure in the middle of a [`super::Reader`] means. Readers carry a `StoreError` inside their
    /// [`io::Error`]; anything else is the connection or the disk.
    pub fn from_read(error: io::Error, key: &str, location: impl Into<String>) -> Self {
        error.downcast::<Self>().unwrap_or_else(|error| Self::unavailable(key, location, error))
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_object_and_the_store() {
        let error = StoreError::denied("runs/a/claim.json", "s3://bucket/docs", "AccessDenied");
        let message = error.to_string();
        assert!(message.contains("runs/a/claim.json") && message.contains("s3://bucket/docs"), "{message}");
        assert_eq!((error.key(), error.location()), ("runs/a/claim.json", "s3://bucket/docs"));
        let listing = StoreError::invalid("", "file:///nowhere", "no such folder").to_string();
        assert!(listing.contains("request for its list of objects"), "{listing}");
        let odd = StoreError::invalid("a\u{1b}[2J", "file:///b", "a bad key").to_string();
        assert!(!odd.contains('\u{1b}'), "{odd}");
    }

    #[test]
    fn a_reader_s_failure_keeps_its_decision() {
        let inside = io::Error::other(StoreError::corrupt("a", "s3://b", "checksum"));
        assert!(matches!(StoreError::from_read(inside, "a", "s3://b"), StoreError::Corrupt { .. }));

        let connection = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(StoreError::from_read(connection, "a", "s3://b").is_temporary());
    }
}
