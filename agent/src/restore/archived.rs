//! Bringing back a backup that is made of archives.
//!
//! Promises: nothing of the engine's changes until everything is beside it, checked chunk by chunk and on the disk. Then the engine
//! takes it, it is counted and its samples are compared, and only then is what was there before forgotten; what differs is taken
//! back. A crash leaves a staging folder, or a restored engine that was not compared yet; the same restore begun again goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use globset::{Glob, GlobSet, GlobSetBuilder};
use perennial_shared::archive::objects::Objects;
use perennial_shared::archive::tally::Tally;
use perennial_shared::manifest::{Archive, Manifest};

use super::compare::{self, Compared};
use super::{READY, Restored, Wish, room};
use crate::archive::restore::swap::other_stagings;
use crate::archive::restore::{self as staging, Counters, Estimate, Request};
use crate::context::Context;
use crate::engine::files::{InstallWish, Installed};
use crate::engine::{Engine, FileBackup, Step};
use crate::engines::folder::Folder;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::state::{Reached, RestoreMarker, State};
use crate::units::bytes;
use crate::watch::{Progress, Watch, alive};

const TOLD_EVERY: Duration = Duration::from_millis(500);
/// An engine that is to be replaced anyway is waited for this long.
const LOOK: Duration = Duration::from_secs(5);

/// Restores a backup into the engine, into the data folder where there is no engine to ask, or where the wish says.
pub(super) async fn restore(
    context: &Context,
    engine: Option<&dyn Engine>,
    manifest: &Manifest,
    archive: &Archive,
    wish: &Wish,
    watch: &dyn Watch,
) -> Result<Restored, Failure> {
    let begun = Instant::now();
    let engine = engine.filter(|_| wish.to.is_none());
    let folder;
    let files: &dyn FileBackup = match (engine, &wish.to) {
        (_, Some(to)) => {
            folder = Folder::unused(to.clone());
            &folder
        }
        (Some(engine), None) => context.files(engine)?,
        (None, None) => {
            folder = Folder::of(&context.target)?;
            &folder
        }
    };
    if engine.is_some() && !wish.include.is_empty() {
        let message = "a database is restored whole; --include takes out files with --to DIR";
        return Err(Failure::new(Exit::Usage, "NotAFolder", message));
    }
    let tag = tag(manifest.backup_id.as_str(), &wish.include);
    let staging = files.staging(&tag).await?;
    let deadline = begun + context.target.restore.timeout;
    let state = context.state()?;
    let work = Work { context, engine, files, manifest, archive, wish, watch, tag, staging, state, deadline };
    let (already, findings) = work.run().await?;
    Ok(Restored {
        backup_id: manifest.backup_id.to_string(),
        already,
        dry_run: wish.dry_run,
        size_bytes: archive.data_bytes,
        objects: manifest.held(),
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

/// What an earlier run of the same restore left.
enum Earlier {
    /// Nothing: what is there is somebody's data.
    Nothing,
    /// A part, or all of it unproved. Nobody can have used it.
    Half,
    /// All of it, as the backup says.
    Whole(Compared),
    /// All of it once; it was written to since.
    InUse,
}

struct Work<'a> {
    context: &'a Context,
    /// Absent where nobody can be asked: a folder of files.
    engine: Option<&'a dyn Engine>,
    files: &'a dyn FileBackup,
    manifest: &'a Manifest,
    archive: &'a Archive,
    wish: &'a Wish,
    watch: &'a dyn Watch,
    tag: String,
    staging: PathBuf,
    state: State,
    deadline: Instant,
}

impl Work<'_> {
    /// Whether it was there already, and what a person should know.
    async fn run(&self) -> Result<(bool, Vec<String>), Failure> {
        self.is_for_this_engine()?;
        let earlier = self.earlier().await?;
        match &earlier {
            Earlier::Whole(compared) => return Ok((true, self.ended(compared).await?)),
            Earlier::Half => {}
            Earlier::Nothing | Earlier::InUse => self.may_replace().await?,
        }
        let mut findings = self.files.check_install(self.manifest).await?;
        let request = self.request().await?;
        if self.wish.dry_run {
            findings.extend(self.dry_run(&request, &earlier).await?);
            return Ok((false, findings));
        }
        findings.extend(self.files.make_good().await?);
        self.forget_others().await?;
        let size = match self.selected(&request).await? {
            Some(selected) => selected.bytes,
            None => self.archive.on_disk(),
        };
        findings.push(self.has_room(size, &earlier)?);
        if self.context.target.encryption.is_some() && self.archive.key_id.is_none() {
            findings
                .push("this backup is not encrypted, although the settings ask for it: is it from before that?".into());
        }
        match earlier {
            // What that run kept is older than what was made of its work since.
            Earlier::InUse => {
                findings.extend(self.files.commit(&self.unfinished()).await?);
                self.remember(Reached::Begun)?;
            }
            Earlier::Half => {}
            Earlier::Nothing | Earlier::Whole(_) => self.remember(Reached::Begun)?,
        }
        failpoint::reach("restore-remembered");
        let begun = Instant::now();
        self.told(&request, staging::stage(&request)).await?;
        failpoint::reach("restore-staged");
        findings.push(brought(&request.progress, begun.elapsed()));
        self.remember(Reached::Changing)?;
        findings.extend(self.install().await?);
        self.remember(Reached::Finished)?;
        failpoint::reach("restore-finished");
        Ok((false, findings))
    }

    fn is_for_this_engine(&self) -> Result<(), Failure> {
        let (made, here) = (&self.manifest.engine, self.context.target.engine.word());
        if self.engine.is_none() || made == here {
            return Ok(());
        }
        let message = format!("backup {} is of {made}, and the settings say `engine: {here}`", self.manifest.backup_id);
        Err(Failure::new(Exit::Refused, "OtherEngine", message))
    }

    /// Looks at what an earlier run left, and at the engine. An engine that is to be replaced need not serve, nor one that an earlier run
    /// stopped.
    async fn earlier(&self) -> Result<Earlier, Failure> {
        let reached = self.marker()?.map(|m| m.reached);
        let changing = reached == Some(Reached::Changing);
        let Some(engine) = self.engine else {
            return Ok(if changing { Earlier::Half } else { Earlier::Nothing });
        };
        let may_be_down = self.wish.replace || changing;
        let patience = if may_be_down { LOOK } else { READY }.min(self.time_left());
        let ready = alive(self.watch, "waiting for the engine", engine.wait_until_ready(patience)).await;
        if !may_be_down {
            ready?;
        } else if ready.is_err() {
            return Ok(if changing { Earlier::Half } else { Earlier::Nothing });
        }
        match reached {
            Some(Reached::Changing) if !self.files.is_in_place(&self.tag, &self.staging)? => Ok(Earlier::Half),
            Some(Reached::Changing) => self.judged(engine).await,
            // It may have been changed where nobody looks: who says `--replace` gets the backup's.
            Some(Reached::Finished) if !self.wish.replace => {
                let compared = compare::is_already(engine, Some(self.manifest)).await;
                Ok(compared.map_or(Earlier::Nothing, Earlier::Whole))
            }
            _ => Ok(Earlier::Nothing),
        }
    }

    /// What became of a restore that was put in place and not proved.
    async fn judged(&self, engine: &dyn Engine) -> Result<Earlier, Failure> {
        if let Some(compared) = compare::is_already(engine, Some(self.manifest)).await {
            return Ok(Earlier::Whole(compared));
        }
        let untouched = compare::are_remains(engine, Some(self.manifest)).await?;
        Ok(if untouched { Earlier::Half } else { Earlier::InUse })
    }

    /// Makes up for the end of an earlier run.
    async fn ended(&self, compared: &Compared) -> Result<Vec<String>, Failure> {
        let mut findings = vec!["the backup was in the engine already".to_owned()];
        findings.extend(compared.findings.iter().cloned());
        if !self.wish.dry_run {
            findings.extend(self.mend().await);
            findings.extend(self.files.commit(&self.unfinished()).await?);
            self.remember(Reached::Finished)?;
        }
        Ok(findings)
    }

    /// An install of which only the tag is known.
    fn unfinished(&self) -> Installed {
        Installed { tag: self.tag.clone(), ..Installed::default() }
    }

    /// The marker of an earlier run of this restore here.
    fn marker(&self) -> Result<Option<RestoreMarker>, Failure> {
        let ours = |m: &RestoreMarker| m.backup_id == self.manifest.backup_id && m.engine == self.engine_name();
        Ok(self.state.last_restore()?.filter(ours))
    }

    /// What tells this engine, or this folder, from another in the marker.
    fn engine_name(&self) -> String {
        match self.engine {
            Some(_) => self.context.target.url.clone(),
            None => self.staging.display().to_string(),
        }
    }

    /// Where the data comes to, for people.
    fn destination(&self) -> String {
        let folder = self.wish.to.as_ref().or(self.context.target.data_dir.as_ref());
        match (self.engine, folder) {
            (None, Some(folder)) => folder.display().to_string(),
            _ => self.engine_name(),
        }
    }

    /// Data that somebody may want is replaced only when that was said.
    async fn may_replace(&self) -> Result<(), Failure> {
        if self.wish.replace {
            return Ok(());
        }
        let found = match (self.engine, self.files.local().await) {
            (Some(engine), _) => {
                let counted = engine.count().await?;
                let held: Vec<_> = counted.into_iter().filter(|c| c.count > 0).map(|c| c.name).collect();
                if held.is_empty() { None } else { Some(format!("the database has {}", held.join(", "))) }
            }
            (None, Some(folder)) if !is_empty(&folder)? => Some(format!("{} is not empty", folder.display())),
            (None, _) => None,
        };
        let Some(found) = found else { return Ok(()) };
        let message = format!(
            "{found}. Nothing was changed; `--replace` puts the backup in its place and keeps what is the same"
        );
        Err(Failure::new(Exit::Refused, "NotEmpty", message))
    }

    /// Has the engine take the staged files, and believes it only after a comparison.
    async fn install(&self) -> Result<Vec<String>, Failure> {
        let told = |step: Step<'_>| self.tell(step);
        let wish = InstallWish {
            tag: &self.tag,
            staged: &self.staging,
            manifest: self.manifest,
            patience: self.time_left(),
            progress: &told,
        };
        let installing = alive(self.watch, "putting the restored data in place", self.files.install(&wish)).await;
        let installed = match installing {
            Ok(installed) => installed,
            Err(e) => {
                return Err(self.taken_back(&self.unfinished(), e.into()).await);
            }
        };
        failpoint::reach("restore-installed");
        let mut findings = installed.findings.clone();
        if let Some(engine) = self.engine {
            let mut compared = self.compare(engine, &installed).await;
            findings.extend(self.mend().await);
            if compared.is_err() {
                compared = self.compare(engine, &installed).await;
            }
            match compared {
                Ok(compared) => findings.extend(compared.findings),
                Err(e) => return Err(self.taken_back(&installed, e).await),
            }
        }
        findings.extend(self.files.commit(&installed).await?);
        Ok(findings)
    }

    async fn compare(&self, engine: &dyn Engine, installed: &Installed) -> Result<Compared, Failure> {
        let comparing = compare::installed(engine, Some(self.manifest), installed);
        alive(self.watch, "counting and comparing samples", comparing).await
    }

    /// Leaves half of the time to what is still to come.
    async fn mend(&self) -> Vec<String> {
        let told = |step: Step<'_>| self.tell(step);
        let mending = self.files.mend(self.time_left() / 2, &told);
        alive(self.watch, "looking over the restored data", mending).await
    }

    fn tell(&self, step: Step<'_>) {
        let stage = step.state.to_owned();
        self.watch.see(&Progress { stage, done: step.done.unwrap_or(0), total: None });
    }

    async fn taken_back(&self, installed: &Installed, why: Failure) -> Failure {
        let taking = async {
            if self.files.take_back(installed).await? {
                self.remember(Reached::Begun)?;
            }
            Ok::<_, Failure>(())
        };
        match alive(self.watch, "putting back what was there before", taking).await {
            Ok(()) => why,
            Err(e) => {
                Failure { message: format!("{}; what was there before could not be put back: {e}", why.message), ..why }
            }
        }
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn request(&self) -> Result<Request, Failure> {
        let key = self.context.data_key(Some(self.archive)).await?;
        let objects = Objects::new(self.context.repository.shared_store(), self.archive, key);
        Ok(Request {
            objects,
            root: self.archive.index.clone(),
            tally: Tally::of(self.archive),
            staging: self.staging.clone(),
            local: self.files.local().await,
            include: globs(&self.wish.include)?,
            progress: Arc::new(Counters::default()),
        })
    }

    /// What a selection is of the backup; `None` where all of it is wanted.
    async fn selected(&self, request: &Request) -> Result<Option<Estimate>, Failure> {
        if self.wish.include.is_empty() {
            return Ok(None);
        }
        let apart = Request { progress: Arc::default(), ..request.clone() };
        let estimate = staging::estimate(&apart).await?;
        if estimate.entries > 0 {
            return Ok(Some(estimate));
        }
        let message = format!(
            "nothing in backup {} matches --include {}; a pattern is for the whole path, and '*' also for folders: '*/NAME'",
            self.manifest.backup_id,
            self.wish.include.join(" --include ")
        );
        Err(Failure::new(Exit::Usage, "NothingMatches", message))
    }

    async fn dry_run(&self, request: &Request, earlier: &Earlier) -> Result<Vec<String>, Failure> {
        let begun = Instant::now();
        let (estimate, whole) = match self.selected(request).await? {
            Some(selected) => (selected, selected.bytes),
            None => (staging::estimate(request).await?, self.archive.on_disk()),
        };
        let rate = self.rate(request).await?;
        let Estimate { files, bytes: size, fetch_bytes, requests, found_bytes, .. } = estimate;
        let mut findings = vec![
            format!("{files} files, {}, to {}", bytes(size), self.destination()),
            format!(
                "{} on the disk already, {} to fetch in {requests} requests",
                bytes(found_bytes),
                bytes(fetch_bytes)
            ),
        ];
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an estimate
        if let Some(rate) = rate {
            let seconds = fetch_bytes as f64 / rate + begun.elapsed().as_secs_f64();
            findings.push(format!(
                "about {seconds:.0} s at most, at the {} a second that one request brings now; several are made at once",
                bytes(rate as u64)
            ));
        }
        findings.push(self.has_room(whole, earlier)?);
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

    /// Restores of other backups that did not come to their end: each takes as much room as this one.
    fn others(&self) -> Result<Vec<PathBuf>, Failure> {
        let failed = |e: std::io::Error| Failure::new(Exit::Failed, "StagingUnreadable", e.to_string());
        other_stagings(&self.staging, &self.tag).map_err(failed)
    }

    async fn forget_others(&self) -> Result<(), Failure> {
        for folder in self.others()? {
            self.watch.see(&Progress::stage(format!("removing {}, of an interrupted restore", folder.display())));
            let removed = tokio::fs::remove_dir_all(&folder).await;
            removed.map_err(|e| {
                let message = format!("{}, which an interrupted restore left: {e}", folder.display());
                Failure::new(Exit::Failed, "StagingNotRemoved", message)
            })?;
        }
        Ok(())
    }

    /// Fails where the disk has too little room; says how much there is. What an earlier run brought is there already, and what
    /// others brought is removed before.
    fn has_room(&self, size: u64, earlier: &Earlier) -> Result<String, Failure> {
        let existing = self.staging.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        let others = self.others()?.iter().map(|folder| folder_size(folder)).sum::<u64>();
        let mut needed = (size + size / 20).saturating_sub(folder_size(&self.staging)).saturating_sub(others);
        if let Some(folder) = self.files.copies_into().filter(|_| !matches!(earlier, Earlier::Half)) {
            if room::same_disk(folder, existing) {
                needed += size;
            } else {
                room::ask(folder, size)?;
            }
        }
        room::ask(existing, needed)
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

    fn remember(&self, reached: Reached) -> Result<(), Failure> {
        self.state.remember(&RestoreMarker {
            backup_id: self.manifest.backup_id.clone(),
            parent: "backups/".into(),
            engine: self.engine_name(),
            collections: self.manifest.collections.iter().map(|c| c.name.clone()).collect(),
            reached,
        })
    }
}

fn brought(counters: &Counters, took: Duration) -> String {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{} files, {}: {} fetched in {} requests, {} kept from the disk, in {:.1} s",
        of(&counters.files),
        bytes(of(&counters.placed)),
        bytes(of(&counters.fetched)),
        of(&counters.requests),
        bytes(of(&counters.found)),
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
fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_size(&entry.path()),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    sizes.sum()
}
