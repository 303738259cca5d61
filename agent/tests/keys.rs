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
    perennial_with(folder, encryption, "", words)
}

/// The same with `more` in the settings.
fn perennial_with(folder: &Path, encryption: &str, more: &str, words: &[&str]) -> Output {
    let repository = folder.join("repository");
    let encryption = if encryption.is_empty() { String::new() } else { format!("encryption: {encryption}\n") };
    let settings =
        format!("name: docs\nengine: weaviate\nrepository: file://{}\n{encryption}{more}", repository.display());
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
    with_keys(&folder.join("repository"), &[DataKey::generate(), DataKey::generate()]).await
}

async fn with_keys(path: &Path, keys: &[DataKey]) -> Repository {
    std::fs::create_dir(path).expect("a folder");
    let repository = Repository::new(Arc::new(FolderStore::open(path).expect("opens")), Engine::Weaviate);
    for key in keys {
        keyring::create(&repository, &source(OLD), key).await.expect("stored");
    }
    repository
}

fn source(key: &str) -> Raw<command::Command> {
    Raw(command::Command::new(vec!["/bin/echo".into(), key.into()]))
}

async fn opens(repository: &Repository, with: &str, key: &DataKey) -> bool {
    keyring::open(repository, &[&source(with)], key.id()).await.is_ok()
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

#[tokio::test]
async fn replicas_are_rotated_too_and_no_old_wrapping_goes_before_all_have_the_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let keys = [DataKey::generate(), DataKey::generate()];
    let (own, replica) = (with_keys(&path("repository"), &keys).await, with_keys(&path("replica"), &keys).await);
    let replicas = format!("replicas: ['file://{}', 'file://{}']\n", path("gone").display(), path("replica").display());
    let rotate = |more: &[&str]| {
        let encryption = "{key: {env: NEW_KEY}, previous: [{env: OLD_KEY}]}";
        perennial_with(folder.path(), encryption, &replicas, &[&["key", "rotate", "--remove-old"], more].concat())
    };
    let numbers = |report: &Value| {
        let of = |part: &Value| ["wrapped", "removed"].map(|what| part[what].as_array().map_or(0, Vec::len));
        [of(report), of(&report["replicas"][0]), of(&report["replicas"][1])]
    };

    // One that is not there keeps none from its new wrappings, and all from losing their old ones.
    assert!(exits(&rotate(&["--dry-run"]), 2).contains("gone: failed"));
    let ran = rotate(&["--yes", "--json"]);
    assert!(exits(&ran, 2).contains("rotate again before their key is destroyed"));
    let report: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(numbers(&report), [[2, 0], [0, 0], [2, 0]], "{report}");
    assert!(report["replicas"][0]["problems"][0].as_str().is_some_and(|p| p.contains("no such folder")), "{report}");
    for key in &keys {
        for repository in [&own, &replica] {
            assert!(opens(repository, OLD, key).await && opens(repository, NEW, key).await);
        }
    }

    // A key that opens nowhere in one repository keeps its old wrapping in the others.
    let back = with_keys(&path("gone"), &keys).await;
    let damaged = format!("keys/{}/0001.json", keys[0].id());
    back.store().put(&damaged, "{}".into()).await.expect("damaged");
    let ran = rotate(&["--yes", "--json"]);
    exits(&ran, 3);
    let report: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(numbers(&report), [[0, 1], [1, 1], [0, 1]], "{report}");
    assert!(opens(&own, OLD, &keys[0]).await && !opens(&own, OLD, &keys[1]).await);

    keyring::copy(&own, &back, keys[0].id()).await.expect("mended");
    back.store().delete(&damaged).await.expect("deleted");
    assert_eq!(numbers(&json(&rotate(&["--yes", "--json"]))), [[0, 1], [0, 1], [0, 1]]);
    assert!(exits(&rotate(&["--yes"]), 0).contains("nothing to do"));
    for key in &keys {
        for repository in [&own, &replica, &back] {
            assert!(!opens(repository, OLD, key).await && opens(repository, NEW, key).await);
        }
    }
}
