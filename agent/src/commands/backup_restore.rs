//! `perennial backup restore`

use std::time::Duration;

use perennial_shared::id::BackupId;
use perennial_shared::resolve::resolve;
use perennial_shared::settings::Engine;

use super::Outcome;
use super::confirm::by_name;
use super::table::lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::replicate::from_where_it_can;
use crate::restore::{self, Restored, Wish, choose};
use crate::watch::Watch;

/// Restores the newest backup, or the one called `id`.
pub async fn run(
    context: &Context,
    id: Option<&BackupId>,
    wish: &Wish,
    yes: bool,
    watch: &dyn Watch,
) -> Result<Outcome, Failure> {
    let _lock = context.state()?.lock(Duration::ZERO, || ()).await?;
    let bring = async |context: &Context| from(context, id, wish, yes, watch).await;
    let (mut restored, elsewhere) = from_where_it_can(context, watch, bring).await?;
    restored.findings.extend(elsewhere);
    let verb = if wish.dry_run { "would restore" } else { "restored" };
    let what = if context.target.engine == Engine::Files { "files" } else { "objects" };
    let mut text =
        format!("{verb} backup {} with {} {what} in {:.1} s\n", restored.backup_id, restored.objects, restored.seconds);
    text.push_str(&lines(&restored.findings));
    Outcome::new(text, &restored, Exit::Ok)
}

async fn from(
    context: &Context,
    id: Option<&BackupId>,
    wish: &Wish,
    yes: bool,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    let resolution = resolve(&context.repository).await?;
    let candidate = choose::candidate(&resolution, id)?;
    if wish.replace && !wish.dry_run && !yes {
        confirm(context, wish, &candidate.id)?;
    }
    let mut restored = restore::restore(context, candidate, wish, watch).await?;
    restored.findings.extend(resolution.problems);
    Ok(restored)
}

fn confirm(context: &Context, wish: &Wish, id: &BackupId) -> Result<(), Failure> {
    let data_dir = || context.target.data_dir.as_ref().filter(|_| context.target.engine == Engine::Files);
    let place = match wish.to.as_ref().or_else(data_dir) {
        Some(folder) => folder.display().to_string(),
        None => context.target.url.clone(),
    };
    let question = format!("Everything in {place} is deleted, then backup {id} is restored.");
    by_name(&context.target.name, &question, "--replace deletes what is in the database; say --yes too")
}
