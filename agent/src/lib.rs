//! The `perennial` program: backs up, verifies and restores a database. It runs on the instance, where the functions call it
//! through SSM, and on a person's laptop.
//!
//! | module | owns |
//! |---|---|
//! | [`engine`] | what is asked of a database engine |
//! | [`engines`] | the engines |

pub mod engine;
pub mod engines;
