//! A child process that does not outlive its test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `command` with nothing of this process's environment but `PATH` and `HOME`; its output goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let inherited = ["PATH", "HOME"].into_iter().filter_map(|v| Some((v, std::env::var_os(v)?)));
        let given: Vec<_> = command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
        command.env_clear().envs(inherited);
        for (key, value) in given {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        let errors = output.try_clone().expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{command:?}: {e}")) }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
