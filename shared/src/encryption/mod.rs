//! Client-side encryption: what leaves the machine can be read only with a key that the repository does not hold.
//!
//! | module | owns |
//! |---|---|
//! | [`data_key`] | the key of one chain of backups |
//! | [`sealer`] | AES-256-GCM with synthetic nonces, and its bounds |
//! | [`key_source`] | where the key comes from that wraps data keys: one file a source |
//! | [`keyring`] | wrapped data keys in the repository: stored and opened |
//! | [`rotation`] | wrapping them again by another key |
//!
//! Two levels, so that a new wrapping key touches kilobytes and not the backups: frames are sealed by a data key, and the
//! data key is stored beside the manifests, wrapped by a key that only the source has.

pub mod data_key;
pub mod key_source;
pub mod keyring;
pub mod rotation;
pub mod sealer;

pub use data_key::{DataKey, KeyId};
pub use key_source::{KeyError, KeySource, KeySources, Wrapped};
pub use keyring::KeyringError;
pub use sealer::{OVERHEAD, Tampered, TooLong};
