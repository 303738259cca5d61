//! The `perennial` program: backs up, verifies and restores a database. It runs on the instance, where the functions call it
//! through SSM, and on a person's laptop.
//!
//! | module | owns |
//! |---|---|
//! | [`engine`] | what is asked of a database engine |
//! | [`engines`] | the engines |
//! | [`context`] | one target's settings, repository and engine |
//! | [`archive`] | folders into archives and back |
//! | [`mod@backup`] | taking and publishing a backup |
//! | [`mod@restore`] | bringing one back and comparing it |
//! | [`replicate`] | copies of a backup in further repositories |
//! | [`cli`], [`commands`] | the command line and its verbs |
//! | [`command`], [`service`] | programs that are run, and the engine's process |
//! | [`check`] | what `doctor` looks at |
//! | [`state`] | what is remembered on this machine |
//! | [`instance`] | which EC2 instance this is |
//! | [`units`] | numbers for people |
//! | [`watch`] | telling somebody how far a command is |
//! | [`failure`] | how a command ends without success |
//! | [`failpoint`] | where a test can end the program |

pub mod archive;
pub mod backup;
pub mod check;
pub mod cli;
pub mod command;
pub mod commands;
pub mod context;
pub mod engine;
pub mod engines;
pub mod failpoint;
pub mod failure;
pub mod instance;
pub mod replicate;
pub mod restore;
pub mod service;
pub mod state;
pub mod units;
pub mod watch;
