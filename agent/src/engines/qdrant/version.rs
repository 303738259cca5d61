//! Which server may restore which backup.

use crate::engine::EngineError;

/// Earlier servers can store an archive twice while they recover it, and do not limit files to the snapshots folder.
const GOOD: (u64, u64) = (1, 17);
/// Earlier ones do not tell what changed.
const TELLS_CHANGES: (u64, u64, u64) = (1, 14, 1);

/// Major, minor, patch.
pub(super) fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// Whether a backup by one version restores on another; what a person should know.
pub(super) fn may_restore(backup: &str, running: &str) -> Result<Vec<String>, EngineError> {
    let refused = |why| EngineError::VersionUnsupported { backup: backup.into(), engine: running.into(), why };
    let (Some(from), Some(to)) = (parse(backup), parse(running)) else {
        return Ok(vec![format!("the versions {backup:?} and {running:?} cannot be compared")]);
    };
    if (to.0, to.1) < (from.0, from.1) {
        return Err(refused(
            "Qdrant reads data of its own and of older minor versions only; use the same or a newer one",
        ));
    }
    if to.0 != from.0 {
        return Err(refused("it is another major version"));
    }
    if to.1 > from.1 + 1 {
        return Ok(vec![format!(
            "the backup is by {backup} and the server is {running}: Qdrant upgrades one minor version at a time"
        )]);
    }
    Ok(vec![])
}

/// What a server's version is bad for; `None` if nothing.
pub(super) fn shortcoming(version: &str) -> Option<&'static str> {
    let found = parse(version)?;
    if found < TELLS_CHANGES {
        return Some("it does not tell which collections changed, so every backup reads them all; 1.14.1 does");
    }
    ((found.0, found.1) < GOOD)
        .then_some("before 1.17 a restore may need twice the space, and WAL replay had errors; upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_restores_on_the_same_or_a_newer_minor_version() {
        assert_eq!(may_restore("1.18.3", "1.18.0").expect("same minor"), Vec::<String>::new());
        assert_eq!(may_restore("1.18.3", "1.19.0").expect("next minor"), Vec::<String>::new());
        assert_eq!(may_restore("1.14.1", "1.18.0").expect("far").len(), 1);
        assert!(may_restore("1.18.3", "1.17.9").is_err());
        assert!(may_restore("1.18.3", "2.0.0").is_err());
        assert_eq!(may_restore("dev", "1.18.3").expect("unknown").len(), 1);
    }

    #[test]
    fn old_servers_are_told() {
        assert!(shortcoming("1.13.0").is_some_and(|s| s.contains("changed")));
        assert!(shortcoming("1.16.3").is_some());
        assert_eq!(shortcoming("1.18.3"), None);
        assert_eq!(parse("1.19.0-dev"), Some((1, 19, 0)));
    }
}
