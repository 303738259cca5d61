//! Whether the objects of a restored engine are found by their own vectors.
//!
//! Weaviate acknowledges a write before its place in the vector index is in a file, and what was written between the hook and the
//! freeze can lack it: the object is there and counted, and no search by vector finds it. It cannot be prevented from outside,
//! only seen, and said; the engine can index such objects again.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::client::{Client, Request};
use super::super::inventory::{self, Class};
use crate::engine::EngineError;

/// Pages of objects of a collection, at places spread over the range of ids.
const PAGES: usize = 8;
/// Objects a page, and searches a query.
const A_PAGE: usize = 25;
/// Collections in which is searched, so that a thousand do not take an hour.
const COLLECTIONS: usize = 25;
const LIMIT: usize = 3;
/// Distances of vectors that are the same but for rounding.
const SAME: f64 = 1e-5;

/// What a person should know. Never a failure: the data is there.
pub(super) async fn findings(client: &Client) -> Vec<String> {
    match measure(client).await {
        Ok(findings) => findings,
        Err(e) => vec![format!("whether objects are found by their own vectors could not be found out: {e}")],
    }
}

async fn measure(client: &Client) -> Result<Vec<String>, EngineError> {
    let (mut asked, mut findings) = (0, vec![]);
    for class in inventory::classes(client).await?.iter().filter(|c| c.finds_itself()).take(COLLECTIONS) {
        let (of_class, missed) = measure_class(client, class).await?;
        asked += of_class;
        if missed > 0 {
            findings.push(format!(
                "{}: {missed} of {of_class} objects do not find themselves by their vectors: their place in the index was not \
                 in a file yet when the backup was made. Start the engine once with ASYNC_INDEXING=true and \
                 DEBUG_ENDPOINTS_ENABLED=true, and POST /debug/index/repair/vector?collection={}&shard=SHARD to its \
                 profiling port (6060) for each shard",
                class.name, class.name
            ));
        }
    }
    if findings.is_empty() && asked > 0 {
        findings.push(format!("all of {asked} objects asked for find themselves by their vectors"));
    }
    Ok(findings)
}

/// How many objects were searched for, and how many were not found.
async fn measure_class(client: &Client, class: &Class) -> Result<(usize, usize), EngineError> {
    let tenants: Vec<Option<String>> = if class.has_tenants() {
        inventory::tenants(client, &class.name).await?.0.into_iter().map(Some).collect()
    } else {
        vec![None]
    };
    let (mut asked, mut missed) = (BTreeSet::new(), 0);
    for page in 0..PAGES {
        let Some(tenant) = tenants.get(page * tenants.len() / PAGES) else { break };
        let ids = ids(client, &class.name, tenant.as_deref(), page).await?;
        let new: Vec<_> = ids.into_iter().filter(|id| asked.insert((tenant.clone(), id.clone()))).collect();
        missed += search(client, class, tenant.as_deref(), &new).await?;
    }
    Ok((asked.len(), missed))
}

async fn ids(client: &Client, class: &str, tenant: Option<&str>, page: usize) -> Result<Vec<String>, EngineError> {
    let (after, limit) = (inventory::id_at(page, PAGES), A_PAGE.to_string());
    let mut query = vec![("class", class), ("limit", limit.as_str()), ("after", after.as_str())];
    query.extend(tenant.map(|t| ("tenant", t)));
    let found: Value = client.read(Request::get(&["objects"]).query(&query)).await?;
    let ids = found["objects"].as_array().into_iter().flatten().filter_map(|o| o["id"].as_str());
    Ok(ids.map(Into::into).collect())
}

/// How many of these objects are not found.
async fn search(client: &Client, class: &Class, tenant: Option<&str>, ids: &[String]) -> Result<usize, EngineError> {
    if ids.is_empty() {
        return Ok(0);
    }
    match found(client, class, tenant, ids).await {
        Ok(found) => Ok(found.iter().filter(|found| !**found).count()),
        Err(EngineError::Unexpected { .. }) if ids.len() > 1 => {
            // One without a vector fails the whole query; each is asked for alone.
            let mut missed = 0;
            for id in ids {
                match found_one(client, class, tenant, id).await {
                    Ok(found) => missed += usize::from(!found),
                    Err(EngineError::Unexpected { why, .. }) if why.contains("has no vector") => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(missed)
        }
        Err(EngineError::Unexpected { why, .. }) if why.contains("has no vector") => Ok(0),
        Err(e) => Err(e),
    }
}

async fn found_one(client: &Client, class: &Class, tenant: Option<&str>, id: &String) -> Result<bool, EngineError> {
    Ok(found(client, class, tenant, std::slice::from_ref(id)).await?.first().copied().unwrap_or(false))
}

/// Which of these objects are found.
async fn found(client: &Client, class: &Class, tenant: Option<&str>, ids: &[String]) -> Result<Vec<bool>, EngineError> {
    let vector = class.vector().map(|v| format!(", targetVectors: [{}]", inventory::quote(&v))).unwrap_or_default();
    let searches = ids.iter().enumerate().map(|(n, id)| {
        let mut list = inventory::of_tenant(tenant);
        list.push(format!("limit: {LIMIT}"));
        list.push(format!("nearObject: {{ id: {}{vector} }}", inventory::quote(id)));
        format!("o{n}: {}{} {{ _additional {{ id distance }} }}", class.name, inventory::arguments(&list))
    });
    let query = format!("{{ Get {{ {} }} }}", searches.collect::<Vec<_>>().join(" "));
    let data = client.graphql(&query).await?;
    Ok(ids.iter().enumerate().map(|(n, id)| is_found(id, &data["Get"][format!("o{n}")])).collect())
}

/// Whether it is among the answers, or they are all as near as it would be.
fn is_found(id: &str, answers: &Value) -> bool {
    let answers = answers.as_array().map(Vec::as_slice).unwrap_or_default();
    let same = |a: &Value| a["_additional"]["distance"].as_f64().is_some_and(|d| d.abs() <= SAME);
    answers.iter().any(|a| a["_additional"]["id"] == id) || (answers.len() == LIMIT && answers.iter().all(same))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_among_others_of_the_same_vector_is_found() {
        let answers = |list: &[(&str, f64)]| {
            Value::from(
                list.iter().map(|(id, d)| json!({"_additional": {"id": id, "distance": d}})).collect::<Vec<_>>(),
            )
        };
        assert!(is_found("a", &answers(&[("b", 0.0), ("a", 0.1)])));
        assert!(is_found("a", &answers(&[("b", 0.0), ("c", 1e-7), ("d", -1e-7)])));
        assert!(!is_found("a", &answers(&[("b", 0.0), ("c", 0.2), ("d", 0.3)])));
        assert!(!is_found("a", &answers(&[])));
    }
}
