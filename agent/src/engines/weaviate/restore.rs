//! Weaviate's native restore, and everything that is found out before and after it.
//!
//! Weaviate downloads first and looks later: a collection that exists fails the restore after the download, and a folder that
//! it does not know makes it say SUCCESS with data missing. So both are looked for before. Afterwards every collection of
//! the backup must be there; whether its objects are is for the caller to count.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, json};

use super::client::Client;
use super::operation::Operation;
use super::{inventory, left_over};
use crate::engine::native::Description;
use crate::engine::{EngineError, Progress, Step};

/// The oldest server whose backups today's servers restore.
const OLDEST: (u32, u32) = (1, 23);

pub(super) async fn install(
    operation: Operation<'_>,
    data_dir: Option<&std::path::Path>,
    description: &Description,
    host_name: &str,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<(), EngineError> {
    if operation.running().await?.is_none() {
        begin(operation, description, host_name).await?;
    }
    let staged = || data_dir.map(left_over::staged_bytes);
    operation.wait(patience, &|state| progress(Step { state, done: staged() })).await?;
    let present = names(operation.client).await?;
    let absent: Vec<_> = description.collections.iter().filter(|c| !present.contains(*c)).cloned().collect();
    if absent.is_empty() {
        return Ok(());
    }
    Err(operation.failed(format!("the engine said SUCCESS, but {} is not there", absent.join(", "))))
}

async fn begin(operation: Operation<'_>, description: &Description, host_name: &str) -> Result<(), EngineError> {
    let mut config = operation.config();
    // Roles and users are part of the database; without these words they are left out.
    config.insert("rolesOptions".into(), json!("all"));
    config.insert("usersOptions".into(), json!("all"));
    let mut body = Map::from_iter([("config".to_owned(), config.into())]);
    // A mapping from a name that is not in the backup makes the server panic and answer 200 with nothing.
    if description.host_name != host_name {
        body.insert("node_mapping".into(), json!({ (description.host_name.as_str()): host_name }));
    }
    match operation.begin(body.into()).await? {
        None => Ok(()),
        Some(refusal) => Err(refusal),
    }
}

/// Whatever stands where the restore would put something.
pub(super) async fn check(
    client: &Client,
    data_dir: Option<&std::path::Path>,
    description: &Description,
) -> Result<(), EngineError> {
    let present = names(client).await?;
    // Folders are named in lower case, so `Doc` also stands in the way of `DOC`.
    let lower: BTreeSet<_> = present.iter().map(|n| n.to_lowercase()).collect();
    let names: Vec<_> = description.collections.iter().filter(|c| lower.contains(&c.to_lowercase())).cloned().collect();
    if !names.is_empty() {
        return Err(EngineError::CollectionExists { names });
    }
    let Some(data_dir) = data_dir else { return Ok(()) };
    let folders = left_over::of_collections(data_dir, &description.collections)?;
    if folders.is_empty() { Ok(()) } else { Err(EngineError::OrphanFolder { folders }) }
}

async fn names(client: &Client) -> Result<BTreeSet<String>, EngineError> {
    Ok(inventory::classes(client).await?.into_iter().map(|c| c.name).collect())
}

/// Whether a server of the version `engine` restores backups of the version `backup`.
pub(super) fn check_version(backup: &str, engine: &str) -> Result<(), EngineError> {
    let refuse = |why| Err(EngineError::VersionUnsupported { backup: backup.into(), engine: engine.into(), why });
    match (major_minor(backup), major_minor(engine)) {
        (Some(b), _) if b < OLDEST => {
            refuse("backups by servers before 1.23 are in a form that is no longer read; restore it on 1.23 first")
        }
        (Some(b), Some(e)) if b > e => {
            refuse("the engine is older than the backup; start the version that wrote it, or a later one")
        }
        // A development build may have any version; the engine itself has the last word.
        _ => Ok(()),
    }
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_restores_on_its_own_version_and_later_ones() {
        for (backup, engine, fits) in [
            ("1.39.0", "1.39.0", true),
            ("1.39.2", "1.39.0", true),
            ("1.38.9", "1.39.0", true),
            ("1.40.0", "1.39.0", false),
            ("2.0.0", "1.39.0", false),
            ("1.22.9", "1.39.0", false),
            ("1.23.0", "1.39.0", true),
            ("dev", "1.39.0", true),
        ] {
            assert_eq!(check_version(backup, engine).is_ok(), fits, "{backup} on {engine}");
        }
    }
}
