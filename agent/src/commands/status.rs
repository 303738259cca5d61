//! `perennial status`

use jiff::Timestamp;
use perennial_shared::pointer::PointerState;
use perennial_shared::settings::Engine as Kind;
use serde::Serialize;

use super::Outcome;
use super::table::{age, table};
use crate::context::Context;
use crate::failure::{Exit, Failure};

#[derive(Serialize)]
struct Status {
    target: String,
    repository: String,
    pointer: &'static str,
    owner: Option<String>,
    generation: Option<u32>,
    newest_backup: Option<String>,
    newest_backup_age_seconds: Option<i64>,
    newest_backup_too_old: bool,
    /// Absent for a folder of files.
    engine: Option<Engine>,
}

#[derive(Serialize)]
struct Engine {
    url: String,
    version: Option<String>,
    host_name: Option<String>,
    collections: Option<usize>,
    objects: Option<u64>,
    problem: Option<String>,
}

/// Looks at the pointer and the engine.
pub async fn run(context: &Context) -> Result<Outcome, Failure> {
    let state = context.repository.pointer().await?;
    let pointer = state.pointer();
    let id = state.backup_id();
    let seconds = match id {
        Some(id) => Some(captured(context, id).await?).flatten(),
        None => None,
    };
    let most = i64::try_from(context.target.backup.max_age.as_secs()).unwrap_or(i64::MAX);
    let status = Status {
        target: context.target.name.clone(),
        repository: context.repository.location(),
        pointer: match state {
            PointerState::Absent => "absent",
            PointerState::Present { .. } => "good",
            PointerState::Bare { .. } => "of a boot script",
            PointerState::Damaged { .. } => "damaged",
        },
        owner: pointer.and_then(|p| p.owner.clone()),
        generation: pointer.map(|p| p.generation.0),
        newest_backup: id.map(ToString::to_string),
        newest_backup_age_seconds: seconds,
        newest_backup_too_old: seconds.is_none_or(|s| s > most),
        engine: if context.target.engine == Kind::Files { None } else { Some(engine(context).await) },
    };
    let problem = status.engine.as_ref().and_then(|e| e.problem.as_ref());
    let exit = match (problem, status.newest_backup_too_old) {
        (Some(_), _) => Exit::CouldNotTell,
        (None, true) => Exit::Problems,
        (None, false) => Exit::Ok,
    };
    Outcome::new(text(&status), &status, exit)
}

/// Seconds since the capture; `None` for a backup that does not tell.
async fn captured(context: &Context, id: &perennial_shared::id::BackupId) -> Result<Option<i64>, Failure> {
    let made = match context.repository.manifest(id).await {
        Ok(manifest) => Some(manifest.started_at),
        Err(perennial_shared::repository::RepositoryError::Store(perennial_shared::store::StoreError::NotFound {
            ..
        })) => id.made_at(),
        Err(e) => return Err(e.into()),
    };
    Ok(made.map(|at| Timestamp::now().duration_since(at).as_secs()))
}

/// An engine that does not answer is part of the status, not an end of it.
async fn engine(context: &Context) -> Engine {
    let url = context.target.url.clone();
    let found = async {
        let engine = context.engine().await?;
        engine.health().await?;
        let identity = engine.identity().await?;
        let counted = engine.count().await?;
        Ok::<_, Failure>((identity, counted))
    };
    match found.await {
        Ok((identity, counted)) => Engine {
            url,
            version: Some(identity.version),
            host_name: Some(identity.host_name),
            collections: Some(counted.len()),
            objects: Some(counted.iter().map(|c| c.count).sum()),
            problem: None,
        },
        Err(e) => {
            Engine { url, version: None, host_name: None, collections: None, objects: None, problem: Some(e.message) }
        }
    }
}

fn text(status: &Status) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let backup = match (&status.newest_backup, status.newest_backup_age_seconds) {
        (None, _) => "none".into(),
        (Some(id), None) => format!("{id}, of unknown age"),
        (Some(id), Some(seconds)) => {
            let old = if status.newest_backup_too_old { ", TOO OLD" } else { "" };
            format!("{id}, {} old{old}", age(seconds))
        }
    };
    let engine = status.engine.as_ref().map(|engine| match &engine.problem {
        Some(problem) => problem.clone(),
        None => format!(
            "{} on {}: {} objects in {} collections",
            engine.version.as_deref().unwrap_or("?"),
            engine.host_name.as_deref().unwrap_or("?"),
            engine.objects.unwrap_or(0),
            engine.collections.unwrap_or(0)
        ),
    });
    let owner = status.owner.as_deref().unwrap_or("nobody");
    let mut rows = vec![
        row("target", status.target.clone()),
        row("repository", status.repository.clone()),
        row("pointer", status.pointer.into()),
        row("owner", format!("{owner}, generation {}", status.generation.map_or("?".into(), |g| g.to_string()))),
        row("newest backup", backup),
    ];
    rows.extend(engine.map(|engine| row("engine", engine)));
    table(&rows)
}
