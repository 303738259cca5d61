//! Wrapped data keys in the repository: `keys/<key-id>/<n>.json`.
//!
//! A record is created once and never changed; a key that is wrapped again gets the next number. So a rotation that
//! dies at any point leaves keys that open by the old source, by the new one, or by both, and running it again goes on where it
//! stopped. Data is never touched.
//!
//! * Nothing is stored that its source cannot open: a wrapping is opened again before it is stored and its bytes are compared
//!   afterwards. A role that may encrypt but not decrypt fails on the first backup, not on the first restore.
//! * Older wrappings are removed only on demand, only those that the plan showed and a source under `encryption.previous`
//!   opened, and only right after a wrapping by the current source was read from the repository and opened.
//!
//! What it does not guard against: two people who rotate in opposite directions at the same moment, both removing.
//! The bucket's versions are the way back from that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::data_key::{DataKey, KeyId};
use super::key_source::{KeyError, KeySource, KeySources, Wrapped};
use crate::manifest::to_json;
use crate::repository::Repository;
use crate::store::StoreError;

const FORMAT: u32 = 1;
/// How many numbers are tried when others wrap the same key at the same time.
const TRIES: u32 = 8;

/// One wrapping, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    key_id: KeyId,
    /// Which source wrapped it, for people.
    source: String,
    /// Which key of that source, for people; the one that counts is in `wrapped`.
    fingerprint: String,
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
struct Stored {
    number: u32,
    record: Result<Record, KeyError>,
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
fn closed(mut failures: Vec<KeyError>) -> Option<KeyringError> {
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
struct Asked<'a> {
    sources: &'a [&'a dyn KeySource],
    silent: Vec<Option<KeyError>>,
}

impl<'a> Asked<'a> {
    fn new(sources: &'a [&'a dyn KeySource]) -> Self {
        Self { sources, silent: vec![None; sources.len()] }
    }

    /// The key, and which source opened it; or what each source that has a key said.
    async fn unwrap(&mut self, stored: &Stored, id: &KeyId) -> Result<(DataKey, usize), Vec<KeyError>> {
        let record = stored.record.as_ref().map_err(|e| vec![e.clone()])?;
        let mut failures = Vec::new();
        for (n, source) in self.sources.iter().enumerate() {
            if self.silent[n].is_some() {
                continue;
            }
            match source.unwrap(&record.wrapped, id).await {
                Ok(key) => return Ok((key, n)),
                Err(e) if e.is_the_source_s() => self.silent[n] = Some(e),
                Err(e) => failures.push(e),
            }
        }
        Err(failures)
    }
}

fn object(id: &KeyId, number: u32) -> String {
    format!("keys/{id}/{number:04}.json")
}

/// The key and the number in a record's name; `None` for anything else below `keys/`.
fn parse_object(key: &str) -> Option<(KeyId, u32)> {
    let (id, number) = key.strip_prefix("keys/")?.strip_suffix(".json")?.split_once('/')?;
    let (id, number) = (id.parse().ok()?, number.parse().ok()?);
    (object(&id, number) == key).then_some((id, number))
}

/// The wrappings of a key, newest first.
async fn wrappings(repository: &Repository, id: &KeyId) -> Result<Vec<Stored>, StoreError> {
    let listed = repository.store().list(&format!("keys/{id}/")).await?;
    let mut numbers: Vec<u32> = listed.iter().filter_map(|meta| parse_object(&meta.key)).map(|(_, n)| n).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers.into_iter().rev() {
        match repository.store().get(&object(id, number)).await {
            Ok(read) => found.push(Stored { number, record: parse(id, &read.body) }),
            // Removed by a rotation since it was listed.
            Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
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
async fn add(repository: &Repository, source: &dyn KeySource, key: &DataKey, first: u32) -> Result<u32, KeyringError> {
    let wrapped = source.wrap(key).await?;
    if source.unwrap(&wrapped, key.id()).await?.expose() != key.expose() {
        let why = format!("{} gave back another key than it was given", source.describe());
        return Err(KeyError::Tampered { id: key.id().clone(), why }.into());
    }
    let fingerprint = wrapped.fingerprint().to_owned();
    let record = Record { format: FORMAT, key_id: key.id().clone(), source: source.describe(), fingerprint, wrapped };
    let body = to_json(&record);
    for number in first..first.saturating_add(TRIES) {
        let object = object(key.id(), number);
        match repository.store().create(&object, body.clone().into()).await {
            Ok(_) if repository.store().get(&object).await?.body == body => return Ok(number),
            Ok(_) => return Err(KeyringError::ReadsDifferently { key: object, location: repository.location() }),
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(KeyringError::Crowded { id: key.id().clone() })
}

/// Every data key of a repository, and by which source it opens. It is also the plan of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What wraps new keys.
    pub current: String,
    /// Why that source has no key to give, if it was asked and has none.
    #[serde(skip)]
    pub current_fails: Option<KeyError>,
    /// The keys, by id.
    pub keys: Vec<KeyState>,
}

/// One data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyState {
    /// Its name.
    pub id: KeyId,
    /// Its wrappings, newest first.
    pub wrappings: Vec<WrappingState>,
    /// Why it does not open by any source.
    pub problem: Option<String>,
}

/// One wrapping of a data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrappingState {
    /// Its number.
    pub number: u32,
    /// The source that it names.
    pub source: String,
    /// The wrapping key that it names.
    pub fingerprint: String,
    /// What opens it.
    pub opens_by: Option<By>,
}

/// Which source opens a wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// `encryption.key`
    Current,
    /// One of `encryption.previous`
    Previous,
}

impl KeyState {
    /// Whether the current source opens it.
    pub fn is_current(&self) -> bool {
        self.wrappings.iter().any(|w| w.opens_by == Some(By::Current))
    }

    /// Whether a rotation wraps it.
    pub fn can_be_wrapped(&self) -> bool {
        self.problem.is_none() && !self.is_current()
    }

    /// The wrappings that are not needed once the current source opens the key. One that no source opens is not among
    /// them: somebody may keep its key elsewhere.
    pub fn old(&self) -> impl Iterator<Item = &WrappingState> {
        self.wrappings.iter().filter(|w| w.opens_by == Some(By::Previous))
    }
}

/// Looks at every data key and asks every source. Changes nothing.
pub async fn inspect(repository: &Repository, sources: &KeySources) -> Result<Inspection, KeyringError> {
    let listed = repository.store().list("keys/").await?;
    let ids: BTreeMap<KeyId, ()> = listed.iter().filter_map(|m| Some((parse_object(&m.key)?.0, ()))).collect();
    let all = sources.all();
    let mut asked = Asked::new(&all);
    let mut keys = Vec::new();
    for id in ids.into_keys() {
        keys.push(state(repository, &mut asked, id).await?);
    }
    let current_fails = asked.silent.swap_remove(0);
    Ok(Inspection { current: sources.current.describe(), current_fails, keys })
}

async fn state(repository: &Repository, asked: &mut Asked<'_>, id: KeyId) -> Result<KeyState, KeyringError> {
    let mut wrapping_states = Vec::new();
    let mut failures = Vec::new();
    for stored in wrappings(repository, &id).await? {
        let opens_by = match asked.unwrap(&stored, &id).await {
            Ok((_, 0)) => Some(By::Current),
            Ok(_) => Some(By::Previous),
            Err(mut why) => {
                failures.append(&mut why);
                None
            }
        };
        let (source, fingerprint) = match stored.record {
            Ok(record) => (record.source, record.fingerprint),
            Err(_) => ("(not readable)".into(), String::new()),
        };
        wrapping_states.push(WrappingState { number: stored.number, source, fingerprint, opens_by });
    }
    failures.extend(asked.silent.iter().flatten().cloned());
    let opens = wrapping_states.iter().any(|w| w.opens_by.is_some());
    let problem = if opens { None } else { closed(failures).map(|e| e.to_string()) };
    Ok(KeyState { id, wrappings: wrapping_states, problem })
}

/// What a rotation did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// Keys that were wrapped by the current source.
    pub wrapped: Vec<KeyId>,
    /// Records that were removed.
    pub removed: Vec<String>,
}

/// Wraps every key of the plan by the current source that it does not open yet, and then, with `remove_old`, removes the
/// plan's wrappings by previous sources. Keys that no source opens are left as they are.
pub async fn rotate(
    repository: &Repository,
    sources: &KeySources,
    plan: &Inspection,
    remove_old: bool,
) -> Result<Rotated, KeyringError> {
    let mut done = Rotated::default();
    for key in plan.keys.iter().filter(|key| key.can_be_wrapped()) {
        let data_key = open(repository, &sources.all(), &key.id).await?;
        let newest = key.wrappings.first().map_or(0, |w| w.number);
        add(repository, &*sources.current, &data_key, newest + 1).await?;
        done.wrapped.push(key.id.clone());
    }
    for key in plan.keys.iter().filter(|key| remove_old && key.problem.is_none()) {
        remove(repository, sources, key, &mut done.removed).await?;
    }
    Ok(done)
}

async fn remove(
    repository: &Repository,
    sources: &KeySources,
    key: &KeyState,
    removed: &mut Vec<String>,
) -> Result<(), KeyringError> {
    if key.old().next().is_none() {
        return Ok(());
    }
    open(repository, &[&*sources.current], &key.id).await?;
    for old in key.old() {
        let object = object(&key.id, old.number);
        repository.store().delete(&object).await?;
        removed.push(object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::encryption::key_source::raw::Raw;
    use crate::encryption::key_source::raw::tests::Fixed;
    use crate::settings::Engine;
    use crate::store::Store;
    use crate::store::faulty::{Fault, FaultyStore};
    use crate::store::memory::MemoryStore;

    fn on(store: Arc<dyn Store>) -> Repository {
        Repository::new(store, Engine::Weaviate)
    }

    fn repository() -> Repository {
        on(Arc::new(MemoryStore::default()))
    }

    fn from_to(old: u8, new: u8) -> KeySources {
        KeySources { current: Box::new(Fixed::source(new)), previous: vec![Box::new(Fixed::source(old))] }
    }

    fn fails(error: KeyError) -> Raw<Fixed> {
        Raw(Fixed(Err(error)))
    }

    fn unavailable() -> Raw<Fixed> {
        fails(KeyError::Unavailable { source_name: "vault".into(), why: "sealed".into() })
    }

    fn missing() -> Raw<Fixed> {
        fails(KeyError::Missing { source_name: "env".into(), why: "it is not set".into() })
    }

    async fn opens(repository: &Repository, by: u8, key: &DataKey) -> bool {
        let source = Fixed::source(by);
        match open(repository, &[&source], key.id()).await {
            Ok(found) => found.expose() == key.expose(),
            Err(_) => false,
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

    #[tokio::test]
    async fn a_rotation_wraps_all_keys_and_removes_old_wrappings_on_demand() {
        let (repo, keys) = (repository(), [DataKey::generate(), DataKey::generate()]);
        for key in &keys {
            create(&repo, &Fixed::source(1), key).await.expect("stored");
        }
        let sources = from_to(1, 2);
        let plan = inspect(&repo, &sources).await.expect("inspected");
        assert!(plan.keys.iter().all(KeyState::can_be_wrapped) && plan.keys.len() == 2);
        let done = rotate(&repo, &sources, &plan, false).await.expect("rotated");
        assert_eq!((done.wrapped.len(), done.removed.len()), (2, 0));
        for key in &keys {
            assert!(opens(&repo, 1, key).await && opens(&repo, 2, key).await);
        }

        let plan = inspect(&repo, &sources).await.expect("inspected");
        assert!(plan.keys.iter().all(KeyState::is_current));
        let done = rotate(&repo, &sources, &plan, true).await.expect("rotated");
        assert_eq!((done.wrapped.len(), done.removed.len()), (0, 2));
        for key in &keys {
            assert!(!opens(&repo, 1, key).await && opens(&repo, 2, key).await);
        }
        let plan = inspect(&repo, &sources).await.expect("inspected");
        assert_eq!(rotate(&repo, &sources, &plan, true).await.expect("nothing to do"), Rotated::default());
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_is_told_and_left_alone() {
        let (repo, good, lost) = (repository(), DataKey::generate(), DataKey::generate());
        create(&repo, &Fixed::source(1), &good).await.expect("stored");
        create(&repo, &Fixed::source(9), &lost).await.expect("stored");
        let sources = from_to(1, 2);
        let plan = inspect(&repo, &sources).await.expect("inspected");
        let problem = plan.keys.iter().find(|k| k.id == *lost.id()).and_then(|k| k.problem.as_ref());
        assert!(problem.is_some_and(|p| p.contains("another key")), "{problem:?}");
        let done = rotate(&repo, &sources, &plan, true).await.expect("rotated");
        assert_eq!(done.wrapped, [good.id().clone()]);
        assert!(opens(&repo, 9, &lost).await && opens(&repo, 2, &good).await);
    }

    #[tokio::test]
    async fn a_current_source_without_a_key_is_told() {
        let (repo, key) = (repository(), DataKey::generate());
        create(&repo, &Fixed::source(1), &key).await.expect("stored");
        let sources = KeySources { current: Box::new(missing()), previous: vec![Box::new(Fixed::source(1))] };
        let plan = inspect(&repo, &sources).await.expect("inspected");
        assert!(matches!(plan.current_fails, Some(KeyError::Missing { .. })));
        assert!(rotate(&repo, &sources, &plan, true).await.is_err());
        assert!(opens(&repo, 1, &key).await);
    }

    /// Wrappings that appeared after the plan are neither overwritten nor removed.
    #[tokio::test]
    async fn two_rotations_at_once_keep_each_other_s_wrappings() {
        let (repo, key) = (repository(), DataKey::generate());
        create(&repo, &Fixed::source(1), &key).await.expect("stored");
        let (two, three) = (from_to(1, 2), from_to(1, 3));
        let plan_two = inspect(&repo, &two).await.expect("inspected");
        let plan_three = inspect(&repo, &three).await.expect("inspected");
        rotate(&repo, &two, &plan_two, false).await.expect("rotated");
        rotate(&repo, &three, &plan_three, true).await.expect("rotated");
        assert!(opens(&repo, 2, &key).await && opens(&repo, 3, &key).await && !opens(&repo, 1, &key).await);
    }

    async fn rotation_on(store: Arc<dyn Store>) -> Result<Rotated, KeyringError> {
        let (repo, sources) = (on(store), from_to(1, 2));
        let plan = inspect(&repo, &sources).await?;
        rotate(&repo, &sources, &plan, true).await
    }

    #[tokio::test]
    async fn a_rotation_that_dies_at_any_step_leaves_keys_that_open_and_can_be_made_again() {
        let keys = [DataKey::generate(), DataKey::generate()];
        let prepared = async || {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::default());
            for key in &keys {
                create(&on(inner.clone()), &Fixed::source(1), key).await.expect("stored");
            }
            inner
        };
        let counting = Arc::new(FaultyStore::at(prepared().await, []));
        rotation_on(counting.clone()).await.expect("rotated");
        let steps = counting.operations();
        assert!(steps > 10, "{:?}", counting.log());
        for step in 0..steps {
            for fault in [Fault::Before, Fault::After, Fault::Truncate, Fault::Corrupt] {
                let inner = prepared().await;
                let _ = rotation_on(Arc::new(FaultyStore::crash(inner.clone(), step, fault))).await;
                for key in &keys {
                    let repo = on(inner.clone());
                    assert!(opens(&repo, 1, key).await || opens(&repo, 2, key).await, "step {step}, {fault:?}");
                }
                rotation_on(inner.clone()).await.expect("again");
                for key in &keys {
                    assert!(opens(&on(inner.clone()), 2, key).await, "step {step}, {fault:?}");
                    let left = inner.list(&format!("keys/{}/", key.id())).await.expect("lists");
                    assert_eq!(left.len(), 1, "step {step}, {fault:?}");
                }
            }
        }
    }
}
