//! Whether a backup's own objects are what its manifest says.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use perennial_shared::resolve::Candidate;
use perennial_shared::verify::{self, Options, Verdict, sha256_hex};

use crate::context::Context;
use crate::engine::NativeBackup;
use crate::engine::native::Description;
use crate::failure::{Exit, Failure};

/// The engine's description of the backup, which must be the one that was hashed.
pub(super) async fn description(
    context: &Context,
    native: &dyn NativeBackup,
    candidate: &Candidate,
) -> Result<Description, Failure> {
    let key = native.description_key();
    let body = context.repository.store().get(&format!("{}{}/{key}", candidate.parent, candidate.id)).await?.body;
    let expected = candidate.manifest.as_ref().map(|m| m.objects.iter().find(|o| o.key == key).map(|o| &o.sha256));
    if let Some(expected) = expected
        && expected != Some(&sha256_hex(&body))
    {
        let message = format!("{key} of backup {} is not the one that its manifest names", candidate.id);
        return Err(Failure::new(Exit::Problems, "BackupDamaged", message));
    }
    Ok(native.describe(&body)?)
}

/// Fails if the backup is damaged, or if nobody can tell; a backup without a manifest has nothing to be compared with.
pub(super) async fn look_for(context: &Context, candidate: &Candidate, time: Duration) -> Result<(), Failure> {
    if candidate.manifest.is_none() {
        return Ok(());
    }
    let options = Options { deadline: Some(Instant::now() + time), ..Options::default() };
    let report = verify::one(&context.repository, &candidate.id, Timestamp::now(), &options).await;
    let message = || format!("backup {}: {}", candidate.id, report.findings.join("; "));
    match report.verdict {
        Verdict::Good => Ok(()),
        Verdict::Damaged => Err(Failure::new(Exit::Problems, "BackupDamaged", message())),
        Verdict::CouldNotTell => Err(Failure::new(Exit::CouldNotTell, "RepositoryUnavailable", message())),
    }
}
