//! Objects that a restored Weaviate does not find by their own vectors, on real servers: indexed again where the engine can, told where it cannot.

mod support;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::cli::{Machine, Ran};
use support::data::{fill, id, make_collection, send};
use support::files_ending;
use support::s3::S3;
use support::weaviate::WeaviateServer;

/// What an engine is started with that can index again.
const ABLE: [(&str, &str); 3] =
    [("GO_PROFILING_DISABLE", "false"), ("DEBUG_ENDPOINTS_ENABLED", "true"), ("ASYNC_INDEXING", "true")];

fn physical(s3: &S3, server: &WeaviateServer) -> Machine {
    let more = format!("method: physical\ndebug_url: {}\n{}", server.debug_url(), server.service());
    Machine::new(s3, server, &more)
}

/// A part of the data: collection, numbers of its objects, tenant, and vector to search by.
type Part = (&'static str, Range<u64>, Option<&'static str>, Option<&'static str>);

/// More objects than the product asks for, so few that it asks for each, and some of tenants, with two vectors each.
const PARTS: [Part; 5] = [
    ("Doc", 0..500, None, None),
    ("Few", 0..100, None, None),
    ("Ten", 0..300, Some("ann"), Some("body")),
    ("Ten", 0..300, Some("ann"), Some("title")),
    ("Ten", 0..40, Some("bob"), Some("body")),
];

/// Makes the collections and puts everything into them.
async fn load(url: &str) {
    make_collection(url, "Doc", json!({})).await;
    make_collection(url, "Few", json!({})).await;
    let vector = json!({"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"});
    let named = json!({"multiTenancyConfig": {"enabled": true}, "vectorConfig": {"title": vector, "body": vector}});
    make_collection(url, "Ten", named).await;
    send("POST", &format!("{url}/v1/schema/Ten/tenants"), Some(json!([{"name": "ann"}, {"name": "bob"}]))).await;
    fill(url, "Doc", 0..500, json!({})).await;
    fill(url, "Few", 0..100, json!({})).await;
    for (tenant, count) in [("ann", 300), ("bob", 40)] {
        fill(url, "Ten", 0..count, json!({"tenant": tenant, "vectors": ["title", "body"]})).await;
    }
}

/// The numbers of the objects that are not among the nearest to their own vectors.
async fn missed(url: &str, (collection, numbers, tenant, vector): &Part) -> BTreeSet<u64> {
    let mut missed = BTreeSet::new();
    for some in numbers.clone().collect::<Vec<_>>().chunks(50) {
        let tenant = tenant.map(|t| format!("tenant: {t:?}, ")).unwrap_or_default();
        let vector = vector.map(|v| format!(", targetVectors: [{v:?}]")).unwrap_or_default();
        let searches = some.iter().map(|n| {
            let near = format!("{{id: {:?}{vector}}}", id(*n));
            format!("o{n}: {collection}({tenant}limit: 3, nearObject: {near}) {{ _additional {{ id }} }}")
        });
        let query = format!("{{ Get {{ {} }} }}", searches.collect::<Vec<_>>().join(" "));
        let answer = send("POST", &format!("{url}/v1/graphql"), Some(json!({ "query": query }))).await;
        assert!(answer["errors"].is_null(), "{answer}");
        for n in some {
            let found = answer["data"]["Get"][format!("o{n}")].as_array().expect("a list");
            if !found.iter().any(|o| o["_additional"]["id"] == id(*n)) {
                missed.insert(*n);
            }
        }
    }
    missed
}

/// Takes away what the second half of every graph's log says, as if it had not been in the file yet. Of `Few` it goes on saying that
/// there are nodes, and nothing of their links: such nodes a repair takes for indexed, and mostly a new index is what finds them again.
fn damage(data: &Path) {
    let is_log = |p: &PathBuf| p.parent().is_some_and(|d| d.to_string_lossy().ends_with(".hnsw.commitlog.d"));
    for log in files_ending(data, "").into_iter().filter(is_log) {
        let bytes = std::fs::read(&log).expect("read");
        let nodes_stay = log.starts_with(data.join("few"));
        let stays =
            |record: &&Range<usize>| record.end <= bytes.len() / 2 || (nodes_stay && bytes[record.start] == NODE);
        let kept: Vec<_> = records(&bytes).iter().filter(stays).flat_map(|r| bytes[r.clone()].to_vec()).collect();
        // The same file, because a running engine goes on writing to its end.
        std::fs::write(&log, kept).expect("written");
    }
}

/// The kind of record that adds a node.
const NODE: u8 = 0;

/// Where the records of a graph's log are. The first byte is the kind.
fn records(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut records, mut at) = (vec![], 0);
    while at < bytes.len() {
        let size = match bytes[at] {
            NODE | 1 | 9 => 11,
            2 => 19,
            3 | 10 => 13 + 8 * usize::from(u16::from_le_bytes([bytes[at + 11], bytes[at + 12]])),
            4..=7 => 9,
            8 => 1,
            other => panic!("a record of kind {other} at {at}"),
        };
        records.push(at..at + size);
        at += size;
    }
    records
}

/// What a restore that went well told about a collection.
#[track_caller]
fn told(ran: &Ran, collection: &str) -> Vec<String> {
    let findings = ran.clone().exits(0).json()["findings"].as_array().cloned().expect("a list");
    let texts = findings.iter().filter_map(|f| f.as_str());
    texts.filter(|f| f.starts_with(&format!("{collection}: "))).map(Into::into).collect()
}

async fn restore_to(other: &WeaviateServer, s3: &S3) -> Ran {
    other.wait().await;
    physical(s3, other).run(&["backup", "restore", "--replace", "--yes", "--json"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_place_in_the_index_is_indexed_again_or_told() {
    let s3 = S3::start();
    let mut server = WeaviateServer::ready("weaviate-0", &s3).await;
    load(&server.url()).await;
    server.restart_after(damage);
    server.wait().await;
    let mut before = vec![];
    for part in &PARTS {
        before.push(missed(&server.url(), part).await);
    }
    assert!(before.iter().all(|m| m.len() >= 10), "{before:?}");
    physical(&s3, &server).run(&["backup", "create"]).exits(0);
    server.stop();

    let unable: [(&[(&str, &str)], &str); 3] = [
        (&[], "does not answer"),
        (&ABLE[..1], "without DEBUG_ENDPOINTS_ENABLED=true"),
        (&ABLE[..2], "without ASYNC_INDEXING=true"),
    ];
    for (settings, why) in unable {
        let other = WeaviateServer::start_with("weaviate-0", &s3, settings);
        let ran = restore_to(&other, &s3).await;
        for (collection, vectors) in [("Doc", 1), ("Few", 1), ("Ten", 2)] {
            let told = told(&ran, collection);
            assert_eq!(told.len(), vectors, "{told:?}");
            for told in told {
                assert!(told.contains("do not find themselves") && told.contains(why), "{told}");
                assert!(told.contains("POST /debug/index/repair/vector"), "{told}");
            }
        }
        assert_eq!(missed(&other.url(), &PARTS[0]).await, before[0], "{why}");
    }

    let able = WeaviateServer::start_with("weaviate-0", &s3, &ABLE);
    let ran = restore_to(&able, &s3).await;
    for (collection, vectors) in [("Doc", 1), ("Few", 1), ("Ten", 2)] {
        let told = told(&ran, collection);
        assert_eq!(told.len(), vectors, "{told:?}");
        assert!(told.iter().all(|t| t.contains("has indexed them, and 0 of")), "{told:?}");
    }
    for (part, before) in PARTS.iter().zip(before) {
        let after = missed(&able.url(), part).await;
        // Of all but one part only some objects are asked for, so that one that a repair leaves may not be seen.
        let unseen = if part.0 == "Few" { 0 } else { before.len() / 10 };
        assert!(after.len() <= unseen, "{part:?}: {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_differ_for_want_of_an_index_are_compared_again_with_one() {
    let s3 = S3::start();
    let mut server = WeaviateServer::ready("weaviate-0", &s3).await;
    make_collection(&server.url(), "Doc", json!({})).await;
    fill(&server.url(), "Doc", 0..500, json!({})).await;
    let machine = physical(&s3, &server);
    // Its first step is to have the log written out.
    machine.run(&["backup", "create"]).exits(0);
    damage(&server.data_dir());
    machine.run(&["backup", "create", "--type", "base"]).exits(0);
    assert!(missed(&server.url(), &PARTS[0]).await.is_empty(), "the engine that is backed up knows all of them");
    server.stop();

    let unable = WeaviateServer::start_with("weaviate-0", &s3, &[]);
    restore_to(&unable, &s3).await.exits(3).says("nearest neighbours");
    let able = WeaviateServer::start_with("weaviate-0", &s3, &ABLE);
    let ran = restore_to(&able, &s3).await;
    let told = told(&ran, "Doc");
    assert!(told.len() == 1 && told[0].contains("has indexed them, and 0 of"), "{told:?}");
}
