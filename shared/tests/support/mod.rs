//! Real servers that `tests/setup` installs.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Some are Node programs.
const STARTING: Duration = Duration::from_secs(60);

/// A server on a port of the loopback interface; it ends with its test.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts what `command` makes of a free port, and waits until it listens.
    pub(crate) fn start(command: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let process = command(port).stdout(Stdio::null()).spawn().expect("the server starts");
        let mut server = Self { process, port };
        let deadline = Instant::now() + STARTING;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.process.try_wait().expect("its state");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(Instant::now() < deadline, "the server does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that `tests/setup` installs, with these options.
pub(crate) fn installed(program: &str, options: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let cache = set("PERENNIAL_CACHE").or_else(|| caches().map(|caches| caches.join("perennial")));
    let path = cache.expect("HOME is set").join("bin").join(program);
    assert!(path.is_file(), "{} is not installed; run `tests/setup{options}` first", path.display());
    path
}
