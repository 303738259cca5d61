//! Qdrant as the conformance suite sees it: the server of the tests, or the real image that `QDRANT_IMAGE` names.

use std::collections::BTreeSet;

use async_trait::async_trait;
use perennial::engine::Engine;
use perennial::engines::qdrant::{Options, Qdrant};
use perennial_shared::secret::Secret;
use perennial_shared::settings::Service;
use serde_json::json;

use super::super::http_client;
use super::super::qdrant::{API_KEY, QdrantServer, point, send};
use super::Subject;

const COLLECTION: &str = "rows";
const SIZE: u64 = 128;

/// A Qdrant with the collection `rows`.
pub struct QdrantSubject {
    server: QdrantServer,
    client: reqwest::Client,
}

impl QdrantSubject {
    /// Starts one; with `rows`, its collection is there.
    pub async fn start(rows: bool) -> Self {
        let server = QdrantServer::with_key(Some(API_KEY)).await;
        if rows {
            server.make(COLLECTION, SIZE).await;
        }
        Self { server, client: http_client() }
    }

    async fn sent(&self, method: &str, path: &str, body: serde_json::Value) -> bool {
        let url = format!("{}/collections/{COLLECTION}/points{path}?wait=true", self.server.url());
        (200..300).contains(&send(&self.client, &url, Some(API_KEY), method, &body).await.0)
    }
}

#[async_trait]
impl Subject for QdrantSubject {
    fn name(&self) -> &'static str {
        "qdrant, snapshot"
    }

    fn settings(&self) -> String {
        self.server.settings()
    }

    fn key(&self) -> &'static str {
        API_KEY
    }

    fn engine(&self, key: Option<&str>) -> Box<dyn Engine> {
        Box::new(self.server.engine_with(Some(key.unwrap_or(API_KEY))))
    }

    fn nowhere(&self) -> Box<dyn Engine> {
        let options = Options { scratch: self.server.scratch(), data_dir: None };
        Box::new(Qdrant::new("http://127.0.0.1:9", Some(&Secret::new(API_KEY)), options).expect("an address"))
    }

    fn collection(&self) -> &'static str {
        COLLECTION
    }

    fn object(&self, row: u64) -> String {
        row.to_string()
    }

    async fn load(&self, rows: std::ops::Range<u64>) {
        self.server.fill(COLLECTION, rows, SIZE).await;
    }

    async fn write(&self, row: u64) -> bool {
        self.sent("PUT", "", json!({ "points": [point(row, SIZE)] })).await
    }

    async fn delete(&self, row: u64) -> bool {
        self.sent("POST", "/delete", json!({ "points": [row] })).await
    }

    async fn rows(&self) -> BTreeSet<u64> {
        let points = self.server.points(COLLECTION).await;
        for (row, found) in &points {
            assert_eq!(found["payload"]["n"], *row, "{found}");
        }
        points.into_keys().collect()
    }

    fn service(&self) -> Option<Service> {
        None
    }

    async fn restart(&mut self) {
        self.server.restart().await;
    }
}
