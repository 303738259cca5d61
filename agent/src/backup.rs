//! Taking a backup: the engine writes it, then it is counted, hashed, described and published, in this order.
//!
//! Promises: a backup is published only when every object that the engine says it wrote was read back and hashed, and only by the
//! owner of the target under its own generation. A crash at any point leaves the pointer at the last good backup and some
//! objects that no manifest names, or a manifest that no pointer names; both are whole or ignored, and the next
//! backup has another id. A capture that a killed run left running in the engine is cancelled by the next one.

mod archived;
pub mod chain;
mod inventory;
mod objects;
mod owner;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::{self, BackupKind, Manifest, Reason, Sample};
use perennial_shared::repository::Repository;
use perennial_shared::settings::Engine as Kind;

use crate::context::Context;
use crate::engine::{Engine, EngineError, Identity, Place, Step};
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::watch::{Progress, Watch, alive};
use objects::Described;

/// The engine is given this long to be ready; one that serves already is.
const READY: Duration = Duration::from_secs(60);
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Captures that are tried until one has everything.
const CAPTURES: usize = 3;
const STOP_PATIENCE: Duration = Duration::from_secs(60);

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

impl Made {
    /// Objects in all collections, as counted after the capture.
    pub fn objects(&self) -> u64 {
        self.manifest.collections.iter().map(|c| c.count_after).sum()
    }
}

/// Takes and publishes a backup. The caller holds the target's lock.
pub async fn create(context: &Context, wish: &Wish, watch: &dyn Watch) -> Result<Made, Failure> {
    if context.target.engine == Kind::Files {
        return tokio::select! {
            made = archived::create(context, wish, watch) => made,
            () = told_to_stop() => {
                let message = "the backup was told to stop; nothing was published";
                Err(Failure::new(Exit::Failed, "Interrupted", message))
            }
        };
    }
    if wish.kind == chain::Kind::Incremental {
        let message = "the engine's own backup is always a base; say --type base, or nothing";
        return Err(Failure::new(Exit::Usage, "NoIncrement", message));
    }
    let deadline = Instant::now() + context.target.backup.timeout;
    let engine = context.engine().await?;
    let work = Work { context, engine: &*engine, wish, watch, deadline, capturing: Mutex::default() };
    tokio::select! {
        made = work.run() => return made,
        () = told_to_stop() => {}
    }
    Err(work.stop().await)
}

struct Work<'a> {
    context: &'a Context,
    engine: &'a dyn Engine,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    deadline: Instant,
    /// The capture that the engine is busy with.
    capturing: Mutex<Option<Place>>,
}

impl Work<'_> {
    async fn run(&self) -> Result<Made, Failure> {
        self.say("reading the pointer");
        let generation = owner::generation(&self.context.repository, self.wish).await?;
        let ready = self.engine.wait_until_ready(READY.min(self.time_left()));
        alive(self.watch, "waiting for the engine", ready).await?;
        let identity = self.engine.identity().await?;
        if self.wish.reason == Reason::Final {
            // An attempt before this one may have ended in read-only mode, in which the engine cannot be backed up.
            self.engine.accept_writes().await?;
        }
        let counting = "counting and asking sample queries";
        let before = alive(self.watch, counting, inventory::take(self.engine)).await?;

        let capture = self.searchable_capture(generation, &inventory::searched(&before)).await?;
        failpoint::reach("backup-captured");
        if self.wish.reason == Reason::Final {
            self.engine.refuse_writes().await?;
        }
        let collections = alive(self.watch, "counting again", inventory::again(self.engine, before)).await?;

        let described = &capture.described.description;
        let (collections, mut findings) = inventory::reconcile(collections, described, self.wish.reason)?;
        findings.extend(capture.finding());
        let objects = objects::hash(self.context, &capture.id, &capture.described, self.watch).await?;
        failpoint::reach("backup-hashed");
        let manifest = self.manifest(capture, generation, identity, collections, objects);
        self.publish(&manifest).await?;
        Ok(Made { manifest, findings })
    }

    fn say(&self, stage: &str) {
        self.watch.see(&Progress::stage(stage));
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A capture whose shards all have the index by which they were searched. The engine can leave out an index that was begun in
    /// the second of the capture; the next capture has it. What is missing twice is no matter of seconds, and is said.
    async fn searchable_capture(
        &self,
        generation: Generation,
        searched: &[(String, Sample)],
    ) -> Result<Capture, Failure> {
        let mut last = vec![];
        for _ in 0..CAPTURES {
            let capture = self.capture_once(generation, searched).await?;
            let missing = &capture.described.unsearchable;
            if missing.is_empty() || *missing == last {
                return Ok(capture);
            }
            self.say(&format!(
                "backup {} lacks the vector index of {}; capturing again",
                capture.id,
                missing.join(", ")
            ));
            last.clone_from(missing);
        }
        let message =
            format!("{CAPTURES} captures lacked the vector index of one shard or another, last of {}", last.join(", "));
        Err(Failure::new(Exit::Failed, "BackupIncomplete", message))
    }

    async fn capture_once(&self, generation: Generation, searched: &[(String, Sample)]) -> Result<Capture, Failure> {
        let started_at = Timestamp::now();
        let id = BackupId::new(started_at, generation);
        failpoint::reach("backup-before-capture");
        let took = self.capture(&id).await?;
        let described = objects::described(self.context, self.engine, &id, searched).await?;
        Ok(Capture { id, started_at, took, described })
    }

    /// The engine's own backup. It does one at a time: one that a killed run of ours left is cancelled, any other is waited for.
    async fn capture(&self, id: &BackupId) -> Result<Duration, Failure> {
        let place = self.context.place("backups", id.as_str())?;
        let told = |step: Step<'_>| {
            failpoint::reach("backup-capturing");
            self.watch.see(&Progress::stage(format!("the engine writes backup {id} ({})", step.state.to_lowercase())));
        };
        loop {
            self.set_capturing(Some(place.clone()));
            let captured = self.engine.capture(&place, self.time_left(), &told).await;
            self.set_capturing(None);
            match captured {
                Ok(captured) => return Ok(captured.took),
                Err(EngineError::Busy { what, id }) if !self.time_left().is_zero() => self.make_way(what, &id).await?,
                Err(e) => return Err(e.into()),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    async fn make_way(&self, what: &str, other: &str) -> Result<(), Failure> {
        match other.parse::<BackupId>().ok().filter(|id| what == "backup" && id.generation().is_some()) {
            Some(left_over) => {
                self.say(&format!("cancelling {left_over}, which an interrupted run left in the engine"));
                self.engine.cancel_capture(&self.context.place("backups", left_over.as_str())?).await?;
            }
            None => self.say(&format!("waiting for the engine's {what} {other}")),
        }
        Ok(())
    }

    fn set_capturing(&self, place: Option<Place>) {
        if let Ok(mut capturing) = self.capturing.lock() {
            *capturing = place;
        }
    }

    /// Cancels what the engine is doing for this backup: it would go on for hours otherwise.
    async fn stop(&self) -> Failure {
        let capturing = self.capturing.lock().ok().and_then(|mut c| c.take());
        let outcome = match capturing {
            None => "nothing was published".to_owned(),
            Some(place) => match tokio::time::timeout(STOP_PATIENCE, self.engine.cancel_capture(&place)).await {
                Ok(Ok(())) => "the engine's backup was cancelled".to_owned(),
                Ok(Err(e)) => format!("cancelling the engine's backup failed: {e}"),
                Err(_) => "cancelling the engine's backup took too long".to_owned(),
            },
        };
        Failure::new(Exit::Failed, "Interrupted", format!("the backup was told to stop; {outcome}"))
    }

    fn manifest(
        &self,
        capture: Capture,
        generation: Generation,
        identity: Identity,
        collections: Vec<manifest::Collection>,
        objects: Vec<manifest::ObjectEntry>,
    ) -> Manifest {
        let Capture { id, started_at, took, .. } = capture;
        let described = describe(self.context, self.wish, id, generation, took, objects);
        Manifest {
            engine_version: identity.version,
            host_name: identity.host_name,
            started_at,
            collections,
            ..described
        }
    }

    async fn publish(&self, manifest: &Manifest) -> Result<(), Failure> {
        self.say("publishing");
        let repository: &Repository = &self.context.repository;
        repository.create_manifest(manifest).await?;
        failpoint::reach("backup-described");
        repository.publish(manifest, self.wish.instance.as_deref(), Timestamp::now()).await?;
        failpoint::reach("backup-published");
        Ok(())
    }
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
        method: "native".into(),
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

/// A finished capture that is not published yet.
struct Capture {
    id: BackupId,
    started_at: Timestamp,
    took: Duration,
    described: Described,
}

impl Capture {
    fn finding(&self) -> Option<String> {
        let missing = &self.described.unsearchable;
        let what = "objects without vectors, or vectors that a restore will not find";
        (!missing.is_empty()).then(|| format!("{} has no vector index in the backup: {what}", missing.join(", ")))
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
