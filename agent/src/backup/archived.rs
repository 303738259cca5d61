//! A backup that Perennial makes itself of the files that the engine gives.
//!
//! Promises: published only when every object is in the store with the size and checksum that was sent, and, for an
//! increment, when every object of its chain is there. A crash leaves objects that no manifest names; within a day the
//! next run takes up what it had uploaded, under the same id, and a part or object is believed to have arrived only
//! when the store's checksum of it is that of what would be sent now. An object that is complete and would be another
//! one now ends that, and a new id begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use perennial_shared::encryption::{DataKey, keyring};
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::{self, ArchiveObject, BackupKind, Manifest, Reason};
use perennial_shared::pointer::PointerState;
use perennial_shared::repository::Repository;
use perennial_shared::store::StoreError;
use perennial_shared::verify;

use super::chain::{self, Decision, Kind, Newest};
use super::{Made, READY, Wish, describe, inventory, owner, publish, told_to_stop};
use crate::archive::create::{self, ArchiveError, Archived, Request};
use crate::archive::source::Source;
use crate::archive::upload::full_at;
use crate::context::Context;
use crate::engine::files::{CaptureWish, CapturedFiles};
use crate::engine::{Engine, FileBackup, Identity, Step};
use crate::engines::folder::Folder;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::state::uploads::Uploads;
use crate::watch::{Progress, Watch, alive};

/// Objects of a chain that are looked at together.
const AT_ONCE: usize = 8;
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Takes and publishes a backup of a database's files, or of a folder where there is no database to ask.
pub(super) async fn create(
    context: &Context,
    engine: Option<&dyn Engine>,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Made, Failure> {
    let folder;
    let files: &dyn FileBackup = if let Some(engine) = engine {
        context.files(engine)?
    } else {
        folder = Folder::of(&context.target)?;
        &folder
    };
    let work = Work { context, engine, files, wish, watch, deadline: Instant::now() + context.target.backup.timeout };
    tokio::select! {
        made = work.run() => return made,
        () = told_to_stop() => {}
    }
    let outcome = match files.release().await {
        Ok(()) => "nothing was published".to_owned(),
        Err(e) => format!("nothing was published, and what the capture left could not be removed: {e}"),
    };
    Err(Failure::new(Exit::Failed, "Interrupted", format!("the backup was told to stop; {outcome}")))
}

struct Work<'a> {
    context: &'a Context,
    engine: Option<&'a dyn Engine>,
    files: &'a dyn FileBackup,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    deadline: Instant,
}

/// What was captured, and what the engine said around it.
struct Caught {
    at: Timestamp,
    files: CapturedFiles,
    identity: Option<Identity>,
    collections: Vec<manifest::Collection>,
    findings: Vec<String>,
    /// What got objects although the engine was told to refuse writes.
    grown: Vec<String>,
}

impl Work<'_> {
    async fn run(&self) -> Result<Made, Failure> {
        self.watch.see(&Progress::stage("reading the pointer"));
        let repository = &self.context.repository;
        let pointer = repository.pointer().await?;
        let generation = owner::generation(repository, &pointer, self.wish).await?;
        let (decision, parent) = self.decide(&pointer).await?;
        failpoint::reach("backup-before-capture");
        let made = self.made(generation, &decision, parent).await;
        // The data must be let go of whatever became of the backup; if both fail, the backup's failure is the telling one. A backup
        // that is complete is published even so: what is left over is the next capture's first task.
        let released = self.files.release().await;
        let (manifest, caught, mut findings) = made?;
        let (engine_version, host_name) =
            caught.identity.map_or_else(Default::default, |identity| (identity.version, identity.host_name));
        let (collections, method) = (caught.collections, caught.files.method.unwrap_or(self.context.target.method));
        let method = method.word().to_owned();
        let manifest = Manifest { started_at: caught.at, engine_version, host_name, method, collections, ..manifest };
        findings.extend(caught.findings);
        self.watch.see(&Progress::stage("publishing"));
        publish(self.context, self.wish, &manifest).await?;
        let state = self.context.state()?;
        Uploads::forget(&state)?;
        if let Some(remember) = caught.files.remember {
            state.remember_capture(&manifest.backup_id, &remember)?;
        }
        // What is wrong now is wrong beside a backup that is there.
        let but = |failure: Failure| {
            let message = format!("backup {} was published, but {}", manifest.backup_id, failure.message);
            Failure { message, ..failure }
        };
        released.map_err(|e| but(Failure::from(e)))?;
        if !caught.grown.is_empty() {
            let message = format!("{} got objects although writes were refused; take another", caught.grown.join(", "));
            return Err(but(Failure::new(Exit::Failed, "WritesGoOn", message)));
        }
        Ok(Made { manifest, findings })
    }

    /// Makes what was decided. Where the parent of an increment turns out to be of no use, a base that is allowed is made instead:
    /// each increment would fail as this one did, and so would the final backup of an instance that goes away.
    async fn made(
        &self,
        generation: Generation,
        decision: &Decision,
        parent: Option<Manifest>,
    ) -> Result<(Manifest, Caught, Vec<String>), Failure> {
        let id = parent.as_ref().map(|p| p.backup_id.clone());
        match (self.caught_and_archived(generation, decision, parent).await, id) {
            (Err(e), Some(id)) if is_the_parents(&e) => {
                let decision = chain::instead(self.wish.kind, &id, &e)?;
                self.watch.see(&Progress::stage("making a base, because the parent is damaged"));
                // Captured anew, since a capture leaves out what the parent has. What is left over is that capture's first task.
                let _ = self.files.release().await;
                self.caught_and_archived(generation, &decision, None).await
            }
            (made, _) => made,
        }
    }

    async fn caught_and_archived(
        &self,
        generation: Generation,
        decision: &Decision,
        parent: Option<Manifest>,
    ) -> Result<(Manifest, Caught, Vec<String>), Failure> {
        let caught = self.catch(parent.as_ref()).await?;
        failpoint::reach("backup-captured");
        let (manifest, findings) = self.archive(caught.files.source.clone(), generation, decision, parent).await?;
        Ok((manifest, caught, findings))
    }

    /// Captures, and counts before and after it.
    async fn catch(&self, parent: Option<&Manifest>) -> Result<Caught, Failure> {
        let Some(engine) = self.engine else {
            let at = Timestamp::now();
            let files = self.capture(parent).await?;
            return Ok(Caught { at, files, identity: None, collections: vec![], findings: vec![], grown: vec![] });
        };
        let ready = engine.wait_until_ready(READY.min(self.time_left()));
        alive(self.watch, "waiting for the engine", ready).await?;
        let identity = engine.identity().await?;
        let asked = engine.can_refuse_writes() || self.context.target.backup.keep_reads;
        let refuses = self.wish.reason == Reason::Final && asked;
        if refuses {
            engine.refuse_writes().await?;
        }
        let before = alive(self.watch, "counting and taking samples", inventory::take(engine)).await?;
        let at = Timestamp::now();
        let mut churn = inventory::churn(&before);
        let files = churn.during(engine, self.capture(parent)).await?;
        let collections = alive(self.watch, "counting again", inventory::again(engine, before, churn)).await?;
        let grown = collections.iter().filter(|c| refuses && c.count_after > c.count_before).map(|c| c.name.clone());
        let grown = grown.collect();
        let (collections, mut findings) = inventory::reconcile(collections, &files.collections, self.wish.reason)?;
        findings.extend(files.findings.iter().cloned());
        findings.extend(files.paused.map(|p| format!("the engine stood still for {:.1} ms", p.as_secs_f64() * 1000.0)));
        Ok(Caught { at, files, identity: Some(identity), collections, findings, grown })
    }

    async fn capture(&self, parent: Option<&Manifest>) -> Result<CapturedFiles, Failure> {
        let remembered = self.context.state()?.last_capture()?;
        let parent = parent.map(|p| &p.backup_id);
        let known = remembered.as_ref().filter(|(id, _)| Some(id) == parent).map(|(id, value)| (id, value));
        let told = |step: Step<'_>| {
            failpoint::reach("backup-capturing");
            self.watch.see(&Progress { stage: step.state.into(), done: step.done.unwrap_or(0), total: None });
        };
        let wish = CaptureWish { parent: known, patience: self.time_left(), progress: &told };
        Ok(alive(self.watch, "capturing", self.files.capture(&wish)).await?)
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Base or increment, and on what.
    async fn decide(&self, pointer: &PointerState) -> Result<(Decision, Option<Manifest>), Failure> {
        let parent = self.newest(pointer).await?;
        let known = match &parent {
            Ok(manifest) => Ok(Newest::of(manifest, self.broken(manifest).await?)),
            Err(why) => Err(why.clone()),
        };
        let decision = chain::decide(self.wish.kind, known.as_ref(), &self.context.target.archive, Timestamp::now())?;
        let parent = parent.ok().filter(|_| matches!(decision, Decision::Increment(_)));
        Ok((decision, parent))
    }

    /// The newest backup, or why nothing is built on one. A repository that does not answer is an error, but not for a base.
    async fn newest(&self, pointer: &PointerState) -> Result<Result<Manifest, String>, Failure> {
        if self.wish.kind == Kind::Base {
            return Ok(Err("a base was asked for".into()));
        }
        let id = match chain::named(pointer) {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        match self.context.repository.manifest(id).await {
            Ok(manifest) => Ok(Ok(manifest)),
            Err(e) => chain::unreadable(id, &e).map(Err).ok_or_else(|| e.into()),
        }
    }

    /// What is missing or known to be damaged of the chain that an increment would rest on.
    async fn broken(&self, parent: &Manifest) -> Result<Option<String>, Failure> {
        let Some(archive) = &parent.archive else { return Ok(None) };
        match (&archive.key_id, &self.context.target.encryption) {
            (None, Some(_)) => return Ok(Some("it is not encrypted, and the settings ask for encryption".into())),
            (Some(_), None) => return Ok(Some("it is encrypted, and the settings have no `encryption`".into())),
            _ => {}
        }
        let looks = stream::iter(&archive.objects).map(|object| self.lacks(object)).buffer_unordered(AT_ONCE);
        let found: Vec<_> = looks.try_collect().await?;
        Ok(found.into_iter().flatten().next())
    }

    async fn lacks(&self, object: &ArchiveObject) -> Result<Option<String>, Failure> {
        let repository = &self.context.repository;
        match repository.store().head(&object.full_key()).await {
            Ok(meta) if meta.size == object.size => {
                let known = verify::known_damage(repository, object, &meta.version).await?;
                Ok(known.map(|what| format!("verification found damage in {}: {what}", object.full_key())))
            }
            Ok(meta) => Ok(Some(format!("{} has {} bytes instead of {}", object.full_key(), meta.size, object.size))),
            Err(StoreError::NotFound { .. }) => Ok(Some(format!("{} is missing", object.full_key()))),
            Err(e) => Err(e.into()),
        }
    }

    async fn archive(
        &self,
        source: Source,
        generation: Generation,
        decision: &Decision,
        parent: Option<Manifest>,
    ) -> Result<(Manifest, Vec<String>), Failure> {
        let begun = Instant::now();
        let parent_id = parent.as_ref().map(|p| p.backup_id.clone());
        let state = self.context.state()?;
        let mut uploads =
            Uploads::take_up(&state, &*self.context.repository.shared_store(), generation, parent_id.as_ref()).await?;
        if uploads.taken_up() && self.is_described(uploads.backup_id()).await? {
            // The interrupted run came as far as the manifest, which is never written again.
            uploads = Uploads::begin(&state, BackupId::new(Timestamp::now(), generation), parent_id.as_ref())?;
        }
        let key = self.key(parent.as_ref(), &uploads).await?;
        let archived = loop {
            let id = uploads.backup_id().clone();
            failpoint::reach("backup-archiving");
            match self.once(id, source.clone(), parent.as_ref(), key.as_ref(), &uploads).await {
                // The interrupted run had completed an object that would be another one now.
                Err(ArchiveError::Store(StoreError::AlreadyExists { .. })) if uploads.taken_up() => {
                    uploads = uploads.begin_again(&state, self.context.repository.store(), generation).await?;
                }
                result => break result?,
            }
        };
        failpoint::reach("backup-archived");
        let took = begun.elapsed();
        let mut findings = archived.findings.clone();
        if archived.resumed_bytes > 0 {
            findings.push(format!(
                "{} MiB were there already: an interrupted run had sent them",
                archived.resumed_bytes >> 20
            ));
        }
        let mut manifest = self.manifest(uploads.backup_id().clone(), generation, archived, decision, parent, took);
        if let Some(archive) = &mut manifest.archive {
            archive.key_id = key.map(|k| k.id().to_string());
        }
        Ok((manifest, findings))
    }

    async fn is_described(&self, id: &BackupId) -> Result<bool, Failure> {
        match self.context.repository.store().head(&Repository::manifest_key(id)).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The chain's key: the parent's, the interrupted run's, or a new one, which is stored, wrapped, before anything is encrypted by it.
    async fn key(&self, parent: Option<&Manifest>, uploads: &Uploads) -> Result<Option<DataKey>, Failure> {
        if let Some(parent) = parent {
            return self.context.data_key(parent.archive.as_ref()).await;
        }
        if self.context.target.encryption.is_none() {
            return Ok(None);
        }
        let sources = self.context.key_sources()?;
        let repository = &self.context.repository;
        if let Some(id) = uploads.key_id() {
            return Ok(Some(keyring::open(repository, &sources.all(), &id).await?));
        }
        let key = DataKey::generate();
        keyring::create(repository, &*sources.current, &key).await?;
        uploads.remember_key(key.id()).map_err(ArchiveError::Local)?;
        Ok(Some(key))
    }

    async fn once(
        &self,
        id: BackupId,
        source: Source,
        parent: Option<&Manifest>,
        key: Option<&DataKey>,
        uploads: &Uploads,
    ) -> Result<Archived, ArchiveError> {
        let target = &self.context.target;
        let passed = Arc::new(AtomicU64::new(0));
        let request = Request {
            store: self.context.repository.shared_store(),
            id,
            source,
            parent: parent.and_then(|p| p.archive.clone()),
            key: key.cloned(),
            compression: target.archive.compression,
            chunk_size: target.archive.chunk_size,
            upload: target.upload,
            full_at: full_at(&target.upload),
            reread: self.wish.reread,
            resume: Some(Arc::new(uploads.clone())),
            passed: Arc::clone(&passed),
        };
        let mut archiving = std::pin::pin!(create::archive(request));
        loop {
            if let Ok(done) = tokio::time::timeout(TOLD_EVERY, &mut archiving).await {
                return done;
            }
            let done = passed.load(Ordering::Relaxed);
            self.watch.see(&Progress { stage: "archiving".into(), done, total: None });
        }
    }

    fn manifest(
        &self,
        backup_id: BackupId,
        generation: Generation,
        archived: Archived,
        decision: &Decision,
        parent: Option<Manifest>,
        took: Duration,
    ) -> Manifest {
        let (kind, because) = match decision {
            Decision::Base(why) => (BackupKind::Base, why),
            Decision::Increment(why) => (BackupKind::Incremental, why),
        };
        let chain = parent.as_ref().and_then(|p| p.archive.as_ref());
        let archive = archived.described(&backup_id, chain, because);
        let described = describe(self.context, self.wish, backup_id, generation, took, archived.objects);
        Manifest { kind, parent: parent.map(|p| p.backup_id), archive: Some(archive), ..described }
    }
}

/// Whether a backup failed because nothing can be built on its parent, whose index or key is lost.
fn is_the_parents(failure: &Failure) -> bool {
    matches!(failure.code, "ParentDamaged" | "KeyNotInRepository")
}
