//! The two kinds of documents that Weaviate puts into a backup.
//!
//! `backup_config.json` says which node wrote which collections and whether it finished; `<node>/backup.json` says which chunks
//! there must be. Neither has sizes or checksums, so that a chunk exists is all that they can prove.
//!
//! One kind of loss shows in the second. A backup switches each graph to a new log, named after the second of the clock, and leaves out
//! the log that is then in use. A log begun in that very second keeps its name, stays in use, and is left out with all
//! it holds (seen on 1.39.0, and in its source): such a backup succeeds, restores with the right counts, and finds
//! nothing. Another backup some seconds later has it all.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine::EngineError;
use crate::engine::native::Description;

/// Of a whole backup.
pub(super) const CONFIG: &str = "backup_config.json";
/// Of the last restore of a backup.
pub(super) const RESTORE_CONFIG: &str = "restore_config.json";
/// Written and removed by the server to see whether it may.
const ACCESS_CHECK: &str = "access-check";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    status: String,
    #[serde(default)]
    error: String,
    nodes: BTreeMap<String, NodeEntry>,
    #[serde(default)]
    server_version: String,
    #[serde(default)]
    pre_compression_size_bytes: u64,
}

#[derive(Deserialize)]
struct NodeEntry {
    #[serde(default)]
    classes: Vec<String>,
}

#[derive(Deserialize)]
struct NodeBackup {
    classes: Vec<ClassBackup>,
}

#[derive(Deserialize)]
struct ClassBackup {
    name: String,
    #[serde(default)]
    chunks: BTreeMap<u64, Vec<String>>,
    #[serde(default)]
    shards: Vec<ShardBackup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShardBackup {
    name: String,
    #[serde(default)]
    files: Vec<String>,
    /// Files with chunks of their own.
    #[serde(default)]
    big_files_chunk: serde_json::Map<String, serde_json::Value>,
}

fn damaged(what: &str, why: &impl ToString) -> EngineError {
    EngineError::Damaged { what: what.into(), why: why.to_string() }
}

/// Reads `backup_config.json` of a finished backup of one node.
pub(super) fn describe(body: &[u8]) -> Result<Description, EngineError> {
    let config: Config = serde_json::from_slice(body).map_err(|e| damaged(CONFIG, &e))?;
    if config.status != "SUCCESS" {
        return Err(damaged(CONFIG, &format!("it says {} {}", config.status, config.error)));
    }
    let mut nodes: Vec<_> = config.nodes.into_iter().collect();
    let (Some((host_name, node)), true) = (nodes.pop(), nodes.is_empty()) else {
        return Err(EngineError::Unsupported(
            "this is a backup of a cluster; Perennial looks after single nodes".into(),
        ));
    };
    let mut collections = node.classes;
    collections.sort();
    Ok(Description {
        engine_version: config.server_version,
        host_name,
        collections,
        size_on_disk: config.pre_compression_size_bytes,
    })
}

/// The part that `host_name` wrote.
pub(super) fn part_key(host_name: &str) -> String {
    format!("{host_name}/backup.json")
}

/// The chunks that the part at `key` names. Their folder is the part's.
pub(super) fn chunk_keys(key: &str, body: &[u8]) -> Result<Vec<String>, EngineError> {
    let part: NodeBackup = serde_json::from_slice(body).map_err(|e| damaged(key, &e))?;
    let folder = key.rsplit_once('/').map(|(folder, _)| folder).ok_or_else(|| damaged(key, &"it is in no folder"))?;
    let chunks =
        part.classes.iter().flat_map(|c| c.chunks.keys().map(move |n| format!("{folder}/{}/chunk-{n}", c.name)));
    Ok(chunks.collect())
}

/// Shards that have objects in the part `body` and no file of one of `graphs` (collection, and the graph's name in file names).
pub(super) fn without_graph(body: &[u8], graphs: &[(String, String)]) -> Result<Vec<String>, EngineError> {
    let part: NodeBackup = serde_json::from_slice(body).map_err(|e| damaged("backup.json", &e))?;
    let mut found = vec![];
    for (collection, graph) in graphs {
        let shards = part.classes.iter().filter(|c| c.name == *collection).flat_map(|c| &c.shards);
        let log = format!("/{graph}.hnsw.commitlog.d/");
        let bare = shards.filter(|s| s.has(|f| f.contains("/lsm/objects/")) && !s.has(|f| f.contains(&log)));
        found.extend(bare.map(|s| format!("{collection}/{}", s.name)));
    }
    Ok(found)
}

impl ShardBackup {
    fn has(&self, file: impl Fn(&str) -> bool) -> bool {
        self.files.iter().chain(self.big_files_chunk.keys()).any(|f| file(f))
    }
}

/// Whether an object is no part of the backup.
pub(super) fn is_bookkeeping(key: &str) -> bool {
    key == RESTORE_CONFIG || key.rsplit('/').next() == Some(ACCESS_CHECK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"id":"b1","nodes":{"weaviate-0":{"classes":["Tens","Alpha"],"status":"SUCCESS","error":"",
        "preCompressionSizeBytes":602987}},"node_mapping":null,"status":"SUCCESS","version":"2.1","serverVersion":"1.39.0",
        "leader":"weaviate-0","error":"","preCompressionSizeBytes":602987,"compressionType":"zstd","baseBackupId":""}"#;

    #[test]
    fn a_finished_backup_describes_itself() {
        let found = describe(BODY.as_bytes()).expect("good");
        assert_eq!(found.collections, ["Alpha", "Tens"]);
        assert_eq!((found.host_name.as_str(), found.engine_version.as_str()), ("weaviate-0", "1.39.0"));
        assert_eq!(found.size_on_disk, 602_987);
    }

    #[test]
    fn an_unfinished_damaged_or_foreign_backup_is_refused() {
        let failed = BODY.replace(r#""status":"SUCCESS","version""#, r#""status":"STARTED","version""#);
        assert!(describe(failed.as_bytes()).expect_err("unfinished").to_string().contains("STARTED"));
        assert!(describe(&BODY.as_bytes()[..50]).is_err());
        let two = BODY.replace(r#""nodes":{"#, r#""nodes":{"other":{"classes":[]},"#);
        assert!(matches!(describe(two.as_bytes()), Err(EngineError::Unsupported(_))));
    }

    #[test]
    fn a_shard_without_its_graph_is_found() {
        let body = br#"{"classes":[{"name":"Doc","shards":[
            {"name":"whole","files":["doc/whole/lsm/objects/segment-1.db","doc/whole/main.hnsw.commitlog.d/1795265918"]},
            {"name":"large","files":["doc/large/lsm/objects/segment-1.db"],
             "bigFilesChunk":{"doc/large/main.hnsw.commitlog.d/1795265918.snapshot":{"chunkKeys":["1"]}}},
            {"name":"bare","files":["doc/bare/lsm/objects/segment-1.db","doc/bare/lsm/property_title/segment-1.db"]},
            {"name":"empty","files":[]}]}]}"#;
        let graph = |c: &str, g: &str| vec![(c.to_owned(), g.to_owned())];
        assert_eq!(without_graph(body, &graph("Doc", "main")).expect("good"), ["Doc/bare"]);
        assert_eq!(without_graph(body, &graph("Doc", "vectors_first")).expect("good").len(), 3);
        assert!(without_graph(body, &[]).expect("good").is_empty());
    }

    #[test]
    fn a_part_names_its_chunks() {
        let body =
            br#"{"classes":[{"name":"Tens","chunks":{"1":["t1"],"2":["t2"]}},{"name":"Alpha","chunks":{"1":["x"]}}]}"#;
        let keys = chunk_keys("weaviate-0/backup.json", body).expect("good");
        assert_eq!(keys, ["weaviate-0/Tens/chunk-1", "weaviate-0/Tens/chunk-2", "weaviate-0/Alpha/chunk-1"]);
    }
}
