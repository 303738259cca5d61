//! Names with a meaning. Each parses from its text form and prints back the same text.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A text that is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}; it should look like {example}")]
pub struct BadName {
    /// What the text should have been.
    pub kind: &'static str,
    /// The text as given.
    pub text: String,
    /// A well-formed one.
    pub example: &'static str,
}

/// How often the target has been taken over. Every key that a live writer makes carries it, so
/// that a writer that has lost the target (a zombie) can be told from its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation after a take-over. It never goes back to the first one, whatever a pointer says.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `<UTC time>-g<generation>-<random>`, such as `20261121t105501z-g0003-7f3a9c`: sorts by time, is never used twice,
/// and is lower case because Weaviate takes only `^[a-z0-9_-]+$` as a backup id.
///
/// A backup that something else made (a boot script, a person) has whatever id it was given; it has no
/// [`BackupId::generation`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A new id for a backup begun at `at` by the owner of `generation`.
    pub fn new(at: Timestamp, generation: Generation) -> Self {
        let random: u32 = rand::random();
        Self(format!("{}-g{:04}-{:06x}", at.strftime("%Y%m%dt%H%M%Sz"), generation.0, random & 0xff_ffff))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The generation in an id that Perennial made; `None` for any other.
    pub fn generation(&self) -> Option<Generation> {
        let mut parts = self.0.split('-');
        let (time, generation, random) = (parts.next()?, parts.next()?, parts.next()?);
        let shaped = time.len() == 16 && random.len() == 6 && parts.next().is_none();
        let digits = generation.strip_prefix('g').filter(|d| shaped && d.len() >= 4)?;
        digits.parse().ok().map(Generation)
    }

    /// When an id that Perennial made was made; `None` for any other.
    pub fn made_at(&self) -> Option<Timestamp> {
        self.generation()?;
        let text = self.0.get(..16)?.to_uppercase();
        jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text)
            .ok()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|z| z.timestamp())
    }
}

impl FromStr for BackupId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let fits = !text.is_empty()
            && text.len() <= 128
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !fits {
            return Err(BadName { kind: "backup id", text: text.into(), example: "20261121t105501z-g0003-7f3a9c" });
        }
        Ok(Self(text.into()))
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// Brings a backup back on an instance that waits in its launch hook.
    Restore,
    /// A backup of an instance that waits in its terminate hook, while clients are still connected.
    Precopy,
    /// The last backup of an instance that waits in its terminate hook.
    Final,
    /// A scheduled backup of the instance in service.
    Backup,
}

impl RunKind {
    const ALL: [Self; 4] = [Self::Restore, Self::Precopy, Self::Final, Self::Backup];

    /// What a run of this name does, and what follows the word in it.
    fn of(name: &str) -> Option<(Self, &str)> {
        let (word, rest) = name.split_once('-')?;
        Some((Self::ALL.into_iter().find(|kind| kind.word() == word)?, rest))
    }

    /// The word that run names begin with.
    pub fn word(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Precopy => "precopy",
            Self::Final => "final",
            Self::Backup => "backup",
        }
    }
}

/// `restore-<instance>-<n>`, `precopy-<instance>-<n>`, `final-<instance>-<n>` or `backup-<time>`: names the records of one run and is the
/// comment of its SSM command, by which the command is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The `attempt`th run of this kind on an instance; attempts count from 1.
    pub fn on_instance(kind: RunKind, instance: &str, attempt: u32) -> Self {
        Self(format!("{}-{instance}-{attempt}", kind.word()))
    }

    /// The backup of one scheduled instant: two deliveries of one schedule make the same name.
    pub fn scheduled(at: Timestamp) -> Self {
        Self(format!("backup-{}", at.strftime("%Y%m%dt%H%M%Sz")))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What this run does.
    pub fn kind(&self) -> RunKind {
        RunKind::of(&self.0).map_or(RunKind::Backup, |(kind, _)| kind)
    }

    /// Which attempt on its instance this is; `None` for a scheduled backup.
    pub fn attempt(&self) -> Option<u32> {
        if self.kind() == RunKind::Backup { None } else { self.0.rsplit('-').next()?.parse().ok() }
    }
}

impl FromStr for RunId {
    type Err = BadName;

    /// The same rule as the SSM document's `allowedPattern`.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let fits = RunKind::of(text).is_some_and(|(_, rest)| {
            (1..=60).contains(&rest.len())
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
        if !fits {
            return Err(BadName { kind: "run id", text: text.into(), example: "restore-i-0abc123def4567890-1" });
        }
        Ok(Self(text.into()))
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
as_text!(BackupId, RunId);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn a_backup_id_tells_its_time_and_generation() {
        let id = BackupId::new(at("2026-11-21T10:55:01Z"), Generation(3));
        assert!(id.as_str().starts_with("20261121t105501z-g0003-"), "{id}");
        assert_eq!(id.generation(), Some(Generation(3)));
        assert_eq!(id.made_at(), Some(at("2026-11-21T10:55:01Z")));
        assert_eq!(id.as_str().parse::<BackupId>(), Ok(id));
    }

    #[test]
    fn ids_sort_by_time_also_past_generation_9999() {
        let early = BackupId::new(at("2026-11-21T10:55:01Z"), Generation(12_345));
        let late = BackupId::new(at("2026-11-21T10:55:02Z"), Generation(2));
        assert!(early < late);
        assert_eq!(early.generation(), Some(Generation(12_345)));
    }

    #[test]
    fn a_foreign_backup_id_has_no_generation() {
        for text in ["nightly", "b1", "20250919t153000z", "20261121t105501z-x0003-7f3a9c", "a-g0001-ffffff"] {
            assert_eq!(text.parse::<BackupId>().expect(text).generation(), None, "{text}");
        }
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in ["", "../x", "A", "a b", "a/b", "a;rm -rf", "é", &"a".repeat(129)] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
        for text in [
            "",
            "restore-",
            "drop-x",
            "restore-i-1;id",
            "restore-I-1",
            "final-$(id)",
            &format!("backup-{}", "a".repeat(61)),
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_id_tells_kind_and_attempt() {
        for (kind, name) in [
            (RunKind::Restore, "restore-i-0abc-2"),
            (RunKind::Precopy, "precopy-i-0abc-2"),
            (RunKind::Final, "final-i-0abc-2"),
        ] {
            let run = RunId::on_instance(kind, "i-0abc", 2);
            assert_eq!((run.as_str(), run.kind(), run.attempt()), (name, kind, Some(2)));
            assert_eq!(name.parse(), Ok(run));
        }
        let run = RunId::scheduled(at("2026-11-21T10:55:00Z"));
        assert_eq!((run.as_str(), run.kind(), run.attempt()), ("backup-20261121t105500z", RunKind::Backup, None));
    }
}
