//! What `doctor` looks at in Qdrant alone. `storage.temp_path`, which breaks restores at the server's own start, is not visible over REST.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::client::Request;
use super::{Qdrant, inventory, names, version};
use crate::check::Check;
use crate::engine::{Engine, EngineError};
use crate::failure::{Exit, Failure};

pub(super) async fn checks(qdrant: &Qdrant) -> Vec<Check> {
    vec![
        Check::of("single node", async { Ok(qdrant.is_single().await.map(|()| "yes".to_owned())?) }).await,
        engine_version(qdrant).await,
        collections(qdrant).await,
        api_key(qdrant).await,
        remains(qdrant).await,
    ]
}

async fn engine_version(qdrant: &Qdrant) -> Check {
    const NAME: &str = "engine's version";
    match qdrant.identity().await {
        Ok(identity) => match version::shortcoming(&identity.version) {
            Some(why) => Check::warning(NAME, format!("{}: {why}", identity.version)),
            None => Check::good(NAME, identity.version),
        },
        Err(e) => unknown(NAME, e).await,
    }
}

/// Yellow is at work; red, or an optimizer with an error, stays so and loses searches.
async fn collections(qdrant: &Qdrant) -> Check {
    const NAME: &str = "collections' state";
    match states(qdrant).await {
        Ok(states) => judge(NAME, &states),
        Err(e) => unknown(NAME, e).await,
    }
}

async fn states(qdrant: &Qdrant) -> Result<Vec<(String, Value)>, EngineError> {
    let mut found = vec![];
    for (name, own) in inventory::called(&qdrant.client).await? {
        let info: Option<Value> = qdrant.client.find(Request::get(&["collections", &own])).await?;
        found.extend(info.map(|info| (name, info)));
    }
    Ok(found)
}

fn judge(name: &'static str, states: &[(String, Value)]) -> Check {
    let of = |wanted: fn(&Value) -> bool| {
        let those = states.iter().filter(|(_, info)| wanted(info)).map(|(name, _)| name.as_str());
        those.collect::<Vec<_>>().join(", ")
    };
    let broken = of(|info| info["status"] == "red" || info["optimizer_status"].get("error").is_some());
    if !broken.is_empty() {
        return Check::problem(name, format!("{broken}: red or with an optimizer error; the engine's log says why"));
    }
    let busy = of(|info| info["status"] != "green");
    if !busy.is_empty() {
        let detail = format!("{busy}: being optimized or waiting for it; backups are right, searches may be slow");
        return Check::warning(name, detail);
    }
    Check::good(name, format!("{} green", states.len()))
}

async fn api_key(qdrant: &Qdrant) -> Check {
    const NAME: &str = "API key";
    let anonymous = async {
        let client = qdrant.client.anonymous()?;
        let request = Request::get(&["collections"]).within(Duration::from_secs(10));
        client.read::<Value>(request).await
    };
    match anonymous.await {
        Ok(_) if qdrant.client.has_key() => {
            Check::warning(NAME, "the engine answers without one as well: set QDRANT__SERVICE__API_KEY")
        }
        Ok(_) => Check::warning(NAME, "none: whoever reaches the port can read and delete everything"),
        Err(EngineError::Unauthorized { .. } | EngineError::Forbidden { .. }) => Check::good(NAME, "asked for"),
        Err(e) => unknown(NAME, e).await,
    }
}

/// Copies that a restore made and nobody finished.
async fn remains(qdrant: &Qdrant) -> Check {
    const NAME: &str = "remains of restores";
    let found = async {
        let aliases = inventory::aliases(&qdrant.client).await?;
        Ok((inventory::collections(&qdrant.client).await?, aliases))
    };
    match found.await {
        Ok((collections, aliases)) => judge_remains(NAME, &collections, &aliases),
        Err(e) => unknown(NAME, e).await,
    }
}

/// A copy that no alias shows is all there is of its original where nothing has the original's name.
fn judge_remains(name: &'static str, collections: &[String], aliases: &BTreeMap<String, String>) -> Check {
    let unserved = collections.iter().filter(|c| names::is_copy(c) && !aliases.values().any(|shown| shown == *c));
    let has_original = |copy: &&String| collections.iter().chain(aliases.keys()).any(|n| names::is_copy_of(copy, n));
    let (left, only): (Vec<_>, Vec<_>) = unserved.partition(has_original);
    let listed = |copies: &[&String]| copies.iter().map(|c| c.as_str()).collect::<Vec<_>>().join(", ");
    if !only.is_empty() {
        let detail =
            "an interrupted restore left them, and nothing has their original's name; begin it again, delete nothing";
        return Check::problem(name, format!("{}: {detail}", listed(&only)));
    }
    if left.is_empty() {
        return Check::good(name, "none");
    }
    Check::warning(name, format!("{}: finish that restore by its command, or delete them", listed(&left)))
}

async fn unknown(name: &'static str, error: EngineError) -> Check {
    let failure = Failure::from(error);
    let failure = if failure.exit == Exit::Failed { Failure { exit: Exit::CouldNotTell, ..failure } } else { failure };
    Check::of(name, async { Err(failure) }).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::Found;

    #[test]
    fn a_red_collection_is_a_problem_and_a_yellow_one_a_warning() {
        let state = |status: &str| ("c".to_owned(), json!({"status": status, "optimizer_status": "ok"}));
        assert_eq!(judge("x", &[state("green")]).found, Found::Good);
        assert_eq!(judge("x", &[state("green"), state("yellow")]).found, Found::Warning);
        assert_eq!(judge("x", &[state("red"), state("yellow")]).found, Found::Problem);
        let failed = ("c".to_owned(), json!({"status": "green", "optimizer_status": {"error": "no"}}));
        assert_eq!(judge("x", &[failed]).found, Found::Problem);
    }

    #[test]
    fn the_only_copy_of_a_collection_is_not_to_be_deleted() {
        let copy = names::copy("docs", "t", |_| false);
        let judged = |collections: &[&str], aliases: &[(&str, &str)]| {
            let collections: Vec<_> = collections.iter().map(|c| (*c).to_owned()).collect();
            let aliases = aliases.iter().map(|(a, c)| ((*a).to_owned(), (*c).to_owned())).collect();
            judge_remains("x", &collections, &aliases).found
        };
        assert_eq!(judged(&["docs", &copy], &[]), Found::Warning);
        assert_eq!(judged(&["docs-1", &copy], &[("docs", "docs-1")]), Found::Warning);
        assert_eq!(judged(&[&copy], &[("docs", &copy)]), Found::Good, "it is what clients are shown");
        assert_eq!(judged(&["more", &copy], &[]), Found::Problem);
    }
}
