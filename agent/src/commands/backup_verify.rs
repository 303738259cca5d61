//! `perennial backup verify`

use jiff::Timestamp;
use perennial_shared::id::BackupId;
use perennial_shared::verify::{self, Limits, Report, Verdict};

use super::Outcome;
use super::table::{bytes, lines};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Reads every object of the newest backup, or of the one called `id`.
pub async fn run(context: &Context, id: Option<&BackupId>) -> Result<Outcome, Failure> {
    let now = Timestamp::now();
    let report = if let Some(id) = id {
        verify::one(&context.repository, id, now, Limits { max_age: None, deadline: None }).await
    } else {
        let limits = Limits { max_age: Some(context.target.backup.max_age), deadline: None };
        verify::newest(&context.repository, now, limits).await
    };
    let exit = match report.verdict {
        Verdict::Good => Exit::Ok,
        Verdict::Damaged => Exit::Problems,
        Verdict::CouldNotTell => Exit::CouldNotTell,
    };
    Outcome::new(text(&report), &report, exit)
}

fn text(report: &Report) -> String {
    let id = report.backup_id.as_ref().map_or("no backup", BackupId::as_str);
    let word = match report.verdict {
        Verdict::Good => "good",
        Verdict::Damaged => "NOT GOOD",
        Verdict::CouldNotTell => "could not tell",
    };
    let read =
        format!("{} of {} objects read and right, {}", report.objects_good, report.objects, bytes(report.bytes_read));
    let mut text = format!("{id}: {word}\n{read}\n");
    text.push_str(&lines(&report.findings));
    text
}
