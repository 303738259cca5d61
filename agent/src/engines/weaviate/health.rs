//! Whether Weaviate is ready, and who it is.

use serde::Deserialize;

use super::client::{Client, Request};
use crate::engine::{EngineError, Identity};

#[derive(Deserialize)]
struct Meta {
    version: String,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
}

/// Version and host name. The `hostname` of `/v1/meta` is only the address, so the name comes from the list of nodes.
pub(super) async fn identity(client: &Client) -> Result<Identity, EngineError> {
    let meta: Meta = client.read(Request::get(&["meta"])).await?;
    let Nodes { mut nodes } = client.read(Request::get(&["nodes"])).await?;
    match (nodes.pop(), nodes.len()) {
        (Some(node), 0) => Ok(Identity { version: meta.version, host_name: node.name }),
        (_, others) => Err(EngineError::Unsupported(format!(
            "the engine at {} is a cluster of {} nodes; Perennial looks after single nodes",
            client.url(),
            others + 1
        ))),
    }
}
