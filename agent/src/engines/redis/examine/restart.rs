//! Whether the server comes back from a restart as what it is now.

use super::Seen;
use super::judge::judged;
use crate::check::Check;

const NAME: &str = "restart";

pub(super) fn check(seen: &Seen) -> Check {
    let Some(startup) = &seen.startup else {
        let detail = if seen.config_file.is_empty() {
            "the server was started without a configuration file: what was set since does not survive a restart"
                .to_owned()
        } else {
            format!("{} cannot be read here, so it was not compared with the settings in force", seen.config_file)
        };
        return Check::warning(NAME, detail);
    };
    let (mut problems, mut warnings) = (vec![], vec![]);
    for (name, usual) in [
        ("appendonly", "no"),
        ("dbfilename", "dump.rdb"),
        ("appendfilename", "appendonly.aof"),
        ("appenddirname", "appendonlydir"),
    ] {
        let (now, then) = (seen.setting(name), startup.last(name).unwrap_or(usual));
        if !now.is_empty() && now != then {
            problems
                .push(format!("`{name}` is {now} and {} says {then}: a restart reads other files", seen.config_file));
        }
    }
    // A relative folder is one of where the server was started, which nobody can tell.
    if let Some(then) = startup.last("dir").filter(|d| d.starts_with('/'))
        && then.trim_end_matches('/') != seen.setting("dir").trim_end_matches('/')
    {
        problems.push(format!("`dir` is {} and {} says {then}", seen.setting("dir"), seen.config_file));
    }
    // Nothing said means save points, which is what Redis does then.
    let saves_then = startup.last("save").is_none_or(|s| !s.is_empty());
    if saves_then != seen.has_save_points() {
        let says = if saves_then { "has save points" } else { "has none" };
        warnings.push(format!("save points differ: {} {says}", seen.config_file));
    }
    let limit_then = startup.last("maxmemory").map_or(Some(0), bytes);
    if let (Some(then), Ok(now)) = (limit_then, seen.setting("maxmemory").parse::<u64>())
        && then != now
    {
        warnings.push(format!("`maxmemory` is {now} and {} says {then}", seen.config_file));
    }
    if startup.includes() {
        warnings.push(format!("{} includes other files, which were not looked into", seen.config_file));
    }
    judged(NAME, problems, warnings, format!("{} says what is in force", seen.config_file))
}

/// `1gb`, `100k`, `4096`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// For tests of this and its neighbours.
#[cfg(test)]
pub(super) fn startup(text: &str) -> super::Startup {
    super::Startup::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_server_reads_them() {
        let read = ["0", "4096", "100k", "1kb", "2MB", "1gb", "1tb", "x"].map(bytes);
        let expected = [Some(0), Some(4096), Some(100_000), Some(1024), Some(2 << 20), Some(1 << 30), None, None];
        assert_eq!(read, expected);
    }
}
