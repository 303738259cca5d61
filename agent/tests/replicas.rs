//! Further repositories of a target: what is copied there, made up for and verified there, and restored from there.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use perennial_shared::id::{BackupId, Generation, RunId};
use perennial_shared::repository::Repository;
use perennial_shared::settings::Engine;
use perennial_shared::store::folder::FolderStore;
use serde_json::Value;
use support::claim::claim;
use support::cli::{Machine, PREFIX};
use support::folder::{fill, flip, image, lose, overwrite};
use support::s3::{BUCKET, S3};
use support::{files_ending, noise, until};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_replica_takes_over_when_the_first_repository_cannot_be_read() {
    let mut s3 = S3::start();
    let replica = tempfile::tempdir().expect("a folder");
    let more = format!("replicas: ['file://{}']\nencryption: {{key: {{env: TEST_KEY}}}}", replica.path().display());
    let machine = Machine::of_files(&s3, &more).with("TEST_KEY", KEY);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0).says("copied to");
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(0).says("copied to").says("1 MiB sent");
    let before = image(&machine.data());

    // Damage in the first repository is made good from the replica; so is its absence.
    let object = files_ending(&s3.bucket().join(PREFIX), "data-0.tar.zst").remove(0);
    let good = std::fs::read(&object).expect("read");
    std::fs::write(&object, vec![0; good.len()]).expect("damaged");
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0).says("restored from file://");
    assert_eq!(image(&machine.data()), before);
    s3.stop();
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0).says("restored from file://");
    assert_eq!(image(&machine.data()), before);
    s3.resume();

    std::fs::remove_dir_all(replica.path()).expect("removed");
    machine.run(&["backup", "create"]).exits(1).says("was not copied to");
}

/// Makes two backups in both repositories; from then on the settings name another replica first, which is not there.
fn replicated(machine: &Machine, replica: &Path) -> String {
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(0);
    let gone = format!("'file://{}', 'file://{}'", replica.with_file_name("gone").display(), replica.display());
    let settings = std::fs::read_to_string(machine.settings()).expect("read");
    let settings = settings.replace(&format!("'file://{}'", replica.display()), &gone);
    std::fs::write(machine.settings(), settings).expect("written");
    image(&machine.data())
}

#[tokio::test]
async fn whatever_way_the_first_repository_is_lost_a_replica_takes_over() {
    let s3 = S3::start();
    let folder = tempfile::tempdir().expect("a folder");
    let replica = folder.path().join("replica");
    std::fs::create_dir(&replica).expect("made");
    let more = format!("replicas: ['file://{}']\nencryption: {{key: {{env: TEST_KEY}}}}", replica.display());
    let machine = Machine::of_files(&s3, &more).with("TEST_KEY", KEY);
    let before = replicated(&machine, &replica);
    let first = s3.bucket().join(PREFIX);
    let comes_back = |why: &str, words: &[&str]| {
        lose(&machine);
        let ran = machine.run(&[&["backup", "restore"], words].concat()).exits(0);
        ran.says("gone: ").says(why).says(&format!("restored from file://{}", replica.display()));
        assert_eq!(image(&machine.data()), before, "{why}");
    };
    let keep = folder.path().join("kept");
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
    };
    let mended = || {
        let _ = std::fs::remove_dir_all(&first);
        copy(&keep, &first);
    };
    copy(&first, &keep);

    // A wrong key is nobody else's fault.
    lose(&machine);
    let ran = machine.command(&["backup", "restore"]).env("TEST_KEY", KEY.replace('0', "1")).output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.code() == Some(2) && said.contains("another key") && !said.contains("file://"), "{said}");

    for record in files_ending(&first.join("keys"), "0001.json") {
        std::fs::remove_file(record).expect("removed");
    }
    comes_back("has no keys/", &[]);
    mended();
    let repository = s3.repository(PREFIX);
    for record in repository.store().list("keys/").await.expect("lists") {
        repository.store().put(&record.key, "{\"format\": 1}".into()).await.expect("tampered with");
    }
    comes_back("was tampered with", &[]);
    mended();
    let newest =
        machine.run(&["backup", "list", "--json"]).json()["backups"][0]["backup_id"].as_str().expect("id").to_owned();
    std::fs::remove_dir_all(first.join("backups").join(&newest)).expect("removed");
    comes_back("there is no complete backup", &["--id", &newest]);
    // The base is whole, but the pointer names what was lost.
    comes_back("the pointer names backup", &["--latest"]);
    std::fs::remove_dir_all(&first).expect("removed");
    comes_back("there is no backup that could be restored", &[]);
    std::fs::remove_dir_all(s3.bucket()).expect("removed");
    comes_back("NoSuchBucket", &[]);

    // Nothing is left anywhere: the first repository's failure counts, and the others are told.
    std::fs::remove_dir_all(&replica).expect("removed");
    machine.run(&["backup", "restore", "--replace", "--yes"]).exits(2).says("NoSuchBucket").says("from a replica");
}

#[test]
fn what_replicas_lack_too_is_an_older_backup() {
    let s3 = S3::start();
    let replica = tempfile::tempdir().expect("a folder");
    let machine = Machine::of_files(&s3, &format!("replicas: ['file://{}']", replica.path().display()));
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let base = image(&machine.data());
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    let next = machine.run(&["backup", "create", "--json"]).exits(0).json();
    for place in [s3.bucket().join(PREFIX), replica.path().to_owned()] {
        std::fs::remove_dir_all(place.join("backups").join(next["backup_id"].as_str().expect("an id")))
            .expect("removed");
    }
    lose(&machine);
    let ran = machine.run(&["backup", "restore"]).exits(0);
    ran.says("the pointer names backup").says("nor could it be restored from a replica");
    assert_eq!(image(&machine.data()), base);
}

#[test]
fn a_repository_s_folder_that_is_gone_keeps_no_replica_from_taking_over() {
    let s3 = S3::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (first, replica) = (folder.path().join("first"), folder.path().join("replica"));
    std::fs::create_dir(&first).expect("made");
    std::fs::create_dir(&replica).expect("made");
    let machine = Machine::of_files(&s3, &format!("replicas: ['file://{}']", replica.display()));
    let settings = std::fs::read_to_string(machine.settings()).expect("read");
    let here = settings.replace(&format!("s3://{BUCKET}/{PREFIX}"), &format!("file://{}", first.display()));
    std::fs::write(machine.settings(), here).expect("written");
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let before = image(&machine.data());
    std::fs::remove_dir_all(&first).expect("removed");
    lose(&machine);
    let ran = machine.run(&["backup", "restore", "--json"]).exits(0).json();
    assert!(ran["findings"].to_string().contains("there is no such folder"), "{ran}");
    assert_eq!(image(&machine.data()), before);
    machine.run(&["backup", "create"]).exits(2).says("there is no such folder");
    assert!(!first.exists(), "a mount that is missing is not made up");
}

#[test]
fn what_was_rotated_in_both_repositories_is_copied_and_restored_on() {
    let s3 = S3::start();
    let replica = tempfile::tempdir().expect("a folder");
    let (old, new) = ("{key: {env: TEST_KEY}}", "{key: {env: NEW_KEY}, previous: [{env: TEST_KEY}]}");
    let more = format!("replicas: ['file://{}']\nencryption: {old}", replica.path().display());
    let machine = Machine::of_files(&s3, &more).with("TEST_KEY", KEY).with("NEW_KEY", &KEY.replace('0', "1"));
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let settings = std::fs::read_to_string(machine.settings()).expect("read");
    std::fs::write(machine.settings(), settings.replace(old, new)).expect("written");
    machine
        .run(&["key", "rotate", "--remove-old", "--yes"])
        .exits(0)
        .says("docs: wrapped 1")
        .says("removed 1 wrappings");
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"changed in place");
    machine.run(&["backup", "create", "--type", "incremental"]).exits(0).says("copied to");
    let before = image(&machine.data());

    std::fs::write(machine.settings(), settings.replace(old, "{key: {env: NEW_KEY}}")).expect("written");
    std::fs::remove_dir_all(s3.bucket().join(PREFIX)).expect("removed");
    lose(&machine);
    machine.run(&["backup", "restore"]).exits(0).says("restored from file://");
    assert_eq!(image(&machine.data()), before);
}

#[tokio::test]
async fn the_final_backup_is_copied_with_its_successor_s_first() {
    const ME: &str = "i-0123456789abcdef0";
    const NEXT: &str = "i-0fedcba9876543210";
    let s3 = S3::start();
    let replica = tempfile::tempdir().expect("a folder");
    let more = format!("replicas: ['file://{}']\nauto_scaling: {{group: docs}}", replica.path().display());
    let machine = Machine::of_files(&s3, &more).with("PERENNIAL_INSTANCE_ID", ME);
    let repository = Repository::new(s3.repository(PREFIX).shared_store(), Engine::Files);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"the last that was acknowledged");
    let before = image(&machine.data());
    claim(&repository, "final-i-1-1", ME, None, false).await;
    machine.run(&["run", "final-i-1-1"]).exits(0).says("not copied to the replicas yet");

    let seen = repository.pointer().await.expect("read");
    let pointer = seen.pointer().expect("it is there").clone();
    let last = pointer.backup_id.clone().expect("a backup");
    let taken = pointer.owned_by(NEXT, Generation(2), Timestamp::now());
    repository.set_pointer(&seen, &taken).await.expect("taken over");
    let machine = machine.with("PERENNIAL_INSTANCE_ID", NEXT);
    overwrite(&machine.data().join("vectors.bin"), 5_000_000, b"what was written to the successor");
    claim(&repository, "backup-20261121t105500z", NEXT, None, false).await;
    machine.run(&["run", "backup-20261121t105500z"]).exits(0).says(&format!("backup {last}, which was lacking there"));

    std::fs::remove_dir_all(s3.bucket().join(PREFIX)).expect("removed");
    lose(&machine);
    machine.run(&["backup", "restore", "--id", last.as_str()]).exits(0).says("restored from file://");
    assert_eq!(image(&machine.data()), before);
}

#[tokio::test]
async fn the_final_backup_does_not_wait_for_copies() {
    const ME: &str = "i-0123456789abcdef0";
    let s3 = S3::start();
    let replica = tempfile::tempdir().expect("a folder");
    let machine = Machine::of_files(&s3, "auto_scaling: {group: docs}").with("PERENNIAL_INSTANCE_ID", ME);
    let repository = Repository::new(s3.repository(PREFIX).shared_store(), Engine::Files);
    fill(&machine.data());
    machine.run(&["backup", "create"]).exits(0);
    let newest = async || repository.pointer().await.expect("read").backup_id().cloned();
    let base = newest().await;

    // The base takes minutes to be copied.
    let settings = std::fs::read_to_string(machine.settings()).expect("read");
    let slow = format!("{settings}replicas: ['file://{}']\nupload: {{bandwidth: 64KiB}}\n", replica.path().display());
    std::fs::write(machine.settings(), slow).expect("written");
    claim(&repository, "backup-20261121t105500z", ME, None, false).await;
    let mut copying = machine.spawn(&["run", "backup-20261121t105500z"]);
    let published = async || {
        assert_eq!(copying.try_wait().expect("asked"), None, "it ended without a backup");
        newest().await != base
    };
    until("a backup", published).await;
    let first: RunId = "backup-20261121t105500z".parse().expect("a run");
    let said = async || repository.progress_of(&first).await.expect("read").is_some_and(|p| p.published);
    until("the word that it is published", said).await;
    // The next schedule's backup is made meanwhile, and waits with its copies.
    let before = newest().await;
    claim(&repository, "backup-20261121t115500z", ME, None, false).await;
    let mut next = machine.spawn(&["run", "backup-20261121t115500z"]);
    until("the next backup", async || newest().await != before).await;
    let next_run: RunId = "backup-20261121t115500z".parse().expect("a run");
    let progress = async || repository.progress_of(&next_run).await.expect("read");
    until("its copies to wait", async || progress().await.is_some_and(|p| p.stage.contains("an earlier run"))).await;
    next.kill().expect("killed");
    next.wait().expect("ended");
    std::fs::write(machine.settings(), settings).expect("written");
    claim(&repository, "final-i-1-1", ME, None, false).await;
    machine.run(&["run", "final-i-1-1"]).exits(0);
    assert_eq!(copying.try_wait().expect("asked"), None, "it still copies");
    copying.kill().expect("killed");
    copying.wait().expect("ended");
}

/// A target in a group, with a backup in its repository and in the replica, the machine that it is restored on, and the backup's id.
struct Replaced {
    machine: Machine,
    repository: Repository,
    replica: Repository,
    id: Option<BackupId>,
    folder: tempfile::TempDir,
}

impl Replaced {
    const ME: &str = "i-0123456789abcdef0";

    async fn new(s3: &S3) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = format!("replicas: ['file://{}']\nauto_scaling: {{group: docs}}", folder.path().display());
        let machine = Machine::of_files(s3, &more).with("PERENNIAL_INSTANCE_ID", Self::ME);
        let repository = Repository::new(s3.repository(PREFIX).shared_store(), Engine::Files);
        let replica = Repository::new(Arc::new(FolderStore::at(folder.path())), Engine::Files);
        fill(&machine.data());
        machine.run(&["backup", "create"]).exits(0).says("copied to");
        let id = repository.pointer().await.expect("read").backup_id().cloned();
        lose(&machine);
        Self { machine, repository, replica, id, folder }
    }

    async fn claim(&self, repository: &Repository, run: &str) {
        claim(repository, run, Self::ME, self.id.clone(), run.ends_with('2')).await;
    }

    /// What was written to the restored database since.
    fn write(&self) -> String {
        overwrite(&self.machine.data().join("vectors.bin"), 0, b"acknowledged since");
        image(&self.machine.data())
    }
}

#[tokio::test]
async fn a_restore_that_was_overtaken_by_a_later_one_changes_nothing() {
    let s3 = S3::start();
    let world = Replaced::new(&s3).await;
    world.claim(&world.repository, "restore-i-1-2").await;
    world.claim(&world.repository, "restore-i-1-1").await;
    world.machine.run(&["run", "restore-i-1-1"]).exits(0);
    let served = world.write();
    world.machine.run(&["run", "restore-i-1-2"]).exits(1).says("was done meanwhile; nothing was changed");
    assert_eq!(image(&world.machine.data()), served);
}

/// The repository was away, a replica stood in, and somebody who did not know claimed the restore in the repository again; or the
/// other way round. Either pointer may make the instance the owner at any time.
#[tokio::test]
async fn a_machine_is_restored_by_the_claims_of_one_repository_only() {
    let s3 = S3::start();
    for replica_first in [true, false] {
        let world = Replaced::new(&s3).await;
        let (first, second) =
            if replica_first { (&world.replica, &world.repository) } else { (&world.repository, &world.replica) };
        world.claim(first, "restore-i-1-1").await;
        world.machine.run(&["run", "restore-i-1-1"]).exits(0);
        let served = world.write();
        world.claim(second, "restore-i-1-2").await;
        world
            .machine
            .run(&["run", "restore-i-1-2"])
            .exits(1)
            .says("was restored by a claim in")
            .says(&first.location());
        assert_eq!(image(&world.machine.data()), served);
        std::fs::remove_dir_all(s3.bucket().join(PREFIX)).expect("removed");
    }
}

/// Even one that failed may have left something that this repository's next claim goes on with.
#[tokio::test]
async fn a_restore_that_failed_keeps_the_machine_for_its_repository() {
    let s3 = S3::start();
    let world = Replaced::new(&s3).await;
    world.claim(&world.replica, "restore-i-1-1").await;
    world.machine.crash("restore-swapped", &["run", "restore-i-1-1"]);
    world.claim(&world.repository, "restore-i-1-2").await;
    world.machine.run(&["run", "restore-i-1-2"]).exits(1).says("was restored by a claim in");
    world.machine.run(&["run", "restore-i-1-1"]).exits(0);
}

/// An image was made of an instance that had been restored.
#[tokio::test]
async fn another_instance_s_restores_are_not_this_one_s() {
    const NEXT: &str = "i-0fedcba9876543210";
    let s3 = S3::start();
    let world = Replaced::new(&s3).await;
    world.claim(&world.replica, "restore-i-1-1").await;
    world.machine.run(&["run", "restore-i-1-1"]).exits(0);
    claim(&world.repository, "restore-i-2-1", NEXT, world.id.clone(), true).await;
    world.machine.with("PERENNIAL_INSTANCE_ID", NEXT).run(&["run", "restore-i-2-1"]).exits(0);
}

#[tokio::test]
async fn an_instance_that_became_the_owner_meanwhile_is_not_restored_over() {
    let s3 = S3::start();
    let world = Replaced::new(&s3).await;
    world.claim(&world.repository, "restore-i-1-1").await;
    world.machine.run(&["run", "restore-i-1-1"]).exits(0);
    let served = world.write();
    world.claim(&world.repository, "restore-i-1-2").await;
    let seen = world.repository.pointer().await.expect("read");
    let owned = seen.pointer().expect("there").clone().owned_by(Replaced::ME, Generation(2), Timestamp::now());
    world.repository.set_pointer(&seen, &owned).await.expect("taken over");
    world.machine.run(&["run", "restore-i-1-2"]).exits(1).says("came to own the target");
    assert_eq!(image(&world.machine.data()), served);
    // What was decided on that very pointer is another matter: it owned the target in an earlier life.
    world.claim(&world.repository, "restore-i-2-2").await;
    world.machine.run(&["run", "restore-i-2-2"]).exits(0);
}

#[tokio::test]
async fn a_claim_that_a_replica_may_have_is_not_called_absent() {
    let s3 = S3::start();
    let world = Replaced::new(&s3).await;
    world.claim(&world.replica, "restore-i-1-1").await;
    std::fs::remove_dir_all(s3.bucket().join(PREFIX)).expect("emptied");
    let (there, away) = (world.folder.path(), world.folder.path().with_extension("away"));
    std::fs::rename(there, &away).expect("moved");
    world.machine.run(&["run", "restore-i-1-1"]).exits(2).says("there is no such folder");
    std::fs::rename(&away, there).expect("moved");
    world.machine.run(&["run", "restore-i-1-1"]).exits(0);
}

/// A target with a few small files and this many replicas, which are in one folder under `0`, `1` and so on.
fn small(s3: &S3, replicas: usize) -> (Machine, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let places: Vec<_> = (0..replicas).map(|n| folder.path().join(n.to_string())).collect();
    for place in &places {
        std::fs::create_dir(place).expect("made");
    }
    let urls: Vec<_> = places.iter().map(|place| format!("'file://{}'", place.display())).collect();
    let machine = Machine::of_files(s3, &format!("replicas: [{}]", urls.join(", ")));
    for n in 0..3 {
        std::fs::write(machine.data().join(n.to_string()), noise(300_000, n)).expect("written");
    }
    (machine, folder)
}

/// Makes a base, which is not like any other, and gives its id.
fn base(machine: &Machine, exit: i32) -> BackupId {
    let n = machine.run(&["backup", "list", "--json"]).json()["backups"].as_array().map_or(0, Vec::len);
    overwrite(&machine.data().join("0"), 1000, format!("number {n}").as_bytes());
    machine.run(&["backup", "create", "--type", "base"]).exits(exit);
    let newest = machine.run(&["backup", "list", "--json"]).json()["latest"].clone();
    newest.as_str().expect("an id").parse().expect("an id")
}

fn objects(repository: &Path, id: &BackupId) -> PathBuf {
    repository.join("backups").join(id.as_str())
}

#[test]
fn what_a_replica_missed_is_made_up_for_newest_first_and_what_cannot_be_copied_is_told() {
    let s3 = S3::start();
    let (machine, folder) = small(&s3, 1);
    let (replica, away) = (folder.path().join("0"), folder.path().join("away"));
    let first = base(&machine, 0);
    std::fs::rename(&replica, &away).expect("moved");
    let missed: Vec<_> = (0..5).map(|_| base(&machine, 1)).collect();
    std::fs::rename(&away, &replica).expect("moved");
    let bucket = s3.bucket().join(PREFIX);
    flip(&files_ending(&objects(&bucket, &missed[0]), "data-0.tar.zst")[0]);
    std::fs::remove_file(&files_ending(&objects(&bucket, &missed[1]), "index-0")[0]).expect("removed");
    std::fs::write(objects(&bucket, &missed[2]).join("manifest.json"), "{\"format\": 1").expect("damaged");

    let ran = machine.run(&["backup", "create"]).exits(0);
    let told: Vec<_> = ran.out.lines().filter(|l| l.contains("backup 2")).collect();
    let line = |id: &BackupId| (*told.iter().find(|l| l.contains(id.as_str())).expect("it is told")).to_owned();
    // Of those of one second nobody knows which was later.
    let mut newest_first = missed.clone();
    newest_first.sort_by(|a, b| b.cmp(a));
    assert_eq!(told, newest_first.iter().map(line).collect::<Vec<_>>());
    for (id, why) in missed[..3].iter().zip(["arrived damaged", "index-0 is missing", "arrived damaged"]) {
        let told = line(id);
        assert!(told.contains("was not copied to") && told.contains(why), "{told}");
        assert!(!objects(&replica, id).join("manifest.json").exists(), "it is not there: {told}");
    }
    assert!(!ran.out.contains(first.as_str()), "it was there already: {ran:?}");
    let url = format!("file://{}", replica.display());
    for id in &missed[3..] {
        assert!(line(id).contains("was lacking there"), "{ran:?}");
        machine.run(&["backup", "verify", "--replica", &url, "--id", id.as_str()]).exits(0).says("read and right");
    }
    let again = machine.run(&["backup", "create"]).exits(0);
    assert!(!again.out.contains("was lacking there"), "{again:?}");
    again.says(missed[0].as_str()).says("was not copied to");
}

#[test]
fn a_replica_is_verified_by_its_own_records_and_what_is_damaged_in_it_can_be_copied_again() {
    let s3 = S3::start();
    let (machine, folder) = small(&s3, 2);
    let id = base(&machine, 0);
    let url = |n: u32| format!("file://{}", folder.path().join(n.to_string()).display());
    let verify =
        |replica: &str, more: &[&str]| machine.run(&[&["backup", "verify", "--replica", replica], more].concat());
    let all = verify("all", &["--json"]).exits(0).json();
    let reports = all["replicas"].as_array().expect("a list");
    let told: Vec<_> = reports.iter().map(|r| (&r["repository"], &r["report"]["verdict"])).collect();
    assert_eq!(told, [(&Value::from(url(0)), &"good".into()), (&Value::from(url(1)), &"good".into())]);
    assert_eq!(reports[0]["report"]["objects_good"], 2, "{all}");
    verify(&url(0), &[]).exits(0).says("not read again");
    assert!(!s3.bucket().join(PREFIX).join("verifications").exists(), "the first repository was not looked at");
    machine.run(&["backup", "verify"]).exits(0).says("2 of 2 objects read and right, 8");

    let damaged = objects(&folder.path().join("1"), &id);
    flip(&files_ending(&damaged, "data-0.tar.zst")[0]);
    verify("all", &["--again"]).exits(3).says(&format!("{}: {id}: NOT GOOD", url(1))).says("data-0.tar.zst");
    verify(&url(0), &["--again"]).exits(0);
    verify(&url(1), &["--structure"]).exits(3).says("not seen right since");
    machine.run(&["backup", "verify", "--again"]).exits(0);
    std::fs::remove_dir_all(damaged).expect("removed");
    machine.run(&["backup", "create", "--type", "base"]).exits(0).says(&format!("backup {id}, which was lacking"));
    verify(&url(1), &["--id", id.as_str()]).exits(0);

    verify("s3://elsewhere/docs", &[]).exits(2).says("s3://elsewhere/docs").says(&url(1));
    std::fs::remove_dir_all(folder.path().join("0")).expect("removed");
    let all = verify("all", &["--json"]);
    assert!(matches!(all.code, Some(4)), "{all:?}");
    assert_eq!(all.json()["replicas"][1]["report"]["verdict"], "good", "each is looked at");
    let alone = Machine::of_files(&s3, "");
    alone.run(&["backup", "verify", "--replica", "all"]).exits(2).says("has no `replicas`");
}

#[test]
fn doctor_tells_what_each_replica_lacks() {
    let s3 = S3::start();
    let (machine, folder) = small(&s3, 2);
    let id = base(&machine, 0);
    let url = |n: u32| format!("file://{}", folder.path().join(n.to_string()).display());
    let line = |n: u32| {
        let ran = machine.run(&["doctor"]);
        let found = ran.out.lines().find(|l| l.contains(" replica ") && l.contains(&url(n)));
        found.unwrap_or_else(|| panic!("{ran:?}")).to_owned()
    };
    assert!(line(0).starts_with("ok ") && line(0).contains(id.as_str()), "{}", line(0));
    let (replica, away) = (folder.path().join("1"), folder.path().join("away"));
    std::fs::rename(&replica, &away).expect("moved");
    base(&machine, 1);
    machine.run(&["doctor"]).exits(3);
    assert!(line(1).starts_with("PROBLEM ") && line(1).contains("there is no such folder"), "{}", line(1));
    std::fs::rename(&away, &replica).expect("moved");
    assert!(line(1).starts_with("warning ") && line(1).contains("lacks 1 that"), "{}", line(1));
    std::fs::remove_dir_all(&replica).expect("removed");
    std::fs::create_dir(&replica).expect("made");
    assert!(line(1).starts_with("warning ") && line(1).contains("no backup"), "{}", line(1));
}
