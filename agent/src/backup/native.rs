//! A backup that the engine writes itself: it is counted, hashed, described and published, in this order.
//!
//! Promises: published only when every object that the engine says it wrote was read back and hashed. A capture that a killed run left
//! running in the engine is cancelled by the next one.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::{self, Manifest, Reason, Sample};

use super::objects::{self, Described};
use super::{Made, READY, Wish, chain, describe, inventory, owner, publish, told_to_stop};
use crate::context::Context;
use crate::engine::native::Place;
use crate::engine::{Engine, EngineError, Identity, NativeBackup, Step};
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::watch::{Progress, Watch, alive};

const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Captures that are tried until one has everything.
const CAPTURES: usize = 3;
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Takes and publishes a backup of the engine's own making.
pub(super) async fn create(
    context: &Context,
    engine: &dyn Engine,
    native: &dyn NativeBackup,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Made, Failure> {
    if wish.kind == chain::Kind::Incremental {
        let message = "the engine's own backup is always a base; say --type base, or nothing";
        return Err(Failure::new(Exit::Usage, "NoIncrement", message));
    }
    let deadline = Instant::now() + context.target.backup.timeout;
    let work = Work { context, engine, native, wish, watch, deadline, capturing: Mutex::default() };
    tokio::select! {
        made = work.run() => return made,
        () = told_to_stop() => {}
    }
    Err(work.stop().await)
}

struct Work<'a> {
    context: &'a Context,
    engine: &'a dyn Engine,
    native: &'a dyn NativeBackup,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    deadline: Instant,
    /// The capture that the engine is busy with.
    capturing: Mutex<Option<Place>>,
}

impl Work<'_> {
    async fn run(&self) -> Result<Made, Failure> {
        self.say("reading the pointer");
        let repository = &self.context.repository;
        let generation = owner::generation(repository, &repository.pointer().await?, self.wish).await?;
        let ready = self.engine.wait_until_ready(READY.min(self.time_left()));
        alive(self.watch, "waiting for the engine", ready).await?;
        let identity = self.engine.identity().await?;
        if self.wish.reason == Reason::Final {
            // An attempt before this one may have ended in read-only mode, in which the engine cannot be backed up.
            self.engine.accept_writes().await?;
        }
        let counting = "counting and asking sample queries";
        let before = alive(self.watch, counting, inventory::take(self.engine)).await?;

        let (searched, mut churn) = (inventory::searched(&before), inventory::churn(&before));
        let capture = churn.during(self.engine, self.searchable_capture(generation, &searched)).await?;
        failpoint::reach("backup-captured");
        if self.wish.reason == Reason::Final {
            self.engine.refuse_writes().await?;
        }
        let collections = alive(self.watch, "counting again", inventory::again(self.engine, before, churn)).await?;

        let described = &capture.described.description;
        let (collections, mut findings) = inventory::reconcile(collections, &described.collections, self.wish.reason)?;
        findings.extend(capture.finding());
        let objects = objects::hash(self.context, &capture.id, &capture.described, self.watch).await?;
        failpoint::reach("backup-hashed");
        let manifest = self.manifest(capture, generation, identity, collections, objects);
        self.say("publishing");
        publish(self.context, self.wish, &manifest).await?;
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
        let described = objects::described(self.context, self.native, &id, searched).await?;
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
            let captured = self.native.capture(&place, self.time_left(), &told).await;
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
                self.native.cancel_capture(&self.context.place("backups", left_over.as_str())?).await?;
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
            Some(place) => match tokio::time::timeout(STOP_PATIENCE, self.native.cancel_capture(&place)).await {
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
