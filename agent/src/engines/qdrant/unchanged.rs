//! Whether a collection is what it was at the last backup, without reading it.
//!
//! Before a snapshot is made, the manifests of the collection's shards are read: the version of each segment and its files. When
//! they are the same at the next backup, nothing was written since before that snapshot, so the snapshot holds what the collection holds now.
//! Read after the snapshot they would hide what was written in between. The engine's own comparison, the 304 of a partial
//! snapshot, must agree, for it knows files whose version says nothing. A new segment has files more after its first flush, five seconds
//! later at most: a backup in between costs one snapshot more.
//!
//! Three things are hidden from manifests. Deletes during an optimization or a snapshot are in memory beside the segment until it
//! ends: the collection must be idle. What was acknowledged and not yet applied: the queue must be empty. A restore brings old
//! versions back: after one of ours the timeline is another; after somebody else's by hand the counts and versions tell, unless by chance
//! exactly as many operations followed as had before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, Request, is_absent};
use super::{inventory, left_over};
use crate::engine::EngineError;

/// What a collection was at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Its settings and indexes.
    pub(super) settings: Value,
    /// Exact number of its points.
    pub(super) count: u64,
    /// The server's own id.
    peer: Value,
    /// What each shard says of its segments; `None` from a server that does not tell.
    shards: BTreeMap<u64, Option<Value>>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    peer_id: Value,
    local_shards: Vec<Shard>,
    #[serde(default)]
    remote_shards: Vec<Value>,
}

#[derive(Deserialize)]
struct Shard {
    shard_id: u64,
}

/// Looks at a collection; `None` if there is none of that name.
pub(super) async fn look(client: &Client, name: &str) -> Result<Option<Seen>, EngineError> {
    let Some(info) = client.find::<Value>(Request::get(&["collections", name])).await? else { return Ok(None) };
    let Some(cluster) = client.find::<Cluster>(Request::get(&["collections", name, "cluster"])).await? else {
        return Ok(None);
    };
    if !cluster.remote_shards.is_empty() {
        let why = format!("{name} has shards on other nodes; Perennial looks after single nodes");
        return Err(EngineError::Unsupported(why));
    }
    let mut shards = BTreeMap::new();
    for Shard { shard_id } in cluster.local_shards {
        let shard = shard_id.to_string();
        let path = ["collections", name, "shards", &shard, "snapshot", "partial", "manifest"];
        shards.insert(shard_id, client.find(Request::get(&path)).await?);
    }
    let Some(count) = inventory::count_of(client, name).await? else { return Ok(None) };
    Ok(Some(Seen { settings: settings(&info), count, peer: cluster.peer_id, shards }))
}

/// What of a collection's description its owner set: its configuration and its indexes, without what they count.
pub(super) fn settings(info: &Value) -> Value {
    let mut indexes = info["payload_schema"].clone();
    for (_, index) in indexes.as_object_mut().into_iter().flatten() {
        if let Some(index) = index.as_object_mut() {
            index.remove("points");
        }
    }
    json!({"config": info["config"], "indexes": indexes})
}

/// Whether the engine itself says that nothing changed since `known` was seen; `now` was seen a moment ago.
pub(super) async fn is_unchanged(client: &Client, name: &str, known: &Seen, now: &Seen) -> Result<bool, EngineError> {
    if known != now || now.shards.is_empty() || !is_idle(client, name).await? {
        return Ok(false);
    }
    for (shard, manifest) in &now.shards {
        let Some(manifest) = manifest else { return Ok(false) };
        let shard = shard.to_string();
        let path = ["collections", name, "shards", &shard, "snapshot", "partial", "create"];
        // Of anything but a 304 nothing is read: the answer would be the changed files.
        match client.open(Request::post(&path, manifest.clone())).await {
            Ok(answer) if answer.status() == reqwest::StatusCode::NOT_MODIFIED => {}
            // Somebody else's snapshot is being made, or the collection is gone: whoever makes the next one sees.
            Err(e) if !matches!(e, EngineError::Busy { .. } | EngineError::NotReady { .. }) && !is_absent(&e) => {
                return Err(e);
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether all that was acknowledged is in the segments that manifests tell of.
async fn is_idle(client: &Client, name: &str) -> Result<bool, EngineError> {
    let info: Option<Value> = client.find(Request::get(&["collections", name])).await?;
    let work: Option<Value> = client.find(Request::get(&["collections", name, "optimizations"])).await?;
    let making = left_over::is_being_made(client, name).await?;
    Ok(info.zip(work).is_some_and(|(info, work)| says_idle(&info, &work)) && !making)
}

fn says_idle(info: &Value, optimizations: &Value) -> bool {
    let queued = info["update_queue"]["length"].as_u64();
    let running = optimizations["running"].as_array().map(Vec::len);
    info["status"] == "green" && queued.is_none_or(|n| n == 0) && running == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_do_not_count() {
        let info = |points: u64| {
            json!({"status": "green", "points_count": points, "config": {"params": {"x": 1}},
            "payload_schema": {"n": {"data_type": "integer", "points": points}}})
        };
        assert_eq!(settings(&info(1)), settings(&info(2)));
        assert_eq!(settings(&info(1))["indexes"]["n"]["data_type"], "integer");
        assert_ne!(settings(&info(1)), settings(&json!({"config": {"params": {"x": 2}}})));
    }

    #[test]
    fn a_collection_at_work_may_hide_deletes() {
        let green = json!({"status": "green", "update_queue": {"length": 0}});
        let idle = json!({"running": []});
        assert!(says_idle(&green, &idle));
        assert!(says_idle(&json!({"status": "green"}), &idle));
        assert!(!says_idle(&json!({"status": "yellow"}), &idle));
        assert!(!says_idle(&json!({"status": "green", "update_queue": {"length": 3}}), &idle));
        assert!(!says_idle(&green, &json!({"running": [{}]})));
        assert!(!says_idle(&green, &json!({})), "a server that does not tell");
    }

    #[test]
    fn anything_that_differs_is_a_change() {
        let seen = |version: u64| Seen {
            settings: json!({}),
            count: 1,
            peer: json!(1),
            shards: [(0, Some(json!({"s": {"segment_version": version, "file_versions": {}}})))].into(),
        };
        assert_eq!(seen(1), seen(1));
        assert_ne!(seen(2), seen(1), "newer");
        assert_ne!(seen(1), seen(2), "older: somebody restored");
        assert_ne!(seen(1), Seen { count: 2, ..seen(1) });
        let kept: Seen = serde_json::from_value(serde_json::to_value(seen(1)).expect("json")).expect("json");
        assert_eq!(kept, seen(1));
    }
}
