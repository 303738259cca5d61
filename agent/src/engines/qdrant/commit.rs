//! A restore's second half, after the comparison: the copies become what clients find under the names they know.
//!
//! 1. One request moves every alias to what was restored: readers by alias see the old or the new data, never nothing.
//! 2. A collection that is called by its own name is replaced from the same archive that its copy was made of, and compared with the copy.
//! 3. One request moves the aliases to it.
//! 4. Copies, what stood behind moved aliases, and the staged files go.
//!
//! Each step may be done again. Until the fourth, everything that was proved is still there as a copy, so a crash or a failed
//! replacement is made good by the same restore begun again.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, Request};
use super::install::{self, Staged};
use super::plan::{Aliases, Move, Phase, Plan, There, alias_actions};
use super::{Qdrant, inventory, unchanged};
use crate::engine::{EngineError, Step};
use crate::failpoint;

/// For one collection, from the archive on the disk.
const REPLACING: Duration = Duration::from_secs(6 * 3600);
/// Points that are compared of each replaced collection.
const SAMPLES: usize = 5;

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
        switch(client, &plan.aliases_meanwhile()).await?;
        failpoint::reach("qdrant-restore-switched");
        replace_all(qdrant, tag, &mut plan).await?;
        switch(client, &plan.aliases_at_the_end()).await?;
        plan.phase = Phase::Cleaning;
        install::store(scratch, tag, &plan)?;
    }
    failpoint::reach("qdrant-restore-cleaning");
    let obsolete = plan.obsolete(&inventory::aliases(client).await?);
    for name in &obsolete {
        install::delete(client, name).await?;
    }
    scratch.remove_staged().await?;
    install::forget(scratch, tag)?;
    Ok(told(&plan))
}

async fn switch(client: &Client, aliases: &Aliases) -> Result<(), EngineError> {
    if aliases.is_empty() {
        return Ok(());
    }
    client.change::<Value>(Request::post(&["collections", "aliases"], alias_actions(aliases))).await.map(|_| ())
}

async fn replace_all(qdrant: &Qdrant, tag: &str, plan: &mut Plan) -> Result<(), EngineError> {
    for number in 0..plan.moves.len() {
        let one = &plan.moves[number];
        if one.there == There::Collection && !one.replaced {
            replace(qdrant, tag, one).await?;
            plan.moves[number].replaced = true;
            install::store(&qdrant.scratch, tag, plan)?;
            failpoint::reach("qdrant-restore-replaced");
        }
    }
    Ok(())
}

/// Replaces a collection under its own name and compares it with its copy.
async fn replace(qdrant: &Qdrant, tag: &str, one: &Move) -> Result<(), EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let copy = unchanged::look(client, &one.target).await?;
    let missing = || EngineError::Failed {
        what: "restore",
        id: one.name.clone(),
        why: format!("its copy {} is gone; begin the restore again", one.target),
    };
    let copy = copy.ok_or_else(missing)?;
    let old: Option<Value> = client.find(Request::get(&["collections", &one.name])).await?;
    if old.is_some_and(|old| unchanged::settings(&old) != copy.settings) {
        // A recovery over it would keep its own settings and indexes.
        install::delete(client, &one.name).await?;
    }
    let staging = scratch.staging(tag);
    let untold = |_: Step<'_>| ();
    let place = Staged { root: &staging, tag, deadline: Instant::now() + REPLACING, progress: &untold };
    place.recover(client, &one.name, &one.name).await?;
    is_like(client, &one.name, &one.target, copy.count).await
}

async fn is_like(client: &Client, name: &str, copy: &str, count: u64) -> Result<(), EngineError> {
    let differs = |why: String| EngineError::Failed { what: "restore", id: name.into(), why };
    let found = inventory::count_of(client, name).await?;
    if found != Some(count) {
        return Err(differs(format!("it has {} points, its copy {copy} has {count}", found.unwrap_or(0))));
    }
    for sample in inventory::samples(client, copy, SAMPLES).await? {
        if inventory::ask(client, name, &sample).await?.digest != sample.digest {
            return Err(differs(format!("the point {} is not as in its copy {copy}", sample.near_object)));
        }
    }
    Ok(())
}

fn told(plan: &Plan) -> Vec<String> {
    let behind = plan.moves.iter().filter(|m| matches!(m.there, There::Alias(_)));
    let mut findings: Vec<_> =
        behind.map(|m| format!("{} is an alias of the collection {} now", m.name, m.target)).collect();
    let aliases = plan.aliases_at_the_end();
    if !aliases.is_empty() {
        let pairs: Vec<_> = aliases.iter().map(|(alias, collection)| format!("{alias} of {collection}")).collect();
        findings.push(format!("aliases: {}", pairs.join(", ")));
    }
    findings
}
