//! Weaviate's profiling port, over which it indexes vectors again.
//!
//! It has no authentication, so it is never sent the API key. It answers 404 to everything unless the engine was started with
//! `DEBUG_ENDPOINTS_ENABLED=true`, and indexes again only with `ASYNC_INDEXING=true`. It answers before the work has begun: what is
//! being done is seen in the engine's goroutines and in its queue.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::client::message;
use crate::engine::EngineError;
use crate::engines::http::{Dialect, Http, Request};

/// Where Weaviate has it unless `GO_PROFILING_PORT` says otherwise.
const PORT: u16 = 6060;
/// An index that is built anew is first removed, which ends when the engine's writing of it has.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the engine calls the functions that go through a shard's objects for a repair and for a rebuild.
const PASSES: [&str; 2] = ["RepairIndex", "FillQueue"];

/// The profiling port of one Weaviate.
#[derive(Debug)]
pub(super) struct Profiling {
    http: Http,
}

/// How much is indexed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// What the index lacks. What has a place in it, but no links to it, stays as it is.
    Missing,
    /// Everything, in an index that begins empty.
    All,
}

/// One index: a collection's, in a shard, of one of its vectors (the empty name is the one without a name).
#[derive(Debug, Clone, Copy)]
pub(super) struct Index<'a> {
    pub(super) collection: &'a str,
    pub(super) shard: &'a str,
    pub(super) vector: &'a str,
}

impl Profiling {
    /// The port at `given`, else where the engine at `engine` has it if it was told nothing; nothing is sent yet.
    pub(super) fn new(given: Option<&str>, engine: &str) -> Result<Self, EngineError> {
        let usual = given.is_none().then(|| beside(engine)).flatten();
        let url = given.or(usual.as_deref()).unwrap_or(engine);
        Ok(Self { http: Http::new(url, Dialect { root: &["debug"], message }, None)? })
    }

    /// Has an index begin to be made good. The engine goes through the shard's objects by itself, and queues what it indexes.
    pub(super) async fn index(&self, again: Again, index: Index<'_>) -> Result<(), EngineError> {
        let path = match again {
            Again::Missing => ["index", "repair", "vector"],
            Again::All => ["index", "rebuild", "vector"],
        };
        let query = [("collection", index.collection), ("shard", index.shard), ("vector", index.vector)];
        let request = Request::post(&path, Value::Null).query(&query).within(TIMEOUT);
        let answer = self.http.send(&request).await.map_err(closed)?;
        let why = self.http.message(&answer);
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_IMPLEMENTED => {
                Err(EngineError::Unsupported("the engine runs without ASYNC_INDEXING=true".into()))
            }
            // It says 404 of a collection and a shard, too, in words of its own.
            StatusCode::NOT_FOUND if why.contains("page not found") => {
                let why = format!("the engine runs without DEBUG_ENDPOINTS_ENABLED=true (404 at {})", self.http.url());
                Err(EngineError::Unsupported(why))
            }
            _ => Err(self.http.odd(&request, &answer, &why)),
        }
    }

    /// Whether the engine still goes through objects, so that its queue is not yet what it will be. A port that does not answer has been
    /// asked for nothing.
    pub(super) async fn is_passing(&self) -> bool {
        let request = Request::get(&["pprof", "goroutine"]).query(&[("debug", "1")]);
        let Ok(answer) = self.http.send(&request).await else { return false };
        let text = String::from_utf8_lossy(&answer.body);
        answer.status.is_success() && PASSES.iter().any(|function| text.contains(function))
    }
}

fn closed(error: EngineError) -> EngineError {
    match error {
        EngineError::Unreachable { url, why } => {
            EngineError::Unsupported(format!("its profiling port {url} does not answer ({why}; see `debug_url`)"))
        }
        other => other,
    }
}

/// The usual port on the host of an address. It speaks http also where the engine itself speaks https.
fn beside(engine: &str) -> Option<String> {
    let url = Url::parse(engine).ok()?;
    Some(format!("http://{}:{PORT}", url.host_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_on_the_engines_host() {
        for (engine, port) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:6060"),
            ("https://weaviate.internal", "http://weaviate.internal:6060"),
            ("http://[::1]:8080", "http://[::1]:6060"),
        ] {
            assert_eq!(Profiling::new(None, engine).expect("an address").http.url(), port);
        }
        let given = Profiling::new(Some("http://10.0.0.1:6061"), "http://127.0.0.1:8080").expect("an address");
        assert_eq!(given.http.url(), "http://10.0.0.1:6061");
    }
}
