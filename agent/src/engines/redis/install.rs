//! Putting a restored data folder in the server's place, and taking it back.
//!
//! The server is stopped as its owner would stop it: a save on that occasion goes into the folder that is kept, which is right, and a
//! server that would not save by itself is made to first, so that taking back brings back what it held and not what it once saved.
//! Then the folders are swapped and the server is started. A server that is gone again, or that reads other files than were meant, is
//! told at once.

use std::path::Path;
use std::time::{Duration, Instant};

use perennial_shared::manifest::Manifest;

use super::arrange::{self, Arranged};
use super::info::number_of;
use super::layout::Layout;
use super::log::Log;
use super::{Redis, blocking, others, save, versions};
use crate::engine::files::{InstallWish, Installed};
use crate::engine::{Engine, EngineError, Step};
use crate::service;

const PAUSE: Duration = Duration::from_millis(200);
/// A server that was started opens its port within this time, before it loads.
const OPENS: Duration = Duration::from_secs(30);
/// For a server that gets its old data back.
const RETURNS: Duration = Duration::from_secs(600);

/// What is found out while the server still answers.
pub(super) async fn check(redis: &Redis, manifest: &Manifest) -> Result<Vec<String>, EngineError> {
    let data_dir = redis.folder().await?.path;
    let mut findings = vec![];
    let identity = match redis.identify().await {
        Err(e) if e.is_absence() => {
            if redis.known.layout().is_none() {
                findings.push(
                    "the server does not answer, so its version and settings were not looked at, and its files are taken to \
                     have their usual names (dump.rdb, appendonlydir)"
                        .into(),
                );
            }
            return Ok(findings);
        }
        identity => identity?,
    };
    versions::check(&manifest.engine_version, &identity.version)?;
    let mut link = redis.client.open().await?;
    let refused = |why: String| Err(EngineError::Unsupported(why));
    if link.info("replication").await?.text("role") != "master" {
        return refused("this server is a replica: what is restored here would be replaced by its master's data; restore on the master".into());
    }
    let databases = link.setting("databases").await?.and_then(|n| n.parse::<u32>().ok()).unwrap_or(16);
    if let Some(high) = manifest.collections.iter().filter_map(|c| number_of(&c.name)).max().filter(|n| *n >= databases)
    {
        return refused(format!(
            "the backup has a database {high}, and this server has {databases}; raise `databases` in its configuration"
        ));
    }
    let layout = Layout::ask(&mut link).await?;
    if manifest.method == "aof" && !layout.append_only {
        return refused(
            "this backup is of append-only files, and this server does not read such files (`appendonly no`): it would start \
             empty. Turn them on by `CONFIG SET appendonly yes` and in its configuration file, and restore again"
                .into(),
        );
    }
    let (folder, names) = (data_dir.clone(), [layout.dump.clone(), layout.aof_folder.clone()]);
    let data = move || others::count(&folder, &[&names[0], &names[1]]).map_err(|e| EngineError::files(&folder, &e));
    if data_dir.is_dir() && blocking(data).await? > others::MOST {
        return refused(format!(
            "{} holds many files that are not the server's data; give the server a folder of its own (`dir`)",
            data_dir.display()
        ));
    }
    redis.known.remember(&layout)?;
    Ok(findings)
}

pub(super) async fn install(redis: &Redis, wish: &InstallWish<'_>) -> Result<Installed, EngineError> {
    let deadline = Instant::now() + wish.patience;
    let folder = redis.folder().await?;
    let data_dir = folder.path.clone();
    let layout = redis.known.layout().unwrap_or_default();
    (wish.progress)(Step { state: "reading the restored files", done: None });
    let (staged, there, names) = (wish.staged.to_owned(), data_dir.clone(), layout.clone());
    let arranged = blocking(move || arrange::arrange(&staged, &there, &names)).await?;
    let mut findings = arranged.findings.clone();
    let log = match redis.client.open().await {
        Ok(mut link) => {
            fits(&mut link, &arranged, wish.manifest).await?;
            if !folder.keeps_old(wish.tag)? && is_lost_when_stopped(&mut link).await? {
                let left = deadline.saturating_duration_since(Instant::now());
                save::save(&mut link, &data_dir.join(&layout.dump), left, wish.progress).await?;
            }
            Log::of(&mut link, &layout.dir, &data_dir).await?
        }
        Err(e) if e.is_absence() => None,
        Err(e) => return Err(e),
    };
    folder.install(wish.tag, deadline.saturating_duration_since(Instant::now())).await?;
    (wish.progress)(Step { state: "the server loads the restored files", done: None });
    wait_until_loaded(redis, deadline).await?;
    let mut link = redis.client.open().await?;
    let now = Layout::ask(&mut link).await?;
    if arranged.needs_append_only && !now.append_only {
        let why = "the server was started with `appendonly no`, so it did not read the restored append-only files; correct its configuration file";
        return Err(EngineError::Failed { what: "restore", id: wish.tag.into(), why: why.into() });
    }
    match log {
        Some(log) => log.complaints()?,
        None => findings.push(
            "the server writes no log file that can be read here, so errors while it loaded were looked for by comparing alone".into(),
        ),
    }
    Ok(Installed { tag: wish.tag.into(), findings, ..Installed::default() })
}

/// Keeps what was installed. The append-only files that the server does not read go: a later `appendonly yes` would bring them back.
pub(super) async fn commit(redis: &Redis, installed: &Installed) -> Result<Vec<String>, EngineError> {
    let folder = redis.folder().await?;
    let layout = Layout::ask(&mut redis.client.open().await?).await?;
    let place = folder.path.clone();
    blocking(move || {
        let record = place.join(arrange::RECORD);
        // Without its record the data folder is not one that a restore put there.
        if record.exists() && !layout.append_only {
            absent(&place.join(&layout.aof_folder), |p| std::fs::remove_dir_all(p))?;
        }
        absent(&record, |p| std::fs::remove_file(p))
    })
    .await?;
    folder.commit(&installed.tag).await?;
    redis.known.forget()?;
    Ok(vec![])
}

pub(super) async fn take_back(redis: &Redis, installed: &Installed) -> Result<bool, EngineError> {
    let is_back = redis.folder().await?.take_back(&installed.tag, RETURNS).await?;
    redis.known.forget()?;
    wait_until_loaded(redis, Instant::now() + RETURNS).await?;
    Ok(is_back)
}

fn absent(path: &Path, remove: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), EngineError> {
    match remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(EngineError::files(path, &e)),
        _ => Ok(()),
    }
}

/// What the files themselves say of the server that they need.
async fn fits(link: &mut super::client::Link, arranged: &Arranged, manifest: &Manifest) -> Result<(), EngineError> {
    let Some(summary) = &arranged.summary else { return Ok(()) };
    let server = super::version(&link.info("server").await?);
    versions::check_format(&manifest.engine_version, summary.version(), &server)?;
    let limit = link.setting("maxmemory").await?.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let policy = link.setting("maxmemory-policy").await?.unwrap_or_default();
    match summary.number("used-mem") {
        Some(needed) if limit > 0 && needed > limit && policy != "noeviction" => {
            Err(EngineError::Unsupported(format!(
                "the backup was of a server that used {} MiB, and this one evicts keys above {} MiB (`maxmemory`, {policy}); raise it",
                needed >> 20,
                limit >> 20
            )))
        }
        _ => Ok(()),
    }
}

/// Whether the server neither logs its writes nor saves when it is stopped.
async fn is_lost_when_stopped(link: &mut super::client::Link) -> Result<bool, EngineError> {
    let off = |value: Option<String>| value.is_none_or(|v| v.is_empty() || v == "no");
    Ok(off(link.setting("appendonly").await?) && off(link.setting("save").await?))
}

/// Waits for a server that was just started. While it loads it answers, and is waited for; one that does not answer is not coming.
async fn wait_until_loaded(redis: &Redis, deadline: Instant) -> Result<(), EngineError> {
    let mut last_seen = Instant::now();
    loop {
        let error = match redis.health().await {
            Err(e @ EngineError::NotReady { .. }) => {
                last_seen = Instant::now();
                e
            }
            Err(e @ EngineError::Unreachable { .. }) => e,
            result => return result,
        };
        if last_seen.elapsed() > OPENS || has_ended(redis, last_seen.elapsed()).await {
            let why = format!("it was started and is gone again ({error}); its own log says why");
            return Err(EngineError::Failed { what: "restore", id: redis.client.url().into(), why });
        }
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the server's process is gone, where that can be asked. Right after its start it may not show yet.
async fn has_ended(redis: &Redis, unseen: Duration) -> bool {
    let Some(service) = redis.options.service.as_ref().filter(|_| unseen > Duration::from_secs(2)) else {
        return false;
    };
    matches!(service::pid(service).await, Ok(None))
}
