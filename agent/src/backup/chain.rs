//! Base or increment: the decision, and why. Pure.

use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::aws::chain as causes;
use perennial_shared::id::BackupId;
use perennial_shared::manifest::{Manifest, ManifestError};
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::RepositoryError;
use perennial_shared::settings::ArchiveSettings;
use perennial_shared::store::StoreError;

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

/// Added where an increment was asked for and cannot be made.
const BASE_CAN: &str = "; `--type base` makes a base";

/// The backup that the pointer names, or why it names none.
pub(super) fn named(pointer: &PointerState) -> Result<&BackupId, String> {
    match pointer {
        PointerState::Present { pointer, .. } => pointer.backup_id.as_ref().ok_or_else(none_yet),
        PointerState::Absent => Err(none_yet()),
        PointerState::Bare { backup_id, .. } => {
            Err(format!("a boot script wrote the pointer, which says nothing of {backup_id} but its name"))
        }
        PointerState::Damaged { why, .. } => Err(format!("the pointer to the newest backup is damaged: {why}")),
    }
}

fn none_yet() -> String {
    "there is no backup to build on".into()
}

/// What is wrong with the manifest of the newest backup; `None` where that cannot be told.
pub(super) fn unreadable(id: &BackupId, error: &RepositoryError) -> Option<String> {
    let of = format!("the manifest of the newest backup, {id},");
    match error {
        RepositoryError::Store(StoreError::NotFound { .. }) => Some(format!("{of} is missing")),
        RepositoryError::Store(e @ StoreError::Corrupt { .. }) => Some(format!("{of} is damaged: {}", causes(e))),
        RepositoryError::Manifest(ManifestError::Damaged { why, .. }) => Some(format!("{of} is damaged: {why}")),
        RepositoryError::Manifest(ManifestError::Newer { format, .. }) => {
            Some(format!("{of} has format {format}, written by a newer version of this program"))
        }
        _ => None,
    }
}

/// What is made where the parent of an increment turned out to be of no use.
pub(super) fn instead(kind: Kind, parent: &BackupId, failure: &Failure) -> Result<Decision, Failure> {
    let why = useless(parent, &failure.message);
    match kind {
        Kind::Auto => Ok(Decision::Base(why)),
        Kind::Base | Kind::Incremental => Err(Failure::new(failure.exit, failure.code, format!("{why}{BASE_CAN}"))),
    }
}

fn useless(parent: &BackupId, why: &str) -> String {
    format!("nothing can be built on {parent}: {why}")
}

/// Decides. An increment that was asked for and cannot be made is refused: a base in its place might not fit the time or the money.
pub(super) fn decide(
    kind: Kind,
    newest: Result<&Newest, &String>,
    settings: &ArchiveSettings,
    now: Timestamp,
) -> Result<Decision, Failure> {
    if kind == Kind::Base {
        return Ok(Decision::Base("a base was asked for".into()));
    }
    let why_not = match newest {
        Err(why) => Some(why.clone()),
        Ok(newest) => why_not(newest, settings, now),
    };
    match (why_not, newest, kind) {
        (None, Ok(newest), _) => Ok(Decision::Increment(format!("builds on {}", newest.id))),
        (why, _, Kind::Incremental) => {
            let message = format!("no incremental backup can be made: {}{BASE_CAN}", why.unwrap_or_default());
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
        return Some(useless(&newest.id, why));
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
    use perennial_shared::store::Version;

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
        let rows: [(Result<Newest, String>, &str); 6] = [
            (Err("the pointer is damaged".into()), "the pointer is damaged"),
            (Ok(Newest { is_archive: false, ..good.clone() }), "not made of archives"),
            (Ok(Newest { position: 3, ..good.clone() }), "max_increments"),
            (Ok(Newest { base_made_at: Some(before(49)), ..good.clone() }), "max_chain_age"),
            (Ok(Newest { base_made_at: None, ..good.clone() }), "not known"),
            (Ok(Newest { broken: Some("data-0 is missing".into()), ..good.clone() }), "data-0 is missing"),
        ];
        for (newest, word) in rows {
            let made = decide(Kind::Auto, newest.as_ref(), &settings, now).expect("a base");
            assert!(matches!(&made, Decision::Base(why) if why.contains(word)), "{made:?}");
            let refused = decide(Kind::Incremental, newest.as_ref(), &settings, now).expect_err("refused");
            assert!(refused.exit == Exit::Refused && refused.message.contains(word), "{refused}");
        }
        for kind in [Kind::Auto, Kind::Incremental] {
            let made = decide(kind, Ok(&good), &settings, now).expect("an increment");
            assert!(matches!(made, Decision::Increment(_)));
        }
        assert!(matches!(decide(Kind::Base, Ok(&good), &settings, now), Ok(Decision::Base(_))));
    }

    #[test]
    fn why_there_is_none_is_told_as_it_is() {
        let id = BackupId::new(Timestamp::UNIX_EPOCH, Generation(1));
        let pointer = |text: &str| PointerState::parse(text.as_bytes(), Version::new("v"));
        for (pointer, word) in [
            (PointerState::Absent, "there is no backup"),
            (pointer("{\"form"), "is damaged: EOF"),
            (pointer("{\"backup_id\": \"b1\"}"), "boot script"),
        ] {
            let why = named(&pointer).expect_err("no name");
            assert!(why.contains(word), "{why}");
        }
        let store = |make: fn(&str, String, std::io::Error) -> StoreError| {
            RepositoryError::Store(make("manifest.json", "s3://b".into(), std::io::Error::other("said")))
        };
        for (error, word) in [
            (store(StoreError::not_found), Some("is missing")),
            (store(StoreError::corrupt), Some("is damaged")),
            (store(StoreError::denied), None),
            (store(StoreError::unavailable), None),
            (ManifestError::Damaged { id: id.to_string(), why: "cut".into() }.into(), Some("is damaged: cut")),
            (ManifestError::Newer { id: id.to_string(), format: 9 }.into(), Some("format 9")),
        ] {
            let why = unreadable(&id, &error);
            assert_eq!(why.is_some(), word.is_some(), "{error}");
            assert!(why.is_none_or(|why| why.contains(word.unwrap_or_default()) && why.contains(id.as_str())));
        }
    }

    #[test]
    fn a_base_stands_in_for_an_increment_where_it_may() {
        let id = BackupId::new(Timestamp::UNIX_EPOCH, Generation(1));
        let failure = Failure::new(Exit::Problems, "ParentDamaged", "the index is torn");
        let made = instead(Kind::Auto, &id, &failure).expect("a base");
        assert!(matches!(made, Decision::Base(why) if why.contains("the index is torn") && why.contains(id.as_str())));
        let refused = instead(Kind::Incremental, &id, &failure).expect_err("an increment or nothing");
        assert!(refused.code == "ParentDamaged" && refused.message.contains("--type base"), "{refused}");
    }
}
