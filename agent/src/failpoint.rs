//! Places where a test can end the program as a power cut would: `PERENNIAL_CRASH_AT=<name>` aborts it there.
//!
//! Only debug builds have them; in a release build they are nothing.

/// Ends the program here if the environment says so.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    if std::env::var("PERENNIAL_CRASH_AT").is_ok_and(|at| at == name) {
        eprintln!("crash at {name}, as asked for");
        std::process::abort();
    }
}

/// Ends the program here if the environment says so: never, in a release build.
#[cfg(not(debug_assertions))]
pub fn reach(_: &str) {}
