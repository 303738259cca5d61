//! Refusing writes while reads go on.
//!
//! A server that is told to want more replicas than there can be answers every write, also in scripts and transactions, with
//! `NOREPLICAS`, and every read as before; saving goes on, and so does expiry. Nothing of it is remembered: accepting writes
//! again sets what the configuration file says, and a restart does the same.

use super::client::{Client, Link};
use super::startup::Startup;
use crate::engine::EngineError;

/// More replicas than any server has.
const NOBODY_HAS: &str = "1000000";
const REPLICAS: &str = "min-replicas-to-write";
const LAG: &str = "min-replicas-max-lag";
/// What Redis takes when nobody said anything; with 0 replicas do not count at all.
const USUAL_LAG: &str = "10";

pub(super) async fn refuse(client: &Client) -> Result<(), EngineError> {
    let mut link = client.open().await?;
    if link.setting(LAG).await?.as_deref() == Some("0") {
        set(&mut link, LAG, USUAL_LAG).await?;
    }
    set(&mut link, REPLICAS, NOBODY_HAS).await
}

pub(super) async fn accept(client: &Client) -> Result<(), EngineError> {
    let mut link = client.open().await?;
    let path = link.info("server").await?.text("config_file").to_owned();
    let file = Startup::read(&path).unwrap_or_default();
    let of = |name: &str, old: &str| file.last(name).or_else(|| file.last(old)).map(ToOwned::to_owned);
    // A number that `CONFIG REWRITE` put there while writes were refused is ours.
    let replicas = of(REPLICAS, "min-slaves-to-write").filter(|n| n != NOBODY_HAS).unwrap_or_else(|| "0".into());
    set(&mut link, REPLICAS, &replicas).await?;
    set(&mut link, LAG, &of(LAG, "min-slaves-max-lag").unwrap_or_else(|| USUAL_LAG.into())).await
}

/// Whether the server refuses writes in this way.
pub(super) async fn are_refused(link: &mut Link) -> Result<bool, EngineError> {
    Ok(link.setting(REPLICAS).await?.as_deref() == Some(NOBODY_HAS))
}

async fn set(link: &mut Link, name: &str, value: &str) -> Result<(), EngineError> {
    link.call(&["CONFIG", "SET", name, value]).await.map(drop)
}
