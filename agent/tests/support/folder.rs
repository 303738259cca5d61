//! A folder as a target: what is put into it, what becomes of it, and what it looks like.

use std::path::Path;
use std::process::Command;

use super::cli::Machine;
use super::noise;

/// 24 MiB that do not compress, a text that does, and fifty small files.
pub fn fill(data: &Path) {
    std::fs::create_dir_all(data.join("segments/0")).expect("made");
    std::fs::write(data.join("vectors.bin"), noise(24 << 20, 1)).expect("written");
    std::fs::write(data.join("payload.jsonl"), "{\"id\": 7, \"text\": \"hello\"}\n".repeat(100_000)).expect("written");
    for n in 0..50 {
        std::fs::write(data.join(format!("segments/0/{n}")), noise(1000 * n, n as u64)).expect("written");
    }
}

/// Writes over a part of a file.
pub fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(path).expect("open").write_all_at(bytes, at).expect("written");
}

/// Flips a bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("damaged");
}

/// A tree's content, modes and times as `find` and `sha256sum` see them. A folder's size is the file system's own affair.
pub fn image(data: &Path) -> String {
    let script = "find . -type f -exec sha256sum {} + | sort; find . -printf '%P %m %T@ %l\\n' | sort";
    let ran = Command::new("sh").args(["-c", script]).current_dir(data).output().expect("sh");
    String::from_utf8(ran.stdout).expect("text")
}

/// Empties the target's folder.
pub fn lose(machine: &Machine) {
    std::fs::remove_dir_all(machine.data()).expect("removed");
    std::fs::create_dir(machine.data()).expect("made");
}
