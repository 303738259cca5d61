//! Which backups need an object: every manifest of the repository is asked.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::report::{Report, Verdict};
use crate::aws::chain;
use crate::id::BackupId;
use crate::repository::Repository;
use crate::store::Meta;

/// Manifests that are read together.
const AT_ONCE: usize = 8;

/// Adds to each damaged object the backups that need it. Asked only where something is damaged: it reads every manifest.
pub(super) async fn add(repository: &Repository, report: &mut Report) {
    if report.damaged.is_empty() {
        return;
    }
    let folders = match repository.backup_objects().await {
        Ok(folders) => folders,
        Err(e) => {
            let why = format!("which other backups need the damaged objects could not be told: {}", chain(&e));
            return report.note(Verdict::CouldNotTell, why);
        }
    };
    let mut asked = stream::iter(with_manifest(&folders)).map(|id| needs(repository, id)).buffered(AT_ONCE);
    while let Some(answer) = asked.next().await {
        match answer {
            Ok((id, keys)) => {
                for damage in report.damaged.iter_mut().filter(|d| keys.contains(&d.object)) {
                    damage.backups.push(id.clone());
                }
            }
            Err(why) => report.notes.push(format!("whether it needs a damaged object could not be told: {why}")),
        }
    }
    drop(asked);
    let lines: Vec<_> = report.damaged.iter().map(|d| line(&d.object, d.places, d.what.len(), &d.backups)).collect();
    for line in lines {
        report.note(Verdict::Damaged, line);
    }
}

fn with_manifest(folders: &BTreeMap<String, Vec<Meta>>) -> Vec<BackupId> {
    let ids = folders.iter().filter_map(|(name, objects)| Some((name.parse::<BackupId>().ok()?, objects)));
    let described = |id: &BackupId, objects: &[Meta]| objects.iter().any(|m| m.key == Repository::manifest_key(id));
    ids.filter(|(id, objects)| described(id, objects)).map(|(id, _)| id).collect()
}

/// The keys of all objects that a backup needs.
async fn needs(repository: &Repository, id: BackupId) -> Result<(BackupId, Vec<String>), String> {
    let manifest = repository.manifest(&id).await.map_err(|e| chain(&e))?;
    let chain = manifest.archive.iter().flat_map(|archive| &archive.objects);
    Ok((id, chain.map(crate::manifest::ArchiveObject::full_key).collect()))
}

fn line(object: &str, places: usize, told: usize, backups: &[BackupId]) -> String {
    let more = if places > told { format!("{} more places of it are damaged; ", places - told) } else { String::new() };
    let ids: Vec<_> = backups.iter().map(BackupId::as_str).collect();
    match ids.len() {
        0 => format!("{object}: {more}no backup with a readable manifest needs it"),
        1 => format!("{object}: {more}backup {} needs it", ids[0]),
        n => format!("{object}: {more}{n} backups need it: {}", ids.join(", ")),
    }
}
