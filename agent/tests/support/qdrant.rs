//! A Qdrant server: that of the tests, which is a REST server around Qdrant's own storage engine, or, where `QDRANT_IMAGE` names one, a
//! container of the real image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use perennial::engine::Engine;
use perennial::engines::qdrant::{Options, Qdrant};
use perennial_shared::secret::Secret;
use serde_json::{Value, json};

use super::docker::Container;
use super::process::Server;
use super::{free_ports, http_client, installed_in};

/// The one API key, of servers that have one.
pub const API_KEY: &str = "test-api-key";
const KEY_VARIABLE: &str = "QDRANT__SERVICE__API_KEY";

/// A running Qdrant with its own data folder.
#[derive(Debug)]
pub struct QdrantServer {
    runs: Runs,
    folder: tempfile::TempDir,
    port: u16,
    key: Option<&'static str>,
}

#[derive(Debug)]
enum Runs {
    Ours(Server),
    Image(Container),
}

impl QdrantServer {
    /// Starts it without a key and waits until it is ready.
    pub async fn ready() -> Self {
        Self::with_key(None).await
    }

    /// Starts it and waits until it is ready.
    pub async fn with_key(key: Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [port] = free_ports();
        let runs = std::env::var("QDRANT_IMAGE").map_or_else(
            |_| Runs::Ours(ours(folder.path(), port, key)),
            |image| Runs::Image(theirs(&image, port, key)),
        );
        let server = Self { runs, folder, port, key };
        server.wait().await;
        server
    }

    async fn wait(&self) {
        let ready = self.engine().wait_until_ready(Duration::from_secs(60)).await;
        ready.unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
    }

    /// Waits until what was written is in files. The real server flushes every five seconds, and a new collection has files more after
    /// that; a capture before it counts them as a change.
    pub async fn flushed(&self) {
        if let Runs::Image(_) = self.runs {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    }

    /// Kills it without warning and starts it again on the same data.
    pub async fn restart(&mut self) {
        match &mut self.runs {
            Runs::Ours(server) => {
                server.kill();
                *server = ours(self.folder.path(), self.port, self.key);
            }
            Runs::Image(container) => container.restart(),
        }
        self.wait().await;
    }

    /// A client of the product for it.
    pub fn engine(&self) -> Qdrant {
        self.engine_with(self.key)
    }

    /// The same with another key.
    pub fn engine_with(&self, key: Option<&str>) -> Qdrant {
        let options = Options { scratch: self.scratch(), data_dir: None };
        Qdrant::new(&self.url(), key.map(Secret::new).as_ref(), options).expect("an address")
    }

    /// Where the clients of [`QdrantServer::engine`] put what is on its way.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The settings that name it.
    pub fn settings(&self) -> String {
        format!("engine: qdrant\nurl: {}\n", self.url())
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        match &self.runs {
            Runs::Ours(_) => std::fs::read_to_string(self.folder.path().join("qdrant.log")).unwrap_or_default(),
            Runs::Image(container) => container.log(),
        }
    }

    /// Sends one request and returns the result, which must be there.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, text) = self.try_ask(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}\n{}", self.log());
        serde_json::from_str::<Value>(&text).expect("json")["result"].take()
    }

    /// Sends one request and returns status and text.
    pub async fn try_ask(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        send(&http_client(), &format!("{}{path}", self.url()), self.key, method, &body).await
    }

    /// Makes a collection of vectors of this size.
    pub async fn make(&self, name: &str, size: u64) {
        let body = json!({"vectors": {"size": size, "distance": "Cosine"}});
        self.ask("PUT", &format!("/collections/{name}"), body).await;
    }

    /// Puts the points numbered `range` into a collection.
    pub async fn fill(&self, name: &str, range: std::ops::Range<u64>, size: u64) {
        for some in range.collect::<Vec<_>>().chunks(1000) {
            let points: Vec<_> = some.iter().map(|n| point(*n, size)).collect();
            self.ask("PUT", &format!("/collections/{name}/points?wait=true"), json!({ "points": points })).await;
        }
    }

    /// Exact number of points, by a collection's name or an alias.
    pub async fn count(&self, name: &str) -> u64 {
        let count = self.ask("POST", &format!("/collections/{name}/points/count"), json!({"exact": true})).await;
        count["count"].as_u64().expect("a number")
    }

    /// The same, where there may be nothing of that name.
    pub async fn find_count(&self, name: &str) -> Option<u64> {
        let path = format!("/collections/{name}/points/count");
        let (status, text) = self.try_ask("POST", &path, json!({"exact": true})).await;
        assert!([200, 404].contains(&status), "{path}: {status} {text}");
        serde_json::from_str::<Value>(&text).expect("json")["result"]["count"].as_u64()
    }

    /// The collections' own names, sorted.
    pub async fn collections(&self) -> Vec<String> {
        let found = self.ask("GET", "/collections", Value::Null).await;
        let names = found["collections"].as_array().expect("a list").iter();
        let mut names: Vec<_> = names.map(|c| c["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    /// Deletes all collections, and their aliases with them.
    pub async fn empty(&self) {
        for name in self.collections().await {
            self.ask("DELETE", &format!("/collections/{name}"), Value::Null).await;
        }
    }

    /// The collection that an alias shows.
    pub async fn shown_by(&self, alias: &str) -> Option<String> {
        let aliases = self.aliases().await;
        aliases.iter().find_map(|pair| Some(pair.strip_prefix(alias)?.strip_prefix('=')?.to_owned()))
    }

    /// The snapshots of a collection that are on the server.
    pub async fn snapshots(&self, name: &str) -> Vec<String> {
        let found = self.ask("GET", &format!("/collections/{name}/snapshots"), Value::Null).await;
        found.as_array().expect("a list").iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Makes a snapshot of a collection, as somebody else would; its name.
    pub async fn snapshot(&self, name: &str) -> String {
        let made = self.ask("POST", &format!("/collections/{name}/snapshots?wait=true"), json!({})).await;
        made["name"].as_str().expect("a name").to_owned()
    }

    /// How many snapshots of a collection were made since the server started.
    pub async fn snapshots_made(&self, name: &str) -> u64 {
        let (_, metrics) = self.try_ask("GET", "/metrics", Value::Null).await;
        let line = format!("snapshot_created_total{{id=\"{name}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// A collection's shard as the server streams it: its segments, and nothing of its log.
    pub async fn streamed(&self, name: &str) -> Vec<u8> {
        let url = format!("{}/collections/{name}/shards/0/snapshot", self.url());
        let answer = http_client().get(url).send().await.expect("an answer").error_for_status().expect("a stream");
        answer.bytes().await.expect("a stream").into()
    }

    /// Makes a collection's shard what was streamed.
    pub async fn put_streamed(&self, name: &str, archive: Vec<u8>) {
        let before = b"--part\r\ncontent-disposition: form-data; name=\"snapshot\"; filename=\"x\"\r\n\r\n";
        let url = format!("{}/collections/{name}/shards/0/snapshots/upload?wait=true", self.url());
        let request = http_client().post(url).header("content-type", "multipart/form-data; boundary=part");
        let answer = request.body([before, &archive[..], b"\r\n--part--\r\n"].concat()).send().await;
        answer.expect("an answer").error_for_status().expect("accepted");
    }

    /// The aliases with their collections, as `alias=collection`.
    pub async fn aliases(&self) -> Vec<String> {
        let found = self.ask("GET", "/aliases", Value::Null).await;
        let text = |v: &Value| v.as_str().expect("a name").to_owned();
        let pair = |a: &Value| format!("{}={}", text(&a["alias_name"]), text(&a["collection_name"]));
        let mut found: Vec<_> = found["aliases"].as_array().expect("a list").iter().map(pair).collect();
        found.sort();
        found
    }

    /// Makes an alias.
    pub async fn alias(&self, alias: &str, collection: &str) {
        let action = json!({"create_alias": {"alias_name": alias, "collection_name": collection}});
        self.ask("POST", "/collections/aliases", json!({"actions": [action]})).await;
    }

    /// All points of a collection, by their numbers.
    pub async fn points(&self, name: &str) -> std::collections::BTreeMap<u64, Value> {
        let body = json!({"limit": 1_000_000, "with_payload": true, "with_vector": true});
        let found = self.ask("POST", &format!("/collections/{name}/points/scroll"), body).await;
        let points = found["points"].as_array().expect("a list").iter();
        points.map(|p| (p["id"].as_u64().expect("a number"), p.clone())).collect()
    }

    /// A point, or nothing.
    pub async fn point(&self, name: &str, id: u64) -> Option<Value> {
        let body = json!({"ids": [id], "with_vector": true, "with_payload": true});
        let found = self.ask("POST", &format!("/collections/{name}/points"), body).await;
        found.get(0).cloned()
    }
}

/// Sends one request of a client that goes on.
pub async fn send(client: &reqwest::Client, url: &str, key: Option<&str>, method: &str, body: &Value) -> (u16, String) {
    let mut request = client.request(method.parse().expect("a method"), url);
    if let Some(key) = key {
        request = request.header("api-key", key);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a text"))
}

/// Point number `n`.
pub fn point(n: u64, size: u64) -> Value {
    #[allow(clippy::cast_precision_loss)]
    let number = |d: u64| ((n + 1) * 7919 * (d + 13) % 10_007) as f32 / 10_007.0 - 0.5;
    let vector: Vec<f32> = (0..size).map(number).collect();
    json!({"id": n, "vector": vector, "payload": {"title": format!("title {n}"), "n": n}})
}

fn ours(folder: &Path, port: u16, key: Option<&str>) -> Server {
    let mut command = Command::new(installed_in("venv/bin", "python"));
    command.args(["-m", "qdrant_server", "--port", &port.to_string()]);
    command.arg("--storage").arg(folder.join("storage")).arg("--snapshots").arg(folder.join("snapshots"));
    if let Some(key) = key {
        command.args(["--api-key-env", KEY_VARIABLE]).env(KEY_VARIABLE, key);
    }
    command.current_dir("../tests");
    Server::start(&mut command, &folder.join("qdrant.log"))
}

fn theirs(image: &str, port: u16, key: Option<&str>) -> Container {
    let port = format!("127.0.0.1:{port}:6333");
    let key = key.map(|key| (KEY_VARIABLE, key));
    Container::run(&["--env", "QDRANT__TELEMETRY_DISABLED=true", "--publish", &port, image], key.as_slice())
}
