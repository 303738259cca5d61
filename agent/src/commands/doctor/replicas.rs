//! The replicas: may each be written to, what is the newest backup there, and what does it lack.

use perennial_shared::resolve::resolve;
use perennial_shared::settings::RepositorySettings;

use super::repository::writable;
use crate::check::Check;
use crate::context::Context;
use crate::failure::Failure;
use crate::replicate::lacking;

const NAME: &str = "replica";

/// A line for each replica.
pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let mut checks = vec![];
    for settings in &context.target.replicas {
        checks.push(match look(context, settings).await {
            Ok(check) => check,
            Err(e) => {
                let message = format!("{settings}: {}", e.message);
                Check::of(NAME, async { Err(Failure { message, ..e }) }).await
            }
        });
    }
    checks
}

async fn look(context: &Context, settings: &RepositorySettings) -> Result<Check, Failure> {
    let replica = context.with_repository(settings)?.repository;
    let writable = writable(replica.store()).await?;
    let resolution = resolve(&replica).await?;
    if !resolution.problems.is_empty() {
        return Ok(Check::problem(NAME, format!("{settings}: {}", resolution.problems.join("; "))));
    }
    let newest = resolution.candidates.first().map_or("no backup".into(), |c| format!("newest backup {}", c.id));
    let lacking = lacking(&context.repository, &replica).await?.len();
    let detail = format!("{settings}: {newest}, {writable}");
    if lacking == 0 {
        return Ok(Check::good(NAME, detail));
    }
    Ok(Check::warning(
        NAME,
        format!("{detail}; it lacks {lacking} that the first repository has: the next backup copies them"),
    ))
}
