//! What is asked before something is deleted.

use std::io::{BufRead, IsTerminal, Write};

use crate::failure::{Exit, Failure};

/// Asks a person at a terminal to type the target's name; a script is told `unasked`, how to say that it means it.
pub(super) fn by_name(target: &str, question: &str, unasked: &str) -> Result<(), Failure> {
    let refused = |why: &str| Failure::new(Exit::Refused, "NotConfirmed", format!("nothing was changed: {why}"));
    if !std::io::stdin().is_terminal() {
        return Err(refused(unasked));
    }
    eprint!("{question} Type the target's name to go on: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == target { Ok(()) } else { Err(refused("the answer was not the target's name")) }
}
