//! Wrapping the data keys again, by another source, without touching data.
//!
//! [`inspect`] looks and changes nothing; what it finds is the plan, and [`wrap`] and [`remove_old`] do it. A rotation that dies at any point
//! leaves keys that open by the old source, by the new one, or by both, and running it again goes on where it stopped.
//!
//! Older wrappings are removed only on demand, only those that the plan showed and a source under `encryption.previous`
//! opened, and only right after a wrapping by the current source was read from the repository and opened. One that no
//! configured source opens stays: somebody may keep its key elsewhere.
//!
//! What it does not guard against: two people who rotate in opposite directions at the same moment, both removing.
//! The bucket's versions are the way back from that.

use std::collections::BTreeSet;

use serde::Serialize;

use super::data_key::KeyId;
use super::key_source::{KeyError, KeySources};
use super::keyring::{Asked, KeyringError, add, closed, object, open, parse_object, wrappings};
use crate::repository::Repository;

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

    /// The wrappings that are not needed once the current source opens the key.
    pub fn old(&self) -> impl Iterator<Item = &WrappingState> {
        self.wrappings.iter().filter(|w| w.opens_by == Some(By::Previous))
    }
}

/// Looks at every data key and asks every source. Changes nothing.
pub async fn inspect(repository: &Repository, sources: &KeySources) -> Result<Inspection, KeyringError> {
    let listed = repository.store().list("keys/").await?;
    let ids: BTreeSet<KeyId> = listed.iter().filter_map(|m| Some(parse_object(&m.key)?.0)).collect();
    let all = sources.all();
    let mut asked = Asked::new(&all);
    let mut keys = Vec::new();
    for id in ids {
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

/// Wraps every key of the plan by the current source that it does not open yet. Keys that no source opens are left as they are.
pub async fn wrap(
    repository: &Repository,
    sources: &KeySources,
    plan: &Inspection,
) -> Result<Vec<KeyId>, KeyringError> {
    let mut wrapped = Vec::new();
    for key in plan.keys.iter().filter(|key| key.can_be_wrapped()) {
        let data_key = open(repository, &sources.all(), &key.id).await?;
        let newest = key.wrappings.first().map_or(0, |w| w.number);
        add(repository, &*sources.current, &data_key, newest + 1).await?;
        wrapped.push(key.id.clone());
    }
    Ok(wrapped)
}

/// Removes the plan's wrappings by previous sources, of keys that the current source opens now, and tells which records they were.
pub async fn remove_old(
    repository: &Repository,
    sources: &KeySources,
    plan: &Inspection,
) -> Result<Vec<String>, KeyringError> {
    let mut removed = Vec::new();
    for key in plan.keys.iter().filter(|key| key.problem.is_none()) {
        remove(repository, sources, key, &mut removed).await?;
    }
    Ok(removed)
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
    use crate::encryption::key_source::raw::tests::Fixed;
    use crate::encryption::keyring::create;
    use crate::encryption::keyring::tests::{missing, on, opens, repository};
    use crate::encryption::{DataKey, KeySource, Wrapped};
    use crate::store::Store;
    use crate::store::faulty::{Fault, FaultyStore};
    use crate::store::memory::MemoryStore;

    #[derive(Debug, Default, PartialEq)]
    struct Rotated {
        wrapped: Vec<KeyId>,
        removed: Vec<String>,
    }

    async fn rotate(
        repository: &Repository,
        sources: &KeySources,
        plan: &Inspection,
        and_remove: bool,
    ) -> Result<Rotated, KeyringError> {
        let wrapped = wrap(repository, sources, plan).await?;
        let removed = if and_remove { remove_old(repository, sources, plan).await? } else { Vec::new() };
        Ok(Rotated { wrapped, removed })
    }

    fn from_to(old: u8, new: u8) -> KeySources {
        KeySources { current: Box::new(Fixed::source(new)), previous: vec![Box::new(Fixed::source(old))] }
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

    /// A source whose policy denies one data key, as KMS's can.
    struct AllBut(KeyId);

    #[async_trait::async_trait]
    impl KeySource for AllBut {
        fn describe(&self) -> String {
            "all but one".into()
        }

        async fn wrap(&self, key: &DataKey) -> Result<Wrapped, KeyError> {
            Fixed::source(1).wrap(key).await
        }

        async fn unwrap(&self, wrapped: &Wrapped, id: &KeyId) -> Result<DataKey, KeyError> {
            if *id == self.0 {
                return Err(KeyError::Denied { source_name: self.describe(), why: "by policy".into() });
            }
            Fixed::source(1).unwrap(wrapped, id).await
        }
    }

    #[tokio::test]
    async fn a_denial_of_one_key_says_nothing_of_the_others() {
        let (repo, keys) = (repository(), [DataKey::generate(), DataKey::generate(), DataKey::generate()]);
        for key in &keys {
            create(&repo, &Fixed::source(1), key).await.expect("stored");
        }
        for denied in &keys {
            let sources = KeySources { current: Box::new(AllBut(denied.id().clone())), previous: Vec::new() };
            let found = inspect(&repo, &sources).await.expect("inspected");
            for key in &found.keys {
                assert_eq!(key.is_current(), key.id != *denied.id(), "{key:?}");
            }
        }
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
