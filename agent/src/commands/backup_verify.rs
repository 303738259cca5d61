//! `perennial backup verify`

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::id::BackupId;
use perennial_shared::verify::{self, Depth, Options, Report, Verdict};

use super::Outcome;
use super::table::lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::units::bytes;
use crate::watch::{Progress, Watch};

const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Verifies the newest backup, or the one called `id`.
pub async fn run(
    context: &Context,
    id: Option<&BackupId>,
    options: Options,
    watch: &dyn Watch,
) -> Result<Outcome, Failure> {
    let now = Timestamp::now();
    // A backup that somebody asks for is never too old.
    let max_age = if id.is_none() { Some(context.target.backup.max_age) } else { None };
    let keys = match &context.target.encryption {
        Some(_) => Some(Arc::new(context.key_sources()?)),
        None => None,
    };
    let options = Options { max_age, keys, ..options };
    let work = async {
        match id {
            Some(id) => verify::one(&context.repository, id, now, &options).await,
            None => verify::newest(&context.repository, now, &options).await,
        }
    };
    let report = told(watch, &options.progress, work).await;
    let exit = match report.verdict {
        Verdict::Good => Exit::Ok,
        Verdict::Damaged => Exit::Problems,
        Verdict::CouldNotTell => Exit::CouldNotTell,
    };
    Outcome::new(text(&report, options.depth), &report, exit)
}

/// Tells how far it is while `work` is done.
async fn told(watch: &dyn Watch, progress: &verify::Progress, work: impl Future<Output = Report>) -> Report {
    let mut work = std::pin::pin!(work);
    loop {
        let (done, total) = (progress.done.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
        let stage = "verifying the backup".into();
        watch.see(&Progress { stage, done, total: (total > 0).then_some(total) });
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
