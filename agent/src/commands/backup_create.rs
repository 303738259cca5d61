//! `perennial backup create`

use std::time::Duration;

use perennial_shared::manifest::{BackupKind, Manifest, Reason};

use super::Outcome;
use super::table::{bytes, lines};
use crate::backup::chain::Kind;
use crate::backup::{self, Wish};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::replicate;
use crate::watch::Watch;

/// Takes a backup now and publishes it.
pub async fn run(context: &Context, kind: Kind, reread: bool, watch: &dyn Watch) -> Result<Outcome, Failure> {
    let _lock = context.state()?.lock(Duration::ZERO, || ()).await?;
    let wish = Wish { reason: Reason::Manual, instance: context.instance().await?, generation: None, kind, reread };
    let made = backup::create(context, &wish, watch).await?;
    let copied = replicate::everywhere(context, &made.manifest, watch).await?;
    let manifest = &made.manifest;
    let mut text = format!("{}\n{}\n", manifest.backup_id, held(manifest, made.objects()));
    text.push_str(&lines(&made.findings));
    text.push_str(&lines(&copied));
    Outcome::new(text, manifest, Exit::Ok)
}

fn held(manifest: &Manifest, objects: u64) -> String {
    let place = format!("{} in {} objects at {}", bytes(manifest.size_bytes), manifest.objects.len(), manifest.path);
    match &manifest.archive {
        None => format!("{objects} objects in {} collections, {place}", manifest.collections.len()),
        Some(archive) => {
            let kind = if manifest.kind == BackupKind::Base { "base" } else { "increment" };
            let (files, data, new) = (archive.files, bytes(archive.data_bytes), bytes(archive.new_bytes));
            format!("{kind} ({}): {files} files, {data}, of which {new} new; {place}", archive.because)
        }
    }
}
