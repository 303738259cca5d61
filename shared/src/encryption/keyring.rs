//! Wrapped data keys in the repository: `keys/<key-id>/<n>.json`.
//!
//! A record is created once and never changed; a key that is wrapped again gets the next number ([`super::rotation`]).
//!
//! Nothing is stored that its source cannot open: a wrapping is opened again before it is stored and its bytes are compared
//! afterwards. A role that may encrypt but not decrypt fails on the first backup, not on the first restore.
//!
//! How it fails: [`KeyringError`]; where several wrappings and sources fail, the failure that most likely has to be put right
//! comes first. A crash leaves a whole record or none.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::data_key::{DataKey, KeyId};
use super::key_source::{KeyError, KeySource, Wrapped};
use crate::manifest::to_json;
use crate::repository::Repository;
use crate::store::StoreError;

const FORMAT: u32 = 1;
/// How many numbers are tried when others wrap the same key at the same time.
const TRIES: u32 = 8;

/// One wrapping, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    key_id: KeyId,
    /// Which source wrapped it, for people.
    pub(super) source: String,
    /// Which key of that source, for people; the one that counts is in `wrapped`.
    pub(super) fingerprint: String,
    wrapped: Wrapped,
}

/// Why the keyring could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source said no.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no record of the key.
    #[error(
        "{location} has no keys/{id}/: what that key encrypted cannot be read; bring the folder back from an older \
         version of the bucket or a copy"
    )]
    NoKey {
        /// The data key.
        id: KeyId,
        /// The repository.
        location: String,
    },
    /// There are records, and none opens.
    #[error("{telling}{}", also(.others))]
    Closed {
        /// The failure that most likely has to be put right.
        telling: KeyError,
        /// The others.
        others: Vec<KeyError>,
    },
    /// A record reads otherwise than it was written.
    #[error("{location}/{key} was stored and reads differently: nothing relies on it; try again")]
    ReadsDifferently {
        /// The record.
        key: String,
        /// The repository.
        location: String,
    },
    /// Many others wrap the same key at the same time.
    #[error("{id} is being wrapped by others at the same time: try again when they are done")]
    Crowded {
        /// The data key.
        id: KeyId,
    },
}

fn also(others: &[KeyError]) -> String {
    let mut texts: Vec<String> = others.iter().map(ToString::to_string).collect();
    texts.dedup();
    if texts.is_empty() { String::new() } else { format!(" (also: {})", texts.join("; ")) }
}

/// A wrapping that was found.
pub(super) struct Stored {
    pub(super) number: u32,
    pub(super) record: Result<Record, KeyError>,
}

/// Stores a new data key, wrapped by `source`.
pub async fn create(repository: &Repository, source: &dyn KeySource, key: &DataKey) -> Result<(), KeyringError> {
    add(repository, source, key, 1).await.map(|_| ())
}

/// The data key called `id`: its newest wrapping first, by each source in turn, then older ones.
pub async fn open(repository: &Repository, sources: &[&dyn KeySource], id: &KeyId) -> Result<DataKey, KeyringError> {
    let mut asked = Asked::new(sources);
    let mut failures = Vec::new();
    for stored in wrappings(repository, id).await? {
        match asked.unwrap(&stored, id).await {
            Ok((key, _)) => return Ok(key),
            Err(mut why) => failures.append(&mut why),
        }
    }
    failures.extend(asked.silent.into_iter().flatten());
    Err(closed(failures).unwrap_or_else(|| KeyringError::NoKey { id: id.clone(), location: repository.location() }))
}

/// Which of several failures a person should hear first: what may pass by itself, then damage, then a source that keeps its key
/// back, and last that another key is needed, which every source but the right one says.
pub(super) fn closed(mut failures: Vec<KeyError>) -> Option<KeyringError> {
    failures.sort_by_key(|failure| match failure {
        KeyError::Unavailable { .. } => 0,
        KeyError::Tampered { .. } => 1,
        KeyError::Newer { .. } => 2,
        KeyError::Denied { .. } => 3,
        KeyError::Missing { .. } => 4,
        KeyError::Wrong { .. } => 5,
    });
    let mut failures = failures.into_iter();
    failures.next().map(|telling| KeyringError::Closed { telling, others: failures.collect() })
}

/// Sources, each of which is not asked again once it had no key to give.
pub(super) struct Asked<'a> {
    sources: &'a [&'a dyn KeySource],
    pub(super) silent: Vec<Option<KeyError>>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(sources: &'a [&'a dyn KeySource]) -> Self {
        Self { sources, silent: vec![None; sources.len()] }
    }

    /// The key, and which source opened it; or what each source that has a key said.
    pub(super) async fn unwrap(&mut self, stored: &Stored, id: &KeyId) -> Result<(DataKey, usize), Vec<KeyError>> {
        let record = stored.record.as_ref().map_err(|e| vec![e.clone()])?;
        let mut failures = Vec::new();
        for (n, source) in self.sources.iter().enumerate() {
            if self.silent[n].is_some() {
                continue;
            }
            match source.unwrap(&record.wrapped, id).await {
                Ok(key) => return Ok((key, n)),
                Err(e) if e.is_for_every_record() => self.silent[n] = Some(e),
                Err(e) => failures.push(e),
            }
        }
        Err(failures)
    }
}

pub(super) fn object(id: &KeyId, number: u32) -> String {
    format!("keys/{id}/{number:04}.json")
}

/// The key and the number in a record's name; `None` for anything else below `keys/`.
pub(super) fn parse_object(key: &str) -> Option<(KeyId, u32)> {
    let (id, number) = key.strip_prefix("keys/")?.strip_suffix(".json")?.split_once('/')?;
    let (id, number) = (id.parse().ok()?, number.parse().ok()?);
    (object(&id, number) == key).then_some((id, number))
}

/// The wrappings of a key, newest first.
pub(super) async fn wrappings(repository: &Repository, id: &KeyId) -> Result<Vec<Stored>, StoreError> {
    let bodies = bodies(repository, id).await?;
    Ok(bodies.into_iter().map(|(number, body)| Stored { number, record: parse(id, &body) }).collect())
}

/// The records of a key as they are stored, newest first.
async fn bodies(repository: &Repository, id: &KeyId) -> Result<Vec<(u32, Bytes)>, StoreError> {
    let listed = repository.store().list(&format!("keys/{id}/")).await?;
    let mut numbers: Vec<u32> = listed.iter().filter_map(|meta| parse_object(&meta.key)).map(|(_, n)| n).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers.into_iter().rev() {
        match repository.store().get(&object(id, number)).await {
            Ok(read) => found.push((number, read.body)),
            // Removed by a rotation since it was listed.
            Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Gives `to` the wrappings of a key that `from` has; where neither has one, that is an error. Each repository is rotated by itself and
/// numbers its own, so what counts is the bytes.
pub async fn copy(from: &Repository, to: &Repository, id: &KeyId) -> Result<(), KeyringError> {
    let there = bodies(to, id).await?;
    let here = bodies(from, id).await?;
    if here.is_empty() && there.is_empty() {
        return Err(KeyringError::NoKey { id: id.clone(), location: from.location() });
    }
    for (number, body) in here {
        if there.iter().all(|(_, other)| *other != body) {
            store(to, id, number, &body).await?;
        }
    }
    Ok(())
}

fn parse(id: &KeyId, bytes: &[u8]) -> Result<Record, KeyError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let tampered = |why: String| KeyError::Tampered { id: id.clone(), why };
    let Format { format } = serde_json::from_slice(bytes).map_err(|e| tampered(e.to_string()))?;
    if format > FORMAT {
        return Err(KeyError::Newer { id: id.clone(), format });
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|e| tampered(e.to_string()))?;
    if record.key_id == *id { Ok(record) } else { Err(tampered(format!("it is a wrapping of {}", record.key_id))) }
}

/// Adds a wrapping under the first free number from `first`, and reads it back.
pub(super) async fn add(
    repository: &Repository,
    source: &dyn KeySource,
    key: &DataKey,
    first: u32,
) -> Result<u32, KeyringError> {
    let wrapped = source.wrap(key).await?;
    if source.unwrap(&wrapped, key.id()).await?.expose() != key.expose() {
        let why = format!("{} gave back another key than it was given", source.describe());
        return Err(KeyError::Tampered { id: key.id().clone(), why }.into());
    }
    let fingerprint = wrapped.fingerprint().to_owned();
    let record = Record { format: FORMAT, key_id: key.id().clone(), source: source.describe(), fingerprint, wrapped };
    store(repository, key.id(), first, &to_json(&record).into()).await
}

/// Stores a record under the first free number from `first`, and reads it back.
async fn store(repository: &Repository, id: &KeyId, first: u32, body: &Bytes) -> Result<u32, KeyringError> {
    for number in first..first.saturating_add(TRIES) {
        let object = object(id, number);
        match repository.store().create(&object, body.clone()).await {
            Ok(_) if repository.store().get(&object).await?.body == body => return Ok(number),
            Ok(_) => return Err(KeyringError::ReadsDifferently { key: object, location: repository.location() }),
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(KeyringError::Crowded { id: id.clone() })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::encryption::key_source::raw::Raw;
    use crate::encryption::key_source::raw::tests::Fixed;
    use crate::settings::Engine;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    pub(in crate::encryption) fn on(store: Arc<dyn Store>) -> Repository {
        Repository::new(store, Engine::Weaviate)
    }

    pub(in crate::encryption) fn repository() -> Repository {
        on(Arc::new(MemoryStore::default()))
    }

    fn fails(error: KeyError) -> Raw<Fixed> {
        Raw(Fixed(Err(error)))
    }

    fn unavailable() -> Raw<Fixed> {
        fails(KeyError::Unavailable { source_name: "vault".into(), why: "sealed".into() })
    }

    pub(in crate::encryption) fn missing() -> Raw<Fixed> {
        fails(KeyError::Missing { source_name: "env".into(), why: "it is not set".into() })
    }

    pub(in crate::encryption) async fn opens(repository: &Repository, by: u8, key: &DataKey) -> bool {
        let source = Fixed::source(by);
        match open(repository, &[&source], key.id()).await {
            Ok(found) => found.expose() == key.expose(),
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn a_copy_has_the_wrappings_of_both_repositories() {
        let (from, to, key) = (repository(), repository(), DataKey::generate());
        let error = copy(&from, &to, key.id()).await.expect_err("nothing to copy");
        assert!(matches!(error, KeyringError::NoKey { .. }), "{error}");
        create(&from, &Fixed::source(1), &key).await.expect("stored");
        copy(&from, &to, key.id()).await.expect("copied");
        add(&from, &Fixed::source(2), &key, 2).await.expect("stored");
        add(&to, &Fixed::source(3), &key, 2).await.expect("stored");
        for _ in 0..2 {
            copy(&from, &to, key.id()).await.expect("copied");
            assert_eq!(wrappings(&to, key.id()).await.expect("read").len(), 3);
        }
        for source in 1..=3 {
            assert!(opens(&to, source, &key).await, "{source}");
        }
    }

    #[tokio::test]
    async fn a_key_is_stored_and_opened_by_any_source_that_has_it() {
        let (repo, key) = (repository(), DataKey::generate());
        create(&repo, &Fixed::source(1), &key).await.expect("stored");
        let (right, wrong) = (Fixed::source(1), Fixed::source(2));
        let found = open(&repo, &[&wrong, &missing(), &right], key.id()).await.expect("opens");
        assert_eq!(found.expose(), key.expose());
        let stored = repo.store().get(&object(key.id(), 1)).await.expect("there").body;
        let text = String::from_utf8(stored.to_vec()).expect("a text");
        assert!(text.contains("\"format\": 1") && text.contains("key 1"), "{text}");
        assert!(!text.contains(&hex::encode(key.expose())), "{text}");
    }

    #[tokio::test]
    async fn the_telling_failure_is_told_first() {
        let (repo, key) = (repository(), DataKey::generate());
        let error = open(&repo, &[&Fixed::source(1)], key.id()).await.expect_err("nothing");
        assert!(matches!(error, KeyringError::NoKey { .. }), "{error}");
        create(&repo, &Fixed::source(1), &key).await.expect("stored");
        let telling = async |sources: &[&dyn KeySource]| match open(&repo, sources, key.id()).await {
            Err(KeyringError::Closed { telling, .. }) => telling,
            other => panic!("{other:?}"),
        };
        let wrong = Fixed::source(2);
        assert!(matches!(telling(&[&wrong]).await, KeyError::Wrong { .. }));
        assert!(matches!(telling(&[&wrong, &missing()]).await, KeyError::Missing { .. }));
        assert!(matches!(telling(&[&missing(), &wrong, &unavailable()]).await, KeyError::Unavailable { .. }));
    }

    #[tokio::test]
    async fn an_older_wrapping_opens_where_the_newest_is_damaged() {
        let (repo, key) = (repository(), DataKey::generate());
        create(&repo, &Fixed::source(1), &key).await.expect("stored");
        for (number, body) in [(2, "not json"), (3, r#"{"format": 9}"#), (4, "{\"format\": 1}")] {
            repo.store().create(&object(key.id(), number), body.into()).await.expect("stored");
        }
        assert!(opens(&repo, 1, &key).await);
        let error = open(&repo, &[&Fixed::source(2)], key.id()).await.expect_err("closed").to_string();
        assert!(error.contains("tampered with") && error.contains("format 9"), "{error}");
    }

    #[tokio::test]
    async fn a_record_of_another_key_does_not_open() {
        let (repo, key, other) = (repository(), DataKey::generate(), DataKey::generate());
        create(&repo, &Fixed::source(1), &other).await.expect("stored");
        let body = repo.store().get(&object(other.id(), 1)).await.expect("there").body;
        repo.store().create(&object(key.id(), 1), body).await.expect("stored");
        let error = open(&repo, &[&Fixed::source(1)], key.id()).await.expect_err("moved");
        assert!(matches!(error, KeyringError::Closed { telling: KeyError::Tampered { .. }, .. }), "{error}");
    }

    /// A source that wraps but does not unwrap, like a role without `kms:Decrypt`.
    struct WriteOnly;

    #[async_trait::async_trait]
    impl KeySource for WriteOnly {
        fn describe(&self) -> String {
            "write-only".into()
        }

        async fn wrap(&self, key: &DataKey) -> Result<Wrapped, KeyError> {
            Fixed::source(1).wrap(key).await
        }

        async fn unwrap(&self, _: &Wrapped, _: &KeyId) -> Result<DataKey, KeyError> {
            Err(KeyError::Denied { source_name: self.describe(), why: "kms:Decrypt".into() })
        }
    }

    #[tokio::test]
    async fn nothing_is_stored_that_its_source_cannot_open() {
        let repo = repository();
        let error = create(&repo, &WriteOnly, &DataKey::generate()).await.expect_err("denied");
        assert!(matches!(error, KeyringError::Key(KeyError::Denied { .. })), "{error}");
        assert!(repo.store().list("").await.expect("lists").is_empty());
    }
}
