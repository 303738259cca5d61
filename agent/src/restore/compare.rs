//! Whether the engine holds what the manifest says: counts, and what sample queries find.
//!
//! An object must be what it was, bit for bit, and a search by its vector must find it. Which neighbours a search finds is not the data's
//! alone: an engine that makes its index anew walks it on other paths, and of objects with the same vector (the same text, stored twice) any
//! may be named. So neighbours that a search does not find must only be there.

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
}

/// Compares; a difference is a failure. Without a manifest there is nothing to compare with, which is said.
pub(super) async fn with_manifest(engine: &dyn Engine, manifest: Option<&Manifest>) -> Result<Compared, Failure> {
    installed(engine, manifest, &Installed::default()).await
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
        return Ok(Compared { objects, findings });
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
    findings.extend(remarks);
    Ok(Compared { objects, findings })
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
                Some(gone) => differences.push(format!("{}: {gone} is missing", collection.name)),
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

/// The first of these objects that the engine does not have.
async fn first_gone(
    engine: &dyn Engine,
    name: &str,
    sample: &Sample,
    neighbours: &[String],
) -> Result<Option<String>, Failure> {
    for neighbour in neighbours {
        let by_it = Sample { near_object: neighbour.clone(), ..sample.clone() };
        if engine.ask(name, &by_it).await? == Answer::default() {
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
    let Sample { near_object, ids, .. } = sample;
    if sample.digest.is_some() && sample.digest != found.digest {
        let what = if found.digest.is_none() { "is missing" } else { "is not what it was" };
        return Verdict::Differs(format!("{near_object} {what}"));
    }
    let lost: Vec<_> = ids.iter().filter(|id| !found.ids.contains(id)).cloned().collect();
    let finds_itself = found.itself || !ids.contains(near_object);
    match lost.len() {
        0 | 1 if finds_itself => Verdict::Same,
        _ if finds_itself && found.ids.len() >= ids.len() => Verdict::NotFound(lost),
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
        judge(sample, &Answer { ids: strings(ids), itself, digest: digest.map(Into::into) })
    }

    #[test]
    fn one_neighbour_may_differ_more_must_be_there_the_object_itself_is_found() {
        let expected = sample(&["a", "b", "c", "d", "e"], None);
        assert_eq!(judged(&expected, &["a", "b", "c", "e", "d"], None), Verdict::Same);
        assert_eq!(judged(&expected, &["a", "b", "c", "d", "x"], None), Verdict::Same);
        let lost = |ids: &[&str]| Verdict::NotFound(strings(ids));
        assert_eq!(judged(&expected, &["a", "b", "c", "x", "y"], None), lost(&["d", "e"]));
        let differs = |ids: &[&str]| matches!(judged(&expected, ids, None), Verdict::Differs(_));
        assert!(differs(&["b", "c", "d", "e", "x"]), "itself");
        assert!(differs(&["a", "b", "c"]), "the index has fewer");
        assert!(differs(&[]));
        assert!(matches!(judged(&sample(&["a"], None), &[], None), Verdict::Differs(_)), "one object is one object");
    }

    #[test]
    fn of_objects_with_the_same_vector_any_may_be_named() {
        let expected = sample(&["a", "b", "c", "d", "e"], None);
        let found = Answer { ids: strings(&["v", "w", "x", "y", "z"]), itself: true, digest: None };
        assert_eq!(judge(&expected, &found), Verdict::NotFound(expected.ids.clone()));
    }

    #[test]
    fn what_an_object_holds_may_not_differ() {
        let expected = sample(&[], Some("12"));
        assert_eq!(judged(&expected, &[], Some("12")), Verdict::Same);
        assert!(matches!(judged(&expected, &[], Some("13")), Verdict::Differs(why) if why.contains("not what it was")));
        assert!(matches!(judged(&expected, &[], None), Verdict::Differs(why) if why.contains("missing")));
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
