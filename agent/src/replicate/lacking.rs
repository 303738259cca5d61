//! What a replica lacks of the backups that the first repository has.
//!
//! Newest first: where time or room runs out, the newest are there. The memory is that of the two lists of names and one manifest.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Instant;

use perennial_shared::id::BackupId;
use perennial_shared::repository::Repository;
use perennial_shared::store::StoreError;

use super::copy::{self, CopyError};
use super::in_mebibytes;
use crate::context::Context;
use crate::failure::Failure;
use crate::watch::Watch;

/// The backups whose manifest the first repository has and the replica has not, newest first.
pub async fn lacking(first: &Repository, replica: &Repository) -> Result<Vec<BackupId>, StoreError> {
    let there = described(replica).await?;
    let mut lacking: Vec<_> = described(first).await?.into_iter().filter(|id| !there.contains(id)).collect();
    lacking.sort_by_key(|id| Reverse((id.generation(), id.clone())));
    Ok(lacking)
}

/// The backups that have a manifest.
async fn described(repository: &Repository) -> Result<BTreeSet<BackupId>, StoreError> {
    let listed = repository.store().list("backups/").await?;
    let name = |key: &str| key.strip_prefix("backups/")?.strip_suffix("/manifest.json")?.parse().ok();
    Ok(listed.iter().filter_map(|meta| name(&meta.key)).collect())
}

/// Copies them, and tells what became of each; what would be begun after `until` is left for the next time.
pub(super) async fn bring(
    first: &Context,
    replica: &Context,
    until: Option<Instant>,
    watch: &dyn Watch,
) -> Result<Vec<String>, Failure> {
    let location = replica.repository.location();
    let lacking = lacking(&first.repository, &replica.repository).await?;
    let mut told = vec![];
    for (n, id) in lacking.iter().enumerate() {
        if until.is_some_and(|until| Instant::now() >= until) {
            told.push(format!("{location} still lacks {} backups: the next copying goes on", lacking.len() - n));
            break;
        }
        told.push(match copy::backup(first, replica, id, watch).await {
            Ok(sent) => format!("copied to {location} backup {id}, which was lacking there: {}", in_mebibytes(sent)),
            Err(CopyError::Backup(e)) => format!("backup {id} was not copied to {location}: {}", e.message),
            Err(CopyError::Repository(e)) => return Err(e),
        });
    }
    Ok(told)
}
