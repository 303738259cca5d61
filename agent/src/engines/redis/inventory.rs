//! What is in the server: counts of its databases, and samples of their keys.
//!
//! Only keys that do not expire are samples: one that does could be gone before it is asked for again.

use perennial_shared::manifest::Sample;

use super::client::{Client, Link, bytes, list};
use super::info::{name_of, number_of};
use super::names;
use super::value::{self, Found};
use crate::engine::{Answer, Counted, EngineError};

/// Keys that are looked at for one sample.
const TRIES: usize = 20;
/// Steps of `SCAN` where random keys are no use: nearly all of them expire.
const STEPS: usize = 200;

/// Every database that holds keys, with its number of keys.
pub(super) async fn count(client: &Client) -> Result<Vec<Counted>, EngineError> {
    let mut link = client.open().await?;
    let databases = link.info("keyspace").await?.databases();
    let (saving, happened) = (link.info("persistence").await?, link.info("stats").await?);
    // Of the whole server. The first begins anew with each save, which is a difference too.
    let changes = saving.number("rdb_changes_since_last_save").unwrap_or(0)
        + happened.number("expired_keys").unwrap_or(0)
        + happened.number("evicted_keys").unwrap_or(0);
    let counted = databases.into_iter().map(|found| Counted {
        name: name_of(found.database),
        count: found.all,
        may_expire: found.expires,
        changes,
        ..Counted::default()
    });
    let mut counted: Vec<_> = counted.collect();
    counted.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(counted)
}

/// Up to `each` samples of a database.
pub(super) async fn samples(client: &Client, collection: &str, each: usize) -> Result<Vec<Sample>, EngineError> {
    let mut link = client.open_database(database(collection)?).await?;
    let mut samples: Vec<Sample> = vec![];
    for _ in 0..each * TRIES {
        if samples.len() == each {
            return Ok(samples);
        }
        let key = bytes(link.call(&["RANDOMKEY"]).await?);
        take(&mut link, &key, &mut samples).await?;
    }
    let mut cursor = "0".to_owned();
    for _ in 0..STEPS {
        let mut answer = list(link.call(&["SCAN", &cursor, "COUNT", "100"]).await?);
        let (keys, next) = (answer.pop(), answer.pop());
        for key in keys.map(list).unwrap_or_default() {
            if samples.len() == each {
                return Ok(samples);
            }
            take(&mut link, &bytes(key), &mut samples).await?;
        }
        cursor = next.map(super::client::text).unwrap_or_default();
        if cursor.is_empty() || cursor == "0" {
            break;
        }
    }
    Ok(samples)
}

/// Makes a sample of a key, where it is good for one.
async fn take(link: &mut Link, key: &[u8], samples: &mut Vec<Sample>) -> Result<(), EngineError> {
    let near_object = names::to_text(key);
    if samples.iter().any(|s| s.near_object == near_object) {
        return Ok(());
    }
    if let Found::Value { digest, expires: false } = value::find(link, key).await? {
        let digest = Some(digest);
        samples.push(Sample { tenant: None, vector: None, near_object, limit: 0, ids: vec![], digest });
    }
    Ok(())
}

/// What a sample's key holds now.
pub(super) async fn ask(client: &Client, collection: &str, sample: &Sample) -> Result<Answer, EngineError> {
    let damaged =
        || EngineError::Damaged { what: format!("the sample {:?}", sample.near_object), why: "it names no key".into() };
    let key = names::from_text(&sample.near_object).ok_or_else(damaged)?;
    let mut link = client.open_database(database(collection)?).await?;
    let digest = match value::find(&mut link, &key).await? {
        Found::Value { digest, .. } => Some(digest),
        Found::Gone | Found::Unsuitable => None,
    };
    Ok(Answer { digest, ..Answer::default() })
}

fn database(collection: &str) -> Result<u32, EngineError> {
    number_of(collection).ok_or_else(|| EngineError::Damaged {
        what: format!("the collection {collection:?}"),
        why: "a database of Redis is called db0, db1 and so on".into(),
    })
}
