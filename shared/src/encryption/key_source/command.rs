//! A key that a command prints: a password manager, an HSM's tool, a script.
//!
//! The command is started by its words, without a shell and with nothing on its standard input. Its standard output is the key
//! and is never shown; the end of what it writes to standard error is quoted when it fails, so it must not write the key there.
//!
//! How it fails: a program that cannot be started, or that exits with an error, is [`KeyError::Missing`] (nobody can
//! tell a refusal from an absence by an exit code); one that does not end in half a minute is killed and
//! [`KeyError::Unavailable`]. A process that the command left behind is not waited for.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::KeyError;
use super::raw::KeyText;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How often an unfinished command is looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// More than any key, and than any message worth quoting.
const LONGEST: u64 = 64 << 10;
const QUOTED: usize = 300;

/// The command.
#[derive(Debug, Clone)]
pub struct Command {
    words: Vec<String>,
    timeout: Duration,
}

impl Command {
    /// The program and its arguments.
    pub fn new(words: Vec<String>) -> Self {
        Self { words, timeout: TIMEOUT }
    }
}

/// Why there is no key.
enum Failed {
    /// It ended, or never began.
    Missing(String),
    /// It did not end.
    TimedOut,
}

#[async_trait]
impl KeyText for Command {
    /// The program alone: arguments are no secret, and may be long.
    fn describe(&self) -> String {
        format!("the command {}", self.words.first().map_or("(nothing)", String::as_str))
    }

    async fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let (words, timeout) = (self.words.clone(), self.timeout);
        let done = tokio::task::spawn_blocking(move || run(&words, timeout)).await;
        let source_name = self.describe();
        done.unwrap_or_else(|e| Err(Failed::Missing(e.to_string()))).map_err(|failed| match failed {
            Failed::Missing(why) => KeyError::Missing { source_name, why },
            Failed::TimedOut => {
                let why = format!("it did not end within {} s and was stopped", timeout.as_secs_f32());
                KeyError::Unavailable { source_name, why }
            }
        })
    }
}

fn run(words: &[String], timeout: Duration) -> Result<Zeroizing<String>, Failed> {
    let deadline = Instant::now() + timeout;
    let (program, arguments) = words.split_first().ok_or_else(|| Failed::Missing("no program is named".into()))?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| Failed::Missing(format!("it cannot be started: {e}")))?;
    let (key, complaint) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child, deadline)?;
    let left = || deadline.saturating_duration_since(Instant::now());
    if !status.success() {
        let complaint = complaint.recv_timeout(left()).unwrap_or_default();
        return Err(Failed::Missing(format!("it ended with {status}{}", quote(&complaint))));
    }
    let mut key = key.recv_timeout(left()).map_err(|_| Failed::TimedOut)?;
    let text = String::from_utf8(std::mem::take(&mut *key));
    text.map(Zeroizing::new).map_err(|_| Failed::Missing("what it printed is not a text".into()))
}

/// Reads a pipe beside the process, so that a full pipe cannot stop it.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::new());
        if let Some(mut pipe) = pipe {
            let whole = pipe.by_ref().take(LONGEST).read_to_end(&mut bytes);
            // The rest is let go, so that the command can end; what is too long is no key.
            drop(whole.and_then(|_| std::io::copy(&mut pipe, &mut std::io::sink())));
        }
        // Nobody waits for the pipe of a command that was stopped.
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(child: &mut Child, deadline: Instant) -> Result<std::process::ExitStatus, Failed> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Ok(None) => {
                // It may have ended meanwhile; then there is nothing to stop.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failed::TimedOut);
            }
            Err(e) => return Err(Failed::Missing(format!("it cannot be waited for: {e}"))),
        }
    }
}

/// The end of a complaint, in one line.
fn quote(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint).split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = text.chars().count().saturating_sub(QUOTED);
    let end: String = text.chars().skip(skipped).collect();
    if end.is_empty() { String::new() } else { format!(" and said: {end}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption::DataKey;
    use crate::encryption::key_source::KeySource;
    use crate::encryption::key_source::raw::Raw;

    fn shell(script: &str) -> Raw<Command> {
        let words = ["/bin/sh", "-c", script].map(String::from).to_vec();
        Raw(Command { words, timeout: Duration::from_secs(20) })
    }

    #[tokio::test]
    async fn what_a_command_prints_wraps() {
        let (key, source) = (DataKey::generate(), shell("printf %064d 7; echo; echo for people >&2"));
        let wrapped = source.wrap(&key).await.expect("wraps");
        assert_eq!(source.unwrap(&wrapped, key.id()).await.expect("opens").expose(), key.expose());
    }

    #[tokio::test]
    async fn a_command_that_fails_is_a_missing_key_and_its_output_is_not_shown() {
        let key = DataKey::generate();
        let error = shell("echo sk-secret; echo 'vault is  locked' >&2; exit 3").wrap(&key).await.expect_err("fails");
        assert!(matches!(error, KeyError::Missing { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("exit status: 3 and said: vault is locked") && !text.contains("sk-"), "{text}");

        let error = shell("echo not-a-key").wrap(&key).await.expect_err("no key").to_string();
        assert!(error.contains("32 bytes") && !error.contains("not-a-key"), "{error}");
        let error = shell("head -c 1000000 /dev/zero").wrap(&key).await.expect_err("too long");
        assert!(matches!(error, KeyError::Missing { .. }), "{error}");
        let absent = Raw(Command::new(vec!["/no/such/program".into()])).wrap(&key).await.expect_err("absent");
        assert!(matches!(absent, KeyError::Missing { .. }) && absent.to_string().contains("/no/such/program"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_stopped() {
        let words = ["/bin/sleep", "60"].map(String::from).to_vec();
        let began = Instant::now();
        let hangs = Raw(Command { words, timeout: Duration::from_millis(100) });
        let error = hangs.wrap(&DataKey::generate()).await.expect_err("hangs");
        assert!(matches!(error, KeyError::Unavailable { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
