//! Having the engine index again what is not found by its own vectors.
//!
//! Runs before a restored engine gets traffic: the address moves only after the restore. That matters, because the engine's repair ends
//! by removing from the index what it did not see when it went through the objects, which could be what a client has just written.
//!
//! Runs after the comparison with the manifest, too. Where the engine missed objects already when it was backed up, its answers then are
//! those of the index as it is before a repair; a comparison that fails is made again after it.
//!
//! Never fails a restore: the data is there. What cannot be repaired, or not in time, is said, with what to do about it. Killed in
//! between, the engine ends what it was asked for by itself, and the restore that is run again measures anew.

use std::time::{Duration, Instant};

use super::super::client::Client;
use super::super::inventory::{self, Class};
use super::super::profiling::{Again, Index, Profiling};
use super::searched::{self, Measured};
use super::shards::{self, Shard};
use crate::engine::EngineError;

/// Collections with more objects are not repaired: the engine reads every object and logs a line about it, in some 40 µs and 300 bytes each
/// on two cores, which should be over in minutes.
const LARGEST_REPAIRED: u64 = 2_000_000;
/// Shards with more objects do not get a new index (some thousand objects a second): until it is whole, most would not be found because of
/// the few that are not.
const LARGEST_REBUILT: u64 = 100_000;
/// Shards that are gone through at once: there may be thousands of tenants.
const AT_ONCE: usize = 50;
/// Between two looks at what the engine does.
const PAUSE: Duration = Duration::from_millis(300);
/// Looks that must find nothing to do, one after the other: between a request and its work, and between two parts of it, are moments.
const QUIET: u32 = 3;

/// What repairs need.
pub(super) struct Repair<'a> {
    pub(super) client: &'a Client,
    pub(super) profiling: &'a Profiling,
    /// When it is given up.
    pub(super) until: Instant,
    /// Told what is being done.
    pub(super) told: &'a (dyn Fn(&str) + Send + Sync),
}

impl Repair<'_> {
    /// What a person should know of the vectors, after whatever could be done for them.
    pub(super) async fn findings(&self) -> Vec<String> {
        (self.told)("searching for objects by their own vectors");
        let measured = match searched::measure(self.client).await {
            Ok(measured) => measured,
            Err(e) => {
                return vec![format!("whether objects are found by their own vectors could not be found out: {e}")];
            }
        };
        let asked: usize = measured.iter().map(|m| m.asked).sum();
        let mut findings = vec![];
        for before in measured.iter().filter(|m| m.misses() > 0) {
            let mut now = before.clone();
            let why = self.mend(&mut now).await.err().map(|e| e.to_string());
            findings.push(said(before, &now, why.as_deref()));
        }
        if findings.is_empty() && asked > 0 {
            findings.push(format!("all of {asked} objects asked for find themselves by their vectors"));
        }
        findings
    }

    /// Does the least that helps, and measures after each thing done.
    async fn mend(&self, now: &mut Measured) -> Result<(), EngineError> {
        // With ASYNC_INDEXING, vectors that were queued at the backup are being indexed without anybody's doing.
        if shards::of(self.client, Some(&now.class.name)).await?.iter().any(Shard::is_indexing) {
            (self.told)(&format!("the engine indexes what was queued in {}", now.class.name));
            self.wait(&now.class).await?;
            *now = self.again(now).await?;
        }
        for again in [Again::Missing, Again::All] {
            if now.misses() > 0 {
                self.index(again, now).await?;
                *now = self.again(now).await?;
            }
        }
        Ok(())
    }

    async fn again(&self, before: &Measured) -> Result<Measured, EngineError> {
        searched::measure_vector(self.client, &before.class, before.vector.clone()).await
    }

    async fn index(&self, again: Again, now: &Measured) -> Result<(), EngineError> {
        let Measured { class, vector, .. } = now;
        if !class.is_graph(vector.as_deref()) {
            return Err(EngineError::Unsupported("the engine can do it only with vectors that HNSW indexes".into()));
        }
        let shards = match again {
            Again::Missing => self.all_shards(class).await?,
            Again::All => self.shards_with_misses(now).await?,
        };
        (self.told)(&match again {
            Again::Missing => format!("the engine indexes what {} shards of {} lack", shards.len(), class.name),
            Again::All => format!("the engine builds the index of {} shards of {} anew", shards.len(), class.name),
        });
        let vector = vector.as_deref().unwrap_or_default();
        for some in shards.chunks(AT_ONCE) {
            for shard in some {
                self.profiling.index(again, Index { collection: &class.name, shard, vector }).await?;
            }
            self.wait(class).await?;
        }
        Ok(())
    }

    /// What is repaired: every shard of a collection in which one object is missed. What lost their places are the writes of the backup's
    /// last moment, wherever they went, and few objects were asked for, of eight tenants at most. A repair of what lacks nothing changes nothing.
    async fn all_shards(&self, class: &Class) -> Result<Vec<String>, EngineError> {
        let objects = inventory::count_class(self.client, class).await?.count;
        if objects > LARGEST_REPAIRED {
            return Err(too_large(&class.name, objects, LARGEST_REPAIRED));
        }
        if class.has_tenants() {
            return Ok(inventory::tenants(self.client, &class.name).await?.0);
        }
        Ok(shards::of(self.client, Some(&class.name)).await?.into_iter().map(|s| s.name).collect())
    }

    /// What gets a new index: only where an object was missed. Without tenants an object does not tell its shard, so it is all of them.
    async fn shards_with_misses(&self, now: &Measured) -> Result<Vec<String>, EngineError> {
        let class = &now.class;
        let mut found = vec![];
        for tenant in now.missed.keys() {
            let tenant = tenant.as_deref();
            let objects = inventory::aggregate(self.client, &class.name, &[tenant]).await?;
            if objects > LARGEST_REBUILT {
                return Err(too_large(tenant.unwrap_or(&class.name), objects, LARGEST_REBUILT));
            }
            match tenant {
                Some(tenant) => found.push(tenant.to_owned()),
                None => found.extend(shards::of(self.client, Some(&class.name)).await?.into_iter().map(|s| s.name)),
            }
        }
        Ok(found)
    }

    /// Waits until the engine goes through no objects and has none in its queue.
    async fn wait(&self, class: &Class) -> Result<(), EngineError> {
        let (begun, mut quiet) = (Instant::now(), 0);
        while quiet < QUIET {
            let passing = self.profiling.is_passing().await;
            let busy = passing || shards::of(self.client, Some(&class.name)).await?.iter().any(Shard::is_indexing);
            quiet = if busy { 0 } else { quiet + 1 };
            if Instant::now() >= self.until {
                return Err(timed_out(&class.name, begun.elapsed(), passing));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Shard {
    /// Not "whether it is not READY": one that is opened when it is first needed has another word of its own.
    fn is_indexing(&self) -> bool {
        self.vector_queue_length > 0 || self.vector_indexing_status == "INDEXING"
    }
}

fn too_large(name: &str, objects: u64, largest: u64) -> EngineError {
    EngineError::Unsupported(format!(
        "{name} has {objects} objects, and with more than {largest} it would take too long during a restore"
    ))
}

fn timed_out(collection: &str, waited: Duration, passing: bool) -> EngineError {
    let outcome = if passing {
        "it goes on, and may take what is written meanwhile for what should not be in the index: let it end (its log says \"repaired \
         vector index\"), and then repair again"
    } else {
        "it goes on by itself, and finds them when it is done"
    };
    EngineError::TimedOut { what: "indexing", id: collection.into(), waited, outcome: outcome.into() }
}

/// What was missed before and is now, and why some still are.
fn said(before: &Measured, now: &Measured, why: Option<&str>) -> String {
    let name = &before.class.name;
    let (of, and) = match &before.vector {
        Some(vector) => (format!("vectors ({vector})"), format!("&vector={vector}")),
        None => ("vectors".into(), String::new()),
    };
    let cause = "their place in the index was not in a file yet when the backup was made";
    let (missed, left) = (before.misses(), now.misses());
    if left == 0 {
        return format!(
            "{name}: {missed} of {} objects did not find themselves by their {of}: {cause}. The engine has indexed them, and 0 of {} do not \
             now",
            before.asked, now.asked
        );
    }
    let earlier =
        if missed == left { String::new() } else { format!(" ({missed} before the engine indexed them again)") };
    format!(
        "{name}: {left} of {} objects do not find themselves by their {of}{earlier}: {cause}. It was not repaired: {}. While nobody writes, \
         have the engine run with ASYNC_INDEXING=true and DEBUG_ENDPOINTS_ENABLED=true, and POST \
         /debug/index/repair/vector?collection={name}&shard=SHARD{and} to its profiling port (6060) for each shard; what is missed after \
         that, /debug/index/rebuild/vector brings back, from all objects",
        now.asked,
        why.unwrap_or("a new index does not find them either"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(missed: usize) -> Measured {
        let class = serde_json::from_value(json!({"class": "Doc", "vectorIndexType": "hnsw"})).expect("a class");
        let missed = (missed > 0).then_some((None, missed)).into_iter().collect();
        Measured { class, vector: None, asked: 200, missed }
    }

    #[test]
    fn what_was_repaired_and_what_was_not_is_said_with_numbers() {
        let done = said(&measured(25), &measured(0), None);
        assert!(done.contains("25 of 200") && done.contains("0 of 200") && !done.contains("POST"), "{done}");
        let partly = said(&measured(25), &measured(1), Some("x is too large"));
        assert!(partly.contains("Doc: 1 of 200") && partly.contains("(25 before"), "{partly}");
        assert!(partly.contains("not repaired: x is too large") && partly.contains("repair/vector"), "{partly}");
        let not = said(&measured(25), &measured(25), Some("refused"));
        assert!(not.contains("25 of 200") && !not.contains("before the engine"), "{not}");
    }

    #[test]
    fn a_shard_that_is_not_open_has_nothing_to_do() {
        let shard = |status: &str, queued: i64| {
            let value = json!({"class": "Doc", "name": "s", "loaded": true, "vectorIndexingStatus": status, "vectorQueueLength": queued});
            serde_json::from_value::<Shard>(value).expect("a shard")
        };
        assert!(!shard("READY", 0).is_indexing() && !shard("LAZY_LOADING", 0).is_indexing());
        assert!(shard("INDEXING", 0).is_indexing() && shard("READONLY", 3).is_indexing());
    }
}
