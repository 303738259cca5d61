//! Base or increment: the decision, and why. Pure.

use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::Manifest;
use perennial_shared::settings::ArchiveSettings;

use crate::failure::{Exit, Failure};

/// Which kind of backup is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Kind {
    /// An increment where the chain allows one, else a base.
    #[default]
    Auto,
    /// A base.
    Base,
    /// An increment, or nothing.
    Incremental,
}

/// What will be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// A base, and why.
    Base(String),
    /// An increment on the newest backup, and why.
    Increment(String),
}

/// What is known of the backup that an increment would build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) id: BackupId,
    pub(super) is_archive: bool,
    pub(super) position: u32,
    pub(super) base_made_at: Option<Timestamp>,
    /// Why nothing can be built on it: an object of its chain is missing, or its key is another one.
    pub(super) broken: Option<String>,
}

impl Newest {
    pub(super) fn of(manifest: &Manifest, broken: Option<String>) -> Self {
        let archive = manifest.archive.as_ref();
        Self {
            id: manifest.backup_id.clone(),
            is_archive: archive.is_some(),
            position: archive.map_or(0, |a| a.position),
            base_made_at: archive.and_then(|a| a.base.made_at()),
            broken,
        }
    }
}

/// Decides. An increment that was asked for and cannot be made is refused: a base in its place might not fit the time or the money.
pub(super) fn decide(
    kind: Kind,
    newest: Option<&Newest>,
    settings: &ArchiveSettings,
    now: Timestamp,
) -> Result<Decision, Failure> {
    if kind == Kind::Base {
        return Ok(Decision::Base("a base was asked for".into()));
    }
    let why_not = match newest {
        None => Some("there is no backup to build on".to_owned()),
        Some(newest) => why_not(newest, settings, now),
    };
    match (why_not, newest, kind) {
        (None, Some(newest), _) => Ok(Decision::Increment(format!("builds on {}", newest.id))),
        (why, _, Kind::Incremental) => {
            let why = why.unwrap_or_default();
            let message = format!("no incremental backup can be made: {why}; `--type base` makes a base");
            Err(Failure::new(Exit::Refused, "NoIncrement", message))
        }
        (why, _, _) => Ok(Decision::Base(why.unwrap_or_default())),
    }
}

fn why_not(newest: &Newest, settings: &ArchiveSettings, now: Timestamp) -> Option<String> {
    if !newest.is_archive {
        return Some(format!("the newest backup, {}, is not made of archives", newest.id));
    }
    if let Some(why) = &newest.broken {
        return Some(format!("nothing can be built on {}: {why}", newest.id));
    }
    if newest.position >= settings.max_increments {
        return Some(format!("the chain has {} increments, as many as `archive.max_increments`", newest.position));
    }
    let age = newest.base_made_at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
    match age {
        None => Some("the age of the chain's base is not known".into()),
        Some(age) if age > settings.max_chain_age => {
            Some(format!("the chain's base is {} hours old, older than `archive.max_chain_age`", age.as_secs() / 3600))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use perennial_shared::id::Generation;

    use super::*;

    #[test]
    fn a_chain_is_bounded_and_nothing_is_silent() {
        let now = Timestamp::from_second(1_800_000_000).expect("in range");
        let before = |hours: i64| Timestamp::from_second(1_800_000_000 - 3600 * hours).expect("in range");
        let settings = ArchiveSettings {
            max_increments: 3,
            max_chain_age: Duration::from_secs(48 * 3600),
            ..ArchiveSettings::default()
        };
        let good = Newest {
            id: BackupId::new(now, Generation(1)),
            is_archive: true,
            position: 2,
            base_made_at: Some(before(47)),
            broken: None,
        };
        let rows: [(Option<Newest>, &str); 6] = [
            (None, "no backup to build on"),
            (Some(Newest { is_archive: false, ..good.clone() }), "not made of archives"),
            (Some(Newest { position: 3, ..good.clone() }), "max_increments"),
            (Some(Newest { base_made_at: Some(before(49)), ..good.clone() }), "max_chain_age"),
            (Some(Newest { base_made_at: None, ..good.clone() }), "not known"),
            (Some(Newest { broken: Some("data-0 is missing".into()), ..good.clone() }), "data-0 is missing"),
        ];
        for (newest, word) in rows {
            let made = decide(Kind::Auto, newest.as_ref(), &settings, now).expect("a base");
            assert!(matches!(&made, Decision::Base(why) if why.contains(word)), "{made:?}");
            let refused = decide(Kind::Incremental, newest.as_ref(), &settings, now).expect_err("refused");
            assert!(refused.exit == Exit::Refused && refused.message.contains(word), "{refused}");
        }
        for kind in [Kind::Auto, Kind::Incremental] {
            let made = decide(kind, Some(&good), &settings, now).expect("an increment");
            assert!(matches!(made, Decision::Increment(_)));
        }
        assert!(matches!(decide(Kind::Base, Some(&good), &settings, now), Ok(Decision::Base(_))));
    }
}
