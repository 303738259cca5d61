//! Programs of the user's that are run around captures and restores.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::failure::{Exit, Failure};

/// How much of what a failed program said is told.
const TOLD: usize = 2000;
const LOOK: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(1);

/// Runs `words`, a program and its arguments; none is fine. `setting` is what the failure calls it.
pub async fn run(setting: &str, words: &[String], patience: Duration) -> Result<(), Failure> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let failed = |why: String| Failure::new(Exit::Failed, "CommandFailed", format!("`{setting}` ({program}): {why}"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let complaint = child.stderr.take().map(|pipe| spawn_blocking(move || last_of(pipe)));
    let Some(status) = ended(&mut child, patience).await.map_err(|e| failed(e.to_string()))? else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("did not end within {} s and was stopped", patience.as_secs_f32())));
    };
    if status.success() {
        return Ok(());
    }
    let said = match complaint {
        // A process that it left behind may hold the pipe.
        Some(complaint) => timeout(LATE, complaint).await.ok().and_then(Result::ok).unwrap_or_default(),
        None => String::new(),
    };
    Err(failed(format!("{status}: {said}")))
}

async fn ended(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        tokio::time::sleep(LOOK).await;
    }
    child.try_wait()
}

/// The end of what is written to a pipe, which is read to its own end so that it never fills up.
fn last_of(mut pipe: impl Read) -> String {
    let mut said = vec![];
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        said.extend_from_slice(&buffer[..n]);
        said.drain(..said.len().saturating_sub(TOLD));
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn how_a_program_ends_is_told() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let patience = Duration::from_secs(10);
        run("x", &[], patience).await.expect("nothing to do");
        run("x", &words(&["/bin/sh", "-c", "exit 0"]), patience).await.expect("done");
        let failed =
            run("x", &words(&["/bin/sh", "-c", "echo no room >&2; exit 3"]), patience).await.expect_err("failed");
        assert!(failed.message.contains("no room") && failed.message.contains('3'), "{failed}");
        let late = run("x", &words(&["/bin/sleep", "9"]), Duration::from_millis(50)).await.expect_err("late");
        assert!(late.message.contains("did not end"), "{late}");
        run("x", &words(&["/no/such/program"]), patience).await.expect_err("no program");
    }
}
