//! Several targets at once: `backup create --targets`.

mod support;

use support::cli::Machine;
use support::s3::S3;

#[test]
fn several_targets_are_backed_up_at_once_and_one_failure_fails_the_whole() {
    let s3 = S3::start();
    let (notes, mut lost) = (Machine::of_files(&s3, ""), Machine::of_files(&s3, ""));
    for machine in [&notes, &lost] {
        std::fs::write(machine.data().join("a"), "a").expect("written");
    }
    let path = |machine: &Machine| machine.settings().display().to_string();
    rename(&lost, "lost");
    let targets = format!("{},{}", path(&notes), path(&lost));
    let made = notes.run(&["backup", "create", "--targets", &targets, "--json"]).exits(0).json();
    for result in made["targets"].as_array().expect("a result each") {
        assert!(result["manifest"]["backup_id"].is_string(), "{result}");
    }

    std::fs::remove_dir_all(lost.data()).expect("removed");
    let ran = notes.run(&["backup", "create", "--targets", &targets]).exits(1).says("FAILED");
    assert!(ran.out.contains("increment"), "the other target's backup was made all the same: {ran:?}");
    let found = notes.run(&["backup", "list", "--json"]).exits(0).json();
    assert_eq!(found["backups"].as_array().expect("a list").len(), 2);

    let twice = format!("{0},{0}", path(&notes));
    notes.run(&["backup", "create", "--targets", &twice]).exits(2).says("twice");
    lost = lost.with("PERENNIAL_TARGET", "nobody");
    lost.run(&["backup", "create", "--targets", "/no/such.yaml"]).exits(2).says("/no/such.yaml");
}

fn rename(machine: &Machine, name: &str) {
    let text = std::fs::read_to_string(machine.settings()).expect("settings");
    let text = text.replace("name: docs", &format!("name: {name}")).replace("/docs\n", &format!("/{name}\n"));
    std::fs::write(machine.settings(), text).expect("written");
}
