//! A backup's files: every collection's snapshot, taken apart, and the aliases, which are in no snapshot.
//!
//! ```text
//! aliases.json
//! collections/<name>/settings.json     what its owner set
//! collections/<name>/snapshot/…        the snapshot's files
//! ```
//!
//! A collection that did not change since the parent is an empty folder that the parent's takes the place of. Names are those that clients
//! use ([`names::called`]).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use perennial_shared::archive::path::RelPath;
use serde::{Deserialize, Serialize};

use super::plan::Aliases;
use super::snapshot::Wanted;
use super::unchanged::{self, Seen};
use super::{Qdrant, commit, inventory, left_over, names};
use crate::archive::source::Source;
use crate::engine::files::{CaptureWish, CapturedFiles};
use crate::engine::{EngineError, Step};

pub(super) const ALIASES: &str = "aliases.json";
pub(super) const COLLECTIONS: &str = "collections";
pub(super) const SETTINGS: &str = "settings.json";
pub(super) const SNAPSHOT: &str = "snapshot";

/// What the next capture wants to know of this one.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    timeline: String,
    collections: BTreeMap<String, Seen>,
}

/// Captures all collections.
pub(super) async fn capture(qdrant: &Qdrant, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
    let Qdrant { client, scratch, .. } = qdrant;
    let deadline = Instant::now() + wish.patience;
    qdrant.is_single().await?;
    let left = left_over::remove(client, scratch).await?;
    scratch.remove_capture().await?;
    let made_good = commit::make_good(qdrant).await?;
    let root = scratch.capture();
    let called = inventory::called(client).await?;
    if called.is_empty() {
        return Err(EngineError::Empty);
    }
    let timeline = scratch.timeline()?;
    make(&root.join(COLLECTIONS))?;
    let known = wish.parent.and_then(|(_, value)| serde_json::from_value::<Memory>(value.clone()).ok());
    let known = known.filter(|k| k.timeline == timeline).map(|k| k.collections).unwrap_or_default();
    let mut memory = Memory { timeline, collections: BTreeMap::new() };
    let findings = made_good.into_iter().chain(left).collect();
    let mut captured = CapturedFiles { source: Source::folder(&root), findings, ..CapturedFiles::default() };
    for (name, own) in &called {
        (wish.progress)(Step { state: &format!("looking at {name}"), done: None });
        let Some(seen) = unchanged::look(client, own).await? else { continue };
        let place = RelPath::root().join(COLLECTIONS.as_ref()).join(folder_of(name)?.as_ref());
        let folder = place.under(&root);
        if is_kept(qdrant, own, known.get(name), &seen).await? {
            make(&folder)?;
            captured.source.kept.push(place);
        } else {
            make(&folder)?;
            write(&folder.join(SETTINGS), &seen.settings)?;
            let wanted = Wanted { collection: own, folder: &folder.join(SNAPSHOT), deadline, progress: wish.progress };
            let Some(findings) = qdrant.snapshots.fetch(client, scratch, wanted).await? else {
                fs::remove_dir_all(&folder).map_err(|e| EngineError::files(&folder, &e))?;
                continue;
            };
            captured.findings.extend(findings);
        }
        captured.collections.push(name.clone());
        memory.collections.insert(name.clone(), seen);
    }
    let kept = captured.source.kept.len();
    if kept > 0 {
        captured.findings.push(format!("{kept} of {} collections did not change", captured.collections.len()));
    }
    let (aliases, others): (Aliases, Aliases) = aliases_of(&called, inventory::aliases(client).await?)
        .into_iter()
        .partition(|(_, shown)| captured.collections.contains(shown));
    captured.findings.extend(others.into_iter().map(|(alias, shown)| {
        format!("the alias {alias} is not in the backup: {shown}, which it shows, was made while the backup was")
    }));
    write(&root.join(ALIASES), &aliases)?;
    captured.remember = serde_json::to_value(&memory).ok();
    // What it says of a left-over snapshot is among the findings.
    left_over::forget(scratch)?;
    Ok(captured)
}

/// The aliases, and what the collections that they show are called. A name that a collection is called by is none of them.
fn aliases_of(called: &BTreeMap<String, String>, live: Aliases) -> Aliases {
    let name_of = |own: String| called.iter().find(|(_, o)| **o == own).map_or(own.clone(), |(name, _)| name.clone());
    let apart = live.into_iter().filter(|(alias, _)| !called.contains_key(alias));
    apart.map(|(alias, own)| (alias, name_of(own))).collect()
}

async fn is_kept(qdrant: &Qdrant, own: &str, known: Option<&Seen>, now: &Seen) -> Result<bool, EngineError> {
    match known {
        Some(known) => unchanged::is_unchanged(&qdrant.client, own, known, now).await,
        None => Ok(false),
    }
}

fn folder_of(name: &str) -> Result<String, EngineError> {
    names::to_folder(name)
        .ok_or_else(|| EngineError::Unsupported(format!("the collection {name:?} has a name too long for a folder")))
}

fn make(folder: &Path) -> Result<(), EngineError> {
    fs::create_dir_all(folder).map_err(|e| EngineError::files(folder, &e))
}

fn write<T: Serialize>(path: &Path, document: &T) -> Result<(), EngineError> {
    let written = serde_json::to_vec_pretty(document).map_err(Into::into).and_then(|body| fs::write(path, body));
    written.map_err(|e| EngineError::files(path, &e))
}
