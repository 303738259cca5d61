//! `perennial key` on a folder: no server is needed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use perennial_shared::encryption::key_source::command;
use perennial_shared::encryption::key_source::raw::Raw;
use perennial_shared::encryption::{DataKey, keyring};
use perennial_shared::repository::Repository;
use perennial_shared::settings::Engine;
use perennial_shared::store::folder::FolderStore;
use serde_json::Value;

const OLD: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn perennial(folder: &Path, encryption: &str, words: &[&str]) -> Output {
    let repository = folder.join("repository");
    let encryption = if encryption.is_empty() { String::new() } else { format!("encryption: {encryption}\n") };
    let settings = format!("name: docs\nengine: weaviate\nrepository: file://{}\n{encryption}", repository.display());
    std::fs::write(folder.join("docs.yaml"), settings).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
    command.arg("--target").arg(folder.join("docs.yaml")).args(words).env_clear().stdin(Stdio::null());
    command.env("OLD_KEY", OLD).env("NEW_KEY", NEW).output().expect("it runs")
}

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains(OLD) && !text.contains(NEW), "a key is shown: {text}");
    text
}

#[track_caller]
fn json(output: &Output) -> Value {
    exits(output, 0);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A repository with two data keys that the old key wrapped.
async fn prepared(folder: &Path) -> Repository {
    let path = folder.join("repository");
    std::fs::create_dir(&path).expect("a folder");
    let repository = Repository::new(Arc::new(FolderStore::open(&path).expect("opens")), Engine::Weaviate);
    let old = Raw(command::Command::new(vec!["/bin/echo".into(), OLD.into()]));
    for _ in 0..2 {
        keyring::create(&repository, &old, &DataKey::generate()).await.expect("stored");
    }
    repository
}

#[tokio::test]
async fn keys_are_listed_and_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let repository = prepared(folder.path()).await;
    let run = |encryption: &str, words: &[&str]| perennial(folder.path(), encryption, words);
    let (before, both, after) =
        ("{key: {env: OLD_KEY}}", "{key: {env: NEW_KEY}, previous: [{env: OLD_KEY}]}", "{key: {env: NEW_KEY}}");

    assert!(exits(&run(before, &["key", "list"]), 0).contains("encryption.key"));
    assert!(exits(&run(after, &["key", "list"]), 3).contains("wrapped by another key"));
    assert!(exits(&run(after, &["key", "rotate", "--yes"]), 3).contains("nothing to do"));
    assert!(exits(&run("{key: {env: NO_KEY}}", &["key", "rotate", "--yes"]), 2).contains("NO_KEY"));
    assert!(exits(&run("", &["key", "list"]), 2).contains("no `encryption`"));

    let plan = json(&run(both, &["key", "rotate", "--dry-run", "--json"]));
    assert_eq!(plan["plan"].as_array().map(Vec::len), Some(2), "{plan}");
    assert!(exits(&run(both, &["key", "rotate"]), 5).contains("--yes"), "it asks first");
    assert!(exits(&run(after, &["key", "list"]), 3).contains("no key of the settings"), "nothing was changed");

    let done = json(&run(both, &["key", "rotate", "--yes", "--json"]));
    assert_eq!(
        (done["wrapped"].as_array().map(Vec::len), done["removed"].as_array().map(Vec::len)),
        (Some(2), Some(0))
    );
    exits(&run(before, &["key", "list"]), 0);
    exits(&run(after, &["key", "list"]), 0);

    assert!(exits(&run(both, &["key", "rotate", "--remove-old", "--yes"]), 0).contains("removed 2 wrappings"));
    exits(&run(before, &["key", "list"]), 3);
    exits(&run(after, &["key", "list"]), 0);
    let left = repository.store().list("keys/").await.expect("lists");
    assert!(left.len() == 2 && left.iter().all(|meta| meta.key.ends_with("/0002.json")), "{left:?}");
}
