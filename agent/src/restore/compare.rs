//! Whether the engine holds what the manifest says: counts, and what sample queries find.

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
    let mut samples = 0;
    for collection in &manifest.collections {
        for sample in &collection.samples {
            samples += 1;
            let found = engine.ask(installed.name(&collection.name), sample).await?;
            differences.extend(difference(&collection.name, sample, &found));
        }
    }
    if !differences.is_empty() {
        let message =
            format!("the restored data is not that of backup {}: {}", manifest.backup_id, differences.join("; "));
        return Err(Failure::new(Exit::Problems, "RestoreDiffers", message));
    }
    let findings = vec![
        format!("{objects} objects in {} collections, as the manifest says", manifest.collections.len()),
        format!("{samples} samples are what they were when the backup was made"),
    ];
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

/// What is different of a sample. The object must be what it was, bit for bit; approximate search may break a tie in another
/// way, so one of the neighbours may differ; the object itself may not be missing among them.
fn difference(collection: &str, sample: &Sample, found: &Answer) -> Option<String> {
    let Sample { near_object, ids, .. } = sample;
    if sample.digest.is_some() && sample.digest != found.digest {
        let what = if found.digest.is_none() { "is missing" } else { "is not what it was" };
        return Some(format!("{collection}: {near_object} {what}"));
    }
    let common = ids.iter().filter(|id| found.ids.contains(id)).count();
    let itself = !ids.contains(near_object) || found.ids.contains(near_object);
    (!itself || common + 1 < ids.len())
        .then(|| format!("{collection}: of the {} nearest neighbours of {near_object}, {common} are found", ids.len()))
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

    fn agrees(sample: &Sample, ids: &[&str], digest: Option<&str>) -> bool {
        difference("Doc", sample, &Answer { ids: strings(ids), digest: digest.map(Into::into) }).is_none()
    }

    #[test]
    fn one_neighbour_may_differ_the_object_itself_may_not() {
        let expected = sample(&["a", "b", "c", "d", "e"], None);
        assert!(agrees(&expected, &["a", "b", "c", "e", "d"], None));
        assert!(agrees(&expected, &["a", "b", "c", "d", "x"], None));
        assert!(!agrees(&expected, &["a", "b", "c", "x", "y"], None));
        assert!(!agrees(&expected, &["b", "c", "d", "e", "x"], None));
        assert!(!agrees(&expected, &[], None));
        assert!(!agrees(&sample(&["a"], None), &[], None), "one object is one object");
    }

    #[test]
    fn what_an_object_holds_may_not_differ() {
        let expected = sample(&[], Some("12"));
        assert!(agrees(&expected, &[], Some("12")));
        assert!(!agrees(&expected, &[], Some("13")));
        assert!(!agrees(&expected, &[], None));
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
