//! Whether the objects of a restored engine are found by their own vectors.
//!
//! Weaviate acknowledges a write before its place in the vector index is in a file, and what was written between the hook and the
//! freeze can lack it: the object is there and counted, and no search by vector finds it. It cannot be prevented from outside,
//! only seen, and said; the engine can index such objects again (`repair`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::client::{Client, Request};
use super::super::inventory::{self, Class};
use crate::engine::EngineError;

/// Pages of objects of a collection, at places spread over the range of ids.
const PAGES: usize = 8;
/// Objects a page, and searches a query.
const A_PAGE: usize = 25;
/// Vectors of collections by which is searched, so that a thousand do not take an hour.
const VECTORS: usize = 25;
const LIMIT: usize = 3;

/// What was found out of one vector of a collection.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) class: Class,
    /// Its name, if it has one.
    pub(super) vector: Option<String>,
    /// Objects that were searched for.
    pub(super) asked: usize,
    /// How many of them were not found, by tenant; only where there are any.
    pub(super) missed: BTreeMap<Option<String>, usize>,
}

impl Measured {
    /// How many were not found.
    pub(super) fn misses(&self) -> usize {
        self.missed.values().sum()
    }
}

/// Vectors by which objects should find themselves, each with how many do not.
pub(super) async fn measure(client: &Client) -> Result<Vec<Measured>, EngineError> {
    let mut measured = vec![];
    let classes = inventory::classes(client).await?;
    let all = classes.iter().flat_map(|class| class.find_themselves().into_iter().map(move |vector| (class, vector)));
    for (class, vector) in all.take(VECTORS) {
        measured.push(measure_vector(client, class, vector).await?);
    }
    Ok(measured)
}

/// The same objects each time, as long as there are no others.
pub(super) async fn measure_vector(
    client: &Client,
    class: &Class,
    vector: Option<String>,
) -> Result<Measured, EngineError> {
    let tenants: Vec<Option<String>> = if class.has_tenants() {
        inventory::tenants(client, &class.name).await?.0.into_iter().map(Some).collect()
    } else {
        vec![None]
    };
    let (mut asked, mut missed) = (BTreeSet::new(), BTreeMap::new());
    for page in 0..PAGES {
        let Some(tenant) = tenants.get(page * tenants.len() / PAGES) else { break };
        let ids = ids(client, &class.name, tenant.as_deref(), page).await?;
        let new: Vec<_> = ids.into_iter().filter(|id| asked.insert((tenant.clone(), id.clone()))).collect();
        let lost = Search { client, class, vector: vector.as_deref(), tenant: tenant.as_deref() }.misses(&new).await?;
        if lost > 0 {
            *missed.entry(tenant.clone()).or_default() += lost;
        }
    }
    Ok(Measured { class: class.clone(), vector, asked: asked.len(), missed })
}

async fn ids(client: &Client, class: &str, tenant: Option<&str>, page: usize) -> Result<Vec<String>, EngineError> {
    let (after, limit) = (inventory::id_at(page, PAGES), A_PAGE.to_string());
    let mut query = vec![("class", class), ("limit", limit.as_str()), ("after", after.as_str())];
    query.extend(tenant.map(|t| ("tenant", t)));
    let found: Value = client.read(Request::get(&["objects"]).query(&query)).await?;
    let ids = found["objects"].as_array().into_iter().flatten().filter_map(|o| o["id"].as_str());
    Ok(ids.map(Into::into).collect())
}

/// Where is searched, and by what.
struct Search<'a> {
    client: &'a Client,
    class: &'a Class,
    vector: Option<&'a str>,
    tenant: Option<&'a str>,
}

impl Search<'_> {
    /// How many of these objects are not found.
    async fn misses(&self, ids: &[String]) -> Result<usize, EngineError> {
        if ids.is_empty() {
            return Ok(0);
        }
        match self.found(ids).await {
            Ok(found) => Ok(found.iter().filter(|found| !**found).count()),
            Err(EngineError::Unexpected { .. }) if ids.len() > 1 => {
                // One without a vector fails the whole query; each is asked for alone.
                let mut missed = 0;
                for id in ids {
                    match self.found(std::slice::from_ref(id)).await {
                        Ok(found) => missed += found.iter().filter(|found| !**found).count(),
                        Err(EngineError::Unexpected { why, .. }) if is_without_vector(&why) => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(missed)
            }
            Err(EngineError::Unexpected { why, .. }) if is_without_vector(&why) => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Which of these objects are found.
    async fn found(&self, ids: &[String]) -> Result<Vec<bool>, EngineError> {
        let name = &self.class.name;
        let vector = self.vector.map(|v| format!(", targetVectors: [{}]", inventory::quote(v))).unwrap_or_default();
        let searches = ids.iter().enumerate().map(|(n, id)| {
            let mut list = inventory::of_tenant(self.tenant);
            list.push(format!("limit: {LIMIT}"));
            list.push(format!("nearObject: {{ id: {}{vector} }}", inventory::quote(id)));
            format!("o{n}: {name}{} {{ _additional {{ id distance }} }}", inventory::arguments(&list))
        });
        let query = format!("{{ Get {{ {} }} }}", searches.collect::<Vec<_>>().join(" "));
        let data = self.client.graphql(&query).await?;
        let answers = |n| data["Get"][format!("o{n}")].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(ids.iter().enumerate().map(|(n, id)| inventory::finds(id, answers(n), LIMIT)).collect())
    }
}

/// What the engine says of an object that has no vector, and of one that lacks one of several.
fn is_without_vector(why: &str) -> bool {
    why.contains("has no vector") || why.contains("vector not found for target")
}
