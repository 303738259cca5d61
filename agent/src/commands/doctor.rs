//! `perennial doctor`: everything that a backup and a restore need, looked at before it is needed.
//!
//! Changes nothing but a probe object below `doctor/` of each repository, which it removes. A check that could not be made is not passed.

mod engine;
mod machine;
mod replacement;
mod replicas;
mod repository;

use perennial_shared::settings::Engine;

use super::Outcome;
use super::table::table;
use crate::check::{Check, Found};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Makes all checks.
pub async fn run(context: &Context) -> Result<Outcome, Failure> {
    let is_folder = context.target.engine == Engine::Files;
    let mut checks = if is_folder { vec![machine::data_folder(context)] } else { engine::checks(context).await };
    checks.extend(machine::checks(context));
    checks.extend(replacement::check(&context.target));
    checks.extend(repository::checks(context).await);
    checks.extend(replicas::checks(context).await);
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
        Found::Warning => "warning",
        Found::Problem => "PROBLEM",
        Found::CouldNotTell => "UNKNOWN",
        Found::NotChecked => "-",
    }
}
