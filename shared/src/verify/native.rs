//! The objects of an engine's own backup: each is there with its size, and hashes to what its manifest says.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::report::{Report, Verdict, verdict_of};
use super::sha256::sha256_while;
use super::{Depth, Options};
use crate::aws::chain;
use crate::manifest::{Manifest, ObjectEntry};
use crate::repository::{Repository, RepositoryError};
use crate::resolve::{missing, sizes};

/// Looks at every object, and reads all of them unless only the structure is asked for.
pub(super) async fn check(repository: &Repository, manifest: &Manifest, options: &Options, report: &mut Report) {
    report.objects = manifest.objects.len();
    match repository.store().list(&Repository::backup_prefix(&manifest.backup_id)).await {
        Ok(present) => {
            if let Some(why) = missing(manifest, &sizes(&present)) {
                report.note(Verdict::Damaged, why);
            }
        }
        Err(e) => {
            let e = RepositoryError::Store(e);
            return report.note(verdict_of(&e), chain(&e));
        }
    }
    if options.depth != Depth::Structure {
        options.progress.total.store(manifest.size_bytes, Ordering::Relaxed);
        hash_objects(repository, manifest, options, report).await;
    }
}

async fn hash_objects(repository: &Repository, manifest: &Manifest, options: &Options, report: &mut Report) {
    for (index, object) in manifest.objects.iter().enumerate() {
        if options.deadline.is_some_and(|d| Instant::now() >= d) {
            let left = manifest.objects.len() - index;
            report.note(
                Verdict::CouldNotTell,
                format!("time ran out: {left} of {} objects were not read", report.objects),
            );
            return;
        }
        match hash_object(repository, manifest, object, options).await {
            Ok(found) if found == object.sha256 => {
                report.objects_good += 1;
                report.bytes_read += object.size;
            }
            Ok(found) => report.note(
                Verdict::Damaged,
                format!("{} has SHA-256 {found}, its manifest says {}", object.key, object.sha256),
            ),
            Err(e) => report.note(verdict_of(&e), chain(&e)),
        }
    }
}

async fn hash_object(
    repository: &Repository,
    manifest: &Manifest,
    object: &ObjectEntry,
    options: &Options,
) -> Result<String, RepositoryError> {
    let key = format!("{}{}", Repository::backup_prefix(&manifest.backup_id), object.key);
    let read = |bytes| options.progress.add(bytes);
    Ok(sha256_while(repository.store(), &key, read).await?.0)
}
