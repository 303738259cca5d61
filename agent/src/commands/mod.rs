//! The verbs, one file each. Each gives back what it found, as text and as JSON, and an exit code.

pub mod backup_create;
pub mod backup_list;
pub mod backup_restore;
pub mod backup_show;
pub mod backup_verify;
pub mod completion;
mod confirm;
pub mod doctor;
pub mod key_list;
pub mod key_rotate;
pub mod run;
pub mod status;
mod table;

use serde::Serialize;
use serde_json::Value;

use crate::failure::{Exit, Failure};

/// What a command found or did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// For a person, with newlines.
    pub text: String,
    /// For a program.
    pub json: Value,
    /// How it ended.
    pub exit: Exit,
}

impl Outcome {
    fn new(text: String, result: &impl Serialize, exit: Exit) -> Result<Self, Failure> {
        let json = serde_json::to_value(result)
            .map_err(|e| Failure::new(Exit::Failed, "NotPrintable", format!("the result is not JSON: {e}")))?;
        Ok(Self { text, json, exit })
    }
}
