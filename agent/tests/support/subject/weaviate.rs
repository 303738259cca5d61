//! Weaviate as the conformance suite sees it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use perennial::engine::Engine;
use perennial::engines::weaviate::Weaviate;
use perennial_shared::secret::Secret;
use perennial_shared::settings::Service;
use serde_json::{Value, json};

use super::super::data::{id, make_collection, object, send, vector};
use super::super::http_client;
use super::super::s3::S3;
use super::super::weaviate::{API_KEY, WeaviateServer};
use super::Subject;

const COLLECTION: &str = "Row";
const PAGE: usize = 1000;
const SIZE: u64 = 128;

/// A Weaviate with the collection `Row`.
pub struct WeaviateSubject {
    server: WeaviateServer,
    method: &'static str,
    client: reqwest::Client,
}

impl WeaviateSubject {
    /// Starts one, captured by `method`; with `rows`, its collection is there.
    pub async fn start(s3: &S3, method: &'static str, rows: bool) -> Self {
        let server = WeaviateServer::ready("weaviate-0", s3).await;
        if rows {
            make_collection(&server.url(), COLLECTION, json!({})).await;
        }
        Self { server, method, client: http_client() }
    }

    fn product(&self, url: &str, key: &str) -> Box<dyn Engine> {
        Box::new(Weaviate::new(url, Some(&Secret::new(key)), self.server.options()).expect("an address"))
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> bool {
        request.bearer_auth(API_KEY).send().await.is_ok_and(|answer| answer.status().is_success())
    }
}

fn row_object(row: u64) -> Value {
    object(COLLECTION, row, &json!({ "vector": vector(row, SIZE) }))
}

#[async_trait]
impl Subject for WeaviateSubject {
    fn name(&self) -> &'static str {
        if self.method == "native" { "weaviate, native" } else { "weaviate, physical" }
    }

    fn settings(&self) -> String {
        let (url, data) = (self.server.url(), self.server.data_dir());
        let (method, service) = (self.method, self.server.service());
        format!(
            "engine: weaviate\nmethod: {method}\nurl: {url}\nhost_name: weaviate-0\ndata_dir: {}\n{service}",
            data.display()
        )
    }

    fn key(&self) -> &'static str {
        API_KEY
    }

    fn engine(&self, key: Option<&str>) -> Box<dyn Engine> {
        self.product(&self.server.url(), key.unwrap_or(API_KEY))
    }

    fn nowhere(&self) -> Box<dyn Engine> {
        self.product("http://127.0.0.1:9", API_KEY)
    }

    fn collection(&self) -> &'static str {
        COLLECTION
    }

    fn object(&self, row: u64) -> String {
        id(row)
    }

    async fn load(&self, rows: std::ops::Range<u64>) {
        for some in rows.collect::<Vec<_>>().chunks(500) {
            let objects: Vec<_> = some.iter().map(|row| row_object(*row)).collect();
            let url = format!("{}/v1/batch/objects", self.server.url());
            let answer = send("POST", &url, Some(json!({ "objects": objects }))).await;
            for object in answer.as_array().expect("a list") {
                assert!(object["result"]["errors"].is_null(), "{object}");
            }
        }
    }

    async fn write(&self, row: u64) -> bool {
        self.sent(self.client.post(format!("{}/v1/objects", self.server.url())).json(&row_object(row))).await
    }

    async fn delete(&self, row: u64) -> bool {
        self.sent(self.client.delete(format!("{}/v1/objects/{COLLECTION}/{}", self.server.url(), id(row)))).await
    }

    async fn rows(&self) -> BTreeSet<u64> {
        let (mut rows, mut after) = (BTreeSet::new(), String::new());
        loop {
            let url = format!("{}/v1/objects?class={COLLECTION}&limit={PAGE}&after={after}", self.server.url());
            let page: Value = send("GET", &url, None).await;
            let objects = page["objects"].as_array().expect("a list").clone();
            for found in &objects {
                let title = found["properties"]["title"].as_str().expect("a title");
                let row = title.trim_start_matches("title ").parse().expect("a number");
                assert_eq!(found["id"], id(row), "{found}");
                rows.insert(row);
            }
            match objects.last() {
                Some(last) => after = last["id"].as_str().expect("an id").into(),
                None => return rows,
            }
        }
    }

    fn service(&self) -> Option<Service> {
        self.server.options().service
    }

    async fn restart(&mut self) {
        self.server.restart();
        self.server.wait().await;
    }
}
