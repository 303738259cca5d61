//! `perennial`: see `perennial --help`.

use std::process::ExitCode;

use clap::Parser;
use perennial::cli::Cli;
use tracing_subscriber::EnvFilter;

/// Memory that was freed is kept for its next use up to blocks of this many bytes.
const KEPT: usize = 16 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    keep_freed_memory();
    // What a person must know is printed by the commands themselves; logs are for looking closer, with RUST_LOG.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    ExitCode::from(Cli::parse().run().await as u8)
}

/// glibc gives megabytes back to the system as soon as they are freed, and has them cleared page by page when they are needed again, which
/// is a fifteenth of a restore. From the largest block that was freed on it keeps what is smaller (mallopt(3): the thresholds are dynamic):
/// so one is freed that nobody touched. Other allocators do as they do.
fn keep_freed_memory() {
    drop(std::hint::black_box(vec![0_u8; KEPT]));
}
