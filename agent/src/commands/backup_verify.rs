//! `perennial backup verify`

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::id::BackupId;
use perennial_shared::settings::{RepositorySettings, Target};
use perennial_shared::verify::{self, Depth, Options, Report, Verdict};
use serde_json::json;

use super::Outcome;
use super::table::lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::units::bytes;
use crate::watch::{Progress, Watch};

const TOLD_EVERY: Duration = Duration::from_millis(500);

/// What `--replica` takes for all of them.
const ALL: &str = "all";

/// Verifies the newest backup, or the one called `id`: in the target's own repository, or in the replicas that are named.
pub async fn run(
    context: &Context,
    replica: Option<&str>,
    id: Option<&BackupId>,
    options: Options,
    watch: &dyn Watch,
) -> Result<Outcome, Failure> {
    let Some(name) = replica else {
        let report = verified(context, id, &options, watch).await?;
        return Outcome::new(text(&report, options.depth), &report, exit(report.verdict));
    };
    let (mut texts, mut json, mut verdicts) = (vec![], vec![], vec![]);
    for settings in replicas(&context.target, name)? {
        let there = context.with_repository(settings)?;
        let report = verified(&there, id, &options, watch).await?;
        texts.push(format!("{settings}: {}", text(&report, options.depth)));
        json.push(json!({ "repository": settings.to_string(), "report": &report }));
        verdicts.push(report.verdict);
    }
    Outcome::new(texts.join("\n"), &json!({ "replicas": json }), exit(worst(&verdicts)))
}

/// The replicas that are called so: by the URL that the settings have, or all.
fn replicas<'a>(target: &'a Target, name: &str) -> Result<Vec<&'a RepositorySettings>, Failure> {
    let usage = |code, message| Err(Failure::new(Exit::Usage, code, message));
    if target.replicas.is_empty() {
        return usage("NoReplicas", format!("{} has no `replicas` in its settings", target.name));
    }
    let is_meant =
        |r: &&RepositorySettings| name == ALL || r.to_string().trim_end_matches('/') == name.trim_end_matches('/');
    let meant: Vec<_> = target.replicas.iter().filter(is_meant).collect();
    if meant.is_empty() {
        let known: Vec<_> = target.replicas.iter().map(ToString::to_string).collect();
        return usage("NoSuchReplica", format!("{name} is none of the replicas: say {}, or {ALL}", known.join(", ")));
    }
    Ok(meant)
}

/// Damage outweighs doubt, doubt outweighs good.
fn worst(verdicts: &[Verdict]) -> Verdict {
    let outweighs = [Verdict::Damaged, Verdict::CouldNotTell];
    outweighs.into_iter().find(|v| verdicts.contains(v)).unwrap_or(Verdict::Good)
}

fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Good => Exit::Ok,
        Verdict::Damaged => Exit::Problems,
        Verdict::CouldNotTell => Exit::CouldNotTell,
    }
}

async fn verified(
    context: &Context,
    id: Option<&BackupId>,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Report, Failure> {
    let now = Timestamp::now();
    // A backup that somebody asks for is never too old.
    let max_age = if id.is_none() { Some(context.target.backup.max_age) } else { None };
    let keys = match &context.target.encryption {
        Some(_) => Some(Arc::new(context.key_sources()?)),
        None => None,
    };
    let options = Options { max_age, keys, progress: Arc::default(), ..options.clone() };
    let work = async {
        match id {
            Some(id) => verify::one(&context.repository, id, now, &options).await,
            None => verify::newest(&context.repository, now, &options).await,
        }
    };
    let stage = format!("verifying the backup in {}", context.repository.location());
    Ok(told(watch, &stage, &options.progress, work).await)
}

/// Tells how far it is while `work` is done.
async fn told(
    watch: &dyn Watch,
    stage: &str,
    progress: &verify::Progress,
    work: impl Future<Output = Report>,
) -> Report {
    let mut work = std::pin::pin!(work);
    loop {
        let (done, total) = (progress.done.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
        watch.see(&Progress { stage: stage.into(), done, total: (total > 0).then_some(total) });
        if let Ok(report) = tokio::time::timeout(TOLD_EVERY, &mut work).await {
            return report;
        }
    }
}

fn text(report: &Report, depth: Depth) -> String {
    let id = report.backup_id.as_ref().map_or("no backup", BackupId::as_str);
    let word = match report.verdict {
        Verdict::Good => "good",
        Verdict::Damaged => "NOT GOOD",
        Verdict::CouldNotTell => "could not tell",
    };
    let mut said = vec![format!("{id}: {word}"), looked_at(report, depth)];
    if report.files > 0 {
        let Report { files, frames, chunks, .. } = report;
        said.push(format!("{files} files in the index, {frames} frames and {chunks} chunks of them read"));
    }
    if report.from_records > 0 {
        let known = bytes(report.from_records);
        said.push(format!("{known} were right within the last 30 days and not read again (--again reads them)"));
    }
    said.extend(report.notes.iter().chain(&report.findings).cloned());
    lines(&said)
}

fn looked_at(report: &Report, depth: Depth) -> String {
    let (good, all, read) = (report.objects_good, report.objects, bytes(report.bytes_read));
    match (depth, report.subset) {
        (Depth::Structure, _) => format!("{good} of {all} objects there with their sizes, no data read"),
        (_, Some(subset)) => format!("{good} of {all} objects right as far as part {subset} of the data tells, {read}"),
        _ => format!("{good} of {all} objects read and right, {read}"),
    }
}
