//! Data to back up: deterministic objects with vectors.

use serde_json::{Value, json};

use super::http_client;
use super::weaviate::API_KEY;

/// Sends one request to a Weaviate and returns its answer, which must be a success.
pub async fn send(method: &str, url: &str, body: Option<Value>) -> Value {
    let (status, text) = try_send(method, url, body).await;
    assert!((200..300).contains(&status), "{method} {url}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Sends one request to a Weaviate and returns status and text.
pub async fn try_send(method: &str, url: &str, body: Option<Value>) -> (u16, String) {
    let method = method.parse().expect("a method");
    let mut request = http_client().request(method, url).bearer_auth(API_KEY);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a text"))
}

/// Makes a collection with one vector an object; `more` goes into its definition.
pub async fn make_collection(url: &str, name: &str, more: Value) {
    let mut class =
        json!({"class": name, "vectorizer": "none", "properties": [{"name": "title", "dataType": ["text"]}]});
    for (key, value) in more.as_object().expect("an object") {
        class[key] = value.clone();
    }
    if class.get("vectorConfig").is_some() {
        class.as_object_mut().expect("an object").remove("vectorizer");
    }
    send("POST", &format!("{url}/v1/schema"), Some(class)).await;
}

/// Puts the objects numbered `range` into a collection; `more` goes into each.
pub async fn fill(url: &str, collection: &str, range: std::ops::Range<u64>, more: Value) {
    for some in range.collect::<Vec<_>>().chunks(500) {
        let objects: Vec<_> = some.iter().map(|n| object(collection, *n, &more)).collect();
        let answer = send("POST", &format!("{url}/v1/batch/objects"), Some(json!({ "objects": objects }))).await;
        for object in answer.as_array().expect("a list") {
            assert!(object["result"]["errors"].is_null(), "{object}");
        }
    }
}

/// Object number `n` of a collection.
pub fn object(collection: &str, n: u64, more: &Value) -> Value {
    let mut object = json!({"class": collection, "id": id(n), "properties": {"title": format!("title {n}")}});
    let more = more.as_object().expect("an object");
    if !more.contains_key("vectors") && !more.contains_key("without_vector") {
        object["vector"] = json!(vector(n, 16));
    }
    for (key, value) in more.iter().filter(|(k, _)| *k != "without_vector") {
        object[key] = value.clone();
    }
    if let Some(names) = object["vectors"].as_array().cloned() {
        let vectors = names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), json!(vector(n, 8))));
        object["vectors"] = Value::Object(vectors.collect());
    }
    object
}

/// The id of object number `n`, spread over the whole range of ids.
pub fn id(n: u64) -> String {
    let hex = format!("{:016x}{:016x}", scramble(n), scramble(n ^ 0xffff_0000));
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// A vector that belongs to object number `n`.
pub fn vector(n: u64, size: u64) -> Vec<f32> {
    #[allow(clippy::cast_precision_loss)]
    (0..size).map(|d| (scramble(n * 1000 + d) >> 40) as f32 / (1 << 24) as f32 - 0.5).collect()
}

/// Number to number, without a pattern that shows (the finalizer of `SplitMix64`).
fn scramble(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
