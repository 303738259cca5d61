//! What a manifest says of its files, and what its index lists: the same, whatever is written meanwhile; else nothing
//! is restored.

mod support;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use perennial_shared::verify::sha256_hex;
use serde_json::Value;
use support::cli::{Machine, PREFIX};
use support::s3::S3;
use support::{files_ending, noise, run};

const FILES: usize = 1500;
const POINTER: &str = "latest_files_backup.manifest.json";

/// Lets files grow, shrink, go and come until it is told to stop. One becomes shorter by a new file in its place: to
/// read one that is cut is an error.
fn churn(data: &Path, stop: &AtomicBool) {
    let mut seed = 1;
    while !stop.load(Ordering::Relaxed) {
        for n in 0..FILES {
            let path = data.join(n.to_string());
            seed += 1;
            match (n + seed) % 7 {
                0 => drop(std::fs::remove_file(&path)),
                1 | 2 => {
                    let new = data.with_file_name("new");
                    std::fs::write(&new, noise(seed % 50, seed as u64)).expect("written");
                    std::fs::rename(&new, &path).expect("renamed");
                }
                _ => {
                    let file = std::fs::File::options().append(true).create(true).open(&path);
                    file.expect("open").write_all(&noise(100, seed as u64)).expect("written");
                }
            }
        }
        let large = std::fs::File::options().append(true).create(true).open(data.join("large"));
        large.expect("open").write_all(&noise(100, seed as u64)).expect("written");
    }
}

/// Files and bytes below a folder.
fn found(folder: &Path) -> (u64, u64) {
    let files = files_ending(folder, "");
    let bytes = files.iter().map(|file| std::fs::metadata(file).expect("there").len()).sum();
    (files.len() as u64, bytes)
}

#[test]
fn what_is_written_to_while_it_is_read_is_counted_as_it_was_read() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    std::fs::write(machine.data().join("large"), noise(3 << 20, 1)).expect("written");
    let (data, stop) = (machine.data(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&stop);
    let churning = std::thread::spawn(move || churn(&data, &told));
    for n in 0..4 {
        let made = machine.run(&["backup", "create", "--json"]).exits(0).json();
        let to = machine.data().with_file_name(format!("restored-{n}"));
        machine.run(&["backup", "restore", "--to", &to.display().to_string()]).exits(0);
        let said = |name: &str| made["archive"][name].as_u64().expect("a number");
        assert_eq!((said("files"), said("data_bytes")), found(&to), "{made}");
        machine.run(&["backup", "verify", "--structure"]).exits(0);
    }
    stop.store(true, Ordering::Relaxed);
    churning.join().expect("no panic");
}

#[test]
fn an_index_that_lists_more_than_the_manifest_says_is_not_restored() {
    let s3 = S3::start();
    let machine = Machine::of_files(&s3, "");
    for n in 0..10 {
        std::fs::write(machine.data().join(n.to_string()), noise(2 << 20, n)).expect("written");
    }
    machine.run(&["backup", "create"]).exits(0);
    let path = files_ending(&s3.bucket().join(PREFIX), "/manifest.json").remove(0);
    let good: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("json");
    let key = path.strip_prefix(s3.bucket().join(PREFIX)).expect("below").display().to_string();
    // The pointer vouches for the manifest's bytes, so that both have to be changed.
    let now_says = |manifest: &Value| {
        let repository = s3.repository(PREFIX);
        let put = |key: &str, body: String| run(repository.store().put(key, body.into())).expect("changed");
        put(&key, manifest.to_string());
        let pointer = run(repository.store().get(POINTER)).expect("there");
        let mut pointer: Value = serde_json::from_slice(&pointer.body).expect("json");
        pointer["manifest_sha256"] = sha256_hex(manifest.to_string().as_bytes()).into();
        put(POINTER, pointer.to_string());
    };
    let said = format!("lists 10 files with {} bytes or more, the manifest says", 20 << 20);
    let to = machine.data().with_file_name("restored");
    let restore = ["backup", "restore", "--to", &to.display().to_string()];
    for (name, less) in [("data_bytes", (20 << 20) - 1), ("files", 9)] {
        let mut bad = good.clone();
        bad["archive"][name] = less.into();
        now_says(&bad);
        machine.run(&restore).exits(3).says(&said).says(&less.to_string());
        machine.run(&[&restore[..], &["--dry-run"]].concat()).exits(3).says(&said);
        machine.run(&["backup", "verify", "--structure"]).exits(3).says(&said);
        assert!(!to.exists());
        let left = std::fs::read_dir(machine.data().parent().expect("a parent")).expect("read").flatten();
        let left: Vec<_> = left.filter(|e| e.file_name().to_string_lossy().contains("perennial-")).collect();
        assert!(left.is_empty(), "nothing was written: {left:?}");
    }

    // Captures of before counted files of up to a mebibyte as they met them; larger ones are held to it.
    let mut old = good.clone();
    old["archive"].as_object_mut().expect("an object").remove("exact");
    now_says(&old);
    machine.run(&restore).exits(0);
    assert_eq!(found(&to), (10, 20 << 20));
}
