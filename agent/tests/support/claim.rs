//! What a function asks an instance for.

use jiff::Timestamp;
use perennial_shared::id::BackupId;
use perennial_shared::pointer::nonce;
use perennial_shared::repository::{Claimed, Repository};
use perennial_shared::run::Claim;

/// Claims a run for an instance, on the pointer as it is.
pub async fn claim(repository: &Repository, run: &str, instance: &str, backup_id: Option<BackupId>, replace: bool) {
    let pointer = repository.pointer().await.expect("read");
    let claim = Claim {
        run: run.parse().expect("a run"),
        target: "docs".into(),
        instance: instance.into(),
        backup_id,
        pointer_version: pointer.version().map(ToString::to_string),
        generation: pointer.pointer().map(|p| p.generation).unwrap_or_default(),
        replace,
        claimed_at: Timestamp::now(),
        nonce: nonce(),
    };
    assert_eq!(repository.claim(&claim).await.expect("claimed"), Claimed::Won);
}
