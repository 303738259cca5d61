//! A client of a Weaviate that never stops writing and remembers what was acknowledged, and whether a restored server holds an instant
//! of what it wrote.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::data::{id, try_send, vector};
use super::until;

/// Objects a batch.
const A_BATCH: u64 = 10;

/// One request: the objects that it changes, with the value that each has afterwards, and when it was acknowledged.
#[derive(Debug, Clone)]
struct Request {
    changes: Vec<(u64, Option<u64>)>,
    acknowledged: Option<Timestamp>,
}

/// The requests of one writer, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Request>>>);

/// A collection, or a tenant of one.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its collection.
    pub collection: &'static str,
    /// Its tenant.
    pub tenant: Option<&'static str>,
}

/// A writer at work.
#[derive(Debug)]
pub struct Writer {
    part: Part,
    log: Log,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    /// Begins to write.
    pub fn start(url: &str, part: Part) -> Self {
        let (log, stop) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let work = write(url.to_owned(), part.clone(), log.clone(), Arc::clone(&stop));
        Self { part, log, stop, task: tokio::spawn(work) }
    }

    /// Requests that were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.log.0.lock().expect("a log").iter().filter(|r| r.acknowledged.is_some()).count()
    }

    /// Waits until so many more requests are acknowledged.
    pub async fn more(&self, requests: usize) {
        let enough = self.acknowledged() + requests;
        let written = async || {
            assert!(!self.task.is_finished(), "the writer ended");
            self.acknowledged() >= enough
        };
        until(&format!("{requests} more acknowledgements"), written).await;
    }

    /// Stops it after its request.
    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer ended well");
        Written { part: self.part, log: self.log }
    }
}

/// What a writer wrote.
#[derive(Debug)]
pub struct Written {
    part: Part,
    log: Log,
}

async fn write(url: String, part: Part, log: Log, stop: Arc<AtomicBool>) {
    let mut present: Vec<u64> = vec![];
    let mut next = 0;
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let one = |k: u64| present.get(usize::try_from(k * 7919).expect("small") % present.len().max(1)).copied();
        let changes: Vec<(u64, Option<u64>)> = match n % 10 {
            6 | 7 if !present.is_empty() => vec![(one(n).expect("one"), Some(n))],
            8 if !present.is_empty() => vec![(one(n).expect("one"), None)],
            9 => (0..5).filter_map(|k| Some((one(n + k)?, Some(n)))).collect::<BTreeMap<_, _>>().into_iter().collect(),
            _ => (next..next + A_BATCH).map(|k| (k, Some(n))).collect(),
        };
        if !matches!(n % 10, 6..=9) || present.is_empty() {
            next += A_BATCH;
        }
        log.0.lock().expect("a log").push(Request { changes: changes.clone(), acknowledged: None });
        send(&url, &part, &changes).await;
        log.0.lock().expect("a log").last_mut().expect("pushed").acknowledged = Some(Timestamp::now());
        for (key, value) in changes {
            match value {
                None => present.retain(|k| *k != key),
                Some(_) if !present.contains(&key) => present.push(key),
                Some(_) => {}
            }
        }
    }
}

async fn send(url: &str, part: &Part, changes: &[(u64, Option<u64>)]) {
    let object = |key: u64, n: u64| {
        let properties = json!({"title": format!("title {n}"), "n": n});
        let mut object = json!({"class": part.collection, "id": id(key), "properties": properties, "vector": vector(key ^ (n << 32), 16)});
        if let Some(tenant) = part.tenant {
            object["tenant"] = tenant.into();
        }
        object
    };
    let query = part.tenant.map(|t| format!("?tenant={t}")).unwrap_or_default();
    let (status, text) = match changes {
        [(key, None)] => {
            try_send("DELETE", &format!("{url}/v1/objects/{}/{}{query}", part.collection, id(*key)), None).await
        }
        [(key, Some(n))] => {
            let address = format!("{url}/v1/objects/{}/{}", part.collection, id(*key));
            try_send("PUT", &address, Some(object(*key, *n))).await
        }
        several => {
            let objects: Vec<_> = several.iter().map(|(key, n)| object(*key, n.expect("no delete"))).collect();
            try_send("POST", &format!("{url}/v1/batch/objects"), Some(json!({ "objects": objects }))).await
        }
    };
    assert!((200..300).contains(&status) && !text.contains("\"errors\""), "{status} {text}");
}

impl Written {
    /// The server at `url` must hold exactly what one instant of the writer's requests gives, in which everything is that was
    /// acknowledged by `until`; of the request that was under way then, any part. How many objects that is.
    pub async fn must_be_at(&self, url: &str, until: Timestamp) -> usize {
        let found = self.objects(url).await;
        let log = self.log.0.lock().expect("a log");
        let least = log.iter().take_while(|r| r.acknowledged.is_some_and(|at| at <= until)).count();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        let apply = |expected: &mut BTreeMap<String, u64>, request: &Request| {
            for (key, value) in &request.changes {
                match value {
                    Some(n) => expected.insert(id(*key), *n),
                    None => expected.remove(&id(*key)),
                };
            }
        };
        let mut first = None;
        for done in 0..=log.len() {
            if done >= least {
                let differing = differences(&expected, &found);
                let under_way = log.get(done).map(|r| r.changes.as_slice()).unwrap_or_default();
                let under_way: BTreeMap<_, _> = under_way.iter().map(|(key, value)| (id(*key), value)).collect();
                let explained = |key: &String| under_way.get(key).is_some_and(|value| found.get(key) == value.as_ref());
                if differing.iter().all(explained) {
                    return found.len();
                }
                first.get_or_insert(differing);
            }
            if let Some(request) = log.get(done) {
                apply(&mut expected, request);
            }
        }
        let first = first.unwrap_or_default();
        panic!(
            "{:?}: no instant after {least} of {} requests is what was restored; {} objects differ from the first: {:?}",
            self.part,
            log.len(),
            first.len(),
            &first[..first.len().min(5)]
        );
    }

    /// All objects, by their ids, with their values; each must have the vector that was written with its value.
    async fn objects(&self, url: &str) -> BTreeMap<String, u64> {
        let written: Vec<_> = self.log.0.lock().expect("a log").iter().flat_map(|r| r.changes.clone()).collect();
        let keys: BTreeMap<_, _> = written.into_iter().map(|(key, _)| (id(key), key)).collect();
        let tenant = self.part.tenant.map(|t| format!("&tenant={t}")).unwrap_or_default();
        let (mut found, mut after) = (BTreeMap::new(), String::new());
        loop {
            let address = format!(
                "{url}/v1/objects?class={}&limit=500&include=vector&after={after}{tenant}",
                self.part.collection
            );
            let (status, text) = try_send("GET", &address, None).await;
            assert_eq!(status, 200, "{text}");
            let page: Value = serde_json::from_str(&text).expect("JSON");
            let objects = page["objects"].as_array().expect("a list");
            let Some(last) = objects.last() else { return found };
            after = last["id"].as_str().expect("an id").into();
            for object in objects {
                let key = object["id"].as_str().expect("an id").to_owned();
                let n = object["properties"]["n"].as_u64().expect("a number");
                let known = keys.get(&key).unwrap_or_else(|| panic!("nobody wrote {object}"));
                let there: Vec<f32> = serde_json::from_value(object["vector"].clone()).expect("a vector");
                assert_eq!(there, vector(known ^ (n << 32), 16), "{object}");
                found.insert(key, n);
            }
        }
    }
}

fn differences(one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>) -> Vec<String> {
    let lacking = one.iter().filter(|(key, value)| other.get(*key) != Some(value)).map(|(key, _)| key.clone());
    let added = other.keys().filter(|key| !one.contains_key(*key)).cloned();
    lacking.chain(added).collect()
}
