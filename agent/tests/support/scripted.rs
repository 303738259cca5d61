//! A server that the program itself can stop and start: by scripts, as the settings' `service` names them.

use std::path::{Path, PathBuf};
use std::process::Command;

use perennial_shared::settings::Service;

/// A server behind three scripts in a folder of its own. It does not outlive its test.
#[derive(Debug)]
pub struct Scripted {
    folder: PathBuf,
}

impl Scripted {
    /// Writes the scripts for `command` (its program, arguments, environment and working folder) into `folder`; nothing is started yet.
    /// It gets nothing of this process's environment but `PATH` and `HOME`.
    pub fn new(folder: &Path, command: &Command) -> Self {
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        let environment: Vec<_> =
            command.get_envs().filter_map(|(k, v)| Some(format!("{}={}", k.to_string_lossy(), quoted(v?)))).collect();
        let server = Self { folder: folder.into() };
        let (pid, log) = (server.pid_path(), server.log_path());
        let at = command.get_current_dir().unwrap_or(folder).display();
        server.script(
            "start",
            &format!(
                "cd {at}\nsetsid env -i PATH=\"$PATH\" HOME=\"$HOME\" {} {} </dev/null >>{} 2>&1 &\necho $! >{}",
                environment.join(" "),
                words.join(" "),
                log.display(),
                pid.display()
            ),
        );
        // TERM, and after half a minute KILL; ends when the process is gone (Z: nobody has asked for its end yet).
        server.script(
            "stop",
            &format!(
                "p=$(cat {} 2>/dev/null) || exit 0\nkill $p 2>/dev/null || exit 0\nn=0\n\
                 while [ -e /proc/$p ] && ! grep -q '^State:.Z' /proc/$p/status 2>/dev/null; do\n\
                 n=$((n+1)); [ $n -lt 600 ] || kill -9 $p; sleep 0.05\ndone",
                pid.display()
            ),
        );
        server.script("pid", &format!("p=$(cat {}) && kill -0 $p 2>/dev/null && echo $p || true", pid.display()));
        server
    }

    fn script(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), format!("{text}\n")).expect("a script");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where its number is; `pid` is the script that prints it.
    fn pid_path(&self) -> PathBuf {
        self.path("server.pid")
    }

    /// Where its output goes.
    pub fn log_path(&self) -> PathBuf {
        self.path("server.log")
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn run(&self, name: &str) {
        let ended = Command::new("/bin/sh").arg(self.path(name)).status().expect("a shell");
        assert!(ended.success(), "{name}: {ended}\n{}", self.log());
    }

    /// Starts it; it is ready a moment later.
    pub fn start(&self) {
        self.run("start");
    }

    /// Stops it as its owner would.
    pub fn stop(&self) {
        self.run("stop");
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.pid_path()).ok()?.trim().parse().ok()
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("/bin/kill").args(["-9", &pid.to_string()]).status();
        }
    }

    /// How the product stops and starts it.
    pub fn service(&self) -> Service {
        let words = |name: &str| vec!["/bin/sh".to_owned(), self.path(name).display().to_string()];
        Service::Commands { start: words("start"), stop: words("stop"), pid: words("pid") }
    }

    /// The same as the settings' `service`.
    pub fn settings(&self) -> String {
        let words = |name: &str| format!("[/bin/sh, {}]", self.path(name).display());
        format!("service: {{start: {}, stop: {}, pid: {}}}", words("start"), words("stop"), words("pid"))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.kill();
    }
}
