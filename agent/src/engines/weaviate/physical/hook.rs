//! Having Weaviate write out what it holds back.
//!
//! An acknowledged object is in a file, but its place in the vector index may still be in a buffer of 32 KiB: a copy of the files
//! would hold the object, and no search would find it. There is no request for writing that out. A batch delete does it as its
//! first step, and one that only tries and matches nothing does nothing else.
//!
//! A shard that refuses writes answers that request just the same and does not do it, which is told.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::super::client::{Client, Request};
use super::super::inventory::{self, Class};
use super::shards::{self, Shard};
use crate::engine::EngineError;

/// Requests at once. Each is quick; what they cause is not more than any write causes.
const AT_ONCE: usize = 8;
/// An id that nothing has. If something had it: the delete is only tried.
const NOBODY: &str = "00000000-0000-0000-0000-000000000001";

/// A collection, or one of its tenants.
#[derive(Debug, Clone)]
struct Part {
    class: String,
    tenant: Option<String>,
    closed: bool,
}

/// An engine whose files are to be whole.
#[derive(Clone, Copy)]
pub(super) struct Hook<'a> {
    pub(super) client: &'a Client,
}

/// What was there when it was written out.
pub(super) struct Flushed {
    /// The collections' names.
    pub(super) collections: Vec<String>,
    /// What a person should know.
    pub(super) findings: Vec<String>,
}

impl Hook<'_> {
    /// Has everything written out that was acknowledged before.
    pub(super) async fn flush(self) -> Result<Flushed, EngineError> {
        let classes = inventory::classes(self.client).await?;
        let parts = parts(&classes, shards::of(self.client, None).await?.into_iter());
        let flushing = stream::iter(parts).map(|part| self.part(part)).buffer_unordered(AT_ONCE);
        let found: Vec<Option<String>> = flushing.try_collect().await?;
        let collections = classes.into_iter().map(|c| c.name).collect();
        Ok(Flushed { collections, findings: found.into_iter().flatten().collect() })
    }

    async fn part(self, part: Part) -> Result<Option<String>, EngineError> {
        if part.closed {
            return Ok(Some(format!(
                "{}: it refuses writes, so that what its vector index holds back could not be written out: objects that were \
                 written last may not be found by their vectors after a restore",
                part.class
            )));
        }
        self.ask(&part).await.map(|()| None)
    }

    async fn ask(self, part: &Part) -> Result<(), EngineError> {
        let only = json!({ "path": ["id"], "operator": "Equal", "valueText": NOBODY });
        let body = json!({ "match": { "class": part.class, "where": only }, "dryRun": true, "output": "minimal" });
        let query: Vec<_> = part.tenant.iter().map(|t| ("tenant", t.as_str())).collect();
        let request = Request::delete(&["batch", "objects"]).query(&query).body(body);
        match self.client.read::<Value>(request).await {
            Err(e @ EngineError::Unexpected { .. }) if self.is_there(part).await? => Err(e),
            // It was deleted or deactivated since, which wrote everything out.
            Ok(_) | Err(EngineError::Unexpected { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn is_there(self, part: &Part) -> Result<bool, EngineError> {
        if !inventory::classes(self.client).await?.iter().any(|c| c.name == part.class) {
            return Ok(false);
        }
        match &part.tenant {
            None => Ok(true),
            Some(tenant) => Ok(inventory::tenants(self.client, &part.class).await?.0.contains(tenant)),
        }
    }
}

/// What can be asked for at once: collections, and of those with tenants each tenant. What the engine does not have in memory holds
/// nothing back, and a request would load it.
fn parts(classes: &[Class], shards: impl Iterator<Item = Shard>) -> Vec<Part> {
    let mut parts: BTreeMap<(String, Option<String>), Part> = BTreeMap::new();
    for shard in shards.filter(|s| s.loaded) {
        let Some(class) = classes.iter().find(|c| c.name == shard.class) else { continue };
        let tenant = class.has_tenants().then(|| shard.name.clone());
        let part = parts.entry((shard.class.clone(), tenant.clone())).or_insert_with(|| Part {
            class: shard.class,
            tenant,
            closed: false,
        });
        part.closed |= shard.vector_indexing_status == "READONLY";
    }
    parts.into_values().collect()
}
