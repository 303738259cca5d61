//! The repository: may it be read, written, written conditionally; is the newest backup there and young enough.

use bytes::Bytes;
use jiff::Timestamp;
use perennial_shared::aws::sts;
use perennial_shared::pointer::{PointerState, nonce};
use perennial_shared::resolve::{Resolution, resolve};
use perennial_shared::settings::RepositorySettings;
use perennial_shared::store::{Store, StoreError};

use crate::check::Check;
use crate::commands::table::age;
use crate::context::Context;
use crate::failure::{Exit, Failure};

pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let mut checks = vec![];
    if matches!(context.target.repository, RepositorySettings::S3 { .. }) {
        let caller = async { Ok(sts::caller(&context.aws).await?) };
        checks.push(Check::of("AWS identity", caller).await);
    }
    let store = context.repository.store();
    checks.push(Check::of("repository readable", async { readable(store).await }).await);
    checks.push(Check::of("repository writable", async { writable(store).await }).await);
    checks.push(Check::of("pointer", pointer(context)).await);
    match resolve(&context.repository).await {
        Ok(resolution) => checks.extend(backups(context, &resolution)),
        Err(e) => checks.push(Check::of("newest backup", async { Err(e.into()) }).await),
    }
    checks
}

async fn readable(store: &dyn Store) -> Result<String, Failure> {
    let found = store.list("backups/").await?;
    Ok(format!("{}, {} objects of backups", store.location(), found.len()))
}

/// A conditional write must be refused when its condition does not hold, or two instances could both believe to own the target.
pub(super) async fn writable(store: &dyn Store) -> Result<String, Failure> {
    let key = format!("doctor/{}", nonce());
    let body = |text: &str| Bytes::from(format!("{text} {key}"));
    let version = store.create(&key, body("first")).await?;
    let probe = async {
        expect(
            matches!(store.create(&key, body("second")).await, Err(StoreError::AlreadyExists { .. })),
            "create-if-absent",
        )?;
        store.replace(&key, body("third"), &version).await?;
        expect(
            matches!(store.replace(&key, body("fourth"), &version).await, Err(StoreError::Changed { .. })),
            "compare-and-set",
        )
    };
    let probed = probe.await;
    let removed = store.delete(&key).await;
    probed?;
    Ok(match removed {
        Ok(()) => "conditional writes hold".into(),
        Err(e) => format!("conditional writes hold; the probe {key} could not be removed: {e}"),
    })
}

fn expect(held: bool, what: &str) -> Result<(), Failure> {
    if held {
        return Ok(());
    }
    let message = format!("{what} does not hold in this store: two instances could both write; use another one");
    Err(Failure::new(Exit::Problems, "NoConditionalWrites", message))
}

async fn pointer(context: &Context) -> Result<String, Failure> {
    match context.repository.pointer().await? {
        PointerState::Absent => Ok("there is none yet; the first backup makes it".into()),
        PointerState::Bare { backup_id, .. } => Ok(format!("written by a boot script, names {backup_id}")),
        PointerState::Present { pointer, .. } => {
            let owner = pointer.owner.as_deref().unwrap_or("nobody");
            Ok(format!("owned by {owner}, generation {}", pointer.generation))
        }
        PointerState::Damaged { why, .. } => Err(Failure::new(
            Exit::Problems,
            "PointerDamaged",
            format!("{} is damaged: {why}", context.repository.pointer_key()),
        )),
    }
}

fn backups(context: &Context, resolution: &Resolution) -> Vec<Check> {
    const NAME: &str = "newest backup";
    let newest = resolution.candidates.first();
    let most = i64::try_from(context.target.backup.max_age.as_secs()).unwrap_or(i64::MAX);
    let newest = match newest.map(|c| (c, c.manifest.as_ref())) {
        None => Check::problem(NAME, "there is none: nothing could be restored"),
        Some((candidate, None)) => {
            Check::problem(NAME, format!("{} has no manifest, so nothing of it can be checked", candidate.id))
        }
        Some((candidate, Some(manifest))) => {
            let seconds = Timestamp::now().duration_since(manifest.started_at).as_secs();
            let detail = format!("{}, {} old", candidate.id, age(seconds));
            if seconds > most {
                Check::problem(NAME, format!("{detail}, more than {}", age(most)))
            } else {
                Check::good(NAME, detail)
            }
        }
    };
    let problems = resolution.problems.iter().map(|p| Check::problem("backups", p));
    std::iter::once(newest).chain(problems).collect()
}
