//! Redis as the conformance suite sees it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use perennial::engine::Engine;
use perennial::engines::redis::{Options, Redis};
use perennial_shared::secret::Secret;
use perennial_shared::settings::{Method, Service};
use tokio::sync::Mutex;

use super::super::redis::{Client, PASSWORD, RedisServer};
use super::Subject;

/// A Redis whose rows are the keys `row:0` and so on.
pub struct RedisSubject {
    server: RedisServer,
    method: Method,
    client: Mutex<Option<Client>>,
}

impl RedisSubject {
    /// Starts one that is captured by `method`, with append-only files where the method wants them.
    pub async fn start(method: Method) -> Self {
        let server = RedisServer::start(if method == Method::Rdb { "save \"\"" } else { "appendonly yes" }).await;
        Self { server, method, client: Mutex::default() }
    }

    /// One command; `None` when it was refused or nobody answered, after which the next one connects again.
    async fn said(&self, words: &[&str]) -> Option<redis::Value> {
        let mut client = self.client.lock().await;
        if client.is_none() {
            *client = self.server.client_if_up().await;
        }
        let said = client.as_mut()?.try_say(words).await;
        if said.as_ref().is_err_and(|e| e.is_connection_dropped() || e.is_io_error()) {
            *client = None;
        }
        said.ok()
    }
}

fn content(row: u64) -> String {
    format!("value {row} of row:")
}

#[async_trait]
impl Subject for RedisSubject {
    fn name(&self) -> &'static str {
        match self.method {
            Method::Rdb => "redis, rdb",
            Method::Aof => "redis, aof",
            _ => "redis, both",
        }
    }

    fn settings(&self) -> String {
        self.server.settings(&format!("method: {}", self.method.word()))
    }

    fn key(&self) -> &'static str {
        PASSWORD
    }

    fn engine(&self, key: Option<&str>) -> Box<dyn Engine> {
        Box::new(self.server.engine_of(None, key.unwrap_or(PASSWORD), self.method))
    }

    fn nowhere(&self) -> Box<dyn Engine> {
        let options = Options { user: None, method: self.method, data_dir: None, service: None, memory: None };
        Box::new(Redis::new("redis://127.0.0.1:9", Some(&Secret::new(PASSWORD)), options).expect("an address"))
    }

    fn collection(&self) -> &'static str {
        "db0"
    }

    fn object(&self, row: u64) -> String {
        format!("row:{row}")
    }

    async fn load(&self, rows: std::ops::Range<u64>) {
        self.server.client().await.fill("row:", rows).await;
    }

    async fn write(&self, row: u64) -> bool {
        self.said(&["SET", &format!("row:{row}"), &content(row)]).await.is_some()
    }

    async fn delete(&self, row: u64) -> bool {
        self.said(&["DEL", &format!("row:{row}")]).await.is_some()
    }

    async fn rows(&self) -> BTreeSet<u64> {
        let mut client = self.server.client().await;
        let (mut keys, mut cursor): (BTreeSet<String>, String) = (BTreeSet::new(), "0".into());
        loop {
            let page = client.say(&["SCAN", &cursor, "MATCH", "row:*", "COUNT", "10000"]).await;
            let some: Vec<String>;
            (cursor, some) = redis::from_redis_value(page).expect("a page");
            keys.extend(some);
            if cursor == "0" {
                break;
            }
        }
        let keys: Vec<_> = keys.into_iter().collect();
        let mut rows = BTreeSet::new();
        for some in keys.chunks(1000) {
            let words: Vec<_> = std::iter::once("MGET").chain(some.iter().map(String::as_str)).collect();
            let values: Vec<String> = redis::from_redis_value(client.say(&words).await).expect("values");
            for (key, value) in some.iter().zip(values) {
                let row = key.trim_start_matches("row:").parse().expect("a number");
                assert_eq!(value, content(row), "{key}");
                rows.insert(row);
            }
        }
        rows
    }

    fn service(&self) -> Option<Service> {
        Some(self.server.script().service())
    }

    async fn restart(&mut self) {
        if self.method == Method::Rdb {
            // Without append-only files a sudden end loses what no save has seen, as its owner chose.
            self.server.client().await.say(&["SAVE"]).await;
        }
        self.server.script().kill();
        self.server.script().stop();
        self.server.script().start();
        self.server.wait().await;
    }
}
