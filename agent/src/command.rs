//! Programs that are run: the user's own around captures and restores, and those that start and stop the engine.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::failure::{Exit, Failure};

/// How much of what a failed program said is told.
const TOLD: usize = 2000;
const LOOK: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(1);

/// Runs `words`, a program and its arguments; none is fine. `setting` is what the failure calls it.
pub async fn run(setting: &str, words: &[String], patience: Duration) -> Result<(), Failure> {
    spawn(setting, words, Stdio::null(), patience).await.map(|_| ())
}

/// Like [`run`], and tells what the program printed: the end of it, if it was much.
pub async fn output(setting: &str, words: &[String], patience: Duration) -> Result<String, Failure> {
    spawn(setting, words, Stdio::piped(), patience).await
}

async fn spawn(setting: &str, words: &[String], stdout: Stdio, patience: Duration) -> Result<String, Failure> {
    let Some((program, arguments)) = words.split_first() else { return Ok(String::new()) };
    let failed = |why: String| Failure::new(Exit::Failed, "CommandFailed", format!("`{setting}` ({program}): {why}"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let printed = child.stdout.take().map(|pipe| spawn_blocking(move || last_of(pipe)));
    let complaint = child.stderr.take().map(|pipe| spawn_blocking(move || last_of(pipe)));
    let Some(status) = ended(&mut child, patience).await.map_err(|e| failed(e.to_string()))? else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("did not end within {} s and was stopped", patience.as_secs_f32())));
    };
    if status.success() {
        return Ok(said(printed).await);
    }
    Err(failed(format!("{status}: {}", said(complaint).await)))
}

/// What came through a pipe. A process that the program left behind may hold it.
async fn said(pipe: Option<JoinHandle<String>>) -> String {
    let Some(pipe) = pipe else { return String::new() };
    timeout(LATE, pipe).await.ok().and_then(Result::ok).unwrap_or_default()
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
        assert_eq!(output("x", &words(&["/bin/echo", "7"]), patience).await.expect("printed"), "7");
        let failed =
            run("x", &words(&["/bin/sh", "-c", "echo no room >&2; exit 3"]), patience).await.expect_err("failed");
        assert!(failed.message.contains("no room") && failed.message.contains('3'), "{failed}");
        let late = run("x", &words(&["/bin/sleep", "9"]), Duration::from_millis(50)).await.expect_err("late");
        assert!(late.message.contains("did not end"), "{late}");
        run("x", &words(&["/no/such/program"]), patience).await.expect_err("no program");
    }
}
