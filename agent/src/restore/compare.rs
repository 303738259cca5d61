//! Whether the engine holds what the manifest says: counts, and what sample queries find.
//!
//! An object must be what it was, bit for bit where the engine has digests, and a search by its vector must find it. Which neighbours a
//! search finds is not the data's alone: an engine that makes its index anew walks it on other paths, and of objects with the same
//! vector (the same text, stored twice) any may be named. So where the vector was compared bit for bit, or all that was named has it,
//! neighbours that a search does not name must only be there, with their vectors. That is for data that a restore has just put there;
//! of what somebody else may have put there, [`is_already`] believes no less than the same neighbours.

use perennial_shared::manifest::{Collection, Manifest, Sample};

use crate::engine::{Answer, Counted, Engine, files::Installed};
use crate::failure::{Exit, Failure};

/// A comparison that found no difference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// Objects in all collections.
    pub(super) objects: u64,
    /// What was compared.
    pub(super) findings: Vec<String>,
    /// Whether searches named the same neighbours.
    exact: bool,
}

/// Compares; a difference is a failure. Without a manifest there is nothing to compare with, which is said.
pub(super) async fn with_manifest(engine: &dyn Engine, manifest: Option<&Manifest>) -> Result<Compared, Failure> {
    installed(engine, manifest, &Installed::default()).await
}

/// Whether the backup is in the engine already.
pub(super) async fn is_already(engine: &dyn Engine, manifest: Option<&Manifest>) -> Option<Compared> {
    with_manifest(engine, manifest).await.ok().filter(|compared| compared.exact)
}

/// Compares collections that may have other names for now.
pub(super) async fn installed(
    engine: &dyn Engine,
    manifest: Option<&Manifest>,
    installed: &Installed,
) -> Result<Compared, Failure> {
    let counted = engine.count().await?;
    let Some(manifest) = manifest else {
        let objects: u64 = counted.iter().map(|c| c.count).sum();
        let findings = vec![format!("{objects} objects; the backup has no manifest to compare them with")];
        return Ok(Compared { objects, findings, exact: true });
    };
    let counted = named_as_backed_up(manifest, &counted, installed);
    let objects = counted.iter().map(|c| c.count).sum();
    let mut differences = count_differences(&manifest.collections, &counted);
    let (mut samples, mut remarks) = (0, vec![]);
    for collection in &manifest.collections {
        samples += collection.samples.len();
        let searched = search(engine, installed.name(&collection.name), collection).await?;
        differences.extend(searched.differences);
        remarks.extend(searched.finding);
    }
    if !differences.is_empty() {
        let message =
            format!("the restored data is not that of backup {}: {}", manifest.backup_id, differences.join("; "));
        return Err(Failure::new(Exit::Problems, "RestoreDiffers", message));
    }
    let mut findings = vec![
        format!("{objects} objects in {} collections, as the manifest says", manifest.collections.len()),
        format!("{samples} samples are what they were when the backup was made"),
    ];
    let exact = remarks.is_empty();
    findings.extend(remarks);
    Ok(Compared { objects, findings, exact })
}

fn count_differences(expected: &[Collection], counted: &[Counted]) -> Vec<String> {
    let mut differences = vec![];
    for collection in expected {
        match counted.iter().find(|c| c.name == collection.name) {
            // Where everything could expire, everything may have.
            None if collection.may_expire > 0 && collection.agrees_with(0) => {}
            None => differences.push(format!("{} is missing", collection.name)),
            Some(found) if !collection.agrees_with(found.count) => differences.push(format!(
                "{} has {} objects, the manifest says {}",
                collection.name, found.count, collection.count_after
            )),
            Some(_) => {}
        }
    }
    differences
}

/// The counts of the manifest's collections, under the names that they have there.
fn named_as_backed_up(manifest: &Manifest, counted: &[Counted], installed: &Installed) -> Vec<Counted> {
    let of = |name: &String| {
        let found = counted.iter().find(|c| c.name == installed.name(name))?;
        Some(Counted { name: name.clone(), ..found.clone() })
    };
    manifest.collections.iter().filter_map(|c| of(&c.name)).collect()
}

/// What a collection's samples say.
struct Searched {
    differences: Vec<String>,
    finding: Option<String>,
}

async fn search(engine: &dyn Engine, name: &str, collection: &Collection) -> Result<Searched, Failure> {
    let (mut differences, mut elsewhere) = (vec![], 0);
    for sample in &collection.samples {
        match judge(sample, &engine.ask(name, sample).await?) {
            Verdict::Same => {}
            Verdict::Differs(why) => differences.push(format!("{}: {why}", collection.name)),
            Verdict::NotFound(neighbours) => match first_gone(engine, name, sample, &neighbours).await? {
                Some(gone) => differences.push(format!("{}: {gone} is missing, or its vector", collection.name)),
                None => elsewhere += 1,
            },
        }
    }
    let finding = (elsewhere > 0).then(|| {
        format!(
            "{}: a search by {elsewhere} of {} samples finds other neighbours than it did, and those that it found are there: \
             its index is another, or objects have the same vector",
            collection.name,
            collection.samples.len()
        )
    });
    Ok(Searched { differences, finding })
}

/// The first of these objects that the engine does not have, or not with the vector that it was found by.
async fn first_gone(
    engine: &dyn Engine,
    name: &str,
    sample: &Sample,
    neighbours: &[String],
) -> Result<Option<String>, Failure> {
    for neighbour in neighbours {
        let by_it = Sample { near_object: neighbour.clone(), ..sample.clone() };
        if engine.ask(name, &by_it).await?.ids.is_empty() {
            return Ok(Some(neighbour.clone()));
        }
    }
    Ok(None)
}

/// What an answer says of its sample.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Differs(String),
    /// The search finds the object and others than these neighbours.
    NotFound(Vec<String>),
}

/// One neighbour may differ without a question.
fn judge(sample: &Sample, found: &Answer) -> Verdict {
    let Sample { near_object, ids, digest, .. } = sample;
    let expects_something = digest.is_some() || !ids.is_empty();
    if expects_something && *found == Answer::default() {
        return Verdict::Differs(format!("{near_object} is missing"));
    }
    if digest.is_some() && *digest != found.digest {
        return Verdict::Differs(format!("{near_object} is not what it was"));
    }
    let named = |id: &&String| found.ids.contains(id) || (found.itself && *id == near_object);
    let lost: Vec<_> = ids.iter().filter(|id| !named(id)).cloned().collect();
    let finds_itself = found.itself || !ids.contains(near_object);
    let is_its_vector = digest.is_some() || found.twins;
    match lost.len() {
        0 | 1 if finds_itself => Verdict::Same,
        _ if finds_itself && is_its_vector && found.ids.len() >= ids.len() => Verdict::NotFound(lost),
        _ => {
            let common = ids.len() - lost.len();
            Verdict::Differs(format!("of the {} nearest neighbours of {near_object}, {common} are found", ids.len()))
        }
    }
}

/// Whether everything in the engine is what an interrupted restore of this backup put there: its collections with their full
/// counts. A collection that anybody wrote to since is not.
pub(super) async fn are_remains(engine: &dyn Engine, manifest: Option<&Manifest>) -> Result<bool, Failure> {
    let Some(manifest) = manifest else { return Ok(false) };
    let counted = engine.count().await?;
    Ok(counted
        .iter()
        .all(|found| manifest.collections.iter().any(|c| c.name == found.name && c.agrees_with(found.count))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;
    use crate::engine::{EngineError, Identity};

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|i| (*i).to_owned()).collect()
    }

    fn sample(ids: &[&str], digest: Option<&str>) -> Sample {
        Sample {
            tenant: None,
            vector: None,
            near_object: "a".into(),
            limit: 5,
            ids: strings(ids),
            digest: digest.map(Into::into),
        }
    }

    fn judged(sample: &Sample, ids: &[&str], digest: Option<&str>) -> Verdict {
        let itself = ids.contains(&sample.near_object.as_str());
        judge(sample, &Answer { ids: strings(ids), itself, twins: false, digest: digest.map(Into::into) })
    }

    #[test]
    fn one_neighbour_may_differ_more_must_be_there_the_object_itself_is_found() {
        let expected = sample(&["a", "b", "c", "d", "e"], Some("1"));
        let judged_as = |ids: &[&str]| judged(&expected, ids, Some("1"));
        assert_eq!(judged_as(&["a", "b", "c", "e", "d"]), Verdict::Same);
        assert_eq!(judged_as(&["a", "b", "c", "d", "x"]), Verdict::Same);
        assert_eq!(judged_as(&["a", "b", "c", "x", "y"]), Verdict::NotFound(strings(&["d", "e"])));
        assert!(matches!(judged_as(&["b", "c", "d", "e", "x"]), Verdict::Differs(_)), "itself");
        assert!(matches!(judged_as(&["a", "b", "c"]), Verdict::Differs(_)), "the index has fewer");
        assert!(matches!(judged_as(&[]), Verdict::Differs(_)));
        let one = judge(&sample(&["c"], None), &Answer::default());
        assert!(matches!(one, Verdict::Differs(why) if why.contains("missing")), "one object is one object");
    }

    #[test]
    fn without_a_digest_only_twins_stand_in_for_each_other() {
        let expected = sample(&["a", "b", "c", "d", "e"], None);
        assert!(matches!(judged(&expected, &["a", "b", "c", "x", "y"], None), Verdict::Differs(_)), "another vector?");
        let twins = Answer { ids: strings(&["v", "w", "x", "y", "z"]), itself: true, twins: true, digest: None };
        assert_eq!(judge(&expected, &twins), Verdict::NotFound(strings(&["b", "c", "d", "e"])));
    }

    /// An engine with these objects, whose search names the same answers whatever it is asked by.
    struct Fake {
        has: &'static [&'static str],
        names: &'static [&'static str],
    }

    #[async_trait::async_trait]
    impl Engine for Fake {
        async fn health(&self) -> Result<(), EngineError> {
            Ok(())
        }

        async fn identity(&self) -> Result<Identity, EngineError> {
            Ok(Identity { version: "1".into(), host_name: String::new() })
        }

        async fn collections(&self) -> Result<Vec<String>, EngineError> {
            Ok(strings(&["Doc"]))
        }

        async fn count(&self) -> Result<Vec<Counted>, EngineError> {
            Ok(vec![Counted { name: "Doc".into(), count: 9, ..Counted::default() }])
        }

        async fn samples(&self, _: &str, _: usize) -> Result<Vec<Sample>, EngineError> {
            Ok(vec![])
        }

        async fn ask(&self, _: &str, sample: &Sample) -> Result<Answer, EngineError> {
            if !self.has.contains(&sample.near_object.as_str()) {
                return Ok(Answer::default());
            }
            Ok(Answer { ids: strings(self.names), itself: true, twins: false, digest: Some("1".into()) })
        }

        fn can_refuse_writes(&self) -> bool {
            false
        }

        async fn refuse_writes(&self) -> Result<(), EngineError> {
            Ok(())
        }

        async fn accept_writes(&self) -> Result<(), EngineError> {
            Ok(())
        }

        async fn examine(&self) -> Vec<Check> {
            vec![]
        }
    }

    #[tokio::test]
    async fn what_a_search_does_not_name_must_be_there() {
        let collection = Collection {
            name: "Doc".into(),
            count_before: 9,
            count_after: 9,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![sample(&["a", "b", "c"], Some("1"))],
        };
        let id = "20261121t105501z-g0003-7f3a9c".parse().expect("an id");
        let manifest = Manifest { collections: vec![collection], ..perennial_shared::manifest::example(&id, &[]) };
        let there = Fake { has: &["a", "b", "c"], names: &["a", "x", "y"] };
        let compared = with_manifest(&there, Some(&manifest)).await.expect("all of it is there");
        assert!(compared.findings.iter().any(|f| f.contains("other neighbours")), "{compared:?}");
        assert_eq!(is_already(&there, Some(&manifest)).await, None, "somebody may have put it there");
        let gone = Fake { has: &["a", "b"], names: &["a", "x", "y"] };
        let error = with_manifest(&gone, Some(&manifest)).await.expect_err("one is gone");
        assert!(error.to_string().contains("c is missing"), "{error}");
        let same = Fake { has: &["a", "b", "c"], names: &["a", "b", "c"] };
        assert!(is_already(&same, Some(&manifest)).await.is_some());
    }

    #[test]
    fn what_an_object_holds_may_not_differ() {
        let expected = sample(&[], Some("12"));
        assert_eq!(judged(&expected, &[], Some("12")), Verdict::Same);
        assert!(matches!(judged(&expected, &[], Some("13")), Verdict::Differs(why) if why.contains("not what it was")));
        assert!(matches!(judge(&expected, &Answer::default()), Verdict::Differs(why) if why.contains("missing")));
    }

    #[test]
    fn counts_that_differ_are_named() {
        let expected = |name: &str| Collection {
            name: name.into(),
            count_before: 5,
            count_after: 6,
            uncounted_tenants: 0,
            may_expire: 0,
            churn: 0,
            samples: vec![],
        };
        let counted = [Counted { name: "Doc".into(), count: 4, ..Counted::default() }];
        let differences = count_differences(&[expected("Doc"), expected("Img")], &counted);
        assert_eq!(differences, ["Doc has 4 objects, the manifest says 6", "Img is missing"]);
        let expiring = |n| Collection { may_expire: n, ..expected("Gone") };
        assert!(count_differences(&[expiring(5)], &counted).is_empty(), "all of it could expire");
        assert_eq!(count_differences(&[expiring(4)], &counted), ["Gone is missing"]);
    }
}
