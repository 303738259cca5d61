//! The shards of an engine, with what they are doing.

use serde::Deserialize;

use super::super::client::{Client, Request};
use crate::engine::EngineError;

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    shards: Option<Vec<Shard>>,
}

/// A shard; of a collection with tenants, one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shard {
    /// Its collection.
    pub(super) class: String,
    /// Its name, which is a tenant's where there are tenants.
    pub(super) name: String,
    pub(super) loaded: bool,
    pub(super) vector_indexing_status: String,
    #[serde(default)]
    pub(super) vector_queue_length: i64,
}

/// All that are open, of one collection or of all.
pub(super) async fn of(client: &Client, class: Option<&str>) -> Result<Vec<Shard>, EngineError> {
    let path: Vec<_> = std::iter::once("nodes").chain(class).collect();
    let Nodes { nodes } = client.read(Request::get(&path).query(&[("output", "verbose")])).await?;
    Ok(nodes.into_iter().filter_map(|node| node.shards).flatten().collect())
}
