//! Bringing back a backup that is made of archives.
//!
//! Promises: the data folder stays as it is until everything is beside it, checked chunk by chunk and on the disk; then it is
//! swapped in. What was there before is kept until the `after_restore` command has succeeded. A crash leaves a folder beside the
//! data folder; the same restore begun again goes on with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use globset::{Glob, GlobSet, GlobSetBuilder};
use perennial_shared::archive::objects::Objects;
use perennial_shared::manifest::{Archive, Manifest};
use perennial_shared::resolve::Candidate;

use super::{Restored, Wish, room};
use crate::archive::restore::swap::{self, Places};
use crate::archive::restore::{self as staging, Counters, Estimate, Request};
use crate::command;
use crate::context::Context;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::state::{RestoreMarker, State};
use crate::watch::{Progress, Watch};

const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Restores `candidate` into the data folder, or where the wish says.
pub(super) async fn restore(
    context: &Context,
    candidate: &Candidate,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    let begun = Instant::now();
    let Some((manifest, archive)) = candidate.manifest.as_ref().and_then(|m| Some((m, m.archive.as_ref()?))) else {
        let message =
            format!("backup {} is not made of archives, and `engine: files` restores nothing else", candidate.id);
        return Err(Failure::new(Exit::Problems, "NotAnArchive", message));
    };
    let target = wish.to.clone().or_else(|| context.target.data_dir.clone()).ok_or_else(|| {
        Failure::new(Exit::Usage, "SettingsInvalid", "`data_dir` is not set: say where to with --to DIR")
    })?;
    let tag = tag(candidate.id.as_str(), &wish.include);
    let places =
        Places::new(&target, &tag).map_err(|e| Failure::new(Exit::Usage, "DataFolderUnusable", e.to_string()))?;
    let work = Work { context, manifest, archive, wish, watch, places, state: context.state()? };
    let findings = work.run().await?;
    Ok(Restored {
        backup_id: candidate.id.to_string(),
        already: false,
        dry_run: wish.dry_run,
        size_bytes: archive.data_bytes,
        objects: archive.files,
        captured_at: Some(manifest.started_at),
        findings,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// An interrupted restore is gone on with only by the same one.
fn tag(id: &str, include: &[String]) -> String {
    if include.is_empty() {
        return id.to_owned();
    }
    let selection = perennial_shared::verify::sha256_hex(include.join("\n").as_bytes());
    format!("{id}-{}", &selection[..8])
}

struct Work<'a> {
    context: &'a Context,
    manifest: &'a Manifest,
    archive: &'a Archive,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    places: Places,
    state: State,
}

impl Work<'_> {
    async fn run(&self) -> Result<Vec<String>, Failure> {
        self.may_replace()?;
        let request = self.request().await?;
        if self.wish.dry_run {
            return self.dry_run(&request).await;
        }
        let mut findings = vec![self.has_room(self.archive.data_bytes)?];
        if self.context.target.encryption.is_some() && self.archive.key_id.is_none() {
            findings
                .push("this backup is not encrypted, although the settings ask for it: is it from before that?".into());
        }
        self.remember(false)?;
        failpoint::reach("restore-remembered");
        let begun = Instant::now();
        self.told(&request, staging::stage(&request)).await?;
        failpoint::reach("restore-staged");
        let took = begun.elapsed();

        let (commands, patience) = (&self.context.target.commands, self.context.target.restore.timeout);
        self.watch.see(&Progress::stage("swapping the restored folder in"));
        if self.wish.to.is_none() {
            command::run("commands.before_restore", &commands.before_restore, patience).await?;
        }
        swap::finish(&self.places).map_err(|e| Failure::new(Exit::Failed, "FilesUnwritable", e.to_string()))?;
        failpoint::reach("restore-swapped");
        if self.wish.to.is_none() {
            command::run("commands.after_restore", &commands.after_restore, patience)
                .await
                .map_err(|e| self.kept(e))?;
        }
        swap::forget_old(&self.places).map_err(|e| Failure::new(Exit::Failed, "FilesUnwritable", e.to_string()))?;
        self.remember(true)?;
        failpoint::reach("restore-finished");
        findings.push(brought(&request.progress, took));
        Ok(findings)
    }

    /// Data that somebody may want is replaced only when that was said.
    fn may_replace(&self) -> Result<(), Failure> {
        let target = &self.places.target;
        let interrupted = self.state.last_restore()?.is_some_and(|m| {
            !m.finished && m.backup_id == self.manifest.backup_id && m.engine == target.display().to_string()
        });
        if self.wish.replace || interrupted || is_empty(target)? {
            return Ok(());
        }
        let message = format!(
            "{} is not empty. Nothing was changed; `--replace` puts the backup in its place and keeps what is the same",
            target.display()
        );
        Err(Failure::new(Exit::Refused, "NotEmpty", message))
    }

    async fn request(&self) -> Result<Request, Failure> {
        let key = self.context.data_key(Some(self.archive)).await?;
        let objects = Objects::new(self.context.repository.shared_store(), self.archive, key);
        let local = self.places.target.is_dir().then(|| self.places.target.clone());
        Ok(Request {
            objects,
            root: self.archive.index.clone(),
            staging: self.places.staging.clone(),
            local,
            include: globs(&self.wish.include)?,
            progress: Arc::new(Counters::default()),
        })
    }

    async fn dry_run(&self, request: &Request) -> Result<Vec<String>, Failure> {
        let begun = Instant::now();
        let estimate = staging::estimate(request).await?;
        let rate = self.rate(request).await?;
        let Estimate { files, bytes, fetch_bytes, requests, found_bytes } = estimate;
        let mut findings = vec![
            format!("{files} files, {}, to {}", mebibytes(bytes), self.places.target.display()),
            format!(
                "{} on the disk already, {} to fetch in {requests} requests",
                mebibytes(found_bytes),
                mebibytes(fetch_bytes)
            ),
        ];
        #[allow(clippy::cast_precision_loss)] // an estimate
        if let Some(rate) = rate {
            let seconds = fetch_bytes as f64 / rate + begun.elapsed().as_secs_f64();
            findings.push(format!(
                "about {seconds:.0} s at the {} a second that one request brings now",
                mebibytes_f(rate)
            ));
        }
        findings.push(self.has_room(bytes)?);
        Ok(findings)
    }

    /// Bytes a second of one fetch, for the estimate; the real restore has several at once.
    async fn rate(&self, request: &Request) -> Result<Option<f64>, Failure> {
        let largest = self.archive.objects.iter().enumerate().max_by_key(|(_, o)| o.size);
        let Some((number, object)) = largest.filter(|(_, o)| o.size > 0) else { return Ok(None) };
        let length = object.size.min(8 << 20);
        let begun = Instant::now();
        request.objects.range(u32::try_from(number).unwrap_or(0), 0, length).await?;
        #[allow(clippy::cast_precision_loss)]
        Ok(Some(length as f64 / begun.elapsed().as_secs_f64().max(1e-6)))
    }

    fn has_room(&self, bytes: u64) -> Result<String, Failure> {
        let existing = self.places.target.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        let free = room::free_bytes(existing)?;
        let staged = folder_size(&self.places.staging);
        let needed = (bytes + bytes / 20).saturating_sub(staged);
        if free < needed {
            let message = format!(
                "{} has {} free and the restore needs {} beside what is there; use a larger disk, or empty the folder first",
                existing.display(),
                mebibytes(free),
                mebibytes(needed)
            );
            return Err(Failure::new(Exit::Refused, "DiskTooSmall", message));
        }
        Ok(format!("{} free at {}, {} needed", mebibytes(free), existing.display(), mebibytes(needed)))
    }

    /// Tells how far it is while `work` is done.
    async fn told<T, E: Into<Failure>>(
        &self,
        request: &Request,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        loop {
            let done = request.progress.placed.load(Ordering::Relaxed);
            let stage = format!("restoring backup {}", self.manifest.backup_id);
            self.watch.see(&Progress { stage, done, total: Some(self.archive.data_bytes) });
            if let Ok(done) = tokio::time::timeout(TOLD_EVERY, &mut work).await {
                return done.map_err(Into::into);
            }
        }
    }

    fn remember(&self, finished: bool) -> Result<(), Failure> {
        self.state.remember(&RestoreMarker {
            backup_id: self.manifest.backup_id.clone(),
            parent: "backups/".into(),
            engine: self.places.target.display().to_string(),
            collections: vec![],
            finished,
        })
    }

    fn kept(&self, failure: Failure) -> Failure {
        if !self.places.old.exists() {
            return failure;
        }
        let old = self.places.old.display();
        Failure { message: format!("{}; what was there before is kept at {old}", failure.message), ..failure }
    }
}

fn brought(counters: &Counters, took: Duration) -> String {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{} files, {}: {} fetched in {} requests, {} kept from the disk, in {:.1} s",
        of(&counters.files),
        mebibytes(of(&counters.placed)),
        mebibytes(of(&counters.fetched)),
        of(&counters.requests),
        mebibytes(of(&counters.found)),
        took.as_secs_f64()
    )
}

fn globs(include: &[String]) -> Result<Option<GlobSet>, Failure> {
    if include.is_empty() {
        return Ok(None);
    }
    let bad = |e: globset::Error| Failure::new(Exit::Usage, "BadPattern", format!("--include: {e}"));
    let mut set = GlobSetBuilder::new();
    for pattern in include {
        set.add(Glob::new(pattern).map_err(bad)?);
    }
    Ok(Some(set.build().map_err(bad)?))
}

fn is_empty(folder: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(Failure::new(Exit::Usage, "DataFolderUnreadable", format!("{}: {e}", folder.display()))),
    }
}

/// Bytes of the regular files below a folder; nothing where it cannot be read.
fn folder_size(folder: &PathBuf) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_size(&entry.path()),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    sizes.sum()
}

fn mebibytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    mebibytes_f(bytes as f64)
}

fn mebibytes_f(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
