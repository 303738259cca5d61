//! The engine's own checks.

use super::Check;
use crate::context::Context;
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;

/// Ready, who it is, what it holds, and nothing left over that would make a restore lie.
pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let engine = match context.engine().await {
        Ok(engine) => engine,
        Err(e) => return vec![Check::of("engine", async { Err(e) }).await],
    };
    let engine = &*engine;
    vec![
        Check::of("engine ready", ready(context, engine)).await,
        Check::of("engine version", async { Ok(engine.identity().await?.version) }).await,
        host_name(context, engine).await,
        Check::of("collections", collections(engine)).await,
        left_over(context, engine).await,
    ]
}

async fn ready(context: &Context, engine: &dyn Engine) -> Result<String, Failure> {
    engine.health().await?;
    Ok(context.target.url.clone())
}

async fn host_name(context: &Context, engine: &dyn Engine) -> Check {
    const NAME: &str = "host name";
    let Some(expected) = &context.target.host_name else {
        return Check::not_checked(NAME, "set host_name and CLUSTER_HOSTNAME: data does not open under another name");
    };
    let checked = async {
        let found = engine.identity().await?.host_name;
        if found == *expected {
            return Ok(found);
        }
        Err(EngineError::HostNameDiffers { expected: expected.clone(), found }.into())
    };
    Check::of(NAME, checked).await
}

async fn collections(engine: &dyn Engine) -> Result<String, Failure> {
    let counted = engine.count().await?;
    let objects: u64 = counted.iter().map(|c| c.count).sum();
    let inactive: u64 = counted.iter().map(|c| c.uncounted_tenants).sum();
    let more =
        if inactive == 0 { String::new() } else { format!(", and {inactive} inactive tenants that cannot be counted") };
    Ok(format!("{objects} objects in {} collections{more}", counted.len()))
}

async fn left_over(context: &Context, engine: &dyn Engine) -> Check {
    const NAME: &str = "left-over folders";
    if context.target.data_dir.is_none() {
        return Check::not_checked(NAME, "set data_dir: a restore over a left-over folder loses data without an error");
    }
    let checked = async {
        let found = engine.left_over_folders().await?;
        if found.is_empty() {
            return Ok("none".to_owned());
        }
        let folders = found.iter().map(|f| f.display().to_string()).collect();
        Err(EngineError::OrphanFolder { folders }.into())
    };
    Check::of(NAME, checked).await
}
