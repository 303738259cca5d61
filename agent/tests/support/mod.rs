//! Real servers for tests: the engines and an S3 server, on free ports of the loopback interface, killed when dropped.
//!
//! A test whose server is not installed fails and says how to install it; it never skips.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod claim;
pub mod cli;
pub mod data;
pub mod docker;
pub mod folder;
pub mod gate;
pub mod meddler;
pub mod process;
pub mod qdrant;
pub mod recorder;
pub mod redis;
pub mod s3;
pub mod scripted;
pub mod subject;
pub mod weaviate;
pub mod writer;

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Asks until it is so. Fails after three minutes: a test that waits for ever tells nobody what for.
#[track_caller]
pub fn until(what: &str, mut so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let asked_at = std::panic::Location::caller();
    async move {
        let end = Instant::now() + Duration::from_mins(3);
        while !so().await {
            assert!(Instant::now() < end, "{asked_at}: {what} did not come about");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A client of an engine. What has not answered after three minutes never will.
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(3)).build().expect("a client")
}

/// A server's program, as `tests/setup` installs it.
pub fn installed(program: &str) -> PathBuf {
    installed_in("bin", program)
}

/// A program in a folder of what `tests/setup` installs.
pub fn installed_in(folder: &str, program: &str) -> PathBuf {
    let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = from("PERENNIAL_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("perennial")))
        .or_else(|| Some(from("HOME")?.join(".cache/perennial")))
        .expect("HOME is set");
    let path = cache.join(folder).join(program);
    assert!(path.is_file(), "{} is not installed; run `tests/setup` first", path.display());
    path
}

/// As many ports as asked for, one after the other, because Weaviate takes some of its ports to be. They are below those that the
/// system gives to outgoing connections: a server takes its last port seconds after this, and none may be gone by then.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const BLOCK: u16 = 8;
    const BLOCKS: u64 = 2500;
    assert!(N <= usize::from(BLOCK), "a block has {BLOCK} ports");
    let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    loop {
        // A new hasher has new random keys each time.
        let block = u16::try_from(RandomState::new().hash_one(0) % BLOCKS).expect("few blocks");
        let ports: [u16; N] = std::array::from_fn(|n| 12_000 + block * BLOCK + u16::try_from(n).expect("few ports"));
        if ports.iter().all(free) {
            return ports;
        }
    }
}

/// Every file below a folder whose path ends like this.
pub fn files_ending(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_ending(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

/// Bytes that do not compress and differ by `seed`.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// Does it on a runtime with two threads, for tests that are not themselves asynchronous.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
