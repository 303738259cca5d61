//! Disks that fill up while they are written to: small ones, of memory, in a mount namespace of their own.

use std::path::Path;
use std::process::Command;

/// Runs a script in which `$DISK` is a disk of this size; `perennial` is the program, its target the folder `$HOME/data`.
fn on_a_disk(home: &Path, size: &str, script: &str) -> (Option<i32>, String) {
    let own = if rustix::process::geteuid().is_root() { "--mount" } else { "--map-root-user" };
    let settings = "name: notes\nengine: files\ndata_dir: $HOME/data\nrepository: file://$HOME/repository\n";
    let text = format!(
        "set -e\nmkdir -p $DISK $HOME/data\nmount -t tmpfs -o {size} tmpfs $DISK\n\
         [ -e $HOME/notes.yaml ] || cat >$HOME/notes.yaml <<END\n{settings}END\n\
         perennial() {{ {} --target $HOME/notes.yaml --quiet \"$@\"; }}\n{script}",
        env!("CARGO_BIN_EXE_perennial")
    );
    let mut command = Command::new("unshare");
    command.args([own, "--mount", "sh", "-c", &text]).env("HOME", home).env("DISK", home.join("disk"));
    let ran = command.env("PERENNIAL_STATE_DIR", home.join("state")).output().expect("unshare, of util-linux");
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_full_repository_loses_no_backup_that_was_there() {
    let home = tempfile::tempdir().expect("a folder");
    let script = "ln -s $DISK $HOME/repository\n\
        head -c 3000000 /dev/urandom >$HOME/data/a\n\
        perennial backup create >/dev/null\n\
        head -c 9000000 /dev/urandom >$HOME/data/b\n\
        perennial backup create && exit 90\n\
        perennial backup list --json | grep -c '\"backup_id\"'\n\
        perennial backup verify --again\n\
        rm $HOME/data/b; head -c 1000 /dev/urandom >$HOME/data/c\n\
        perennial backup create\n\
        perennial backup restore --latest --to $HOME/back >/dev/null\n\
        diff -r $HOME/data $HOME/back && echo the same";
    let (code, said) = on_a_disk(home.path(), "size=8m", script);
    assert_eq!(code, Some(0), "{said}");
    for words in ["is full", "good", "the same"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[test]
fn a_disk_that_fills_up_at_a_restore_changes_nothing_and_the_rest_comes_later() {
    let home = tempfile::tempdir().expect("a folder");
    // Room for the bytes, which is looked at before; but not for the names, which is found out in the middle.
    let script = "mkdir $HOME/repository\n\
        sed -i \"s|data_dir: .*|data_dir: $DISK/data|\" $HOME/notes.yaml\n\
        mkdir $DISK/data\n\
        for n in $(seq 60); do head -c 3000 /dev/urandom >$DISK/data/$n; done\n\
        perennial backup create >/dev/null\n\
        cp -r $DISK/data $HOME/before; rm $DISK/data/7; echo other >$DISK/data/8; cp -r $DISK/data $HOME/now\n\
        perennial backup restore --latest --replace --yes && exit 90\n\
        diff -r $DISK/data $HOME/now && echo untouched\n\
        mount -o remount,nr_inodes=1000 $DISK\n\
        perennial backup restore --latest --replace --yes >/dev/null\n\
        diff -r $DISK/data $HOME/before && echo the same; echo left: $(ls -A $DISK).";
    let (code, said) = on_a_disk(home.path(), "size=8m,nr_inodes=100", script);
    assert_eq!(code, Some(0), "{said}");
    for words in ["No space left", "untouched", "the same", "left: data."] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}
