//! `perennial completion SHELL`

use clap_complete::Shell;
use serde_json::Value;

use super::Outcome;
use crate::failure::Exit;

/// The script that makes a shell complete this program's words.
pub fn script(shell: Shell) -> Outcome {
    let mut script = vec![];
    clap_complete::generate(shell, &mut crate::cli::command(), "perennial", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Outcome { json: Value::from(text.as_str()), text, exit: Exit::Ok }
}
