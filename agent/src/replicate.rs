//! Copies of a backup in further repositories: other regions, other accounts.
//!
//! Promises: a copy is published only when every object that the backup needs is there, with the SHA-256 of its manifest, which is
//! computed again on the way; the copy's pointer never goes back to an older generation. The bytes are the same, so whatever
//! restores from one restores from the other. A crash leaves objects that the next copy finds and does not send again.

mod fall_over;

use bytes::Bytes;
use perennial_shared::encryption::keyring;
use perennial_shared::manifest::{ArchiveObject, Manifest, ObjectEntry};
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::Repository;
use perennial_shared::store::{Store, StoreError};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use crate::archive::upload::{Destination, ObjectWriter};
use crate::context::{Context, key_id};
use crate::failure::{Exit, Failure};
use crate::watch::{Progress, Watch};

pub use fall_over::{another_may_help, from_where_it_can};

/// What is read at once.
const PIECE: usize = 1 << 20;

/// An object that a backup needs.
struct Needed {
    key: String,
    size: u64,
    sha256: String,
}

/// Copies the backup to every replica of the target. All are tried; one that failed is a failure that names it.
pub async fn everywhere(context: &Context, manifest: &Manifest, watch: &dyn Watch) -> Result<Vec<String>, Failure> {
    let (mut done, mut failed) = (vec![], vec![]);
    for settings in &context.target.replicas {
        let copied = match context.with_repository(settings) {
            Ok(replica) => one(context, &replica, manifest, watch).await,
            Err(e) => Err(e),
        };
        match copied {
            Ok(bytes) => done.push(format!("copied to {settings}: {} MiB sent", bytes.div_ceil(1 << 20))),
            Err(e) => failed.push(format!("{settings}: {}", e.message)),
        }
    }
    if failed.is_empty() {
        return Ok(done);
    }
    let id = &manifest.backup_id;
    let message = format!("backup {id} is published, but it was not copied to {}", failed.join("; "));
    Err(Failure::new(Exit::Failed, "ReplicaFailed", message))
}

/// Copies the backup to one replica, and tells how many bytes had to be sent.
async fn one(from: &Context, to: &Context, manifest: &Manifest, watch: &dyn Watch) -> Result<u64, Failure> {
    let mut sent = 0;
    for needed in needed(manifest) {
        let stage = format!("copying {} to {}", needed.key, to.repository.location());
        watch.see(&Progress { stage, done: sent, total: None });
        if !is_there(to.repository.store(), &needed).await? {
            sent += needed.size;
            copy(from, to, needed).await?;
        }
    }
    if let Some(id) = manifest.archive.as_ref().and_then(|a| a.key_id.as_deref()) {
        keyring::copy(&from.repository, &to.repository, &key_id(id)?).await?;
    }
    let key = Repository::manifest_key(&manifest.backup_id);
    let body = from.repository.manifest_bytes(&manifest.backup_id).await?;
    to.repository.store().create(&key, body).await?;
    follow(&from.repository, &to.repository).await?;
    Ok(sent)
}

fn needed(manifest: &Manifest) -> Vec<Needed> {
    if let Some(archive) = &manifest.archive {
        let of = |o: &ArchiveObject| Needed { key: o.full_key(), size: o.size, sha256: o.sha256.clone() };
        return archive.objects.iter().map(of).collect();
    }
    let prefix = Repository::backup_prefix(&manifest.backup_id);
    let of = |o: &ObjectEntry| Needed { key: format!("{prefix}{}", o.key), size: o.size, sha256: o.sha256.clone() };
    manifest.objects.iter().map(of).collect()
}

/// An object appears whole or not at all, and only after its hash was compared, so its size tells that it is the one.
async fn is_there(store: &dyn Store, needed: &Needed) -> Result<bool, Failure> {
    match store.head(&needed.key).await {
        Ok(meta) => Ok(meta.size == needed.size),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

async fn copy(from: &Context, to: &Context, needed: Needed) -> Result<(), Failure> {
    let mut reader = from.repository.store().read(&needed.key).await?;
    let destination = Destination {
        store: to.repository.shared_store(),
        key: needed.key.clone(),
        settings: to.target.upload,
        resume: None,
    };
    let (handle, location) = (Handle::current(), from.repository.location());
    let copying = tokio::task::spawn_blocking(move || {
        let mut writer = ObjectWriter::new(destination, handle.clone());
        loop {
            let mut piece = vec![0; PIECE];
            let read = handle.block_on(reader.read(&mut piece));
            let read = read.map_err(|e| Failure::from(StoreError::from_read(e, &needed.key, location.clone())))?;
            if read == 0 {
                break;
            }
            piece.truncate(read);
            writer.append(Bytes::from(piece))?;
        }
        if writer.position() != needed.size || writer.sha256() != needed.sha256 {
            let message = format!("{} in {location} is not what its manifest says; it was not copied", needed.key);
            return Err(Failure::new(Exit::Problems, "BackupDamaged", message));
        }
        writer.finish()?;
        Ok(())
    });
    copying.await.map_err(|e| Failure::new(Exit::Failed, "Interrupted", e.to_string()))?
}

/// The copy's pointer says what the original's says.
async fn follow(from: &Repository, to: &Repository) -> Result<(), Failure> {
    let PointerState::Present { pointer, .. } = from.pointer().await? else { return Ok(()) };
    let seen = to.pointer().await?;
    if seen.pointer().is_some_and(|there| there.generation > pointer.generation) {
        let message = "its pointer has a later generation: is it another target's, or was it restored from?";
        return Err(Failure::new(Exit::Refused, "ReplicaAhead", format!("{}: {message}", to.location())));
    }
    to.set_pointer(&seen, &pointer).await?;
    Ok(())
}
