//! Holding the engine's process still for a moment.
//!
//! The process is known by a descriptor of the kernel's, so that no signal can go to another one that got its number, and it is
//! frozen only when it has a file of the data folder open: the wrong process would stand still and the right one would write on.
//!
//! A freeze ends whatever becomes of this program. Another process, of a group of its own, holds the end of a pipe: when this
//! program ends, however it ends, the pipe closes and it lets the engine go on; after two seconds it does so in any case.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::engine::EngineError;

/// A freeze that is not over by then is given up. The watchdog's time is longer.
pub(super) const LONGEST: Duration = Duration::from_secs(1);
/// The threads of a process that is told to stop do so one by one, when they come back from the kernel.
const STOPPING: Duration = Duration::from_millis(500);
/// A thread in the kernel, waiting for a slow disk, stops when the disk has answered: a freeze that takes too long is tried again.
const TRIES: u32 = 3;
/// The engine's clients go on for so long between two tries.
const BETWEEN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(200);
/// `$1` is the engine. The first process lets it go on after two seconds, the last when the pipe closes; then nothing must let it go on
/// later, in the middle of somebody's next freeze.
const WATCHDOG: &str = "trap '' HUP INT TERM; (sleep 2; kill -CONT $1) </dev/null >/dev/null & later=$!; \
                        echo ready; read -r _; kill -CONT $1; kill -KILL $later";

/// The engine's process.
#[derive(Debug)]
pub(super) struct Process {
    id: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// The process `id`.
    pub(super) fn new(id: u32) -> Result<Self, EngineError> {
        let gone = || failed(format!("process {id}, which `service` names, is not there"));
        let number = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let descriptor = pidfd_open(number, PidfdFlags::empty()).map_err(|_| gone())?;
        Ok(Self { id, descriptor })
    }

    /// Whether it has `file` open.
    pub(super) fn must_hold(&self, file: &Path) -> Result<(), EngineError> {
        let wanted = fs::metadata(file).map_err(|e| EngineError::files(file, &e))?;
        let folder = PathBuf::from(format!("/proc/{}/fd", self.id));
        let open = fs::read_dir(&folder).map_err(|e| EngineError::files(&folder, &e))?;
        let same = |found: fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        if open.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(same)) {
            return Ok(());
        }
        let file = file.display();
        Err(failed(format!(
            "process {} does not have {file} open: is `service` that of the engine in `data_dir`?",
            self.id
        )))
    }

    /// Stops it until the value is dropped, or a while at most.
    pub(super) fn freeze(&self) -> Result<Frozen<'_>, EngineError> {
        for left in (0..TRIES).rev() {
            if let Some(frozen) = self.freeze_once()? {
                return Ok(frozen);
            }
            if left > 0 {
                sleep(BETWEEN);
            }
        }
        let time = STOPPING.as_millis();
        Err(failed(format!("process {} did not stop within {time} ms, {TRIES} times; it goes on", self.id)))
    }

    /// `None`, and it goes on, if it takes too long to stop.
    fn freeze_once(&self) -> Result<Option<Frozen<'_>>, EngineError> {
        let watchdog = Watchdog::start(self.id)?;
        let frozen = Frozen { process: self, since: Instant::now(), _watchdog: watchdog };
        self.signal(Signal::STOP)?;
        while !self.stands_still()? {
            if frozen.since.elapsed() > STOPPING {
                return Ok(None);
            }
            sleep(LOOK);
        }
        Ok(Some(frozen))
    }

    /// Lets it go on; one that was not stopped, or that has ended, is fine.
    pub(super) fn resume(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::CONT);
    }

    fn signal(&self, signal: Signal) -> Result<(), EngineError> {
        let told = pidfd_send_signal(&self.descriptor, signal);
        told.map_err(|e| failed(format!("process {} cannot be stopped: {}", self.id, io::Error::from(e))))
    }

    /// Whether no thread of it runs.
    fn stands_still(&self) -> Result<bool, EngineError> {
        let threads = PathBuf::from(format!("/proc/{}/task", self.id));
        let ended = |e: io::Error| failed(format!("the engine ended while it was to stand still: {e}"));
        for thread in fs::read_dir(&threads).map_err(ended)? {
            let path = thread.map_err(ended)?.path().join("stat");
            let stat = match fs::read_to_string(&path) {
                Ok(stat) => stat,
                Err(e) if has_ended(&e) => continue,
                Err(e) => return Err(EngineError::files(&path, &e)),
            };
            if !is_stopped(&stat) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A thread that ends while it is looked at is no file, or no process.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The state follows the program's name, which is in brackets and may hold anything.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

/// A process that stands still.
#[derive(Debug)]
pub(super) struct Frozen<'a> {
    process: &'a Process,
    since: Instant,
    _watchdog: Watchdog,
}

impl Frozen<'_> {
    /// When it must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.since + LONGEST
    }

    /// Lets it go on. How long it stood still, if it did all the time.
    pub(super) fn thaw(self) -> Result<Duration, EngineError> {
        // All threads go on together, so one tells of all; and nobody stops it a second time.
        let still = fs::read_to_string(format!("/proc/{}/stat", self.process.id)).is_ok_and(|stat| is_stopped(&stat));
        self.process.resume();
        let paused = self.since.elapsed();
        if still {
            return Ok(paused);
        }
        Err(failed("the engine did not stand still until its files were caught: something let it go on".into()))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.process.resume();
    }
}

/// The process that lets the engine go on if we cannot.
#[derive(Debug)]
struct Watchdog(Child);

impl Watchdog {
    fn start(engine: u32) -> Result<Self, EngineError> {
        let why = |e: io::Error| failed(format!("the process that ends a freeze could not be started: {e}"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "perennial-watchdog", &engine.to_string()]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watchdog = Self(command.spawn().map_err(why)?);
        let mut said = String::new();
        if let Some(out) = watchdog.0.stdout.take() {
            BufReader::new(out).read_line(&mut said).map_err(why)?;
        }
        if said.trim() == "ready" { Ok(watchdog) } else { Err(why(io::Error::other("it does not answer"))) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Its group: the shell, and what counts the seconds.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn failed(why: String) -> EngineError {
    EngineError::Service { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_whatever_the_program_is_called() {
        assert!(is_stopped("7 (a) R (b) T 1 2 3"));
        assert!(!is_stopped("7 (T) S 1 2 3"));
        assert!(!is_stopped(""));
    }

    #[test]
    fn a_process_stands_still_and_goes_on() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().expect("a process");
        let process = Process::new(child.id()).expect("found");
        process.must_hold(Path::new("/etc/passwd")).expect_err("another file");
        let frozen = process.freeze().expect("frozen");
        assert!(process.stands_still().expect("looked at"));
        frozen.thaw().expect("thawed");
        assert!(!process.stands_still().expect("looked at"));
        let frozen = process.freeze().expect("frozen");
        process.resume();
        while process.stands_still().expect("looked at") {}
        frozen.thaw().expect_err("somebody let it go on");
        // A program of ours that hangs does not hold it for ever: nobody closes this watchdog's pipe.
        let watchdog = Watchdog::start(child.id()).expect("started");
        process.signal(Signal::STOP).expect("stopped");
        while !process.stands_still().expect("looked at") {}
        let end = Instant::now() + Duration::from_secs(20);
        while process.stands_still().expect("looked at") {
            assert!(Instant::now() < end, "the engine stands still");
            sleep(LOOK);
        }
        drop(watchdog);
        // What a killed program of ours leaves behind lets it go on at once, and never again.
        let mut watchdog = Watchdog::start(child.id()).expect("started");
        process.signal(Signal::STOP).expect("stopped");
        drop(watchdog.0.stdin.take());
        watchdog.0.wait().expect("ended");
        assert!(!process.stands_still().expect("looked at"));
        process.signal(Signal::STOP).expect("stopped");
        sleep(Duration::from_millis(2500));
        assert!(process.stands_still().expect("looked at"), "nobody let it go on");
        process.resume();
        child.kill().expect("ended");
        child.wait().expect("gone");
        process.freeze().expect_err("there is no such process");
    }
}
