//! `perennial key list`

use perennial_shared::encryption::rotation::{By, Inspection, inspect};

use super::Outcome;
use super::table::{lines, table};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Lists the data keys and what opens them. It asks every source of the settings and changes nothing.
pub async fn run(context: &Context) -> Result<Outcome, Failure> {
    let found = inspect(&context.repository, &context.key_sources()?).await?;
    let sound = found.current_fails.is_none() && found.keys.iter().all(|key| key.problem.is_none());
    Outcome::new(text(&found), &found, if sound { Exit::Ok } else { Exit::Problems })
}

fn text(found: &Inspection) -> String {
    let mut rows = vec![["KEY", "WRAPPING", "BY", "FINGERPRINT", "OPENS WITH"].map(String::from).to_vec()];
    for key in &found.keys {
        rows.extend(key.wrappings.iter().map(|wrapping| {
            let opens = match wrapping.opens_by {
                Some(By::Current) => "encryption.key",
                Some(By::Previous) => "encryption.previous",
                None => "no key of the settings",
            };
            let number = wrapping.number.to_string();
            vec![key.id.to_string(), number, wrapping.source.clone(), wrapping.fingerprint.clone(), opens.to_owned()]
        }));
    }
    let mut text = if found.keys.is_empty() { "there are no data keys yet\n".into() } else { table(&rows) };
    text.push_str(&lines(&problems(found)));
    text
}

/// What a person must know of keys that do not open.
pub(super) fn problems(found: &Inspection) -> Vec<String> {
    let current = found.current_fails.iter().map(|e| format!("encryption.key: {e}"));
    let keys =
        found.keys.iter().filter_map(|key| key.problem.as_ref().map(|why| format!("{} does not open: {why}", key.id)));
    current.chain(keys).collect()
}
