//! Client-side encryption: what leaves the machine can be read only with a key that the repository does not hold.
//!
//! | module | owns |
//! |---|---|
//! | [`data_key`] | the key of one chain of backups, and how it seals a frame |

pub mod data_key;

pub use data_key::{DataKey, KeyId, OVERHEAD, Tampered, TooLong};
