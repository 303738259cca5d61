//! `perennial`: see `perennial --help`.

use std::process::ExitCode;

use clap::Parser;
use perennial::cli::Cli;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    // What a person must know is printed by the commands themselves; logs are for looking closer, with RUST_LOG.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    ExitCode::from(Cli::parse().run().await as u8)
}
