//! `perennial backup restore`

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use perennial_shared::id::BackupId;
use perennial_shared::resolve::resolve;
use perennial_shared::settings::Engine;

use super::Outcome;
use super::table::lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::restore::{self, Wish, choose};
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
    let resolution = resolve(&context.repository).await?;
    let candidate = choose::candidate(&resolution, id)?;
    if wish.replace && !wish.dry_run && !yes {
        confirm(context, wish, &candidate.id)?;
    }
    let mut restored = restore::restore(context, candidate, wish, watch).await?;
    restored.findings.extend(resolution.problems.iter().cloned());
    let verb = if wish.dry_run { "would restore" } else { "restored" };
    let what = if context.target.engine == Engine::Files { "files" } else { "objects" };
    let mut text =
        format!("{verb} backup {} with {} {what} in {:.1} s\n", restored.backup_id, restored.objects, restored.seconds);
    text.push_str(&lines(&restored.findings));
    Outcome::new(text, &restored, Exit::Ok)
}

/// Asks a person at a terminal; a script has to say `--yes`.
fn confirm(context: &Context, wish: &Wish, id: &BackupId) -> Result<(), Failure> {
    let refused = |why: &str| Failure::new(Exit::Refused, "NotConfirmed", format!("nothing was changed: {why}"));
    if !std::io::stdin().is_terminal() {
        return Err(refused("--replace deletes what is in the database; say --yes too"));
    }
    let data_dir = || context.target.data_dir.as_ref().filter(|_| context.target.engine == Engine::Files);
    let place = match wish.to.as_ref().or_else(data_dir) {
        Some(folder) => folder.display().to_string(),
        None => context.target.url.clone(),
    };
    eprint!("Everything in {place} is deleted, then backup {id} is restored. Type the target's name to go on: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == context.target.name {
        Ok(())
    } else {
        Err(refused("the answer was not the target's name"))
    }
}
