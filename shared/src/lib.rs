//! What Perennial's functions and its agent share.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | one target's settings, from a file or an SSM parameter, every value checked |
//! | [`id`] | names with a meaning: backups, runs, generations |
//! | [`store`] | a bucket or folder with conditional writes, and what can go wrong with it |
//! | [`manifest`] | the immutable description of one backup, format 1 |
//! | [`pointer`] | the one mutable object of a target, moved by compare-and-set |
//! | [`archive`] | the archive format: chunks, frames, pages, tar headers |
//! | [`repository`] | the keys of a target's repository and what may be done with them |
//! | [`run`] | claims, progress and results of restores and backups |
//! | [`resolve`] | which backup a restore starts from |
//! | [`verify`] | whether a backup is good, damaged, or could not be told |
//! | [`alert`] | what a person is told, and in which words |
//! | [`event`] | the AWS events that wake the functions |
//! | [`metrics`] | CloudWatch metrics in the embedded metric format |
//! | [`encryption`] | client-side encryption: data keys, where the key that wraps them comes from, rotation |
//! | [`secret`] | the engine's API key, from where the settings say |
//! | [`function`] | what every Lambda function does at its start and edge |
//! | [`aws`] | the few AWS calls the core makes, as small traits |
//! | [`spare`], [`blocks`] | memory and other things that are used again |
//!
//! AWS SDK types stop in [`aws`] and [`store`]: the rest of the crate is ordinary data and decisions.

pub mod alert;
pub mod archive;
pub mod aws;
pub mod blocks;
pub mod encryption;
pub mod event;
#[cfg(feature = "lambda")]
pub mod function;
pub mod id;
pub mod manifest;
pub mod metrics;
pub mod pointer;
pub mod repository;
pub mod resolve;
pub mod run;
pub mod secret;
pub mod settings;
pub mod spare;
pub mod store;
pub mod verify;
