//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Meta, Object, Reader, Store, StoreError, Version, check_key, check_prefix};

/// Keeps the rules of [`Store`], and nothing after it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    writes: u64,
}

impl State {
    fn write(&mut self, key: &str, body: Bytes) -> Version {
        self.writes += 1;
        let version = Version::new(format!("write-{}", self.writes));
        let meta = Meta {
            key: key.to_owned(),
            size: body.len() as u64,
            version: version.clone(),
            modified: jiff::Timestamp::now(),
        };
        self.objects.insert(key.to_owned(), Object { body, meta });
        version
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
            None => Ok(state.write(key, body)),
            Some(stored) if stored.body == body => Ok(stored.meta.version.clone()),
            Some(_) => Err(StoreError::already_exists(key, self.location(), "it holds other bytes")),
        }
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let mut state = self.state();
        match state.objects.get(key) {
            None => Err(self.missing(key)),
            Some(stored) if stored.meta.version == *expected => Ok(state.write(key, body)),
            Some(stored) if stored.body == body => Ok(stored.meta.version.clone()),
            Some(stored) => {
                let why = format!("it is {} and was expected to be {expected}", stored.meta.version);
                Err(StoreError::changed(key, self.location(), why))
            }
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        Ok(self.state().write(key, body))
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
