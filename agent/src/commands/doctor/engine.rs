//! The engine's own checks.

use crate::check::Check;
use crate::context::Context;
use crate::engine::Engine;
use crate::failure::Failure;

/// Ready, who it is, what it holds, and what the engine itself knows to look at.
pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let engine = match context.engine().await {
        Ok(engine) => engine,
        Err(e) => return vec![Check::of("engine", async { Err(e) }).await],
    };
    let engine = &*engine;
    let mut checks = vec![
        Check::of("engine ready", ready(context, engine)).await,
        Check::of("engine version", async { Ok(engine.identity().await?.version) }).await,
        Check::of("collections", collections(engine)).await,
    ];
    checks.extend(engine.examine().await);
    checks
}

async fn ready(context: &Context, engine: &dyn Engine) -> Result<String, Failure> {
    engine.health().await?;
    Ok(context.target.url.clone())
}

async fn collections(engine: &dyn Engine) -> Result<String, Failure> {
    let counted = engine.count().await?;
    let objects: u64 = counted.iter().map(|c| c.count).sum();
    let inactive: u64 = counted.iter().map(|c| c.uncounted_tenants).sum();
    let more =
        if inactive == 0 { String::new() } else { format!(", and {inactive} inactive tenants that cannot be counted") };
    Ok(format!("{objects} objects in {} collections{more}", counted.len()))
}
