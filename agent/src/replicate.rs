//! Copies of backups in further repositories: other regions, other accounts.
//!
//! Promises: every replica gets the backup that was just made, and after all have that, whatever else the first repository has and it lacks: what was
//! made while it was away, and the final backup of an instance, for whose copying the Auto Scaling group does not wait. What the first
//! repository has no longer is brought back nowhere. "Copied" is said of what the replica was seen to have ([`copy`]).
//!
//! How it fails: all replicas are tried, and one that failed is a failure that names it. A backup that cannot be copied because it is
//! damaged, or was removed meanwhile, keeps no other from being copied; it is told each time, until it is removed or right.

mod copy;
mod fall_over;
mod lacking;
#[cfg(test)]
mod tests;

use std::time::Instant;

use perennial_shared::id::BackupId;
use perennial_shared::settings::RepositorySettings;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::watch::Watch;

pub use fall_over::{another_may_help, from_where_it_can};
pub use lacking::lacking;

/// Copies the backup called `id` to every replica of the target, and then what each lacks, of which nothing is begun after `until`.
pub async fn everywhere(
    context: &Context,
    id: &BackupId,
    until: Option<Instant>,
    watch: &dyn Watch,
) -> Result<Vec<String>, Failure> {
    let (mut done, mut failed, mut reached) = (vec![], vec![], vec![]);
    // The newest everywhere first: what one replica lacks may take all the time there is.
    for settings in &context.target.replicas {
        match first_of_all(context, settings, id, watch).await {
            Ok((replica, sent)) => {
                done.push(format!("copied to {settings}: {}", in_mebibytes(sent)));
                reached.push((settings, replica));
            }
            Err(e) => failed.push(format!("it was not copied to {settings}: {}", e.message)),
        }
    }
    for (settings, replica) in reached {
        match lacking::bring(context, &replica, until, watch).await {
            Ok(told) => done.extend(told),
            Err(e) => failed.push(format!("not all that {settings} lacks could be copied there: {}", e.message)),
        }
    }
    if failed.is_empty() {
        return Ok(done);
    }
    let message = format!("backup {id} is published, but {}", failed.join("; "));
    Err(Failure::new(Exit::Failed, "ReplicaFailed", message))
}

/// The replica with the newest backup in it, and how many bytes had to be sent.
async fn first_of_all(
    context: &Context,
    settings: &RepositorySettings,
    id: &BackupId,
    watch: &dyn Watch,
) -> Result<(Context, u64), Failure> {
    let replica = context.with_repository(settings)?;
    let sent = copy::backup(context, &replica, id, watch).await?;
    copy::follow(&context.repository, &replica.repository).await?;
    Ok((replica, sent))
}

fn in_mebibytes(sent: u64) -> String {
    format!("{} MiB sent", sent.div_ceil(1 << 20))
}
