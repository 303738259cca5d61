//! `perennial backup list`

use jiff::Timestamp;
use perennial_shared::manifest::{BackupKind, Manifest};
use perennial_shared::resolve::{Candidate, Resolution, Source, resolve};
use serde::Serialize;

use super::Outcome;
use super::table::{age, lines, table};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::units::bytes;

#[derive(Serialize)]
struct Listing {
    repository: String,
    latest: Option<String>,
    backups: Vec<Entry>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    backup_id: String,
    latest: bool,
    started_at: Option<Timestamp>,
    size_bytes: Option<u64>,
    kind: Option<&'static str>,
    objects: Option<u64>,
    reason: Option<String>,
    generation: Option<u32>,
}

/// Lists the backups that could be restored, best first, and what was passed over.
pub async fn run(context: &Context) -> Result<Outcome, Failure> {
    let Resolution { pointer, candidates, problems, .. } = resolve(&context.repository).await?;
    let listing = Listing {
        repository: context.repository.location(),
        latest: pointer.backup_id().map(ToString::to_string),
        backups: candidates.iter().map(entry).collect(),
        problems,
    };
    let exit = if listing.problems.is_empty() { Exit::Ok } else { Exit::Problems };
    Outcome::new(text(&listing), &listing, exit)
}

fn entry(candidate: &Candidate) -> Entry {
    let manifest = candidate.manifest.as_ref();
    Entry {
        backup_id: candidate.id.to_string(),
        latest: candidate.source == Source::Pointer,
        started_at: manifest.map(|m| m.started_at),
        size_bytes: manifest.map(|m| m.size_bytes),
        kind: manifest.map(|m| if m.kind == BackupKind::Base { "base" } else { "increment" }),
        objects: manifest.map(Manifest::held),
        reason: manifest.map(|m| format!("{:?}", m.reason).to_lowercase()),
        generation: manifest.map(|m| m.generation.0),
    }
}

fn text(listing: &Listing) -> String {
    let mut rows = vec![["BACKUP", "AGE", "KIND", "SIZE", "OBJECTS", "REASON", ""].map(String::from).to_vec()];
    let now = Timestamp::now();
    for entry in &listing.backups {
        let or = |text: Option<String>| text.unwrap_or_else(|| "?".into());
        rows.push(vec![
            entry.backup_id.clone(),
            or(entry.started_at.map(|at| age(now.duration_since(at).as_secs()))),
            or(entry.kind.map(String::from)),
            or(entry.size_bytes.map(bytes)),
            or(entry.objects.map(|n| n.to_string())),
            or(entry.reason.clone()),
            if entry.latest { "latest".into() } else { String::new() },
        ]);
    }
    let mut text = if listing.backups.is_empty() {
        format!("there is no complete backup in {}\n", listing.repository)
    } else {
        table(&rows)
    };
    text.push_str(&lines(&listing.problems));
    text
}
