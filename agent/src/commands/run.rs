//! `perennial run RUN`: does what a function has claimed, on the instance that it was claimed for.
//!
//! The claim says what to do, `progress.json` tells how far it is, `result.json` how it ended; the first result stays. So a run
//! that SSM delivers twice is done once, and its second caller is given the first one's result. A crash leaves no result;
//! the function sees the command fail, or its progress stand still. What was claimed in a replica, because the repository could not be
//! read, is done with that replica for the repository.
//!
//! A machine is restored by the claims of one repository only: that of the first. So only this repository's pointer can make it the
//! owner, whatever the functions can read meanwhile; another repository's claim is refused, and the machine replaced.

mod progress;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::id::{BackupId, RunId, RunKind};
use perennial_shared::manifest::Reason;
use perennial_shared::repository::{Claimed, RepositoryError};
use perennial_shared::resolve::resolve;
use perennial_shared::run::{Claim, RunResult};
use perennial_shared::settings::{EmptyRepository, Engine};
use perennial_shared::store::Version;

use super::Outcome;
use super::table::lines;
use crate::backup;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::replicate::{self, from_where_it_can};
use crate::restore::{self, choose};
use crate::state::{RestoreRuns, State};
use crate::watch::{All, Progress, Watch};
use progress::Recorder;

/// The engine of a first launch is given this long to start.
const READY: Duration = Duration::from_secs(600);
/// A result that cannot be stored is tried to be stored for so long: without it the work was for nothing.
const STORING: Duration = Duration::from_secs(300);
const STORING_PAUSE: Duration = Duration::from_secs(5);
/// The part of `backup.timeout` after which a run copies no further backup to a replica: it is ended when all of the time is gone.
const COPYING: u32 = 2;

/// What was done.
struct Done {
    backup_id: Option<perennial_shared::id::BackupId>,
    size_bytes: u64,
    objects: u64,
    findings: Vec<String>,
}

/// Does the run, or tells how it ended before, in the repository where it was claimed.
pub async fn run(context: &Context, run: &RunId, watch: &dyn Watch) -> Result<Outcome, Failure> {
    let replica = claimed_in_replica(context, run).await?;
    let context = replica.as_ref().unwrap_or(context);
    if let Some(result) = context.repository.result_of(run).await? {
        return outcome(&result);
    }
    let claim = claim_of(context, run).await?;
    let started_at = Timestamp::now();
    let recorder = Recorder::start(context.repository.clone(), run.clone());
    let watch = All(vec![watch, &recorder]);
    let patience = context.target.timeout_of(run.kind());
    let (state, waiting) =
        (context.state()?, || watch.see(&Progress::stage("waiting for another command on this machine")));
    let _run = state.lock_run(run, patience, waiting).await?;
    // Whoever held the lock may have done this very run.
    if let Some(result) = context.repository.result_of(run).await? {
        return outcome(&result);
    }
    let copying_until = Instant::now() + context.target.backup.timeout / COPYING;
    let lock = state.lock(patience, waiting).await?;
    let done = match run.kind() {
        RunKind::Restore => restore_once(context, &state, &claim, &watch).await,
        RunKind::Final => backup_run(context, &claim, Reason::Final, &watch).await,
        RunKind::Precopy | RunKind::Backup => backup_run(context, &claim, Reason::Scheduled, &watch).await,
    };
    // The final backup of an instance does not wait for copies of an earlier one, nor for a copy of what goes before it.
    drop(lock);
    let done = match done {
        Ok(done) if run.kind() == RunKind::Backup => {
            recorder.published();
            copied(context, &state, done, copying_until, &watch).await
        }
        done => done,
    };
    crate::failpoint::reach("run-done");
    let result = result_of(run, started_at, done, &claim);
    let stored = store(context, result).await;
    state.forget_run(run);
    stored
}

/// The replica that stood in for the repository when the run was claimed; `None` where the repository itself has the claim, and where
/// all were read and nobody has.
async fn claimed_in_replica(context: &Context, run: &RunId) -> Result<Option<Context>, Failure> {
    let mut unread = Vec::new();
    match context.repository.claim_of(run).await {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => {}
        Err(e) => unread.push(Failure::from(e)),
    }
    for settings in &context.target.replicas {
        let replica = context.with_repository(settings)?;
        match replica.repository.claim_of(run).await {
            Ok(Some(_)) => return Ok(Some(replica)),
            Ok(None) => {}
            Err(e) => unread.push(Failure::from(e)),
        }
    }
    let message = unread.iter().map(|f| f.message.clone()).collect::<Vec<_>>().join("; ");
    match unread.into_iter().next() {
        None => Ok(None),
        Some(first) => Err(Failure { message, ..first }),
    }
}

async fn claim_of(context: &Context, run: &RunId) -> Result<Claim, Failure> {
    let refuse = |code, message| Err(Failure::new(Exit::Refused, code, message));
    let Some(claim) = context.repository.claim_of(run).await? else {
        return refuse("NotClaimed", format!("nobody claimed the run {run}; runs are begun by functions, not by hand"));
    };
    if claim.target != context.target.name {
        return refuse(
            "NotClaimed",
            format!("the run {run} is of the target {}, not {}", claim.target, context.target.name),
        );
    }
    let me = context.instance().await?;
    if me.as_deref() != Some(claim.instance.as_str()) {
        let me = me.unwrap_or_else(|| "not an EC2 instance".into());
        return refuse("NotClaimed", format!("the run {run} was claimed for {}, and this is {me}", claim.instance));
    }
    Ok(claim)
}

async fn backup_run(context: &Context, claim: &Claim, reason: Reason, watch: &dyn Watch) -> Result<Done, Failure> {
    // Before the first backup there is no pointer, and generation 0 was claimed; then there is nothing to be older than.
    let generation = claim.pointer_version.is_some().then_some(claim.generation);
    let kind = backup::chain::Kind::Auto;
    let wish = backup::Wish { reason, instance: Some(claim.instance.clone()), generation, kind, reread: false };
    let mut made = backup::create(context, &wish, watch).await?;
    if reason == Reason::Final {
        // The group waits for it.
        let note = "not copied to the replicas yet: the next scheduled backup brings it along";
        made.findings.extend(context.target.replicas.first().map(|_| note.to_owned()));
    }
    Ok(Done {
        objects: made.manifest.held(),
        size_bytes: made.manifest.size_bytes,
        backup_id: Some(made.manifest.backup_id),
        findings: made.findings,
    })
}

/// The backup in the replicas, too, with what they lack. The next scheduled backup does not wait for that; its copies do.
async fn copied(
    context: &Context,
    state: &State,
    mut done: Done,
    until: Instant,
    watch: &dyn Watch,
) -> Result<Done, Failure> {
    let Some(id) = done.backup_id.as_ref().filter(|_| !context.target.replicas.is_empty()) else { return Ok(done) };
    let waiting = || watch.see(&Progress::stage("waiting for an earlier run that copies to the replicas"));
    let lock = state.lock_copies(until.saturating_duration_since(Instant::now()), waiting).await;
    let _lock = lock.map_err(|e| {
        let message = format!("backup {id} is published, but not copied: an earlier run copies still ({})", e.message);
        Failure::new(Exit::Failed, "ReplicaFailed", message)
    })?;
    done.findings.extend(replicate::everywhere(context, id, Some(until), watch).await?);
    Ok(done)
}

/// What is in the engine may be served by now, or may come to be at any time; then nothing may be changed any more.
async fn restore_once(context: &Context, state: &State, claim: &Claim, watch: &dyn Watch) -> Result<Done, Failure> {
    let home = context.repository.location();
    let begun = RestoreRuns { instance: claim.instance.clone(), home: home.clone(), last: None };
    let known = state.restore_runs()?.filter(|known| known.instance == claim.instance).unwrap_or(begun);
    let refuse = |code, why: String| Err(Failure::new(Exit::Refused, code, format!("{why}; nothing was changed")));
    if known.home != home {
        let why =
            format!("this instance was restored by a claim in {}, and {} was claimed in {home}", known.home, claim.run);
        return refuse("OtherRepository", why);
    }
    if known.last.is_some_and(|last| last > claim.claimed_at) {
        return refuse("Overtaken", format!("a restore that was claimed after {} was done meanwhile", claim.run));
    }
    if became_owner(context, claim).await? {
        return refuse(
            "Overtaken",
            format!("{} came to own the target after {} was decided on", claim.instance, claim.run),
        );
    }
    state.remember_restore_runs(&known)?;
    let done = restore_run(context, claim, watch).await?;
    state.remember_restore_runs(&RestoreRuns { last: Some(claim.claimed_at), ..known })?;
    Ok(done)
}

/// Whether an earlier restore made this instance the owner since the claim was decided on. An instance that owned the target in an earlier
/// life (a warm pool) is claimed for on the pointer that says so.
async fn became_owner(context: &Context, claim: &Claim) -> Result<bool, Failure> {
    let seen = context.repository.pointer().await?;
    let owns = seen.pointer().is_some_and(|p| p.owner.as_deref() == Some(&*claim.instance));
    Ok(owns && seen.version().map(Version::as_str) != claim.pointer_version.as_deref())
}

async fn restore_run(context: &Context, claim: &Claim, watch: &dyn Watch) -> Result<Done, Failure> {
    watch.see(&Progress::stage("reading the repository"));
    let Some(id) = &claim.backup_id else {
        // Only the target's own repository can tell that there was never a backup; an empty replica cannot.
        return start_empty(context, resolve(&context.repository).await?.empty, watch).await;
    };
    let bring = async |context: &Context| restore_backup(context, claim, id, watch).await;
    let (mut done, elsewhere) = from_where_it_can(context, watch, bring).await?;
    done.findings.extend(elsewhere);
    Ok(done)
}

async fn restore_backup(context: &Context, claim: &Claim, id: &BackupId, watch: &dyn Watch) -> Result<Done, Failure> {
    let resolution = resolve(&context.repository).await?;
    let candidate = choose::candidate(&resolution, Some(id)).map_err(|e| Failure { code: "BackupIncomplete", ..e })?;
    let wish = restore::Wish { replace: claim.replace, ..restore::Wish::default() };
    let restored = restore::restore(context, candidate, &wish, watch).await?;
    Ok(Done {
        backup_id: Some(id.clone()),
        size_bytes: restored.size_bytes,
        objects: restored.objects,
        findings: restored.findings,
    })
}

/// The first launch of a target: there must be nothing to restore, and nothing in the engine.
async fn start_empty(context: &Context, repository_is_empty: bool, watch: &dyn Watch) -> Result<Done, Failure> {
    if !repository_is_empty {
        let message = "this run should start an empty database, but the repository is not empty";
        return Err(Failure::new(Exit::Refused, "RepositoryNotEmpty", message));
    }
    if context.target.restore.empty_repository != EmptyRepository::Allow {
        let message = "there is nothing to restore, and the settings say restore.empty_repository: refuse";
        return Err(Failure::new(Exit::Refused, "NothingToRestore", message));
    }
    let findings = vec!["started with an empty database: there was nothing to restore".to_owned()];
    if context.target.engine == Engine::Files {
        // Whatever the image came with is where the service begins.
        return Ok(Done { backup_id: None, size_bytes: 0, objects: 0, findings });
    }
    watch.see(&Progress::stage("waiting for the engine"));
    let engine = context.engine().await?;
    engine.wait_until_ready(READY).await?;
    engine.identity().await?;
    let present = engine.collections().await?;
    if !present.is_empty() {
        let message = format!("this run should start an empty database, but the engine has {}", present.join(", "));
        return Err(Failure::new(Exit::Refused, "NotEmpty", message));
    }
    Ok(Done { backup_id: None, size_bytes: 0, objects: 0, findings })
}

fn result_of(run: &RunId, started_at: Timestamp, done: Result<Done, Failure>, claim: &Claim) -> RunResult {
    let base = RunResult {
        run: run.clone(),
        ok: true,
        error: None,
        backup_id: claim.backup_id.clone(),
        started_at,
        finished_at: Timestamp::now(),
        size_bytes: 0,
        objects: 0,
        findings: vec![],
    };
    match done {
        Ok(Done { backup_id, size_bytes, objects, findings }) => {
            RunResult { backup_id, size_bytes, objects, findings, ..base }
        }
        Err(failure) => RunResult { ok: false, error: Some(failure.to_run_error()), ..base },
    }
}

/// Stores the result; another one that was stored first is the one that counts.
async fn store(context: &Context, result: RunResult) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    loop {
        match context.repository.finish(&result).await {
            Ok(Claimed::Won) => return outcome(&result),
            Ok(Claimed::Lost(first)) => return outcome(&first),
            Err(RepositoryError::Store(e)) if e.is_temporary() && begun.elapsed() < STORING => {
                tokio::time::sleep(STORING_PAUSE).await;
            }
            Err(e) => {
                let how =
                    result.error.as_ref().map_or("it succeeded".to_owned(), |e| format!("it failed: {}", e.message));
                let failure = Failure::from(e);
                let message = format!("the result of {} could not be stored ({}); {how}", result.run, failure.message);
                return Err(Failure { message, ..failure });
            }
        }
    }
}

fn outcome(result: &RunResult) -> Result<Outcome, Failure> {
    let id = result.backup_id.as_ref().map_or(String::new(), |id| format!(" {id}"));
    let mut text = match &result.error {
        None => format!("{}: done{id}, {} objects in {:.1} s\n", result.run, result.objects, result.seconds()),
        Some(error) => format!("{}: failed{id}: {}: {}\n", result.run, error.code, error.message),
    };
    text.push_str(&lines(&result.findings));
    if !result.ok {
        // SSM keeps standard error apart, and the functions quote its last lines.
        eprint!("{text}");
    }
    Outcome::new(text, result, if result.ok { Exit::Ok } else { Exit::Failed })
}
