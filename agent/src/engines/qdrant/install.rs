//! A restore's first half: every collection of the backup answers beside what is there, or under its own name where nothing is.
//!
//! Nothing that was there before is touched. What is made is written down before it is made, so a crash leaves collections that
//! the same restore begun again removes, and that [`take_back`] removes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use perennial_shared::manifest::Manifest;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::capture::{ALIASES, COLLECTIONS, SETTINGS, SNAPSHOT};
use super::client::{Client, Request};
use super::plan::{Aliases, Phase, Plan, There};
use super::scratch::Scratch;
use super::upload::{self, Upload};
use super::{Qdrant, inventory, names, unchanged, version};
use crate::engine::files::{InstallWish, Installed};
use crate::engine::{Engine, EngineError, Progress};
use crate::failpoint;

/// Deleting a large collection takes its time.
const DELETING: Duration = Duration::from_secs(300);

/// What can be known before anything is fetched.
pub(super) async fn check(qdrant: &Qdrant, manifest: &Manifest) -> Result<Vec<String>, EngineError> {
    qdrant.is_single().await?;
    let running = qdrant.identity().await?.version;
    let mut findings = version::may_restore(&manifest.engine_version, &running)?;
    let kept = inventory::called(&qdrant.client).await?.into_keys();
    let kept: Vec<_> = kept.filter(|c| !manifest.collections.iter().any(|m| m.name == *c)).collect();
    if !kept.is_empty() {
        findings.push(format!("not in the backup, and left as they are: {}", kept.join(", ")));
    }
    Ok(findings)
}

/// Puts the collections beside what is there.
pub(super) async fn install(qdrant: &Qdrant, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let deadline = Instant::now() + wish.patience;
    let place = Staged { root: wish.staged, tag: wish.tag, deadline, progress: wish.progress };
    if let Some(plan) = load(scratch, wish.tag)? {
        if plan.phase != Phase::Installing {
            return go_on(client, place, &plan).await;
        }
        remove_made(client, &plan).await?;
    }
    let mut plan = decide(client, wish).await?;
    store(scratch, wish.tag, &plan)?;
    scratch.new_timeline()?;
    let mut findings = vec![];
    for number in 0..plan.moves.len() {
        plan.moves[number].made = true;
        store(scratch, wish.tag, &plan)?;
        failpoint::reach("qdrant-restore-making");
        let one = &plan.moves[number];
        place.recover(client, &one.name, &one.target).await?;
        findings.extend(place.settings_differ(client, &one.name, &one.target).await?);
    }
    Ok(Installed { tag: wish.tag.into(), names: plan.names(), findings })
}

/// An earlier run of this restore was already putting its collections in place. A copy that somebody deleted since is made again.
async fn go_on(client: &Client, place: Staged<'_>, plan: &Plan) -> Result<Installed, EngineError> {
    let live = inventory::collections(client).await?;
    for gone in plan.moves.iter().filter(|m| m.there != There::Nothing && !live.contains(&m.target)) {
        place.recover(client, &gone.name, &gone.target).await?;
    }
    let findings = vec!["an interrupted run had come as far as putting the collections in place".into()];
    // What is in place already is called by its name again.
    let aliases = inventory::aliases(client).await?;
    let called = |(name, copy): (String, String)| (name, names::called(&copy, &aliases).to_owned());
    let names = plan.names().into_iter().map(called).collect();
    Ok(Installed { tag: place.tag.into(), names, findings })
}

async fn decide(client: &Client, wish: &InstallWish<'_>) -> Result<Plan, EngineError> {
    let backup = collections(wish.staged)?;
    let aliases: Aliases = document(&wish.staged.join(ALIASES))?;
    let (live, live_aliases) = (inventory::collections(client).await?, inventory::aliases(client).await?);
    let plan = Plan::new(wish.tag, &backup, aliases, &live, &live_aliases);
    let unusable = plan.unusable_aliases(&live);
    if unusable.is_empty() {
        return Ok(plan);
    }
    Err(EngineError::Unsupported(format!(
        "the backup has the aliases {}, and the engine has collections of these names; delete or rename them first, nothing was changed",
        unusable.join(", ")
    )))
}

/// The collections that were staged, sorted.
fn collections(staged: &Path) -> Result<Vec<String>, EngineError> {
    let folder = staged.join(COLLECTIONS);
    let failed = |e: std::io::Error| EngineError::files(&folder, &e);
    let mut found = vec![];
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let collection = name.to_str().and_then(names::from_folder);
        let odd = || EngineError::Damaged {
            what: folder.display().to_string(),
            why: format!("{} is no collection", name.display()),
        };
        found.push(collection.ok_or_else(odd)?);
    }
    found.sort();
    Ok(found)
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    let body = fs::read(path).map_err(|e| EngineError::files(path, &e))?;
    let damaged = |e: serde_json::Error| EngineError::Damaged { what: path.display().to_string(), why: e.to_string() };
    serde_json::from_slice(&body).map_err(damaged)
}

/// A restore's files.
#[derive(Clone, Copy)]
pub(super) struct Staged<'a> {
    pub(super) root: &'a Path,
    pub(super) tag: &'a str,
    pub(super) deadline: Instant,
    pub(super) progress: Progress<'a>,
}

impl Staged<'_> {
    fn of(&self, collection: &str) -> PathBuf {
        self.root.join(COLLECTIONS).join(names::to_folder(collection).unwrap_or_default())
    }

    /// Makes `target` what the backup has of `collection`.
    pub(super) async fn recover(&self, client: &Client, collection: &str, target: &str) -> Result<(), EngineError> {
        let folder = self.of(collection).join(SNAPSHOT);
        let patience = self.deadline.saturating_duration_since(Instant::now());
        let upload = Upload { target, folder: &folder, tag: self.tag, patience, progress: self.progress };
        upload::recover(client, upload).await
    }

    /// What of a restored collection's settings is not as it was.
    async fn settings_differ(&self, client: &Client, name: &str, target: &str) -> Result<Vec<String>, EngineError> {
        let before: Value = document(&self.of(name).join(SETTINGS))?;
        let now: Value = client.read(Request::get(&["collections", target])).await?;
        let mut differ = vec![];
        differences("", &before, &unchanged::settings(&now), &mut differ);
        let tell = |what: &String| format!("{name}: the setting {what} is not what it was");
        Ok(differ.iter().map(tell).collect())
    }
}

/// The paths at which two documents differ. A newer server may say more than an older one did.
fn differences(path: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                differences(&format!("{path}/{key}"), value, new.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (old, new) if old != new => found.push(path.into()),
        _ => {}
    }
}

/// Deletes what an unfinished install made; nothing else was changed. Behind the point of no return it is an error.
pub(super) async fn take_back(qdrant: &Qdrant, tag: &str) -> Result<bool, EngineError> {
    let Some(plan) = load(&qdrant.scratch, tag)? else { return Ok(true) };
    if plan.phase != Phase::Installing {
        let why = "the restored collections are being put in place of the old ones already, and their copies are kept; \
                   begin the same restore again to finish it";
        return Err(EngineError::Failed { what: "restore", id: tag.into(), why: why.into() });
    }
    remove_made(&qdrant.client, &plan).await?;
    qdrant.scratch.forget(&Scratch::record(tag)).map(|()| true)
}

async fn remove_made(client: &Client, plan: &Plan) -> Result<(), EngineError> {
    let aliases = inventory::aliases(client).await?;
    for name in plan.removable(&aliases) {
        delete(client, &name).await?;
    }
    Ok(())
}

/// Deletes a collection; one that is gone is fine.
pub(super) async fn delete(client: &Client, name: &str) -> Result<(), EngineError> {
    client.change_if_there(Request::delete(&["collections", name]).within(DELETING)).await.map(|_| ())
}

/// What is known of an earlier run of a restore.
pub(super) fn load(scratch: &Scratch, tag: &str) -> Result<Option<Plan>, EngineError> {
    scratch.load(&Scratch::record(tag))
}

/// The records of all restores that were not finished, with what each says.
pub(super) fn unfinished(scratch: &Scratch) -> Result<Vec<(String, Plan)>, EngineError> {
    let load = |record: String| Ok(scratch.load(&record)?.map(|plan| (record, plan)));
    scratch.records()?.into_iter().map(load).filter_map(Result::transpose).collect()
}

/// Remembers how far a restore is.
pub(super) fn store(scratch: &Scratch, tag: &str, plan: &Plan) -> Result<(), EngineError> {
    scratch.store(&Scratch::record(tag), plan)
}

/// Forgets a finished restore.
pub(super) fn forget(scratch: &Scratch, tag: &str) -> Result<(), EngineError> {
    scratch.forget(&Scratch::record(tag))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let before = json!({"config": {"params": {"size": 4}, "hnsw": {"m": 16}}, "indexes": {}});
        let now = json!({"config": {"params": {"size": 4}, "hnsw": {"m": 8, "new": true}}, "indexes": {}});
        let mut found = vec![];
        differences("", &before, &now, &mut found);
        assert_eq!(found, ["/config/hnsw/m"]);
    }
}
