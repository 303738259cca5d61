//! `perennial backup create`

use std::time::Duration;

use perennial_shared::manifest::Reason;

use super::Outcome;
use super::table::{bytes, lines};
use crate::backup::{self, Wish};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::watch::Watch;

/// Takes a backup now and publishes it.
pub async fn run(context: &Context, watch: &dyn Watch) -> Result<Outcome, Failure> {
    let _lock = context.state()?.lock(Duration::ZERO, || ()).await?;
    let wish = Wish { reason: Reason::Manual, instance: context.instance().await?, generation: None };
    let made = backup::create(context, &wish, watch).await?;
    let manifest = &made.manifest;
    let mut text = format!(
        "{}\n{} objects in {} collections, {} in {} objects at {}\n",
        manifest.backup_id,
        made.objects(),
        manifest.collections.len(),
        bytes(manifest.size_bytes),
        manifest.objects.len(),
        manifest.path
    );
    text.push_str(&lines(&made.findings));
    Outcome::new(text, manifest, Exit::Ok)
}
