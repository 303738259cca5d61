//! Since when a repository does not give what it should, as another one remembers it.

use jiff::{SignedDuration, Timestamp};
use perennial_shared::repository::{Repository, RepositoryError};
use serde::{Deserialize, Serialize};

use super::Lack;

/// The record `outage.json`: what is lacking now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outages(Vec<Outage>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outage {
    /// The number of a replica; absent for the target's own repository.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    replica: Option<usize>,
    kind: String,
    since: Timestamp,
    /// When that was last so.
    seen: Timestamp,
    why: String,
}

impl Outages {
    const KEY: &'static str = "outage.json";
    /// Ticks come each minute. After this long without one that saw it, another outage begins.
    const FORGOTTEN: SignedDuration = SignedDuration::from_mins(5);

    /// Records that these last, and tells since when all of them do.
    pub(super) async fn of(place: &Repository, now: Timestamp, lacks: &[Lack]) -> Result<Timestamp, RepositoryError> {
        let known: Self = place.record(Self::KEY).await?.unwrap_or_default();
        let lasting = |lack: &Lack| {
            let same = |o: &&Outage| (o.replica, &*o.kind) == (lack.place, lack.kind);
            let before = known.0.iter().find(same).filter(|o| now.duration_since(o.seen) < Self::FORGOTTEN);
            let since = before.map_or(now, |o| o.since);
            Outage { replica: lack.place, kind: lack.kind.into(), since, seen: now, why: lack.why.clone() }
        };
        let all = Self(lacks.iter().map(lasting).collect());
        let since = all.0.iter().map(|o| o.since).max().unwrap_or(now);
        place.put_record(Self::KEY, &all).await?;
        Ok(since)
    }

    /// Since when the target's own repository gave nothing, and why.
    pub(super) async fn of_repository(place: &Repository) -> Result<Option<(Timestamp, String)>, RepositoryError> {
        let known: Self = place.record(Self::KEY).await?.unwrap_or_default();
        Ok(known.0.into_iter().find(|o| o.replica.is_none()).map(|o| (o.since, o.why)))
    }

    /// Records that nothing is lacking, where something was.
    pub(super) async fn are_over(place: &Repository) -> Result<(), RepositoryError> {
        if place.record(Self::KEY).await?.is_some_and(|known: Self| !known.0.is_empty()) {
            place.put_record(Self::KEY, &Self::default()).await?;
        }
        Ok(())
    }
}
