//! Whether the engine holds what the manifest says: counts, and what sample queries find.

use perennial_shared::manifest::{Collection, Manifest, Sample};

use crate::engine::{Counted, Engine};
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
    let counted = engine.count().await?;
    let objects = counted.iter().map(|c| c.count).sum();
    let Some(manifest) = manifest else {
        let findings = vec![format!("{objects} objects; the backup has no manifest to compare them with")];
        return Ok(Compared { objects, findings });
    };
    let mut differences = count_differences(&manifest.collections, &counted);
    let mut samples = 0;
    for collection in &manifest.collections {
        for sample in &collection.samples {
            samples += 1;
            let found = engine.ask(&collection.name, sample).await?;
            if !agrees(sample, &found) {
                differences.push(format!(
                    "{}: of the {} nearest neighbours of {}, {} are found",
                    collection.name,
                    sample.ids.len(),
                    sample.near_object,
                    found.iter().filter(|id| sample.ids.contains(id)).count()
                ));
            }
        }
    }
    if !differences.is_empty() {
        let message =
            format!("the restored data is not that of backup {}: {}", manifest.backup_id, differences.join("; "));
        return Err(Failure::new(Exit::Problems, "RestoreDiffers", message));
    }
    let findings = vec![
        format!("{objects} objects in {} collections, as the manifest says", manifest.collections.len()),
        format!("{samples} sample queries find what they found when the backup was made"),
    ];
    Ok(Compared { objects, findings })
}

fn count_differences(expected: &[Collection], counted: &[Counted]) -> Vec<String> {
    let mut differences = vec![];
    for collection in expected {
        match counted.iter().find(|c| c.name == collection.name) {
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

/// Approximate search may break a tie in another way, so one of the neighbours may differ; the object itself may not.
fn agrees(sample: &Sample, found: &[String]) -> bool {
    let common = sample.ids.iter().filter(|id| found.contains(id)).count();
    let itself = !sample.ids.contains(&sample.near_object) || found.contains(&sample.near_object);
    itself && common + 1 >= sample.ids.len()
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

    fn sample(ids: &[&str]) -> Sample {
        let ids: Vec<String> = ids.iter().map(|i| (*i).to_owned()).collect();
        Sample { tenant: None, vector: None, near_object: ids[0].clone(), limit: 5, ids }
    }

    fn found(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|i| (*i).to_owned()).collect()
    }

    #[test]
    fn one_neighbour_may_differ_the_object_itself_may_not() {
        let expected = sample(&["a", "b", "c", "d", "e"]);
        assert!(agrees(&expected, &found(&["a", "b", "c", "e", "d"])));
        assert!(agrees(&expected, &found(&["a", "b", "c", "d", "x"])));
        assert!(!agrees(&expected, &found(&["a", "b", "c", "x", "y"])));
        assert!(!agrees(&expected, &found(&["b", "c", "d", "e", "x"])));
        assert!(!agrees(&expected, &[]));
        assert!(!agrees(&sample(&["a"]), &[]), "one object is one object");
    }

    #[test]
    fn counts_that_differ_are_named() {
        let expected = |name: &str| Collection {
            name: name.into(),
            count_before: 5,
            count_after: 6,
            uncounted_tenants: 0,
            samples: vec![],
        };
        let counted = [Counted { name: "Doc".into(), count: 4, uncounted_tenants: 0 }];
        let differences = count_differences(&[expected("Doc"), expected("Img")], &counted);
        assert_eq!(differences, ["Doc has 4 objects, the manifest says 6", "Img is missing"]);
    }
}
