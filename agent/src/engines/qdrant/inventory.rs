//! What is in Qdrant: collections, exact counts, and sample points with what a search by their vector finds.
//!
//! A collection's own `points_count` is an estimate, so counts are asked for exactly. A sample holds a digest of the whole point, vectors
//! included: an archive that lost a vector file restores with the right counts and answers searches with nothing.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use perennial_shared::manifest::Sample;
use perennial_shared::verify::sha256_hex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Client, Request};
use super::names;
use crate::engine::{Answer, Counted, EngineError};

/// Queries at once: enough to be quick, few enough to leave the engine to its clients.
const AT_ONCE: usize = 4;
/// Answers a sample asks for.
const LIMIT: u32 = 5;

#[derive(Deserialize)]
struct Collections {
    collections: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Aliases {
    aliases: Vec<Alias>,
}

#[derive(Deserialize)]
struct Alias {
    alias_name: String,
    collection_name: String,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

#[derive(Deserialize)]
struct Page {
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Hits {
    points: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    id: Value,
    #[serde(default)]
    vector: Option<Value>,
}

/// A point, as the engine prints it.
#[derive(Deserialize)]
struct Point {
    id: Value,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    vector: Option<Value>,
}

/// The collections' own names, sorted. An alias is not a collection.
pub(super) async fn collections(client: &Client) -> Result<Vec<String>, EngineError> {
    let Collections { collections } = client.read(Request::get(&["collections"])).await?;
    let mut names: Vec<_> = collections.into_iter().map(|c| c.name).collect();
    names.sort();
    Ok(names)
}

/// The aliases and their collections.
pub(super) async fn aliases(client: &Client) -> Result<BTreeMap<String, String>, EngineError> {
    let Aliases { aliases } = client.read(Request::get(&["aliases"])).await?;
    Ok(aliases.into_iter().map(|a| (a.alias_name, a.collection_name)).collect())
}

/// The collections' own names, by what clients call them.
pub(super) async fn called(client: &Client) -> Result<BTreeMap<String, String>, EngineError> {
    let (collections, aliases) = (collections(client).await?, aliases(client).await?);
    Ok(collections.into_iter().map(|own| (names::called(&own, &aliases).to_owned(), own)).collect())
}

/// Every collection with its exact count.
pub(super) async fn count(client: &Client) -> Result<Vec<Counted>, EngineError> {
    let counts = stream::iter(called(client).await?).map(|(name, own)| async move {
        let count = count_of(client, &own).await?;
        Ok::<_, EngineError>(count.map(|count| Counted { name, count, ..Counted::default() }))
    });
    let counts: Vec<_> = counts.buffered(AT_ONCE).try_collect().await?;
    Ok(counts.into_iter().flatten().collect())
}

/// The exact count of a collection; `None` if there is none of that name.
pub(super) async fn count_of(client: &Client, name: &str) -> Result<Option<u64>, EngineError> {
    let path = ["collections", name, "points", "count"];
    let count: Option<Count> = client.find(Request::post(&path, json!({"exact": true}))).await?;
    Ok(count.map(|c| c.count))
}

/// Up to `each` samples of a collection, spread over its ids where these are spread.
pub(super) async fn samples(client: &Client, name: &str, each: usize) -> Result<Vec<Sample>, EngineError> {
    let count = count_of(client, name).await?.unwrap_or(0);
    let settings: Option<Value> = client.find(Request::get(&["collections", name])).await?;
    let mut samples: Vec<Sample> = vec![];
    let mut first = None;
    for round in 0..each {
        let after = first.as_ref().map(|id| id_at(id, count, round, each));
        let Some(point) = point_from(client, name, after).await? else { continue };
        first.get_or_insert_with(|| point.id.clone());
        let id = id_text(&point.id);
        if samples.iter().any(|s| s.near_object == id) {
            continue;
        }
        let vector = searched(&point).and_then(|(name, _)| name);
        let mut answer = asked(client, name, &point, vector.as_deref(), LIMIT).await?;
        let digest = answer.digest.take();
        let mut ids = answer.neighbours(&id);
        if !settings.as_ref().is_some_and(|s| is_nearest_to_itself(s, vector.as_deref())) {
            ids.retain(|neighbour| *neighbour != id);
        }
        samples.push(Sample { tenant: None, vector, near_object: id, limit: LIMIT, ids, digest });
    }
    Ok(samples)
}

/// Whether nothing is nearer to a vector than itself. By dot product, of sparse and of multiple vectors anything may be: what is written
/// while a snapshot is made then moves a point out of its own neighbours and in again.
fn is_nearest_to_itself(settings: &Value, using: Option<&str>) -> bool {
    let vectors = &settings["config"]["params"]["vectors"];
    let vector = match using {
        Some(name) => &vectors[name],
        None if vectors["distance"].is_string() => vectors,
        None => &vectors[""],
    };
    let is_a_distance = matches!(vector["distance"].as_str(), Some("Cosine" | "Euclid" | "Manhattan"));
    is_a_distance && vector["multivector_config"].is_null()
}

/// The first point whose id is not below `id`.
async fn point_from(client: &Client, name: &str, id: Option<Value>) -> Result<Option<Point>, EngineError> {
    let path = ["collections", name, "points", "scroll"];
    let body = json!({"limit": 1, "offset": id, "with_payload": true, "with_vector": true});
    let page: Option<Page> = client.find(Request::post(&path, body)).await?;
    Ok(page.and_then(|p| p.points.into_iter().next()))
}

/// An id that stands `round` of `rounds` into the range of ids: numbers as if they followed each other, UUIDs as if by chance.
fn id_at(first: &Value, count: u64, round: usize, rounds: usize) -> Value {
    let (round, rounds) = (round as u64, rounds.max(1) as u64);
    if let Some(first) = first.as_u64() {
        return json!(first.saturating_add(count / rounds * round));
    }
    let part = u128::MAX / u128::from(rounds) * u128::from(round);
    let hex = format!("{part:032x}");
    json!(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Asks for a sample again.
pub(super) async fn ask(client: &Client, name: &str, sample: &Sample) -> Result<Answer, EngineError> {
    let path = ["collections", name, "points"];
    let body = json!({"ids": [id_value(&sample.near_object)], "with_payload": true, "with_vector": true});
    let points: Option<Vec<Point>> = client.find(Request::post(&path, body)).await?;
    match points.and_then(|p| p.into_iter().next()) {
        Some(point) => asked(client, name, &point, sample.vector.as_deref(), sample.limit).await,
        None => Ok(Answer::default()),
    }
}

async fn asked(
    client: &Client,
    name: &str,
    point: &Point,
    using: Option<&str>,
    limit: u32,
) -> Result<Answer, EngineError> {
    let digest = Some(digest(point));
    let vector = match using {
        Some(_) => vector_of(point.vector.as_ref(), using).cloned(),
        None => searched(point).filter(|(name, _)| name.is_none()).map(|(_, vector)| vector),
    };
    let Some(vector) = vector else { return Ok(Answer { digest, ..Answer::default() }) };
    let mut query = json!({"query": vector, "limit": limit, "with_vector": true});
    if let Some(using) = using {
        query["using"] = json!(using);
        query["with_vector"] = json!([using]);
    }
    let path = ["collections", name, "points", "query"];
    let Hits { points } = client.read(Request::post(&path, query)).await?;
    let is_same = |hit: &Hit| vector_of(hit.vector.as_ref(), using) == vector_of(point.vector.as_ref(), using);
    let itself = points.iter().any(|hit| hit.id == point.id || is_same(hit));
    let ids = points.iter().map(|hit| id_text(&hit.id)).collect();
    Ok(Answer { ids, itself, twins: points.iter().all(is_same), digest })
}

fn vector_of<'a>(vectors: Option<&'a Value>, using: Option<&str>) -> Option<&'a Value> {
    match (using, vectors?) {
        (Some(using), named) => named.get(using),
        // The one without a name, beside others that have one.
        (None, Value::Object(named)) => named.get(""),
        (None, vector) => Some(vector),
    }
}

/// The vector that a point is searched by: its only one, or the first that it has of its named ones.
fn searched(point: &Point) -> Option<(Option<String>, Value)> {
    match point.vector.as_ref()? {
        Value::Array(vector) if vector.is_empty() => None,
        Value::Object(named) => {
            let first = named.iter().filter(|(_, v)| !v.is_null()).min_by_key(|(name, _)| name.as_str())?;
            let name = Some(first.0.clone()).filter(|n| !n.is_empty());
            Some((name, first.1.clone()))
        }
        vector => Some((None, vector.clone())),
    }
}

/// SHA-256 of a point: its id, vectors and payload, keys sorted, numbers as the engine prints them.
fn digest(point: &Point) -> String {
    let whole = json!({"id": point.id, "vector": point.vector, "payload": point.payload});
    sha256_hex(canonical(&whole).to_string().as_bytes())
}

/// The same value with its keys sorted; a payload that is empty and one that is not there are the same.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), canonical(v))).collect();
            if sorted.is_empty() { Value::Null } else { Value::Object(sorted.into_iter().collect::<Map<_, _>>()) }
        }
        Value::Array(list) => list.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// A number or a UUID as text.
fn id_text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), Into::into)
}

/// And back.
fn id_value(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(text: &str) -> Point {
        serde_json::from_str(text).expect("a point")
    }

    #[test]
    fn samples_are_spread_over_the_range_of_ids() {
        assert_eq!(id_at(&json!(10), 900, 2, 3), json!(610));
        assert_eq!(id_at(&json!("0a"), 9, 1, 3), json!("55555555-5555-5555-5555-555555555555"));
    }

    #[test]
    fn an_id_is_a_number_or_a_uuid() {
        for id in [json!(7), json!(u64::MAX), json!("55555555-5555-5555-5555-555555555555")] {
            assert_eq!(id_value(&id_text(&id)), id);
        }
    }

    #[test]
    fn the_digest_is_of_all_of_the_point_and_of_no_order() {
        let one = point(r#"{"id":1,"payload":{"a":1,"b":[0.1,2]},"vector":{"x":[0.5],"y":[1.0]}}"#);
        let same = point(r#"{"vector":{"y":[1.0],"x":[0.5]},"payload":{"b":[0.1,2],"a":1},"id":1,"version":9}"#);
        assert_eq!(digest(&one), digest(&same));
        for other in [
            r#"{"id":2,"payload":{"a":1,"b":[0.1,2]},"vector":{"x":[0.5],"y":[1.0]}}"#,
            r#"{"id":1,"payload":{"a":1,"b":[0.1,3]},"vector":{"x":[0.5],"y":[1.0]}}"#,
            r#"{"id":1,"payload":{"a":1,"b":[0.1,2]},"vector":{"x":[0.5]}}"#,
        ] {
            assert_ne!(digest(&one), digest(&point(other)), "{other}");
        }
        assert_eq!(digest(&point(r#"{"id":1,"payload":{}}"#)), digest(&point(r#"{"id":1}"#)));
    }

    #[test]
    fn only_by_a_distance_a_vector_is_nearest_to_itself() {
        let params = json!({"vectors": {
            "": {"distance": "Euclid"}, "a": {"distance": "Cosine"}, "b": {"distance": "Dot"},
            "c": {"distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
        }, "sparse_vectors": {"d": {}}});
        let settings = json!({"config": {"params": params}});
        let found: Vec<_> =
            ["a", "b", "c", "d"].into_iter().filter(|name| is_nearest_to_itself(&settings, Some(name))).collect();
        assert_eq!(found, ["a"]);
        assert!(is_nearest_to_itself(&settings, None));
        for (distance, expected) in [("Manhattan", true), ("Dot", false)] {
            let one = json!({"config": {"params": {"vectors": {"size": 4, "distance": distance}}}});
            assert_eq!(is_nearest_to_itself(&one, None), expected, "{distance}");
        }
    }

    #[test]
    fn the_first_vector_that_is_there_is_searched_by() {
        let of = |text: &str| searched(&point(text)).map(|(name, _)| name);
        assert_eq!(of(r#"{"id":1,"vector":[1.0]}"#), Some(None));
        assert_eq!(of(r#"{"id":1,"vector":{"b":[1.0],"a":[2.0]}}"#), Some(Some("a".into())));
        assert_eq!(of(r#"{"id":1,"vector":{}}"#), None);
        assert_eq!(of(r#"{"id":1}"#), None);
    }
}
