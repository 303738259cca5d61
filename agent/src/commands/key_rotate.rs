//! `perennial key rotate`

use perennial_shared::encryption::KeyId;
use perennial_shared::encryption::rotation::{Inspection, inspect, rotate};
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
    plan: Vec<String>,
    dry_run: bool,
    wrapped: Vec<KeyId>,
    removed: Vec<String>,
    problems: Vec<String>,
}

/// Wraps every data key by `encryption.key`. Shows its plan first, and asks.
pub async fn run(context: &Context, wish: Wish) -> Result<Outcome, Failure> {
    let sources = context.key_sources()?;
    let found = inspect(&context.repository, &sources).await?;
    if let Some(error) = found.current_fails {
        return Err(error.into());
    }
    let mut report = Report {
        to: found.current.clone(),
        plan: plan(&found, wish.remove_old),
        dry_run: wish.dry_run,
        wrapped: Vec::new(),
        removed: Vec::new(),
        problems: problems(&found),
    };
    if !wish.dry_run && !report.plan.is_empty() {
        eprint!("{}", lines(&report.plan));
        if !wish.yes {
            by_name(&context.target.name, "No backup is touched.", "say --yes to do this without being asked")?;
        }
        let done = rotate(&context.repository, &sources, &found, wish.remove_old).await?;
        (report.wrapped, report.removed) = (done.wrapped, done.removed);
    }
    let exit = if report.problems.is_empty() { Exit::Ok } else { Exit::Problems };
    Outcome::new(text(&report), &report, exit)
}

/// What is going to be done, a line each.
fn plan(found: &Inspection, remove_old: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for key in found.keys.iter().filter(|key| key.problem.is_none()) {
        if key.can_be_wrapped() {
            let mut from: Vec<_> = key.old().map(|old| old.source.as_str()).collect();
            from.dedup();
            lines.push(format!("wrap {} by {}, from {}", key.id, found.current, from.join(", ")));
        }
        if remove_old {
            let old = key.old().map(|old| format!("remove wrapping {} of {}, by {}", old.number, key.id, old.source));
            lines.extend(old);
        }
    }
    lines
}

fn text(report: &Report) -> String {
    let mut text = if report.plan.is_empty() {
        format!("nothing to do: what opens, opens with {}\n", report.to)
    } else if report.dry_run {
        format!("would do:\n{}", lines(&report.plan))
    } else {
        format!("wrapped {} keys by {}, removed {} wrappings\n", report.wrapped.len(), report.to, report.removed.len())
    };
    text.push_str(&lines(&report.problems));
    text
}
