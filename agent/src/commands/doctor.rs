//! `perennial doctor`: everything that a backup and a restore need, looked at before it is needed.
//!
//! Changes nothing but a probe object below `doctor/`, which it removes. A check that could not be made is not passed.

mod engine;
mod machine;
mod repository;

use std::future::Future;

use perennial_shared::settings::Engine;
use serde::Serialize;

use super::Outcome;
use super::table::table;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Good,
    Problem,
    CouldNotTell,
    NotChecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    found: Found,
    detail: String,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::Good, detail: detail.into() }
    }

    fn problem(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::Problem, detail: detail.into() }
    }

    fn not_checked(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, found: Found::NotChecked, detail: detail.into() }
    }

    /// Good with a detail, or as bad as the failure says.
    async fn of(name: &'static str, made: impl Future<Output = Result<String, Failure>>) -> Self {
        match made.await {
            Ok(detail) => Self::good(name, detail),
            Err(e) => {
                let found = if e.exit == Exit::CouldNotTell { Found::CouldNotTell } else { Found::Problem };
                Self { name, found, detail: e.message }
            }
        }
    }
}

/// Makes all checks.
pub async fn run(context: &Context) -> Result<Outcome, Failure> {
    let is_folder = context.target.engine == Engine::Files;
    let mut checks = if is_folder { vec![machine::data_folder(context)] } else { engine::checks(context).await };
    checks.extend(machine::checks(context));
    checks.extend(repository::checks(context).await);
    let any = |found| checks.iter().any(|c: &Check| c.found == found);
    let exit = match (any(Found::Problem), any(Found::CouldNotTell)) {
        (true, _) => Exit::Problems,
        (false, true) => Exit::CouldNotTell,
        (false, false) => Exit::Ok,
    };
    let rows: Vec<_> =
        checks.iter().map(|c| vec![word(c.found).to_owned(), c.name.to_owned(), c.detail.clone()]).collect();
    Outcome::new(table(&rows), &checks, exit)
}

fn word(found: Found) -> &'static str {
    match found {
        Found::Good => "ok",
        Found::Problem => "PROBLEM",
        Found::CouldNotTell => "UNKNOWN",
        Found::NotChecked => "-",
    }
}
