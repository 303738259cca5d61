//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::parts::{self, Arrived, Whole};
use super::{Meta, Object, Part, Reader, Store, StoreError, Upload, Version, check_key, check_prefix};

/// Keeps the rules of [`Store`], and nothing after it is dropped.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Pending>,
    writes: u64,
}

#[derive(Debug)]
struct Pending {
    key: String,
    arrived: BTreeMap<u32, Arrived>,
    bodies: BTreeMap<u32, Vec<Bytes>>,
}

impl State {
    fn standing(&self, key: &str, whole: Whole, location: &str) -> Result<Option<Meta>, StoreError> {
        match self.objects.get(key) {
            Some(stored) if whole.is(stored.meta.size, parts::crc64nvme(std::slice::from_ref(&stored.body))) => {
                Ok(Some(stored.meta.clone()))
            }
            Some(_) => Err(parts::other_bytes(key, location)),
            None => Ok(None),
        }
    }

    fn write(&mut self, key: &str, body: Bytes) -> Meta {
        self.writes += 1;
        let meta = Meta {
            key: key.to_owned(),
            size: body.len() as u64,
            version: Version::new(format!("write-{}", self.writes)),
            modified: jiff::Timestamp::now(),
        };
        self.objects.insert(key.to_owned(), Object { body, meta: meta.clone() });
        meta
    }
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::not_found(key, self.location(), "never written or deleted")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Object, StoreError> {
        check_key(key, &self.location())?;
        self.state().objects.get(key).cloned().ok_or_else(|| self.missing(key))
    }

    async fn read(&self, key: &str) -> Result<Reader, StoreError> {
        Ok(Box::pin(Cursor::new(self.get(key).await?.body)))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        parts::check_range(&range, key, &self.location())?;
        let object = self.get(key).await?;
        if range.end > object.meta.size {
            return Err(parts::too_short(&range, object.meta.size, key, &self.location()));
        }
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(object.body.slice(index(range.start)..index(range.end)))
    }

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        Ok(self.get(key).await?.meta)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        check_prefix(prefix, &self.location())?;
        let state = self.state();
        let all = state.objects.values().map(|object| object.meta.clone());
        Ok(all.filter(|meta| meta.key.starts_with(prefix)).collect())
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let mut state = self.state();
        match state.objects.get(key) {
            None => Ok(state.write(key, body).version),
            Some(stored) if stored.body == body => Ok(stored.meta.version.clone()),
            Some(_) => Err(StoreError::already_exists(key, self.location(), "it holds other bytes")),
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        check_key(key, &self.location())?;
        let mut state = self.state();
        state.writes += 1;
        let id = format!("upload-{}", state.writes);
        let pending = Pending { key: key.to_owned(), arrived: BTreeMap::new(), bodies: BTreeMap::new() };
        state.uploads.insert(id.clone(), pending);
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.to_owned(), id }))
    }

    async fn resume(&self, key: &str, token: &str) -> Result<Option<Box<dyn Upload>>, StoreError> {
        check_key(key, &self.location())?;
        let known = self.state().uploads.get(token).is_some_and(|pending| pending.key == key);
        let upload = MemoryUpload { store: self.clone(), key: key.to_owned(), id: token.to_owned() };
        Ok(known.then(|| Box::new(upload) as Box<dyn Upload>))
    }

    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError> {
        check_key(key, &self.location())?;
        let (whole, _) = parts::whole(parts, key, &self.location())?;
        self.state().standing(key, whole, &self.location())
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let mut state = self.state();
        match state.objects.get(key) {
            None => Err(self.missing(key)),
            Some(stored) if stored.meta.version == *expected => Ok(state.write(key, body).version),
            Some(stored) if stored.body == body => Ok(stored.meta.version.clone()),
            Some(stored) => {
                let why = format!("it is {} and was expected to be {expected}", stored.meta.version);
                Err(StoreError::changed(key, self.location(), why))
            }
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        Ok(self.state().write(key, body).version)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, &self.location())?;
        self.state().objects.remove(key);
        Ok(())
    }

    fn location(&self) -> String {
        "memory:".to_owned()
    }
}

#[derive(Debug)]
struct MemoryUpload {
    store: MemoryStore,
    key: String,
    id: String,
}

impl MemoryUpload {
    fn unknown(&self) -> StoreError {
        parts::unknown_upload(&self.key, &self.store.location())
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    fn token(&self) -> Option<String> {
        Some(self.id.clone())
    }

    async fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        let state = self.store.state();
        let pending = state.uploads.get(&self.id).ok_or_else(|| self.unknown())?;
        Ok(pending.arrived.values().map(|arrived| arrived.part.clone()).collect())
    }

    async fn send(&self, number: u32, offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError> {
        parts::check_number(number, &self.key, &self.store.location())?;
        let crc64 = parts::crc64nvme(&body);
        let part = Part { number, size: parts::size(&body), crc64, tag: format!("{crc64:016x}") };
        let mut state = self.store.state();
        let pending = state.uploads.get_mut(&self.id).ok_or_else(|| self.unknown())?;
        pending.arrived.insert(number, Arrived { offset, part: part.clone() });
        pending.bodies.insert(number, body);
        Ok(part)
    }

    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError> {
        let (key, location) = (self.key.as_str(), self.store.location());
        let (whole, sorted) = parts::whole(parts, key, &location)?;
        let mut state = self.store.state();
        if let Some(stands) = state.standing(key, whole, &location).transpose() {
            state.uploads.remove(&self.id);
            return stands;
        }
        let pending = state.uploads.get(&self.id).ok_or_else(|| self.unknown())?;
        parts::check_arrived(&sorted, &pending.arrived, key, &location)?;
        let bodies = sorted.iter().filter_map(|part| pending.bodies.get(&part.number));
        let body = bodies.flatten().cloned().collect::<Vec<Bytes>>().concat();
        state.uploads.remove(&self.id);
        Ok(state.write(key, body.into()))
    }

    async fn abort(&self) -> Result<(), StoreError> {
        self.store.state().uploads.remove(&self.id);
        Ok(())
    }
}
