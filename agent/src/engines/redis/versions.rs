//! Which server reads whose point-in-time files.

use crate::engine::EngineError;

/// The first format of Valkey's own.
const VALKEY: u32 = 80;
/// What a server newer than this table is taken to read: any format of Redis.
const UNKNOWN: u32 = VALKEY - 1;

/// The newest format that a server of this version writes and reads. Versions are written like `7.0.15` and `valkey-9.1.2`.
fn newest_format(version: &str) -> u32 {
    let (valkey, numbers) = version.strip_prefix("valkey-").map_or((false, version), |v| (true, v));
    let mut numbers = numbers.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match (valkey, major, minor) {
        (true, 9.., _) => VALKEY,
        (true, ..) | (false, 7, 2..=3) => 11,
        (false, ..=6, _) => 9,
        (false, 7, ..=1) => 10,
        (false, 7, _) | (false, 8, 0) => 12,
        (false, ..) => UNKNOWN,
    }
}

fn reads(version: &str, format: u32) -> bool {
    let newest = newest_format(version);
    if version.starts_with("valkey-") {
        format <= 11 || (newest >= VALKEY && format >= VALKEY)
    } else {
        format <= newest
    }
}

/// Refuses a backup by `backup` that the server does not read.
pub(super) fn check(backup: &str, server: &str) -> Result<(), EngineError> {
    check_format(backup, newest_format(backup), server)
}

/// Refuses a file of this format that the server does not read.
pub(super) fn check_format(backup: &str, format: u32, server: &str) -> Result<(), EngineError> {
    if backup == server || reads(server, format) {
        return Ok(());
    }
    let why = "it does not know the format of that version's files; restore on that version or a later one";
    Err(EngineError::VersionUnsupported { backup: backup.into(), engine: server.into(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_does_not_read_a_newer_one_s_files() {
        for (backup, server, good) in [
            ("7.0.15", "7.0.15", true),
            ("7.0.15", "7.2.4", true),
            ("7.2.4", "7.0.15", false),
            ("6.2.14", "7.0.15", true),
            ("7.4.1", "7.2.4", false),
            ("8.4.0", "8.2.0", true),
            ("8.4.0", "7.0.15", false),
            ("7.0.15", "valkey-9.1.2", true),
            ("7.4.0", "valkey-9.1.2", false),
            ("valkey-8.0.1", "7.2.4", true),
            ("valkey-9.1.2", "7.2.4", false),
            ("valkey-9.1.2", "8.4.0", false),
            ("valkey-9.1.2", "valkey-8.0.1", false),
        ] {
            assert_eq!(check(backup, server).is_ok(), good, "{backup} on {server}");
        }
    }
}
