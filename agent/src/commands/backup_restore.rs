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
use crate::replicate::{another_may_help, from_where_it_can};
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
    let restored = match lost_newest(context, id).await {
        Some(lost) => newest(context, &lost, wish, yes, watch).await?,
        None => anywhere(context, id, wish, yes, watch).await?,
    };
    let verb = if wish.dry_run { "would restore" } else { "restored" };
    let what = if context.target.engine == Engine::Files { "files" } else { "objects" };
    let mut text =
        format!("{verb} backup {} with {} {what} in {:.1} s\n", restored.backup_id, restored.objects, restored.seconds);
    text.push_str(&lines(&restored.findings));
    Outcome::new(text, &restored, Exit::Ok)
}

async fn anywhere(
    context: &Context,
    id: Option<&BackupId>,
    wish: &Wish,
    yes: bool,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    let bring = async |context: &Context| from(context, id, wish, yes, watch).await;
    let (mut restored, elsewhere) = from_where_it_can(context, watch, bring).await?;
    restored.findings.extend(elsewhere);
    Ok(restored)
}

/// The newest backup, which the target's own repository has lost: from a replica that has it, else the newest that is left.
async fn newest(
    context: &Context,
    lost: &BackupId,
    wish: &Wish,
    yes: bool,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    match anywhere(context, Some(lost), wish, yes, watch).await {
        Err(e) if another_may_help(e.code) => {
            let mut older = anywhere(context, None, wish, yes, watch).await?;
            older.findings.push(e.message);
            Ok(older)
        }
        result => result,
    }
}

/// The backup that the pointer names, where the newest is wanted, only older ones are left beside that pointer, and replicas may have it.
///
/// What cannot be read here is told by the restore itself.
async fn lost_newest(context: &Context, id: Option<&BackupId>) -> Option<BackupId> {
    if id.is_some() || context.target.replicas.is_empty() {
        return None;
    }
    let resolution = resolve(&context.repository).await.ok()?;
    let named = resolution.pointer.backup_id()?;
    let best = resolution.candidates.first();
    best.is_none_or(|best| is_lost(named, &best.id)).then(|| named.clone())
}

/// Whether the pointer's backup is not the best that is left, nor older. Of one second the pointer's counts as the newer: ids of the same second
/// sort by chance.
fn is_lost(named: &BackupId, best: &BackupId) -> bool {
    let age = |id: &BackupId| (id.generation(), id.made_at());
    named != best && age(best) <= age(named)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_the_same_second_is_lost_whatever_its_name() {
        let id = |text: &str| text.parse::<BackupId>().expect("an id");
        let (a, b) = (id("20261121t105501z-g0003-000000"), id("20261121t105501z-g0003-ffffff"));
        assert!(is_lost(&a, &b) && is_lost(&b, &a) && !is_lost(&a, &a));
        let (later, successor) = (id("20261121t105502z-g0003-000000"), id("20261121t105500z-g0004-000000"));
        assert!(is_lost(&later, &a) && !is_lost(&a, &later));
        assert!(is_lost(&successor, &later) && !is_lost(&later, &successor));
    }
}
