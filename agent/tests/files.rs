//! A folder as a target, from the command line, on a real S3 server: backups, increments, restores, damage, kills, keys.

mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::cli::{Machine, PREFIX};
use support::files_ending;
use support::folder::{fill, flip, image, lose, overwrite};
use support::s3::S3;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POINTER: &str = "latest_files_backup.manifest.json";

#[test]
fn a_folder_comes_back_from_a_base_and_its_increments() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "compression: {algorithm: zstd, level: 3}");
    fill(&machine.data());
    machine.run(&["doctor"]).says("data folder");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(5).says("no backup to build on");
    let base = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((base["kind"].as_str(), base["archive"]["position"].as_u64()), (Some("base"), Some(0)));

    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    let before = image(&machine.data());
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((next["kind"].as_str(), &next["parent"]), (Some("incremental"), &base["backup_id"]));
    assert_eq!(next["archive"]["new_bytes"], 16 << 10);
    machine.run(&["backup", "verify", "--structure"]).exits(0).says("no data read");
    machine.run(&["backup", "verify", "--data-subset", "1/2"]).exits(0).says("part 1/2");
    machine.run(&["backup", "verify", "--data-subset", "2/2"]).exits(0);
    machine.run(&["backup", "verify"]).exits(0).says("not read again");
    let report = machine.run(&["backup", "verify", "--again", "--json"]).exits(0).json();
    assert_eq!((&report["from_records"], &report["objects_good"]), (&0.into(), &4.into()), "{report}");
    machine.run(&["status"]).exits(0).says("good");

    machine.run(&["backup", "restore"]).exits(5).says("not empty");
    machine.run(&["backup", "restore", "--replace"]).exits(5).says("--yes");
    machine
        .run(&["backup", "restore", "--replace", "--yes", "--dry-run"])
        .exits(0)
        .says("to fetch")
        .says("a second that one request brings");
    overwrite(&machine.data().join("vectors.bin"), 9_000_000, b"an accident");
    machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0).says("kept from the disk");
    assert_eq!(image(&machine.data()), before);
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0);
    assert_eq!(image(&machine.data()), before);

    let part = machine.data().with_file_name("part");
    machine.run(&["backup", "restore", "--include", "segments/**", "--to", &part.display().to_string()]).exits(0);
    let none = ["backup", "restore", "--include", "no-such-name", "--to", &part.join("none").display().to_string()];
    machine.run(&none).exits(2).says("nothing in backup");
    assert!(part.join("segments/0/49").is_file() && !part.join("vectors.bin").exists());
    let id = base["backup_id"].as_str().expect("an id");
    lose(&machine);
    machine.run(&["backup", "restore", "--id", id]).exits(0);
    assert_ne!(image(&machine.data()), before, "the base is the older state");
}

#[test]
fn what_looks_unchanged_is_read_again_only_where_that_is_asked_for() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    fill(&machine.data());
    let made = |words: &[&str]| machine.run(&[&["backup", "create", "--json"], words].concat()).exits(0).json();
    let base = made(&[]);
    assert_eq!(base["archive"]["read_bytes"], base["archive"]["data_bytes"], "{base}");
    // What was changed just before it was read is read once more: its time cannot show a change in the same moment.
    let settled = (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(250));
        made(&[])["archive"]["read_bytes"] == 0
    });
    assert!(settled, "files that nobody changes are read each time");
    let reread = made(&["--reread"]);
    assert_eq!(reread["kind"], "incremental");
    assert_eq!(reread["archive"]["read_bytes"], base["archive"]["data_bytes"], "{reread}");
    assert_eq!(reread["archive"]["new_bytes"], 0, "what is read again is the same");
}

#[test]
fn commands_run_around_a_capture_and_a_restore() {
    let s3 = S3::start();
    let log = tempfile::NamedTempFile::new().expect("a file");
    let say = |word: &str| format!("[/bin/sh, -c, 'echo {word} >> {}']", log.path().display());
    let more = format!(
        "commands: {{before_capture: {}, after_capture: {}, before_restore: {}, after_restore: {}}}",
        say("freeze"),
        say("thaw"),
        say("stop"),
        say("start")
    );
    let machine = Machine::of_files(&s3, &more);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0);
    assert_eq!(std::fs::read_to_string(log.path()).expect("read"), "freeze\nthaw\nstop\nstart\n");

    let failing = Machine::of_files(&s3, "commands: {before_capture: [/bin/false], after_capture: [/bin/true]}");
    failing.run(&["backup", "create"]).exits(1).says("commands.before_capture");
}

#[test]
fn killed_at_every_step() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "upload: {part_size: 5MiB, concurrency: 1}");
    fill(&machine.data());
    for (n, step) in ["backup-part-2", "backup-archived", "backup-described", "backup-published"].iter().enumerate() {
        overwrite(&machine.data().join("vectors.bin"), 1000 * n as u64, step.as_bytes());
        machine.crash(step, &["backup", "create", "--type", "base"]);
        let published = machine.run(&["backup", "list", "--json"]).json();
        assert!(published["problems"].as_array().is_none_or(Vec::is_empty), "{step}: {published}");
        let before = image(&machine.data());
        machine.run(&["backup", "create", "--type", "base"]).exits(0);
        machine.run(&["backup", "verify"]).exits(0);

        for step in ["restore-remembered", "restore-staged", "restore-swapping", "restore-swapped", "restore-finished"]
        {
            overwrite(&machine.data().join("payload.jsonl"), 77, b"an accident");
            machine.crash(step, &["backup", "restore", "--replace", "--yes"]);
            machine.run(&["backup", "restore", "--replace", "--yes"]).exits(0);
            assert_eq!(image(&machine.data()), before, "{step}");
            let left: Vec<_> =
                std::fs::read_dir(machine.data().parent().expect("a parent")).expect("read").flatten().collect();
            let left: Vec<_> = left.iter().filter(|e| e.file_name().to_string_lossy().contains("perennial-")).collect();
            assert!(left.is_empty(), "{step}: {left:?}");
        }
    }
}

#[test]
fn damage_is_told_and_never_restored() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let before = image(&machine.data());
    for name in ["data-0.tar.zst", "index-0"] {
        let object = files_ending(&s3.bucket().join(PREFIX), name).remove(0);
        let good = std::fs::read(&object).expect("read");
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&object, &bad).expect("damaged");
        machine.run(&["backup", "verify"]).exits(3).says(name);
        let fresh = machine.data().with_file_name("fresh");
        machine.run(&["backup", "restore", "--to", &fresh.display().to_string()]).exits(3).says(name);
        assert!(!fresh.exists(), "nothing is swapped in");
        std::fs::write(&object, &good).expect("mended");
    }
    assert_eq!(image(&machine.data()), before);
}

/// A backup's reason to be a base, after `backup create`.
fn base_because(machine: &Machine) -> String {
    let made = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!((made["kind"].as_str(), &made["parent"]), (Some("base"), &Value::Null), "{made}");
    made["archive"]["because"].as_str().expect("a reason").to_owned()
}

#[test]
fn a_damaged_parent_is_followed_by_a_base_and_the_reason_is_told() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "encryption: {key: {env: TEST_KEY}}").with("TEST_KEY", KEY);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    flip(&files_ending(&s3.bucket().join(PREFIX), "index-0")[0]);
    let refused = machine.run(&["backup", "create", "--type", "incremental"]).exits(3);
    refused.says("nothing can be built on").says("index-0").says("--type base");
    let why = base_because(&machine);
    assert!(why.contains("nothing can be built on") && why.contains("index-0"), "{why}");
    machine.run(&["backup", "verify"]).exits(0);
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(next["kind"], "incremental", "the chain goes on from the new base");

    std::fs::remove_dir_all(s3.bucket().join(PREFIX).join("keys")).expect("removed");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(3).says("--type base");
    assert!(base_because(&machine).contains("nothing can be built on"));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let repository = s3.repository(PREFIX);
    let put = |key: &str, body: &'static [u8]| {
        runtime.block_on(repository.store().put(key, bytes::Bytes::from_static(body))).expect("stored");
    };
    let manifest_now = || {
        let pointer = runtime.block_on(repository.store().get(POINTER)).expect("there");
        let pointer: Value = serde_json::from_slice(&pointer.body).expect("json");
        format!("backups/{}/manifest.json", pointer["backup_id"].as_str().expect("an id"))
    };
    put(&manifest_now(), b"{\"format\": 1");
    let why = base_because(&machine);
    assert!(why.contains("the manifest of the newest backup") && why.contains("is damaged"), "{why}");
    put(&manifest_now(), b"{\"format\": 9}");
    let why = base_because(&machine);
    assert!(why.contains("format 9"), "{why}");
    std::fs::remove_file(s3.bucket().join(PREFIX).join(manifest_now())).expect("removed");
    let why = base_because(&machine);
    assert!(why.contains("is missing"), "{why}");
    put(POINTER, b"{\"format\"");
    let why = base_because(&machine);
    assert!(why.contains("the pointer to the newest backup is damaged"), "{why}");
    machine.run(&["backup", "verify"]).exits(0);
}

/// Each verification reads another part of the data; what one of them found must reach the next backup.
#[test]
fn damage_that_was_found_is_told_until_it_was_read_and_right_and_nothing_is_built_on_it() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let object = files_ending(&s3.bucket().join(PREFIX), "data-0.tar.zst").remove(0);
    let part = |text: &str| machine.run(&["backup", "verify", "--data-subset", text, "--again"]);
    flip(&object);
    part("1/3").exits(0);
    part("2/3").exits(3).says("data-0.tar.zst");
    part("1/3").exits(3).says("data-0.tar.zst");
    machine.run(&["backup", "verify", "--structure"]).exits(3).says("not seen right since");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(5).says("verification found damage in");

    // The object is what it was, behind the store's back: its damaged place alone is read again with any part.
    flip(&object);
    machine.run(&["backup", "verify", "--structure"]).exits(3);
    part("1/3").exits(0);
    machine.run(&["backup", "verify", "--structure"]).exits(0);
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(next["kind"], "incremental");

    flip(&object);
    part("2/3").exits(3);
    let why = base_because(&machine);
    assert!(why.contains("verification found damage in") && why.contains("data-0.tar.zst"), "{why}");
    machine.run(&["backup", "verify"]).exits(0);
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(next["kind"], "incremental");
    machine.run(&["backup", "verify"]).exits(0);
}

#[test]
fn an_encrypted_backup_opens_with_its_key_alone() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "encryption: {key: {env: TEST_KEY}}").with("TEST_KEY", KEY);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    assert_eq!(next["kind"], "incremental");
    let before = image(&machine.data());
    let report = machine.run(&["backup", "verify", "--json"]).exits(0).json();
    assert!(report["chunks"].as_u64() > Some(1500) && report["objects_good"] == 4, "{report}");
    let mut other = machine.command(&["backup", "verify", "--again"]);
    let ran = other.env("TEST_KEY", KEY.replace('0', "1")).output().expect("it runs");
    assert_eq!(ran.status.code(), Some(4), "without the right key nobody can tell: {ran:?}");
    let stored = files_ending(&s3.bucket().join(PREFIX), ".zst");
    let ran = Command::new("zstd").args(["-t", "-q"]).arg(&stored[0]).output().expect("zstd");
    assert!(!ran.status.success(), "what is stored is not readable");

    lose(&machine);
    let fresh = |key: &str| {
        let mut command = machine.command(&["backup", "restore"]);
        let ran = command.env("TEST_KEY", key).output().expect("it runs");
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (code, said) = fresh(&KEY.replace('0', "1"));
    assert!(code != Some(0) && said.contains("another key"), "{code:?} {said}");
    let (code, said) = fresh("");
    assert!(code != Some(0) && said.contains("TEST_KEY"), "{code:?} {said}");
    assert_eq!(fresh(KEY).0, Some(0));
    assert_eq!(image(&machine.data()), before);
}
