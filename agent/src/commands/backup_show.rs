//! `perennial backup show`

use perennial_shared::id::BackupId;
use perennial_shared::manifest::Manifest;
use perennial_shared::resolve::resolve;

use super::Outcome;
use super::table::table;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::restore::choose;
use crate::units::bytes;

/// Shows one backup's manifest.
pub async fn run(context: &Context, id: Option<&BackupId>) -> Result<Outcome, Failure> {
    let resolution = resolve(&context.repository).await?;
    let candidate = choose::candidate(&resolution, id)?;
    let Some(manifest) = &candidate.manifest else {
        let message = format!("backup {} has no manifest: something other than Perennial made it", candidate.id);
        return Err(Failure::new(Exit::Problems, "NoManifest", message));
    };
    Outcome::new(text(manifest), manifest, Exit::Ok)
}

fn text(manifest: &Manifest) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("backup", manifest.backup_id.to_string()),
        row("path", manifest.path.clone()),
        row("taken", format!("{} to {}", manifest.started_at, manifest.finished_at)),
        row("reason", format!("{:?}", manifest.reason).to_lowercase()),
        row("engine", format!("{} {} on {}", manifest.engine, manifest.engine_version, manifest.host_name)),
        row("owner", format!("{}, generation {}", manifest.owner.as_deref().unwrap_or("nobody"), manifest.generation)),
        row("size", format!("{} in {} objects", bytes(manifest.size_bytes), manifest.objects.len())),
    ];
    for collection in &manifest.collections {
        let count = if collection.count_before == collection.count_after {
            format!("{} objects", collection.count_after)
        } else {
            format!("{} to {} objects (written to meanwhile)", collection.count_before, collection.count_after)
        };
        rows.push(row(&collection.name, format!("{count}, {} sample queries", collection.samples.len())));
    }
    table(&rows)
}
