//! What a restore needs of its machine, and what it leaves there, from the command line on a real S3 server.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::cli::{Machine, Ran};
use support::folder::{fill, image, lose, overwrite};
use support::noise;
use support::s3::S3;

const RESTORE: [&str; 4] = ["backup", "restore", "--replace", "--yes"];

#[test]
fn thousands_of_changed_files_need_few_open_ones() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    let write = |seed: u64| {
        for n in 0..3000 {
            fs::write(machine.data().join(format!("{n:04}")), noise(2000, seed + n)).expect("written");
        }
    };
    write(1);
    let before = image(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    write(9000);
    let restore = machine.command(&RESTORE);
    let mut few = Command::new("/bin/sh");
    few.args(["-c", "ulimit -n 128; exec \"$@\"", "sh"]).arg(restore.get_program()).args(restore.get_args());
    few.env_clear().envs(restore.get_envs().filter_map(|(key, value)| Some((key, value?))));
    Ran::of(&mut few).exits(0);
    assert_eq!(image(&machine.data()), before);
}

/// What restores of this machine's folder have beside it.
fn beside(machine: &Machine) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.data().parent().expect("a parent")).expect("read").flatten().map(|e| e.path());
    entries.filter(|path| path.to_string_lossy().contains("perennial-")).collect()
}

#[test]
fn what_an_interrupted_restore_of_another_backup_left_is_removed() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let older = image(&machine.data());
    overwrite(&machine.data().join("vectors.bin"), 0, b"newer");
    let newer = machine.run(&["backup", "create", "--json"]).exits(0).json();
    let older_id = newer["parent"].as_str().expect("a parent");

    machine.crash("restore-staged", &RESTORE);
    let left = beside(&machine);
    assert_eq!(left.len(), 1, "{left:?}");
    let id = ["--id", older_id];
    machine.run(&[&RESTORE[..], &["--dry-run"], &id].concat()).exits(0);
    assert_eq!(beside(&machine), left, "a plan removes nothing");
    machine.run(&[&RESTORE[..], &id].concat()).exits(0).says("of an interrupted restore");
    assert_eq!(image(&machine.data()), older);
    assert!(beside(&machine).is_empty(), "{:?}", beside(&machine));

    // A folder of somebody else's whose name begins the same is left alone.
    let other = machine.data().with_file_name(".data.perennial-notes");
    fs::create_dir(&other).expect("made");
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0);
    assert!(other.is_dir());
}

/// Settings in which each command writes its name down and does something more.
fn noting(log: &tempfile::NamedTempFile, command: &str, more: &str) -> String {
    let path = log.path().display();
    let say = |name: &str| {
        let end = if name == command { more } else { "true" };
        format!("{name}: [/bin/sh, -c, 'echo {name} >> {path}; {end}']")
    };
    let all = ["before_capture", "after_capture", "before_restore", "after_restore"].map(say);
    format!("commands: {{{}}}", all.join(", "))
}

fn noted(log: &tempfile::NamedTempFile) -> String {
    let text = fs::read_to_string(log.path()).expect("read");
    log.as_file().set_len(0).expect("emptied");
    text.replace('\n', " ")
}

#[test]
fn what_was_stopped_for_a_capture_or_a_restore_is_started_again_whatever_fails() {
    let (s3, log) = (S3::start(), tempfile::NamedTempFile::new().expect("a file"));
    let machine = Machine::of_files(&s3, &noting(&log, "before_capture", "exit 1"));
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(1).says("commands.before_capture");
    assert_eq!(noted(&log), "before_capture after_capture ", "what it did before it failed is undone");

    // The swap fails: what was staged is gone, and so is the data.
    let machine = Machine::of_files(&s3, &noting(&log, "before_restore", "rm -rf data .data.perennial-new-*"));
    fill(&machine.data());
    machine.run(&["backup", "create", "--type", "base"]).exits(0);
    noted(&log);
    let mut restore = machine.command(&RESTORE);
    Ran::of(restore.current_dir(machine.data().parent().expect("a parent"))).exits(1).says("is gone");
    assert_eq!(noted(&log), "before_restore after_restore ");

    // The service does not start: what was there before is kept, and the same command again ends it.
    let machine = Machine::of_files(&s3, &noting(&log, "after_restore", "test -e started"));
    let here = machine.data().parent().expect("a parent").to_owned();
    fill(&machine.data());
    machine.run(&["backup", "create", "--type", "base"]).exits(0);
    let before = image(&machine.data());
    overwrite(&machine.data().join("vectors.bin"), 0, b"an accident");
    let restore = || Ran::of(machine.command(&RESTORE).current_dir(&here));
    restore().exits(1).says("what was there before is kept at");
    assert_eq!(beside(&machine).len(), 1, "{:?}", beside(&machine));
    fs::write(here.join("started"), "").expect("written");
    restore().exits(0);
    assert_eq!(image(&machine.data()), before);
    assert!(beside(&machine).is_empty(), "{:?}", beside(&machine));
}
