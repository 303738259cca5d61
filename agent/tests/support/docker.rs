//! A container of a real image. Only for tests that `make containers` runs, where Docker answers.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Output};

/// A container. It does not outlive its test.
#[derive(Debug)]
pub struct Container {
    name: String,
}

impl Container {
    /// Runs an image: `arguments` are `docker run`'s options, the image, and its command. What `secrets` holds stays off the
    /// command line, which everybody on the machine can read.
    pub fn run<S: AsRef<OsStr>>(arguments: &[S], secrets: &[(&str, &str)]) -> Self {
        let name = format!("perennial-test-{:016x}", RandomState::new().hash_one(0));
        let mut command = Command::new("docker");
        command.args(["run", "--detach", "--name", &name]);
        for (variable, value) in secrets {
            command.args(["--env", variable]).env(variable, value);
        }
        // Made before it runs: a container that could not be started is removed, too.
        let container = Self { name };
        succeeded(command.args(arguments));
        container
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it as a power cut would, and starts it again with what it had on its disk.
    pub fn restart(&self) {
        succeeded(Command::new("docker").args(["kill", &self.name]));
        succeeded(Command::new("docker").args(["start", &self.name]));
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        let Output { stdout, stderr, .. } = succeeded(Command::new("docker").args(["logs", &self.name]));
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.name]).output();
    }
}

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
