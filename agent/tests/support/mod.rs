//! Real servers for tests: Weaviate and an S3 server, on free ports of the loopback interface, killed when dropped.
//!
//! A test whose server is not installed fails and says how to install it; it never skips.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod data;
pub mod process;
pub mod s3;
pub mod weaviate;

use std::path::{Path, PathBuf};

/// A server's program, as `tests/setup` installs it.
pub fn installed(program: &str) -> PathBuf {
    let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = from("PERENNIAL_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("perennial")))
        .or_else(|| Some(from("HOME")?.join(".cache/perennial")))
        .expect("HOME is set");
    let path = cache.join("bin").join(program);
    assert!(path.is_file(), "{} is not installed; run `tests/setup` first", path.display());
    path
}

/// As many ports as asked for, free a moment ago and one after the other: Weaviate takes some of its ports to be the
/// one after another.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    loop {
        let first = bind(0).and_then(|l| l.local_addr().ok()).expect("a free port").port();
        let ports: [u16; N] = std::array::from_fn(|n| first.saturating_add(u16::try_from(n).unwrap_or(u16::MAX)));
        let listeners: Vec<_> = ports.iter().filter_map(|p| bind(*p)).collect();
        if listeners.len() == N {
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
