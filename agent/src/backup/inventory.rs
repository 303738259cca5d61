//! What was in the engine before and after a capture.

use std::collections::BTreeMap;

use perennial_shared::manifest::{Collection, Reason, Sample};

use super::churn::Churn;
use crate::engine::{Answer, Counted, Engine};
use crate::failure::{Exit, Failure};

/// Sample queries of a collection.
const SAMPLES_EACH: usize = 3;
/// Sample queries of all collections, so that a thousand collections do not make a manifest of megabytes.
const SAMPLES_ALL: usize = 300;

/// Exact counts and sample queries with their answers.
pub(super) async fn take(engine: &dyn Engine) -> Result<Vec<(Counted, Vec<Sample>)>, Failure> {
    let mut found = vec![];
    let mut left = SAMPLES_ALL;
    for counted in engine.count().await? {
        let samples =
            if counted.count == 0 { vec![] } else { engine.samples(&counted.name, SAMPLES_EACH.min(left)).await? };
        left -= samples.len();
        found.push((counted, samples));
    }
    Ok(found)
}

/// What the counts were before a capture, for those during and after it.
pub(super) fn churn(before: &[(Counted, Vec<Sample>)]) -> Churn {
    let mut churn = Churn::default();
    churn.add(before.iter().map(|(counted, _)| counted));
    churn
}

/// A query of each collection (and tenant, and vector) that was answered.
pub(super) fn searched(found: &[(Counted, Vec<Sample>)]) -> Vec<(String, Sample)> {
    found.iter().filter_map(|(c, samples)| Some((c.name.clone(), samples.first()?.clone()))).collect()
}

/// Counts again, and keeps what the samples still say: only that can be expected of a restore.
pub(super) async fn again(
    engine: &dyn Engine,
    before: Vec<(Counted, Vec<Sample>)>,
    mut churn: Churn,
) -> Result<Vec<Collection>, Failure> {
    let after = engine.count().await?;
    churn.add(&after);
    let mut after: BTreeMap<String, Counted> = after.into_iter().map(|c| (c.name.clone(), c)).collect();
    let mut collections = vec![];
    for (counted, samples) in before {
        let now = after.remove(&counted.name);
        let mut steady = vec![];
        for sample in samples.into_iter().filter(|_| now.is_some()) {
            // An object that was deleted meanwhile cannot be searched by; its sample is no longer of use.
            if let Ok(answer) = engine.ask(&counted.name, &sample).await {
                steady.extend(still(sample, &answer));
            }
        }
        collections.push(Collection {
            count_before: counted.count,
            count_after: now.as_ref().map_or(0, |c| c.count),
            may_expire: now.as_ref().map_or(0, |c| c.may_expire).max(counted.may_expire),
            uncounted_tenants: now.map_or(counted.uncounted_tenants, |c| c.uncounted_tenants),
            churn: churn.of(&counted.name),
            name: counted.name,
            samples: steady,
        });
    }
    let new = after.into_values().map(|c| Collection {
        churn: churn.of(&c.name),
        name: c.name,
        count_before: 0,
        count_after: c.count,
        uncounted_tenants: c.uncounted_tenants,
        may_expire: c.may_expire,
        samples: vec![],
    });
    collections.extend(new);
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(collections)
}

/// What of a sample is still so: the same object, and the neighbours that are found again. Nothing of one that changed.
fn still(mut sample: Sample, now: &Answer) -> Option<Sample> {
    let Sample { ids, near_object, .. } = &mut sample;
    ids.retain(|id| now.ids.contains(id) || (now.itself && id == near_object));
    let says_something = sample.digest.is_some() || !sample.ids.is_empty();
    (sample.digest == now.digest && says_something).then_some(sample)
}

/// The collections that the backup holds, and what a person should know. A collection that was there all the time must be in it.
pub(super) fn reconcile(
    counted: Vec<Collection>,
    captured: &[String],
    reason: Reason,
) -> Result<(Vec<Collection>, Vec<String>), Failure> {
    let (held, others): (Vec<_>, Vec<_>) = counted.into_iter().partition(|c| captured.contains(&c.name));
    let (mut held, mut findings) = (held, vec![]);
    for lost in others {
        if lost.count_before > 0 && lost.count_after > 0 {
            let message = format!(
                "the engine's backup does not hold the collection {}, which has {} objects; the backup was not published",
                lost.name, lost.count_after
            );
            return Err(Failure::new(Exit::Failed, "BackupIncomplete", message));
        }
        findings.push(format!("{} was made or deleted during the capture and is not in the backup", lost.name));
    }
    for name in captured.iter().filter(|n| !held.iter().any(|c| c.name == **n)).cloned().collect::<Vec<_>>() {
        // Made after the first count and deleted before the second.
        held.push(Collection {
            name,
            count_before: 0,
            count_after: 0,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![],
        });
    }
    for collection in &held {
        findings.extend(remark(collection, reason));
    }
    Ok((held, findings))
}

fn remark(collection: &Collection, reason: Reason) -> Vec<String> {
    let Collection { name, count_before, count_after, uncounted_tenants, .. } = collection;
    let mut remarks = vec![];
    if count_before != count_after {
        let what = if reason == Reason::Final {
            "somebody still wrote to it, and the last of it may be lost"
        } else {
            "it was written to"
        };
        remarks.push(format!("{name}: {count_before} objects before the capture, {count_after} after: {what}"));
    }
    if *uncounted_tenants > 0 {
        remarks.push(format!(
            "{name}: {uncounted_tenants} tenants are not active; they are backed up but could not be counted"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(name: &str, before: u64, after: u64) -> Collection {
        Collection {
            name: name.into(),
            count_before: before,
            count_after: after,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![],
        }
    }

    #[test]
    fn a_sample_says_only_what_is_still_so() {
        let sample = |ids: &[&str], digest: Option<&str>| Sample {
            tenant: None,
            vector: None,
            near_object: "a".into(),
            limit: 3,
            ids: ids.iter().map(|i| (*i).into()).collect(),
            digest: digest.map(Into::into),
        };
        let now = |ids: &[&str], digest: Option<&str>| {
            let Sample { ids, digest, .. } = sample(ids, digest);
            Answer { ids, itself: true, twins: false, digest }
        };
        let was = sample(&["a", "b", "c"], Some("1"));
        assert_eq!(still(was.clone(), &now(&["a", "c", "b"], Some("1"))), Some(was.clone()));
        assert_eq!(still(was.clone(), &now(&["a", "c", "d"], Some("1"))), Some(sample(&["a", "c"], Some("1"))));
        assert_eq!(still(was.clone(), &now(&["a", "b", "c"], Some("2"))), None, "it was written to");
        assert_eq!(still(was, &Answer::default()), None, "it was deleted");
        assert_eq!(still(sample(&["a", "b"], None), &now(&["c"], None)), Some(sample(&["a"], None)), "c is its twin");
        assert_eq!(still(sample(&["b"], None), &now(&["c"], None)), None, "nothing is left of it");
    }

    #[test]
    fn a_backup_that_lacks_a_collection_is_not_published() {
        let error = reconcile(vec![collection("Doc", 5, 5)], &[], Reason::Manual).expect_err("incomplete");
        assert_eq!(error.code, "BackupIncomplete");
    }

    #[test]
    fn what_happened_meanwhile_is_said() {
        let counted = vec![collection("Doc", 5, 7), collection("New", 0, 3), collection("Gone", 4, 0)];
        let (held, findings) = reconcile(counted, &["Doc".into(), "Gone".into()], Reason::Final).expect("complete");
        assert_eq!(held.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["Doc", "Gone"]);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings.iter().any(|f| f.contains("may be lost")), "{findings:?}");
    }
}
