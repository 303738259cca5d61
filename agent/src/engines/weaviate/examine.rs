//! What `doctor` looks at in Weaviate alone: its pinned name, folders that would make a restore lie, and whether its files could be
//! caught.

use super::{Weaviate, left_over};
use crate::check::Check;
use crate::engine::{Engine, EngineError};

pub(super) async fn checks(weaviate: &Weaviate) -> Vec<Check> {
    let mut checks = vec![host_name(weaviate).await, left_over_folders(weaviate).await];
    if weaviate.physical {
        checks.push(files(weaviate).await);
    }
    checks
}

/// Whether the files could be caught now: the process that would be held still is the one that has them open.
async fn files(weaviate: &Weaviate) -> Check {
    const NAME: &str = "files";
    if weaviate.data_dir.is_none() || weaviate.service.is_none() {
        return Check::problem(NAME, "set data_dir and service: `method: physical` needs both");
    }
    let detail = "the process that `service` names has the files of data_dir open, and links can be made beside them";
    Check::of(NAME, async { Ok(weaviate.check_capture().await.map(|()| detail.to_owned())?) }).await
}

async fn host_name(weaviate: &Weaviate) -> Check {
    const NAME: &str = "host name";
    if weaviate.host_name.is_none() {
        return Check::not_checked(NAME, "set host_name and CLUSTER_HOSTNAME: data does not open under another name");
    }
    Check::of(NAME, async { Ok(weaviate.pinned_identity().await?.host_name) }).await
}

/// Folders of collections that the engine does not know. Installing over one loses data without an error.
async fn left_over_folders(weaviate: &Weaviate) -> Check {
    const NAME: &str = "left-over folders";
    let Some(data_dir) = &weaviate.data_dir else {
        return Check::not_checked(NAME, "set data_dir: a restore over a left-over folder loses data without an error");
    };
    let checked = async {
        let found = left_over::unknown(data_dir, &weaviate.collections().await?)?;
        if found.is_empty() {
            return Ok("none".to_owned());
        }
        Err(EngineError::OrphanFolder { folders: found.iter().map(|f| f.display().to_string()).collect() }.into())
    };
    Check::of(NAME, checked).await
}
