//! Making Weaviate write what it still has in its buffers.
//!
//! The vector index's commit log has a 32 KiB buffer that nothing flushes after a write was acknowledged, and a native backup takes
//! only what is in the file: seen with 1.39.0, a collection of 100 objects was backed up with SUCCESS and without any
//! vector index, so that after a restore every object was there and none was ever found. A batch delete that only pretends
//! (`dryRun`) and matches nothing flushes the buffers of every shard it looks at, also of READONLY ones, and changes
//! nothing. What is written between this and the engine's snapshot of a shard may still be in the buffer: its objects restore, and
//! a few of its vectors may not be found.

use serde_json::{Value, json};

use super::client::{Client, Request};
use super::inventory;
use crate::engine::EngineError;

/// No object has this id: ids that Weaviate or a client makes are random or hashes.
const NOBODY: &str = "00000000-0000-0000-0000-000000000001";

/// Flushes every collection; of one with tenants, every active tenant.
pub(super) async fn all(client: &Client) -> Result<(), EngineError> {
    for class in inventory::classes(client).await? {
        if !class.has_tenants() {
            one(client, &class.name, &[]).await?;
            continue;
        }
        for tenant in inventory::tenants(client, &class.name).await?.0 {
            one(client, &class.name, &[("tenant", &tenant)]).await?;
        }
    }
    Ok(())
}

async fn one(client: &Client, class: &str, query: &[(&str, &str)]) -> Result<(), EngineError> {
    let body = json!({
        "match": {"class": class, "where": {"path": ["id"], "operator": "Equal", "valueText": NOBODY}},
        "dryRun": true,
        "output": "minimal",
    });
    let request = Request::delete(&["batch", "objects"]).query(query).with(body);
    client.read::<Value>(request).await.map(|_| ())
}
