//! A store that fails on purpose, for tests of what the rest of Perennial does then.
//!
//! Every call on the store counts as one operation, from 0. Run a piece of work once over [`FaultyStore::at`] without
//! faults, ask [`FaultyStore::operations`], then run it again once for every operation over [`FaultyStore::crash`]:
//! that kills it at every step.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncReadExt;

use super::{Meta, Object, Part, Reader, Store, StoreError, Upload, Version};

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and was not done.
    Before,
    /// It was done, and fails all the same: the reply got lost.
    After,
    /// It was not done, because the store has too much to do: its 503 `SlowDown`, after all retries.
    Throttle,
    /// A `get`, `read` or `read_range` brings the first half only, without an error. Other operations are unharmed.
    Truncate,
    /// A `get`, `read` or `read_range` brings one flipped bit, without an error. Other operations are unharmed.
    Corrupt,
    /// It is done late, so that operations that run at the same time end in another order.
    Delay,
}

/// Long enough to be overtaken, short enough for a test that does it a thousand times.
const DELAY: Duration = Duration::from_millis(5);

/// Any store, with faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

/// What the store and its uploads share.
#[derive(Debug)]
struct Faults {
    location: String,
    plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Plan {
    At(BTreeMap<usize, Fault>),
    Crash { step: usize, fault: Fault },
    Seeded { probability: f64, faults: Vec<Fault> },
}

#[derive(Debug)]
struct State {
    log: Vec<String>,
    random: StdRng,
    under_way: usize,
    most_under_way: usize,
}

impl FaultyStore {
    /// These operations fail, each in its way; all others work.
    pub fn at(inner: Arc<dyn Store>, faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        Self::new(inner, Plan::At(faults.into_iter().collect()), 0)
    }

    /// The operation `step` fails in this way and every later one is not done: the process died there.
    pub fn crash(inner: Arc<dyn Store>, step: usize, fault: Fault) -> Self {
        Self::new(inner, Plan::Crash { step, fault }, 0)
    }

    /// Every operation fails with this probability, in one of these ways. The same seed fails in the same way, as
    /// long as the operations come in the same order.
    pub fn seeded(inner: Arc<dyn Store>, seed: u64, probability: f64, faults: &[Fault]) -> Self {
        Self::new(inner, Plan::Seeded { probability, faults: faults.to_vec() }, seed)
    }

    fn new(inner: Arc<dyn Store>, plan: Plan, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let state = State { log: Vec::new(), random, under_way: 0, most_under_way: 0 };
        let faults = Faults { location: inner.location(), plan, state: Mutex::new(state) };
        Self { inner, faults: Arc::new(faults) }
    }

    /// How many operations were asked for.
    pub fn operations(&self) -> usize {
        self.faults.state().log.len()
    }

    /// The operations, as in `create runs/a/claim.json (After)`.
    pub fn log(&self) -> Vec<String> {
        self.faults.state().log.clone()
    }

    /// How many of them were under way at the same time, at most.
    pub fn most_under_way(&self) -> usize {
        self.faults.state().most_under_way
    }

    fn wrap(&self, key: &str, upload: Box<dyn Upload>) -> Box<dyn Upload> {
        Box::new(FaultyUpload { inner: upload, key: key.to_owned(), faults: self.faults.clone() })
    }
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &str, key: &str) -> Option<Fault> {
        let mut state = self.state();
        let number = state.log.len();
        let fault = match &self.plan {
            Plan::At(faults) => faults.get(&number).copied(),
            Plan::Crash { step, fault } if number == *step => Some(*fault),
            Plan::Crash { step, .. } => (number > *step).then_some(Fault::Before),
            Plan::Seeded { probability, faults } => {
                let hit = !faults.is_empty() && state.random.random_bool(*probability);
                hit.then(|| faults[state.random.random_range(0..faults.len())])
            }
        };
        let note = fault.map(|fault| format!(" ({fault:?})")).unwrap_or_default();
        state.log.push(format!("{name} {key}{note}"));
        fault
    }

    async fn run<T>(
        &self,
        fault: Option<Fault>,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let _under_way = UnderWay::of(self);
        match fault {
            Some(Fault::Throttle) => Err(StoreError::unavailable(key, &*self.location, "injected: 503 SlowDown")),
            Some(Fault::Before) => Err(StoreError::unavailable(key, &*self.location, "injected: it was not done")),
            Some(Fault::After) => {
                // Whatever it said, the caller does not hear it.
                drop(work.await);
                Err(StoreError::unavailable(key, &*self.location, "injected: the reply got lost"))
            }
            Some(Fault::Delay) => {
                tokio::time::sleep(DELAY).await;
                work.await
            }
            _ => work.await,
        }
    }
}

/// An operation that is under way. It may be dropped instead of ending.
struct UnderWay<'a>(&'a Faults);

impl<'a> UnderWay<'a> {
    fn of(faults: &'a Faults) -> Self {
        let mut state = faults.state();
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        Self(faults)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

fn damaged(body: Bytes, fault: Option<Fault>) -> Bytes {
    match fault {
        Some(Fault::Truncate) => body.slice(..body.len() / 2),
        Some(Fault::Corrupt) => {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
            }
            bytes.into()
        }
        _ => body,
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &str) -> Result<Object, StoreError> {
        let fault = self.faults.begin("get", key);
        let object = self.faults.run(fault, key, self.inner.get(key)).await?;
        Ok(Object { body: damaged(object.body, fault), meta: object.meta })
    }

    async fn read(&self, key: &str) -> Result<Reader, StoreError> {
        let fault = self.faults.begin("read", key);
        let mut reader = self.faults.run(fault, key, self.inner.read(key)).await?;
        if fault.is_none() {
            return Ok(reader);
        }
        let mut body = Vec::new();
        let read = reader.read_to_end(&mut body).await;
        read.map_err(|error| StoreError::from_read(error, key, self.location()))?;
        Ok(Box::pin(Cursor::new(damaged(body.into(), fault))))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let fault = self.faults.begin("read_range", key);
        let bytes = self.faults.run(fault, key, self.inner.read_range(key, range)).await?;
        Ok(damaged(bytes, fault))
    }

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        let fault = self.faults.begin("head", key);
        self.faults.run(fault, key, self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        let fault = self.faults.begin("list", prefix);
        self.faults.run(fault, prefix, self.inner.list(prefix)).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        let fault = self.faults.begin("create", key);
        self.faults.run(fault, key, self.inner.create(key, body)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let fault = self.faults.begin("upload", key);
        let upload = self.faults.run(fault, key, self.inner.upload(key)).await?;
        Ok(self.wrap(key, upload))
    }

    async fn resume(&self, key: &str, token: &str) -> Result<Option<Box<dyn Upload>>, StoreError> {
        let fault = self.faults.begin("resume", key);
        let upload = self.faults.run(fault, key, self.inner.resume(key, token)).await?;
        Ok(upload.map(|upload| self.wrap(key, upload)))
    }

    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError> {
        let fault = self.faults.begin("completed", key);
        self.faults.run(fault, key, self.inner.completed(key, parts)).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        let fault = self.faults.begin("replace", key);
        self.faults.run(fault, key, self.inner.replace(key, body, expected)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        let fault = self.faults.begin("put", key);
        self.faults.run(fault, key, self.inner.put(key, body)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let fault = self.faults.begin("delete", key);
        self.faults.run(fault, key, self.inner.delete(key)).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// An upload whose calls are operations of its store.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn Upload>,
    key: String,
    faults: Arc<Faults>,
}

#[async_trait]
impl Upload for FaultyUpload {
    fn token(&self) -> Option<String> {
        self.inner.token()
    }

    async fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        let fault = self.faults.begin("arrived", &self.key);
        self.faults.run(fault, &self.key, self.inner.arrived()).await
    }

    async fn send(&self, number: u32, offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError> {
        let fault = self.faults.begin(&format!("send {number}"), &self.key);
        self.faults.run(fault, &self.key, self.inner.send(number, offset, body)).await
    }

    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError> {
        let fault = self.faults.begin("complete", &self.key);
        self.faults.run(fault, &self.key, self.inner.complete(parts)).await
    }

    async fn abort(&self) -> Result<(), StoreError> {
        let fault = self.faults.begin("abort", &self.key);
        self.faults.run(fault, &self.key, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn memory() -> Arc<dyn Store> {
        Arc::new(MemoryStore::default())
    }

    #[tokio::test]
    async fn a_lost_reply_is_made_good_by_asking_again() {
        let store = FaultyStore::at(memory(), [(0, Fault::After)]);
        let lost = store.create("claim", "mine".into()).await.expect_err("the reply is lost");
        assert!(lost.is_temporary(), "{lost}");
        store.create("claim", "mine".into()).await.expect("it was ours all along");
        let other = store.create("claim", "theirs".into()).await.expect_err("it is taken");
        assert!(matches!(other, StoreError::AlreadyExists { .. }), "{other}");
        assert_eq!(store.log(), ["create claim (After)", "create claim", "create claim"]);
    }

    #[tokio::test]
    async fn nothing_happens_after_a_crash() {
        let inner = memory();
        let store = FaultyStore::crash(inner.clone(), 1, Fault::After);
        for key in ["a", "b", "c"] {
            let _ = store.put(key, "x".into()).await;
        }
        let left: Vec<String> = inner.list("").await.expect("lists").into_iter().map(|meta| meta.key).collect();
        assert_eq!(left, ["a", "b"]);
        assert_eq!(store.operations(), 3);
    }

    #[tokio::test]
    async fn reads_are_damaged_without_an_error() {
        let inner = memory();
        inner.put("a", "0123456789".into()).await.expect("writes");
        let store = FaultyStore::at(inner, [(0, Fault::Truncate), (1, Fault::Corrupt), (2, Fault::Truncate)]);
        assert_eq!(store.get("a").await.expect("reads").body, "01234");
        assert_eq!(store.get("a").await.expect("reads").body, "0123446789");
        let mut streamed = String::new();
        store.read("a").await.expect("opens").read_to_string(&mut streamed).await.expect("reads");
        assert_eq!(streamed, "01234");
    }

    #[tokio::test]
    async fn ranges_are_damaged_and_late() {
        let inner = memory();
        inner.put("a", "0123456789".into()).await.expect("writes");
        let faults = [(0, Fault::Truncate), (1, Fault::Corrupt), (2, Fault::Delay), (3, Fault::Before)];
        let store = FaultyStore::at(inner, faults);
        assert_eq!(store.read_range("a", 2..6).await.expect("reads"), "23");
        assert_eq!(store.read_range("a", 2..6).await.expect("reads"), "2355");
        let (late, failed) = tokio::join!(store.read_range("a", 2..6), store.read_range("a", 2..6));
        assert_eq!(late.expect("late but whole"), "2345");
        assert!(failed.expect_err("not done").is_temporary());
    }

    #[tokio::test]
    async fn an_upload_s_calls_are_operations_of_its_store() {
        let inner = memory();
        let faults = [(1, Fault::Before), (2, Fault::After), (4, Fault::After)];
        let store = FaultyStore::at(inner.clone(), faults);
        let upload = store.upload("a").await.expect("begins");
        let try_to_send = async || upload.send(1, 0, vec!["x".into()]).await;
        assert!(try_to_send().await.expect_err("not sent").is_temporary());
        assert!(try_to_send().await.expect_err("sent, but unheard").is_temporary());
        let parts = upload.arrived().await.expect("arrived");
        assert!(upload.complete(&parts).await.expect_err("done, but unheard").is_temporary());
        assert_eq!(inner.get("a").await.expect("an object").body, "x");
        upload.complete(&parts).await.expect("it was ours all along");
        let token = upload.token().expect("a token");
        assert!(store.resume("a", &token).await.expect("an answer").is_none());
        let sent = ["upload a", "send 1 a (Before)", "send 1 a (After)", "arrived a"];
        let completed = ["complete a (After)", "complete a", "resume a"];
        assert_eq!(store.log(), [&sent[..], &completed[..]].concat());
    }

    #[tokio::test]
    async fn a_seed_fails_the_same_way_again() {
        let run = async |seed| {
            let store = FaultyStore::seeded(memory(), seed, 0.3, &[Fault::Before, Fault::After]);
            for key in 0..100 {
                let _ = store.put(&key.to_string(), "x".into()).await;
            }
            store.log()
        };
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }
}
