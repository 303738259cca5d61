//! Refusing writes: every shard is set READONLY.
//!
//! Reads, counts and searches go on. A single write is answered 500. A batch is answered 200 with an error for its first object of
//! each shard and SUCCESS for all others, of which none is stored (1.39.0, `shard_write_batch_objects.go`: one error for the batch is
//! returned as the first object's). A new collection can still be made, a tenant added or activated, and these take writes. So this
//! does not keep clients of batches from losing what was acknowledged: they are cut off before a final backup, and this tells a last one
//! that is not; with `backup.keep_reads` nobody is cut off. Nothing of it survives a restart.

use serde::Deserialize;
use serde_json::json;

use super::client::{Client, Request};
use super::inventory;
use crate::engine::EngineError;

#[derive(Deserialize)]
struct Shard {
    name: String,
}

pub(super) async fn set_all(client: &Client, status: &str) -> Result<(), EngineError> {
    for class in inventory::classes(client).await? {
        set(client, &class.name, &shards(client, &class).await?, status).await?;
    }
    Ok(())
}

pub(super) async fn set(client: &Client, class: &str, shards: &[String], status: &str) -> Result<(), EngineError> {
    for shard in shards {
        let path = ["schema", class, "shards", shard];
        client.change(Request::put(&path, json!({ "status": status }))).await?;
    }
    Ok(())
}

/// A collection's shards; with tenants, each active tenant is one, and the list of all fails while one is inactive.
async fn shards(client: &Client, class: &inventory::Class) -> Result<Vec<String>, EngineError> {
    if class.has_tenants() {
        return Ok(inventory::tenants(client, &class.name).await?.0);
    }
    let shards: Vec<Shard> = client.read(Request::get(&["schema", &class.name, "shards"])).await?;
    Ok(shards.into_iter().map(|s| s.name).collect())
}
