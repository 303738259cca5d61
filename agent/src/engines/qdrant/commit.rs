//! A restore's second half, after the comparison: the copies become what clients find under the names they know.
//!
//! 1. One request moves every alias to what was restored: readers by alias see the old or the new data, never nothing.
//! 2. A collection that is called by its own name is deleted, and the next request makes its name an alias of the copy. Between the
//!    two, clients by that name get 404: an alias cannot have the name of a collection that is there.
//! 3. What stood behind moved aliases, the staged files, and the copies of interrupted restores that this one overtook go. Its own
//!    copies stay.
//!
//! Nothing is deleted before its copy was proved and is there, and nothing is recovered over: what fails in the second step leaves
//! a copy with all of the backup. A crash leaves at most one name that shows nothing. It is found by looking at the engine, not
//! from notes: whatever is no collection any more is one of the aliases of the first step when the same restore is begun again, and
//! [`make_good`] makes that alias when any other backup or restore begins.

use serde_json::Value;

use super::client::{Client, Request};
use super::install;
use super::plan::{Aliases, Phase, Plan, alias_actions};
use super::scratch::Scratch;
use super::{Qdrant, inventory};
use crate::engine::EngineError;
use crate::failpoint;

/// Puts a compared restore in place.
pub(super) async fn commit(qdrant: &Qdrant, tag: &str) -> Result<Vec<String>, EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let Some(mut plan) = install::load(scratch, tag)? else {
        scratch.remove_staged().await?;
        return Ok(vec![]);
    };
    if plan.phase == Phase::Installing {
        plan.switched = plan.to_switch(&inventory::aliases(client).await?);
        plan.phase = Phase::Committing;
        install::store(scratch, tag, &plan)?;
    }
    failpoint::reach("qdrant-restore-committing");
    if plan.phase == Phase::Committing {
        show(client, &plan.shown_at_the_end()).await?;
        plan.phase = Phase::Cleaning;
        install::store(scratch, tag, &plan)?;
    }
    failpoint::reach("qdrant-restore-cleaning");
    let obsolete = plan.obsolete(&inventory::aliases(client).await?);
    for name in &obsolete {
        install::delete(client, name).await?;
    }
    forget_overtaken(qdrant, tag, &plan).await?;
    scratch.remove_staged().await?;
    install::forget(scratch, tag)?;
    Ok(told(&plan))
}

/// Restores that were interrupted while they put their copies in place: what they knew of the engine is no longer so, and begun again
/// they are new ones. What they made and nobody is shown goes.
async fn forget_overtaken(qdrant: &Qdrant, tag: &str, plan: &Plan) -> Result<(), EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let is_overtaken = |record: &str, other: &Plan| record != Scratch::record(tag) && other.phase != Phase::Installing;
    let others = install::unfinished(scratch)?;
    for (record, other) in others.into_iter().filter(|(record, other)| is_overtaken(record, other)) {
        for copy in plan.overtaken(&other, &inventory::aliases(client).await?) {
            install::delete(client, &copy).await?;
        }
        scratch.forget(&record)?;
    }
    Ok(())
}

/// Makes each name show its collection: all that are free by one request, then one after the other those that are collections.
async fn show(client: &Client, wanted: &Aliases) -> Result<(), EngineError> {
    let live = inventory::collections(client).await?;
    if let Some((name, copy)) = wanted.iter().find(|(_, copy)| !live.contains(copy)) {
        let why = format!("its copy {copy} is gone, nothing was deleted; begin the restore again");
        return Err(EngineError::Failed { what: "restore", id: name.clone(), why });
    }
    let (taken, free): (Aliases, Aliases) = wanted.clone().into_iter().partition(|(name, _)| live.contains(name));
    switch(client, &free).await?;
    failpoint::reach("qdrant-restore-switched");
    for (name, copy) in &taken {
        replace(client, name, copy).await?;
        failpoint::reach("qdrant-restore-replaced");
    }
    Ok(())
}

/// Deletes a collection and has its name show the copy at once.
async fn replace(client: &Client, name: &str, copy: &str) -> Result<(), EngineError> {
    let deleted = install::delete(client, name).await;
    failpoint::reach("qdrant-restore-deleted");
    // Also after a deletion that failed: one whose answer did not come may have been carried out, and one that was not leaves the
    // collection there, whose name is then refused.
    let shown = switch(client, &Aliases::from([(name.to_owned(), copy.to_owned())])).await;
    shown.map_err(|e| deleted.err().unwrap_or_else(|| made_anew(e)))
}

/// The name of a deleted collection is refused only where somebody made one again.
fn made_anew(error: EngineError) -> EngineError {
    match error {
        EngineError::Unexpected { request, status: 409, why } => {
            let advice = "a client made the collection again; stop it and begin the restore again";
            EngineError::Unexpected { request, status: 409, why: format!("{why} ({advice})") }
        }
        other => other,
    }
}

async fn switch(client: &Client, aliases: &Aliases) -> Result<(), EngineError> {
    if aliases.is_empty() {
        return Ok(());
    }
    // Sent again where no answer comes: the same aliases are made twice.
    client.read::<Value>(Request::post(&["collections", "aliases"], alias_actions(aliases))).await.map(|_| ())
}

/// Has names show their copies again that an interrupted restore left without anything; what a person should know.
pub(super) async fn make_good(qdrant: &Qdrant) -> Result<Vec<String>, EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let mut findings = vec![];
    for (_, plan) in install::unfinished(scratch)? {
        let (live, aliases) = (inventory::collections(client).await?, inventory::aliases(client).await?);
        let cut_off = plan.cut_off(&live, &aliases);
        switch(client, &cut_off).await?;
        let tell = |(name, copy)| format!("an interrupted restore had deleted {name}; it is an alias of {copy} now");
        findings.extend(cut_off.iter().map(tell));
    }
    Ok(findings)
}

fn told(plan: &Plan) -> Vec<String> {
    let shown = plan.shown_at_the_end();
    let (own, others): (Vec<_>, Vec<_>) =
        shown.iter().partition(|(alias, _)| plan.moves.iter().any(|m| m.name == **alias));
    let mut findings: Vec<_> =
        own.iter().map(|(name, copy)| format!("{name} is an alias of the collection {copy} now")).collect();
    if !others.is_empty() {
        let pairs: Vec<_> = others.iter().map(|(alias, collection)| format!("{alias} of {collection}")).collect();
        findings.push(format!("aliases: {}", pairs.join(", ")));
    }
    findings
}
