//! `perennial backup create`, of one target or of several at once.

use std::time::Duration;

use futures_util::future::join_all;
use perennial_shared::manifest::{BackupKind, Manifest, Reason};
use serde_json::{Value, json};

use super::Outcome;
use super::table::lines;
use crate::backup::chain::Kind;
use crate::backup::{self, Wish};
use crate::context::{Context, Source};
use crate::failure::{Exit, Failure};
use crate::replicate;
use crate::units::bytes;
use crate::watch::{Named, Watch};

/// Which backup is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Base or increment.
    pub kind: Kind,
    /// Read files again although they look unchanged.
    pub reread: bool,
}

/// Takes a backup now and publishes it.
pub async fn run(context: &Context, asked: Asked, watch: &dyn Watch) -> Result<Outcome, Failure> {
    let lock = context.state()?.lock(Duration::ZERO, || ()).await?;
    let Asked { kind, reread } = asked;
    let wish = Wish { reason: Reason::Manual, instance: context.instance().await?, generation: None, kind, reread };
    let made = backup::create(context, &wish, watch).await?;
    // Nobody has to wait for copies.
    drop(lock);
    let copied = replicate::everywhere(context, &made.manifest.backup_id, None, watch).await?;
    let manifest = &made.manifest;
    let mut text = format!("{}\n{}\n", manifest.backup_id, held(manifest, made.manifest.held()));
    text.push_str(&lines(&made.findings));
    text.push_str(&lines(&copied));
    Outcome::new(text, manifest, Exit::Ok)
}

/// Takes a backup of each target at the same time: what a person does before pulling the plug. Every one gets its turn to the end,
/// whatever becomes of the others; one that fails makes the whole fail.
pub async fn run_all(targets: &[String], asked: Asked, watch: &dyn Watch) -> Result<Outcome, Failure> {
    let twice = targets.iter().enumerate().find(|(n, t)| targets[..*n].contains(t));
    if let Some((_, target)) = twice {
        return Err(Failure::new(Exit::Usage, "TargetTwice", format!("--targets names {target} twice")));
    }
    let one = async |target: &String| {
        let watch = Named { name: target, watch };
        run(&Context::open(&Source::of(target)).await?, asked, &watch).await
    };
    let results = join_all(targets.iter().map(one)).await;
    let told: Vec<_> = targets.iter().zip(&results).map(|(target, result)| told(target, result)).collect();
    let (texts, json): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    Ok(Outcome { text: texts.join("\n"), json: json!({ "targets": json }), exit: together(&results) })
}

fn told(target: &str, result: &Result<Outcome, Failure>) -> (String, Value) {
    match result {
        Ok(Outcome { text, json, .. }) => (format!("{target}: {text}"), json!({ "target": target, "manifest": json })),
        Err(Failure { code, message, .. }) => (
            format!("{target}: FAILED: {message}\n"),
            json!({ "target": target, "error": { "code": code, "message": message } }),
        ),
    }
}

/// The exit code of all: that of the failures where they have one in common.
fn together(results: &[Result<Outcome, Failure>]) -> Exit {
    let mut failures = results.iter().filter_map(|r| r.as_ref().err()).map(|e| e.exit);
    match failures.next() {
        None => Exit::Ok,
        Some(first) if failures.all(|exit| exit == first) => first,
        Some(_) => Exit::Failed,
    }
}

fn held(manifest: &Manifest, objects: u64) -> String {
    let place = format!("{} in {} objects at {}", bytes(manifest.size_bytes), manifest.objects.len(), manifest.path);
    let mut parts = vec![];
    if manifest.archive.is_none() || !manifest.collections.is_empty() {
        parts.push(format!("{objects} objects in {} collections", manifest.collections.len()));
    }
    if let Some(archive) = &manifest.archive {
        let kind = if manifest.kind == BackupKind::Base { "base" } else { "increment" };
        let (files, data, new) = (archive.files, bytes(archive.data_bytes), bytes(archive.new_bytes));
        parts.push(format!("{kind} ({}): {files} files, {data}, of which {new} new", archive.because));
    }
    parts.push(place);
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_makes_the_whole_fail() {
        let good = || Ok(Outcome { text: String::new(), json: Value::Null, exit: Exit::Ok });
        let bad = |exit| Err(Failure::new(exit, "X", "x"));
        assert_eq!(together(&[good(), good()]), Exit::Ok);
        assert_eq!(together(&[good(), bad(Exit::Refused)]), Exit::Refused);
        assert_eq!(together(&[bad(Exit::Refused), bad(Exit::CouldNotTell), good()]), Exit::Failed);
    }
}
