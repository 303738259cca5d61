//! What to tell and measure after a repository was looked at.

use jiff::{SignedDuration, Timestamp};
use perennial_shared::alert::{Alert, Kind};
use perennial_shared::event::Event;
use perennial_shared::id::BackupId;
use perennial_shared::metrics::Metric;
use perennial_shared::verify::{Report, Verdict};

/// The backup whose manifest was just created, for an event that says so.
pub fn created_backup(event: &Event) -> Option<BackupId> {
    let Event::ObjectCreated { key, .. } = event else { return None };
    let folder = key.strip_suffix("/manifest.json")?;
    folder.rsplit('/').next()?.parse().ok()
}

/// The metrics of a report. A verification that could not tell leaves the metric out: silence makes the alarm go off.
#[allow(clippy::cast_precision_loss)]
pub fn metrics(report: &Report) -> Vec<(Metric, f64)> {
    let mut values = Vec::new();
    values.extend(report.age_seconds.map(|age| (Metric::BackupAge, age as f64)));
    match report.verdict {
        Verdict::Good => values.push((Metric::VerificationGood, 1.0)),
        Verdict::Damaged => values.push((Metric::VerificationGood, 0.0)),
        Verdict::CouldNotTell => {}
    }
    values
}

/// What to tell a person; nothing when all is good. Told again each day for as long as it lasts.
pub fn alerts(target: &str, location: &str, report: &Report, now: Timestamp) -> Vec<Alert> {
    let backup = report.backup_id.as_ref().map_or("none", |id| id.as_str());
    let day = now.strftime("%Y%m%d");
    let about = |kind, since| {
        let place = format!("backup {backup} in {location}");
        let part = report.subset.map_or_else(String::new, |subset| format!(" (part {subset} of the data)"));
        let found = format!(
            "{} of {} objects agree with the manifest, {} bytes read{part}",
            report.objects_good, report.objects, report.bytes_read
        );
        Alert::new(kind, target, &place, since)
            .once_for(&format!("{backup}-{day}"))
            .with(report.findings.clone())
            .with([found])
    };
    let mut alerts = Vec::new();
    let since = report.age_seconds.map_or(now, |age| now - SignedDuration::from_secs(age));
    if report.too_old {
        alerts.push(about(Kind::BackupTooOld, since));
    }
    let only_old = report.too_old && report.findings.len() == 1;
    match report.verdict {
        Verdict::Damaged if !only_old => alerts.push(about(Kind::BackupDamaged, now)),
        Verdict::CouldNotTell => alerts.push(about(Kind::VerificationInconclusive, now)),
        _ => {}
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict, too_old: bool, findings: &[&str]) -> Report {
        Report {
            verdict,
            age_seconds: Some(7200),
            too_old,
            objects_good: 1,
            objects: 2,
            bytes_read: 3,
            findings: findings.iter().map(|f| (*f).to_owned()).collect(),
            ..Report::new(None)
        }
    }

    #[test]
    fn each_verdict_has_its_metrics_and_mails() {
        let now = "2026-11-21T11:00:00Z".parse().expect("a time");
        let rows = [
            (report(Verdict::Good, false, &[]), 2, vec![]),
            (report(Verdict::Damaged, false, &["missing"]), 2, vec![Kind::BackupDamaged]),
            (report(Verdict::Damaged, true, &["old"]), 2, vec![Kind::BackupTooOld]),
            (report(Verdict::Damaged, true, &["old", "missing"]), 2, vec![Kind::BackupTooOld, Kind::BackupDamaged]),
            (report(Verdict::CouldNotTell, false, &["denied"]), 1, vec![Kind::VerificationInconclusive]),
        ];
        for (report, values, kinds) in rows {
            assert_eq!(metrics(&report).len(), values, "{report:?}");
            let told: Vec<Kind> = alerts("docs", "s3://b/p", &report, now).iter().map(|a| a.kind).collect();
            assert_eq!(told, kinds, "{report:?}");
        }
    }

    #[test]
    fn a_created_manifest_names_its_backup() {
        let event = |key: &str| Event::ObjectCreated { bucket: "b".into(), key: key.into() };
        let id = created_backup(&event("docs/backups/20261121t030004z-g0003-7f3a9c/manifest.json")).expect("an id");
        assert_eq!(id.as_str(), "20261121t030004z-g0003-7f3a9c");
        assert_eq!(created_backup(&event("docs/latest_weaviate_backup.manifest.json")), None);
    }
}
