//! Chains of backups of a folder, made by the program on a real S3 server: how long they get, and what happens to one that was
//! tampered with.

mod support;

use std::path::Path;

use support::cli::{Machine, PREFIX};
use support::folder::{fill, flip, image, lose, overwrite};
use support::s3::S3;
use support::{files_ending, noise};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_chain_ends_after_as_many_increments_as_the_settings_allow() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "archive: {max_increments: 2}");
    std::fs::write(machine.data().join("data"), noise(3_000_000, 1)).expect("written");
    let mut made = vec![];
    for n in 0..7 {
        overwrite(&machine.data().join("data"), 400_000 * n, b"changed in place");
        let backup = machine.run(&["backup", "create", "--json"]).exits(0).json();
        let position = backup["archive"]["position"].as_u64().expect("a position");
        made.push((backup["kind"].as_str().expect("a kind").to_owned(), position));
        if n == 3 {
            let why = backup["archive"]["because"].as_str().expect("a reason");
            assert!(why.contains("2 increments") && why.contains("archive.max_increments"), "{why}");
        }
        if n == 2 {
            let refused = machine.run(&["backup", "create", "--type", "incremental"]).exits(5);
            refused.says("archive.max_increments").says("--type base");
        }
    }
    let expected = [("base", 0), ("incremental", 1), ("incremental", 2)].map(|(kind, n)| (kind.to_owned(), n));
    assert_eq!(made, expected.into_iter().cycle().take(7).collect::<Vec<_>>());
    let before = image(&machine.data());
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0);
    assert_eq!(image(&machine.data()), before);
}

/// With the right key, so that it is the data that is to blame and nothing else.
#[test]
fn an_encrypted_backup_that_was_tampered_with_is_not_restored() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "encryption: {key: {env: TEST_KEY}}").with("TEST_KEY", KEY);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let index = format!("{}/index-0", next["backup_id"].as_str().expect("an id"));
    let before = image(&machine.data());
    // Nothing is left here that could be taken instead.
    lose(&machine);
    // Each try has a folder of its own: it would go on with what an earlier one brought.
    let restore = |to: &Path| machine.run(&["backup", "restore", "--to", &to.display().to_string()]);
    let folder = |name: &str| machine.data().with_file_name(name);
    for (n, name) in ["data-0.tar.zst", "data-0.chunks.zst", &index].into_iter().enumerate() {
        let (object, to) = (files_ending(&s3.bucket().join(PREFIX), name).remove(0), folder(&n.to_string()));
        flip(&object);
        restore(&to).exits(3).says(name).says("was changed since it was encrypted, or stood elsewhere");
        assert!(!to.exists(), "nothing is swapped in");
        flip(&object);
    }
    restore(&folder("good")).exits(0);
    assert_eq!(image(&folder("good")), before);
}
