//! `perennial key rotate`
//!
//! Promises: every repository of the target is rotated, its replicas too, each by itself; one that fails keeps no other from it. An older
//! wrapping is removed only after each repository has the new ones of all keys that open at all: whoever removes the old ones is going to
//! destroy the old key.

use std::collections::BTreeSet;

use perennial_shared::encryption::rotation::{Inspection, inspect, remove_old, wrap};
use perennial_shared::encryption::{KeyId, KeySources};
use perennial_shared::repository::Repository;
use serde::Serialize;

use super::Outcome;
use super::confirm::by_name;
use super::key_list::problems;
use super::table::lines;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// How far a rotation goes.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Remove the wrappings by previous keys afterwards.
    pub remove_old: bool,
    /// Show the plan only.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
}

#[derive(Serialize)]
struct Report {
    to: String,
    dry_run: bool,
    /// The target's own repository.
    #[serde(flatten)]
    own: Part,
    replicas: Vec<Part>,
}

/// What becomes of one repository.
#[derive(Serialize)]
struct Part {
    repository: String,
    plan: Vec<String>,
    wrapped: Vec<KeyId>,
    removed: Vec<String>,
    problems: Vec<String>,
    /// Whether it ended before its end.
    #[serde(skip)]
    failed: bool,
}

/// One repository and what was found there, until something fails there.
struct Place {
    state: Result<(Repository, Inspection), Failure>,
    part: Part,
}

/// Wraps every data key by `encryption.key`. Shows its plan first, and asks.
pub async fn run(context: &Context, wish: Wish) -> Result<Outcome, Failure> {
    let sources = context.key_sources()?;
    let mut places = places(context, &sources).await?;
    let remove = wish.remove_old && places.iter().all(|place| place.state.is_ok());
    let closed = closed(&places);
    for place in &mut places {
        place.plan(remove, &closed);
    }
    let planned: Vec<_> = places.iter().flat_map(|place| place.part.steps()).collect();
    if !wish.dry_run && !planned.is_empty() {
        eprint!("{}", lines(&planned));
        if !wish.yes {
            by_name(&context.target.name, "No backup is touched.", "say --yes to do this without being asked")?;
        }
        rotate(&mut places, &sources, remove).await;
    }
    outcome(places, sources.current.describe(), wish)
}

fn outcome(places: Vec<Place>, to: String, wish: Wish) -> Result<Outcome, Failure> {
    let failed = places.iter().find_map(|place| place.state.as_ref().err()).map(|e| e.exit);
    let mut parts: Vec<_> = places.into_iter().map(|place| place.part).collect();
    if wish.remove_old && failed.is_some() {
        let left = "old wrappings are left: rotate again before their key is destroyed";
        parts[0].problems.push(left.into());
    }
    let sound = parts.iter().all(|part| part.problems.is_empty());
    let exit = failed.unwrap_or(if sound { Exit::Ok } else { Exit::Problems });
    let report = Report { to, dry_run: wish.dry_run, own: parts.remove(0), replicas: parts };
    Outcome::new(text(&report), &report, exit)
}

/// The target's repository, which must be readable, and its replicas.
async fn places(context: &Context, sources: &KeySources) -> Result<Vec<Place>, Failure> {
    let own = (context.repository.clone(), inspect(&context.repository, sources).await?);
    let mut places = vec![Place::new(context.target.repository.to_string(), Ok(own))];
    for settings in &context.target.replicas {
        let look = async {
            let replica = context.with_repository(settings)?.repository;
            let found = inspect(&replica, sources).await?;
            Ok((replica, found))
        };
        places.push(Place::new(settings.to_string(), look.await));
    }
    let error = places.iter().filter_map(Place::found).find_map(|found| found.current_fails.clone());
    error.map_or(Ok(places), |error| Err(error.into()))
}

/// The keys that do not open somewhere. Their old wrappings elsewhere may be what mends them.
fn closed(places: &[Place]) -> BTreeSet<KeyId> {
    let keys = places.iter().filter_map(Place::found).flat_map(|found| &found.keys);
    keys.filter(|key| key.problem.is_some()).map(|key| key.id.clone()).collect()
}

/// First the new wrappings everywhere, then the old ones.
async fn rotate(places: &mut [Place], sources: &KeySources, remove: bool) {
    for place in &mut *places {
        place.wrap(sources).await;
    }
    if remove && places.iter().all(|place| place.state.is_ok()) {
        let closed = closed(places);
        for place in places {
            place.remove_old(sources, &closed).await;
        }
    }
}

impl Place {
    fn new(repository: String, state: Result<(Repository, Inspection), Failure>) -> Self {
        let problems = match &state {
            Ok((_, found)) => problems(found),
            Err(e) => vec![not_rotated(e)],
        };
        let part =
            Part { repository, plan: vec![], wrapped: vec![], removed: vec![], problems, failed: state.is_err() };
        Self { state, part }
    }

    fn found(&self) -> Option<&Inspection> {
        self.state.as_ref().ok().map(|(_, found)| found)
    }

    fn plan(&mut self, remove: bool, closed: &BTreeSet<KeyId>) {
        self.part.plan = self.found().map(|found| plan(found, remove, closed)).unwrap_or_default();
    }

    async fn wrap(&mut self, sources: &KeySources) {
        let Ok((repository, found)) = &self.state else { return };
        match wrap(repository, sources, found).await {
            Ok(wrapped) => self.part.wrapped = wrapped,
            Err(e) => self.fail(e.into()),
        }
    }

    async fn remove_old(&mut self, sources: &KeySources, closed: &BTreeSet<KeyId>) {
        let Ok((repository, found)) = &mut self.state else { return };
        found.keys.retain(|key| !closed.contains(&key.id));
        match remove_old(repository, sources, found).await {
            Ok(removed) => self.part.removed = removed,
            Err(e) => self.fail(e.into()),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.part.problems.push(not_rotated(&failure));
        self.part.failed = true;
        self.state = Err(failure);
    }
}

fn not_rotated(failure: &Failure) -> String {
    format!("not rotated to its end: {failure}; do it again once that is put right")
}

impl Part {
    fn steps(&self) -> impl Iterator<Item = String> {
        self.plan.iter().map(|step| format!("{}: {step}", self.repository))
    }
}

/// What is going to be done in one repository, a line each.
fn plan(found: &Inspection, remove: bool, closed: &BTreeSet<KeyId>) -> Vec<String> {
    let mut lines = Vec::new();
    for key in found.keys.iter().filter(|key| key.problem.is_none()) {
        if key.can_be_wrapped() {
            let mut from: Vec<_> = key.old().map(|old| old.source.as_str()).collect();
            from.dedup();
            lines.push(format!("wrap {} by {}, from {}", key.id, found.current, from.join(", ")));
        }
        if remove && !closed.contains(&key.id) {
            let old = key.old().map(|old| format!("remove wrapping {} of {}, by {}", old.number, key.id, old.source));
            lines.extend(old);
        }
    }
    lines
}

fn text(report: &Report) -> String {
    std::iter::once(&report.own).chain(&report.replicas).map(|part| part_text(part, report)).collect()
}

fn part_text(part: &Part, report: &Report) -> String {
    let done = if part.failed {
        "failed\n".to_owned()
    } else if part.plan.is_empty() {
        format!("nothing to do: what opens, opens with {}\n", report.to)
    } else if report.dry_run {
        format!("would do:\n{}", lines(&part.plan))
    } else {
        format!("wrapped {} keys by {}, removed {} wrappings\n", part.wrapped.len(), report.to, part.removed.len())
    };
    format!("{}: {done}{}", part.repository, lines(&part.problems))
}
