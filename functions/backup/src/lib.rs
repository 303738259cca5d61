//! Scheduled backups: finds the instance in service, starts one backup at a time, reports how it ended.
//!
//! A schedule's instant names the run, so a doubled delivery starts nothing new. A backup that is still running when the next is
//! due is left to run, and the missed one is told about; one that only copies to replicas still is no hindrance. The backup itself runs on the instance; nothing waits for it here.

use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::alert::{Alert, Kind};
use perennial_shared::aws::AwsError;
use perennial_shared::aws::auto_scaling::{AutoScalingApi, LifecycleState};
use perennial_shared::aws::ssm::{Command, CommandStatus, Order, SsmApi};
use perennial_shared::event;
use perennial_shared::id::{RunId, RunKind};
use perennial_shared::metrics::Metric;
use perennial_shared::pointer::nonce;
use perennial_shared::repository::{Claimed, Repository, RepositoryError};
use perennial_shared::run::{Claim, RunResult};
use perennial_shared::settings::{AutoScaling, Target};

/// How long a command may take to reach the instance.
const DELIVERY: Duration = Duration::from_secs(300);

/// The services, and the one target this function looks after.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// Auto Scaling.
    pub auto_scaling: &'a dyn AutoScalingApi,
    /// Systems Manager.
    pub ssm: &'a dyn SsmApi,
    /// The target's repository.
    pub repository: &'a Repository,
    /// The target.
    pub target: &'a Target,
    /// Its group.
    pub group: &'a AutoScaling,
}

/// What became of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A command was sent for this run.
    Started(RunId),
    /// An earlier delivery of the same schedule started it.
    Already(RunId),
    /// Nothing was started, and a person is told why.
    Missed(Alert),
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// AWS refused or did not answer.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The repository refused or did not answer.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Starts the backup that was scheduled for `at`.
pub async fn start(services: Services<'_>, at: Timestamp, now: Timestamp) -> Result<Outcome, BackupError> {
    let Services { ssm, repository, target, group, .. } = services;
    let run = RunId::scheduled(at);
    let pointer = repository.pointer().await.map_err(RepositoryError::Store)?;
    let owner = pointer.pointer().and_then(|p| p.owner.clone());
    let missed = |why: &str| {
        let alert = Alert::new(Kind::BackupFailed, &target.name, &format!("group {}", group.group), at);
        Outcome::Missed(alert.once_for(run.as_str()).with([why]))
    };
    let Some(instance) = in_service(services, owner.as_deref()).await? else {
        return Ok(missed("no instance that owns the target is in service, so there is nothing to back up"));
    };
    let commands = ssm.commands(&instance, &group.document).await?;
    if let Some(mine) = commands.iter().find(|c| c.comment == run.as_str()) {
        tracing::info!(command = mine.id, "sent before");
        return Ok(Outcome::Already(run));
    }
    for other in commands.iter().filter(|c| c.status == CommandStatus::Open).filter_map(backup_run) {
        if !repository.progress_of(&other).await?.is_some_and(|p| p.published) {
            return Ok(missed(&format!("{other} is still running; one backup at a time")));
        }
    }
    let claim = Claim {
        run: run.clone(),
        target: target.name.clone(),
        instance: instance.clone(),
        backup_id: None,
        pointer_version: pointer.version().map(ToString::to_string),
        generation: pointer.pointer().map(|p| p.generation).unwrap_or_default(),
        replace: false,
        claimed_at: now,
        nonce: nonce(),
    };
    // A claim that was lost but has no command was left by a function that died: its instance may have changed since,
    // and the agent does only what is claimed for its own instance.
    if let Claimed::Lost(first) = repository.claim(&claim).await?
        && first.instance != instance
    {
        return Ok(missed(&format!("this run was claimed for {}, which is no longer in service", first.instance)));
    }
    let order = Order {
        document: group.document.clone(),
        instance,
        target: target.name.clone(),
        run: run.clone(),
        execution: target.backup.timeout,
        delivery: DELIVERY,
    };
    ssm.send(&order).await?;
    Ok(Outcome::Started(run))
}

/// The backup, final or not, that a command makes.
fn backup_run(command: &Command) -> Option<RunId> {
    command.comment.parse::<RunId>().ok().filter(|run| run.kind() != RunKind::Restore)
}

/// The owner, if it is in service; before there is an owner, the only instance in service.
async fn in_service(services: Services<'_>, owner: Option<&str>) -> Result<Option<String>, AwsError> {
    let members = services.auto_scaling.members(&services.group.group).await?;
    let mut serving = members.into_iter().filter(|m| m.state == LifecycleState::InService).map(|m| m.instance);
    Ok(match owner {
        Some(owner) => serving.find(|i| i == owner),
        None => serving.next().filter(|_| serving.next().is_none()),
    })
}

/// How a scheduled backup ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// Its result, if it left one.
    pub result: Option<RunResult>,
    /// What to tell a person; nothing after success.
    pub alert: Option<Alert>,
}

/// What a command's change of status means; nothing for a command that goes on, or that is not a scheduled backup.
pub async fn report(
    services: Services<'_>,
    event: &event::Command,
    now: Timestamp,
) -> Result<Option<Ended>, BackupError> {
    let Services { ssm, repository, target, group, .. } = services;
    let Some(instance) = event.instance_id.as_deref().filter(|_| event.document_name == group.document) else {
        return Ok(None);
    };
    let commands = ssm.commands(instance, &group.document).await?;
    let Some(command) = commands.into_iter().find(|c| c.id == event.command_id && c.status != CommandStatus::Open)
    else {
        return Ok(None);
    };
    let Ok(run) = command.comment.parse::<RunId>() else { return Ok(None) };
    if run.kind() != RunKind::Backup {
        return Ok(None);
    }
    let result = repository.result_of(&run).await?;
    if result.as_ref().is_some_and(|r| r.ok) {
        return Ok(Some(Ended { run, result, alert: None }));
    }
    let reason = match result.as_ref().and_then(|r| r.error.as_ref()) {
        Some(error) => format!("{}: {}", error.code, error.message),
        None => {
            format!("SSM reports {}; the instance said: {}", command.detail, said(ssm, &command.id, instance).await)
        }
    };
    let alert = Alert::new(Kind::BackupFailed, &target.name, &format!("instance {instance}"), now);
    let alert = alert.once_for(run.as_str()).with([format!("run {run}"), reason]);
    Ok(Some(Ended { run, result, alert: Some(alert) }))
}

/// What the command printed, for the e-mail; its absence must not keep the e-mail back.
async fn said(ssm: &dyn SsmApi, command: &str, instance: &str) -> String {
    match ssm.error_output(command, instance).await {
        Ok(text) if text.is_empty() => "(nothing)".into(),
        Ok(text) => text,
        Err(e) => format!("(its output could not be had: {e})"),
    }
}

/// The metrics of a scheduled backup.
#[allow(clippy::cast_precision_loss)]
pub fn metrics(ended: &Ended) -> Vec<(Metric, f64)> {
    let failed = f64::from(u8::from(ended.alert.is_some()));
    let mut values = vec![(Metric::BackupFailed, failed)];
    if let Some(result) = ended.result.as_ref().filter(|r| r.ok) {
        values.push((Metric::BackupDuration, result.seconds()));
        values.push((Metric::BackupSize, result.size_bytes as f64));
    }
    values
}
