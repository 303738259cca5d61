//! The objects that the engine wrote: all there, read back, hashed.
//!
//! The engine stores neither sizes nor checksums. So every chunk that its own description names must be in the listing, and each
//! object's SHA-256 is computed from what the store gives back, which is what a restore will get.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use perennial_shared::id::BackupId;
use perennial_shared::manifest::{ObjectEntry, Sample};
use perennial_shared::repository::Repository;
use perennial_shared::store::{Meta, StoreError};
use perennial_shared::verify::sha256_while;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;
use crate::engine::NativeBackup;
use crate::engine::native::Description;
use crate::failure::{Exit, Failure};
use crate::watch::{Progress, Watch};

/// Objects read at once. Each needs a buffer of some hundred kilobytes; hashing is a core's work.
const AT_ONCE: usize = 4;

/// What the engine wrote, in its own words and in the store's.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) description: Description,
    /// Shards that would restore and find nothing.
    pub(super) unsearchable: Vec<String>,
    objects: Vec<Meta>,
}

/// Reads the engine's description of the backup and checks that everything it names is there.
pub(super) async fn described(
    context: &Context,
    native: &dyn NativeBackup,
    id: &BackupId,
    searched: &[(String, Sample)],
) -> Result<Described, Failure> {
    let store = context.repository.store();
    let prefix = Repository::backup_prefix(id);
    let config = format!("{prefix}{}", native.description_key());
    let body = store.get(&config).await.map_err(|e| elsewhere(e, context, id))?.body;
    let description = native.describe(&body)?;

    let mut objects = store.list(&prefix).await?;
    objects.retain(|m| !native.is_bookkeeping(&m.key[prefix.len()..]));
    let present: BTreeSet<&str> = objects.iter().map(|m| &m.key[prefix.len()..]).collect();
    let mut unsearchable = vec![];
    for part in native.part_keys(&description) {
        let body = store.get(&format!("{prefix}{part}")).await?.body;
        unsearchable.extend(native.unsearchable(&body, searched).await?);
        let expected = native.expected_keys(&part, &body)?;
        if let Some(missing) = expected.iter().find(|k| !present.contains(k.as_str())) {
            let message = format!(
                "the engine said that backup {id} is done, but its object {missing} is not there; it was not published"
            );
            return Err(Failure::new(Exit::Failed, "BackupIncomplete", message));
        }
    }
    Ok(Described { description, unsearchable, objects })
}

/// The engine said SUCCESS and the repository has nothing: they look at different places.
fn elsewhere(error: StoreError, context: &Context, id: &BackupId) -> Failure {
    if !matches!(error, StoreError::NotFound { .. }) {
        return error.into();
    }
    let message = format!(
        "the engine wrote backup {id}, but it is not in {}; does the engine use the same S3 endpoint and account as this program?",
        context.repository.location()
    );
    Failure::new(Exit::Failed, "BackupElsewhere", message)
}

/// Hashes every object.
pub(super) async fn hash(
    context: &Context,
    id: &BackupId,
    described: &Described,
    watch: &dyn Watch,
) -> Result<Vec<ObjectEntry>, Failure> {
    let total = described.objects.iter().map(|m| m.size).sum();
    let done = AtomicU64::new(0);
    let say = |more: u64| {
        let done = done.fetch_add(more, Ordering::Relaxed) + more;
        watch.see(&Progress { stage: "reading the backup back and hashing it".into(), done, total: Some(total) });
    };
    say(0);
    let entries = stream::iter(&described.objects).map(|meta| async { hash_one(context, id, meta, &say).await });
    let mut entries: Vec<_> = entries.buffer_unordered(AT_ONCE).try_collect().await?;
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(entries)
}

async fn hash_one(
    context: &Context,
    id: &BackupId,
    meta: &Meta,
    told: &(dyn Fn(u64) + Sync),
) -> Result<ObjectEntry, Failure> {
    let (sha256, size) = sha256_while(context.repository.store(), &meta.key, told).await?;
    if size != meta.size {
        let message = format!(
            "{} was listed with {} bytes and read with {size}; the backup was not published",
            meta.key, meta.size
        );
        return Err(Failure::new(Exit::Failed, "BackupIncomplete", message));
    }
    let key = meta.key[Repository::backup_prefix(id).len()..].to_owned();
    Ok(ObjectEntry { key, size, sha256, etag: meta.version.as_str().into() })
}
