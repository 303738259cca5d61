//! Taking a backup: by the engine itself ([`native`]), or of its files ([`archived`]).
//!
//! Promises: a backup is published only when all of it is in the store, and only by the owner of the target under its own
//! generation. A crash at any point leaves the pointer at the last good backup and some objects that no manifest names, or a manifest
//! that no pointer names; both are whole or ignored.

mod archived;
pub mod chain;
mod churn;
mod inventory;
mod native;
mod objects;
mod owner;

use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::{self, BackupKind, Manifest, Reason};

use crate::context::Context;
use crate::failpoint;
use crate::failure::Failure;
use crate::watch::Watch;

/// The engine is given this long to be ready; one that serves already is.
const READY: Duration = Duration::from_secs(60);

/// What a backup is asked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Why it is taken.
    pub reason: Reason,
    /// This instance.
    pub instance: Option<String>,
    /// The generation that a function saw when it asked for this; a later one means that the target was taken over since.
    pub generation: Option<Generation>,
    /// Base or increment, where the engine's files are archived.
    pub kind: chain::Kind,
    /// Read files again although they look unchanged.
    pub reread: bool,
}

/// A published backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Its manifest.
    pub manifest: Manifest,
    /// What a person should know about it.
    pub findings: Vec<String>,
}

/// Takes and publishes a backup. The caller holds the target's lock.
pub async fn create(context: &Context, wish: &Wish, watch: &dyn Watch) -> Result<Made, Failure> {
    let engine = context.database().await?;
    if let Some((engine, native)) = engine.as_deref().and_then(|e| Some((e, context.native(e)?))) {
        return native::create(context, engine, native, wish, watch).await;
    }
    archived::create(context, engine.as_deref(), wish, watch).await
}

/// Makes a finished backup the newest.
async fn publish(context: &Context, wish: &Wish, manifest: &Manifest) -> Result<(), Failure> {
    context.repository.create_manifest(manifest).await?;
    failpoint::reach("backup-described");
    context.repository.publish(manifest, wish.instance.as_deref(), Timestamp::now()).await?;
    failpoint::reach("backup-published");
    Ok(())
}

/// The manifest of a base of the engine's own making, begun and ended now; what is different of another, its maker says.
fn describe(
    context: &Context,
    wish: &Wish,
    backup_id: BackupId,
    generation: Generation,
    took: Duration,
    objects: Vec<manifest::ObjectEntry>,
) -> Manifest {
    let target = &context.target;
    let now = Timestamp::now();
    let size_bytes = objects.iter().map(|o| o.size).sum::<u64>();
    let path = format!("{}/backups/{backup_id}", context.repository.location().trim_end_matches('/'));
    Manifest {
        format: manifest::FORMAT,
        latest_snapshot: backup_id.to_string(),
        latest_snapshot_to_path: path.clone(),
        latest_snapshot_size_in_mb: size_bytes.div_ceil(1 << 20),
        latest_snapshot_upload_duration_in_seconds: took.as_secs() + u64::from(took.subsec_nanos() > 0),
        backup_and_restore_path: target.data_dir.as_ref().map(|d| d.display().to_string()),
        backup_id,
        path,
        target: target.name.clone(),
        engine: target.engine.word().into(),
        engine_version: String::new(),
        host_name: String::new(),
        method: target.method.word().into(),
        kind: BackupKind::Base,
        parent: None,
        reason: wish.reason,
        generation,
        owner: wish.instance.clone(),
        started_at: now,
        finished_at: now,
        capture_seconds: took.as_secs_f64(),
        size_bytes,
        collections: vec![],
        objects,
        archive: None,
        tool_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Ends when the program is told to stop: by a person, by SSM cancelling the command, by a shutdown.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the program, as they do everywhere.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
