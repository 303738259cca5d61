//! The engine's process: starting it, stopping it, and which one it is.

use std::time::Duration;

use perennial_shared::settings::Service;

use crate::command;
use crate::engine::EngineError;

/// A service manager answers within this time unless the engine itself takes its time.
const ASKING: Duration = Duration::from_secs(30);

/// Stops the engine and waits until it has stopped; one that does not run is fine.
pub async fn stop(service: &Service, patience: Duration) -> Result<(), EngineError> {
    let words = match service {
        Service::Systemd(unit) => words(&["systemctl", "stop", unit]),
        // Docker kills what does not stop in time, and a killed engine has not written what it had in memory. The long form of
        // the flag was renamed in version 28.
        Service::Docker(container) => words(&["docker", "stop", "-t", &patience.as_secs().to_string(), container]),
        Service::Commands { stop, .. } => stop.clone(),
    };
    command::run("stopping the engine", &words, patience).await.map_err(failed)
}

/// Starts the engine. It is not ready yet.
pub async fn start(service: &Service, patience: Duration) -> Result<(), EngineError> {
    let words = match service {
        Service::Systemd(unit) => words(&["systemctl", "start", unit]),
        Service::Docker(container) => words(&["docker", "start", container]),
        Service::Commands { start, .. } => start.clone(),
    };
    command::run("starting the engine", &words, patience).await.map_err(failed)
}

/// The engine's process; `None` when it does not run.
pub async fn pid(service: &Service) -> Result<Option<u32>, EngineError> {
    let words = match service {
        Service::Systemd(unit) => words(&["systemctl", "show", "--property", "MainPID", "--value", unit]),
        Service::Docker(container) => words(&["docker", "inspect", "--format", "{{.State.Pid}}", container]),
        Service::Commands { pid, .. } if pid.is_empty() => {
            let why = "`service.pid` is not set: a program that prints the engine's process id";
            return Err(EngineError::Service { why: why.into() });
        }
        Service::Commands { pid, .. } => pid.clone(),
    };
    let said = command::output("finding the engine's process", &words, ASKING).await.map_err(failed)?;
    match said.trim().parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some(pid)),
        Err(_) if said.trim().is_empty() => Ok(None),
        Err(_) => Err(EngineError::Service { why: format!("{:?} printed {said:?} instead of a process id", words[0]) }),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

// For `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn failed(failure: crate::failure::Failure) -> EngineError {
    EngineError::Service { why: failure.message }
}
