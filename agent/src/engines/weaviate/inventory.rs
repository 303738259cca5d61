//! What is in Weaviate: collections, exact counts, and sample queries with their answers.
//!
//! `/v1/nodes` counts only flushed segments (it says 0 with thousands of objects in memory), so counts are those of
//! GraphQL's `Aggregate`, which are exact. It counts one tenant at a time and only active ones.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use perennial_shared::manifest::Sample;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Request};
use crate::engine::{Answer, Counted, EngineError};

/// Queries at once: enough to be quick, few enough to leave the engine to its clients.
const AT_ONCE: usize = 4;
/// Tenants counted by one query.
const TENANTS_A_QUERY: usize = 100;
/// Answers a sample asks for.
const LIMIT: u32 = 5;
/// Distances of vectors that are the same but for rounding.
const SAME: f64 = 1e-5;

#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    classes: Vec<Class>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Class {
    #[serde(rename = "class")]
    pub(super) name: String,
    multi_tenancy_config: Option<MultiTenancy>,
    vector_index_type: Option<String>,
    vector_index_config: Option<VectorIndex>,
    /// Named vectors.
    vector_config: Option<BTreeMap<String, NamedVector>>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct NamedVector {
    vector_index_type: Option<String>,
    vector_index_config: Option<VectorIndex>,
}

#[derive(Deserialize, Clone)]
struct VectorIndex {
    distance: Option<String>,
    #[serde(default)]
    skip: bool,
    multivector: Option<Multivector>,
}

/// Many vectors an object.
#[derive(Deserialize, Clone)]
struct Multivector {
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize, Clone)]
struct MultiTenancy {
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tenant {
    name: String,
    activity_status: Option<String>,
}

impl VectorIndex {
    /// By dot product a longer vector is nearer, and so may be another object's many vectors.
    fn finds_itself(&self) -> bool {
        let many = self.multivector.as_ref().is_some_and(|m| m.enabled);
        !self.skip && !many && self.distance.as_deref() != Some("dot")
    }
}

impl Class {
    pub(super) fn has_tenants(&self) -> bool {
        self.multi_tenancy_config.as_ref().is_some_and(|m| m.enabled)
    }

    /// Whether a vector is searched by a graph (HNSW, the default), whose log is in files of its own.
    pub(super) fn is_graph(&self, vector: Option<&str>) -> bool {
        let kind = match (vector, &self.vector_config) {
            (Some(name), Some(named)) => named.get(name).and_then(|v| v.vector_index_type.as_deref()),
            _ => self.vector_index_type.as_deref(),
        };
        kind == Some("hnsw")
    }

    /// The vectors by which an object is its own nearest neighbour: of all named ones, else of the one without a name.
    pub(super) fn find_themselves(&self) -> Vec<Option<String>> {
        let named: Vec<_> = self.vector_config.iter().flatten().collect();
        if named.is_empty() {
            let finds_itself = self.vector_index_config.as_ref().is_some_and(VectorIndex::finds_itself);
            return finds_itself.then_some(None).into_iter().collect();
        }
        let finding = |v: &NamedVector| v.vector_index_config.as_ref().is_some_and(VectorIndex::finds_itself);
        named.into_iter().filter(|(_, v)| finding(v)).map(|(name, _)| Some(name.clone())).collect()
    }

    /// The vector that samples search by: the only one, or the first named one.
    pub(super) fn vector(&self) -> Option<String> {
        self.vector_config.as_ref().and_then(|v| v.keys().next().cloned())
    }
}

/// All collections, sorted by name.
pub(super) async fn classes(client: &Client) -> Result<Vec<Class>, EngineError> {
    let Schema { mut classes } = client.read(Request::get(&["schema"])).await?;
    classes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(classes)
}

async fn class(client: &Client, name: &str) -> Result<Class, EngineError> {
    client.read(Request::get(&["schema", name])).await
}

/// The tenants of a collection: the active ones, and how many others there are.
pub(super) async fn tenants(client: &Client, class: &str) -> Result<(Vec<String>, u64), EngineError> {
    let all: Vec<Tenant> = client.read(Request::get(&["schema", class, "tenants"])).await?;
    // HOT is the older word for ACTIVE; without a word it is active.
    let active = |t: &Tenant| t.activity_status.as_deref().is_none_or(|s| s == "HOT" || s == "ACTIVE");
    let (active, others): (Vec<_>, Vec<_>) = all.into_iter().partition(active);
    let mut names: Vec<_> = active.into_iter().map(|t| t.name).collect();
    names.sort();
    Ok((names, others.len() as u64))
}

/// Every collection with its exact count.
pub(super) async fn count(client: &Client) -> Result<Vec<Counted>, EngineError> {
    let classes = classes(client).await?;
    stream::iter(classes)
        .map(|class| async move { count_class(client, &class).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// A collection's exact count.
pub(super) async fn count_class(client: &Client, class: &Class) -> Result<Counted, EngineError> {
    if !class.has_tenants() {
        let count = aggregate(client, &class.name, &[None]).await?;
        return Ok(Counted { name: class.name.clone(), count, ..Counted::default() });
    }
    let (tenants, uncounted_tenants) = tenants(client, &class.name).await?;
    let mut count = 0;
    for some in tenants.chunks(TENANTS_A_QUERY) {
        let some: Vec<_> = some.iter().map(|t| Some(t.as_str())).collect();
        count += aggregate(client, &class.name, &some).await?;
    }
    Ok(Counted { name: class.name.clone(), count, uncounted_tenants, ..Counted::default() })
}

/// The sum of the counts of some tenants, or of the whole collection.
pub(super) async fn aggregate(client: &Client, class: &str, tenants: &[Option<&str>]) -> Result<u64, EngineError> {
    let parts: Vec<_> = tenants
        .iter()
        .enumerate()
        .map(|(n, t)| format!("c{n}: {class}{} {{ meta {{ count }} }}", arguments(&of_tenant(*t))))
        .collect();
    let data = client.graphql(&format!("{{ Aggregate {{ {} }} }}", parts.join(" "))).await?;
    let found: Option<Vec<u64>> =
        (0..tenants.len()).map(|n| data["Aggregate"][format!("c{n}")][0]["meta"]["count"].as_u64()).collect();
    let missing = || EngineError::Damaged { what: format!("the engine's count of {class}"), why: data.to_string() };
    Ok(found.ok_or_else(missing)?.iter().sum())
}

pub(super) fn of_tenant(tenant: Option<&str>) -> Vec<String> {
    tenant.map(|t| format!("tenant: {}", quote(t))).into_iter().collect()
}

pub(super) fn arguments(list: &[String]) -> String {
    if list.is_empty() { String::new() } else { format!("({})", list.join(", ")) }
}

/// A GraphQL string; its escapes are those of JSON.
pub(super) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// Up to `each` sample queries of a collection. Objects without a vector cannot be searched by and give none.
pub(super) async fn samples(client: &Client, name: &str, each: usize) -> Result<Vec<Sample>, EngineError> {
    let class = class(client, name).await?;
    let tenants: Vec<Option<String>> = if class.has_tenants() {
        tenants(client, name).await?.0.into_iter().take(each).map(Some).collect()
    } else {
        vec![None]
    };
    let mut samples: Vec<Sample> = vec![];
    for round in 0..each {
        for tenant in &tenants {
            if samples.len() == each {
                return Ok(samples);
            }
            let Some(id) = object_near(client, name, tenant.as_deref(), round, each).await? else { continue };
            if samples.iter().any(|s| s.near_object == id) {
                continue;
            }
            let mut sample = Sample {
                tenant: tenant.clone(),
                vector: class.vector(),
                near_object: id,
                limit: LIMIT,
                ids: vec![],
                digest: None,
            };
            match ask(client, name, &sample).await {
                Ok(found) => sample.ids = found.neighbours(&sample.near_object),
                Err(EngineError::Unexpected { why, .. }) if why.contains("has no vector") => continue,
                Err(e) => return Err(e),
            }
            // By dot product others may be nearer, and sooner or later are where somebody writes.
            if !class.find_themselves().contains(&sample.vector) {
                sample.ids.retain(|id| *id != sample.near_object);
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// The graphs that answered `searched`: collection, and the graph's name in file names.
pub(super) async fn graphs(
    client: &Client,
    searched: &[(String, Sample)],
) -> Result<Vec<(String, String)>, EngineError> {
    let classes = classes(client).await?;
    let mut graphs = vec![];
    for (name, sample) in searched {
        let vector = sample.vector.as_deref();
        if classes.iter().any(|c| c.name == *name && c.is_graph(vector)) {
            graphs.push((name.clone(), vector.map_or("main".into(), |v| format!("vectors_{v}"))));
        }
    }
    graphs.dedup();
    Ok(graphs)
}

/// An object that stands `round` of `rounds` into the range of ids, so that samples are spread over a collection.
async fn object_near(
    client: &Client,
    class: &str,
    tenant: Option<&str>,
    round: usize,
    rounds: usize,
) -> Result<Option<String>, EngineError> {
    let after = id_at(round, rounds);
    let mut query = vec![("class", class), ("limit", "1"), ("after", after.as_str())];
    query.extend(tenant.map(|t| ("tenant", t)));
    let found: Value = client.read(Request::get(&["objects"]).query(&query)).await?;
    Ok(found["objects"][0]["id"].as_str().map(Into::into))
}

pub(super) fn id_at(round: usize, rounds: usize) -> String {
    let part = u128::MAX / (rounds.max(1) as u128) * round as u128;
    let hex = format!("{part:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Asks a sample's query.
pub(super) async fn ask(client: &Client, class: &str, sample: &Sample) -> Result<Answer, EngineError> {
    let vector = sample.vector.as_deref().map(|v| format!(", targetVectors: [{}]", quote(v))).unwrap_or_default();
    let mut list = of_tenant(sample.tenant.as_deref());
    list.push(format!("limit: {}", sample.limit));
    list.push(format!("nearObject: {{ id: {}{vector} }}", quote(&sample.near_object)));
    let query = format!("{{ Get {{ {class}{} {{ _additional {{ id distance }} }} }} }}", arguments(&list));
    let data = client.graphql(&query).await?;
    let missing =
        || EngineError::Damaged { what: format!("the engine's answer to a search in {class}"), why: data.to_string() };
    let answers = data["Get"][class].as_array().ok_or_else(missing)?;
    let ids = answers.iter().filter_map(|a| a["_additional"]["id"].as_str()).map(Into::into).collect();
    let itself = finds(&sample.near_object, answers, sample.limit as usize);
    Ok(Answer { ids, itself, twins: answers.iter().all(is_twin), digest: None })
}

/// Whether an object is among the answers to a search by its vector, or they are all as near as it would be.
pub(super) fn finds(id: &str, answers: &[Value], limit: usize) -> bool {
    answers.iter().any(|a| a["_additional"]["id"] == id) || (answers.len() == limit && answers.iter().all(is_twin))
}

/// Whether an answer's vector is the one that was searched by.
fn is_twin(answer: &Value) -> bool {
    answer["_additional"]["distance"].as_f64().is_some_and(|d| d.abs() <= SAME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn samples_are_spread_over_the_range_of_ids() {
        assert_eq!(id_at(0, 3), "00000000-0000-0000-0000-000000000000");
        assert_eq!(id_at(1, 3), "55555555-5555-5555-5555-555555555555");
        assert_eq!(id_at(2, 3), "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa");
    }

    #[test]
    fn every_vector_is_searched_by_that_finds_itself() {
        let class = |value: Value| serde_json::from_value::<Class>(value).expect("a class").find_themselves();
        let index = |distance: &str| json!({"vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": distance}});
        let many = json!({"vectorIndexConfig": {"distance": "cosine", "multivector": {"enabled": true}}});
        let named = json!({"a": index("cosine"), "b": index("dot"), "c": index("l2-squared"), "d": many});
        let found = class(json!({"class": "Doc", "vectorConfig": named}));
        assert_eq!(found, [Some("a".to_owned()), Some("c".to_owned())]);
        assert_eq!(class(json!({"class": "Doc", "vectorIndexConfig": {"distance": "cosine"}})), [None]);
        assert!(class(json!({"class": "Doc", "vectorIndexConfig": {"distance": "cosine", "skip": true}})).is_empty());
    }

    #[test]
    fn text_in_queries_is_quoted() {
        assert_eq!(arguments(&of_tenant(Some("a\"b"))), "(tenant: \"a\\\"b\")");
        assert_eq!(arguments(&of_tenant(None)), "");
    }

    #[test]
    fn an_object_among_others_of_the_same_vector_is_found() {
        let answers = |list: &[(&str, f64)]| -> Vec<_> {
            list.iter().map(|(id, d)| json!({"_additional": {"id": id, "distance": d}})).collect()
        };
        assert!(finds("a", &answers(&[("b", 0.0), ("a", 0.1)]), 3));
        assert!(finds("a", &answers(&[("b", 0.0), ("c", 1e-7), ("d", -1e-7)]), 3));
        assert!(!finds("a", &answers(&[("b", 0.0), ("c", 0.2), ("d", 0.3)]), 3));
        assert!(!finds("a", &answers(&[("b", 0.0), ("c", 0.0)]), 3), "there was room for it");
        assert!(!finds("a", &[], 3));
    }
}
