//! One backup into one replica.
//!
//! Promises: the copy is published only when the replica lists every object that the backup needs with its size, each of which had the
//! SHA-256 of its manifest on the way, and has the key that they are encrypted with; afterwards the replica gave back the manifest's
//! very bytes. The copy's pointer never goes back to an older generation. The bytes are the same, so whatever restores from one
//! restores from the other. A crash leaves objects that the next copy finds and does not send again.

use std::collections::BTreeSet;

use bytes::Bytes;
use perennial_shared::encryption::{KeyringError, keyring};
use perennial_shared::id::BackupId;
use perennial_shared::manifest::{ArchiveObject, Manifest, ObjectEntry};
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::{Repository, RepositoryError};
use perennial_shared::resolve::{Sizes, missing, sizes};
use perennial_shared::store::{Meta, Reader, StoreError};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use crate::archive::upload::{Destination, ObjectWriter, Pace, settings_for};
use crate::context::{Context, key_id};
use crate::failure::{Exit, Failure};
use crate::watch::{Progress, Watch};

/// What is read at once.
const PIECE: usize = 1 << 20;

/// Why a backup was not copied.
#[derive(Debug)]
pub(super) enum CopyError {
    /// It is damaged or no longer there: another one may still be copied.
    Backup(Failure),
    /// A repository did not do what it was asked.
    Repository(Failure),
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Repository(failure)
    }
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Backup(failure) | CopyError::Repository(failure) => failure,
        }
    }
}

/// An object that a backup needs.
struct Needed {
    key: String,
    size: u64,
    sha256: String,
}

/// Copies the backup, and tells how many bytes had to be sent.
pub(super) async fn backup(from: &Context, to: &Context, id: &BackupId, watch: &dyn Watch) -> Result<u64, CopyError> {
    let body = from.repository.manifest_bytes(id).await.map_err(unread)?;
    let manifest = Manifest::parse(id.as_str(), &body).map_err(|e| CopyError::Backup(e.into()))?;
    if let Some(why) = missing(&manifest, &sizes(&listed(&from.repository, &manifest).await?)) {
        return Err(damaged(format!("{why} in {}", from.repository.location())));
    }
    let mut sent = 0;
    let held = listed(&to.repository, &manifest).await?;
    let there = sizes(&held);
    for needed in needed(&manifest) {
        let stage = format!("copying {} to {}", needed.key, to.repository.location());
        watch.see(&Progress { stage, done: sent, total: None });
        if !is_there(&there, &needed) {
            sent += needed.size;
            object(from, to, needed).await?;
        }
    }
    key(from, to, &manifest).await?;
    publish(&to.repository, &manifest, body).await?;
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

/// What is in the folders that the backup has objects in: its own, and those of its parents.
async fn listed(repository: &Repository, manifest: &Manifest) -> Result<Vec<Meta>, StoreError> {
    let own = Repository::backup_prefix(&manifest.backup_id);
    let parents = manifest.archive.iter().flat_map(|a| &a.objects).map(|o| Repository::backup_prefix(&o.backup_id));
    let folders: BTreeSet<_> = parents.chain([own]).collect();
    let mut found = vec![];
    for folder in folders {
        found.extend(repository.store().list(&folder).await?);
    }
    Ok(found)
}

/// The size suffices: a key is used once, and what stands under it appeared whole, after its SHA-256 was compared. Stores name the
/// versions of the same bytes each in its own way, and have no SHA-256 of what came in parts. What rots afterwards is found by
/// `backup verify --replica`.
fn is_there(there: &Sizes<'_>, needed: &Needed) -> bool {
    there.get(needed.key.as_str()) == Some(&needed.size)
}

async fn object(from: &Context, to: &Context, needed: Needed) -> Result<(), CopyError> {
    let mut reader = from.repository.store().read(&needed.key).await.map_err(|e| unread(e.into()))?;
    let destination = Destination {
        store: to.repository.shared_store(),
        key: needed.key.clone(),
        settings: settings_for(to.target.upload, needed.size),
        pace: Pace::new(to.target.upload.bandwidth),
        resume: None,
    };
    let (handle, location) = (Handle::current(), from.repository.location());
    let copying = tokio::task::spawn_blocking(move || {
        let mut writer = ObjectWriter::new(destination, handle.clone());
        match pour(&mut reader, &mut writer, &handle, &needed, &location) {
            Ok(()) => Ok(writer.finish().map(|_| ()).map_err(Failure::from)?),
            Err(e) => {
                writer.abandon();
                Err(e)
            }
        }
    });
    copying.await.map_err(|e| Failure::new(Exit::Failed, "Interrupted", e.to_string()))?
}

/// All of an object, which must be what its manifest says.
fn pour(
    reader: &mut Reader,
    writer: &mut ObjectWriter,
    handle: &Handle,
    needed: &Needed,
    location: &str,
) -> Result<(), CopyError> {
    loop {
        let mut piece = vec![0; PIECE];
        let read = handle.block_on(reader.read(&mut piece));
        let read = read.map_err(|e| unread(StoreError::from_read(e, &needed.key, location).into()))?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        writer.append(Bytes::from(piece)).map_err(Failure::from)?;
    }
    if writer.position() == needed.size && writer.sha256() == needed.sha256 {
        return Ok(());
    }
    Err(damaged(format!("{} in {location} is not what its manifest says; it was not copied", needed.key)))
}

async fn key(from: &Context, to: &Context, manifest: &Manifest) -> Result<(), CopyError> {
    let Some(id) = manifest.archive.as_ref().and_then(|a| a.key_id.as_deref()) else { return Ok(()) };
    let id = key_id(id).map_err(CopyError::Backup)?;
    match keyring::copy(&from.repository, &to.repository, &id).await {
        Err(e @ KeyringError::NoKey { .. }) => Err(CopyError::Backup(e.into())),
        done => Ok(done.map_err(Failure::from)?),
    }
}

/// From here on the replica has the backup.
async fn publish(replica: &Repository, manifest: &Manifest, body: Bytes) -> Result<(), Failure> {
    let id = &manifest.backup_id;
    let kept_badly = |why: String| {
        let message = format!("{} did not keep backup {id} as it was sent there: {why}", replica.location());
        Failure::new(Exit::Problems, "ReplicaDamaged", message)
    };
    if let Some(why) = missing(manifest, &sizes(&listed(replica, manifest).await?)) {
        return Err(kept_badly(why));
    }
    replica.store().create(&Repository::manifest_key(id), body.clone()).await?;
    if replica.manifest_bytes(id).await? != body {
        return Err(kept_badly("its manifest reads differently".into()));
    }
    Ok(())
}

/// The copy's pointer says what the original's says.
pub(super) async fn follow(from: &Repository, to: &Repository) -> Result<(), Failure> {
    let PointerState::Present { pointer, .. } = from.pointer().await? else { return Ok(()) };
    let seen = to.pointer().await?;
    if seen.pointer().is_some_and(|there| there.generation > pointer.generation) {
        let message = "its pointer has a later generation: is it another target's, or was it restored from?";
        return Err(Failure::new(Exit::Refused, "ReplicaAhead", format!("{}: {message}", to.location())));
    }
    to.set_pointer(&seen, &pointer).await?;
    Ok(())
}

fn damaged(what: String) -> CopyError {
    CopyError::Backup(Failure::new(Exit::Problems, "BackupDamaged", what))
}

/// What it means that the first repository did not give something of the backup.
fn unread(error: RepositoryError) -> CopyError {
    use RepositoryError as R;
    let of_the_backup = match &error {
        R::Store(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) | R::Manifest(_) | R::Damaged { .. } => true,
        R::Store(_) => false,
    };
    let failure = error.into();
    if of_the_backup { CopyError::Backup(failure) } else { CopyError::Repository(failure) }
}
