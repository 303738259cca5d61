//! A base is a tar file that needs no Perennial.

use std::fs;
use std::sync::Arc;

use perennial_shared::archive::frame::{Algorithm, Compression};

use crate::case::Case;
use crate::support::run;
use crate::tree::{Change, Tree, image};

#[test]
fn a_base_is_an_ordinary_tar_file() {
    let (one, several) = (u64::MAX, 500_000);
    for (algorithm, full_at) in
        [(Algorithm::Zstd, one), (Algorithm::Gzip, one), (Algorithm::None, one), (Algorithm::Zstd, several)]
    {
        let repository = tempfile::tempdir().expect("a folder");
        let store = perennial_shared::store::folder::FolderStore::open(repository.path()).expect("opened");
        let compression = Compression { algorithm, level: None };
        let case = Case { store: Arc::new(store), compression, full_at, ..Case::plain() };
        let mut tree = Tree::new();
        for file in 0..12 {
            tree.apply(&Change::Write { file, size: u32::from(file) * 300_000, seed: file });
        }
        tree.apply(&Change::Punch { file: 7, size: 5_000_000 });
        tree.apply(&Change::Link { file: 9, to: 1 });
        tree.apply(&Change::Mode { file: 2, mode: 0o640 });
        // Only root gives files away, here and at a restore.
        if rustix::process::geteuid().is_root() {
            let some = fs::read_dir(tree.folder.path()).expect("a folder").flatten().map(|e| e.path());
            for (path, owner) in some.zip(40_000..40_003) {
                std::os::unix::fs::lchown(path, Some(owner), Some(owner + 7)).expect("given");
            }
        }
        let backup = run(case.back_up(tree.folder.path(), 0, None)).expect("a base");
        let data: Vec<_> = backup.objects[1..].iter().map(|o| repository.path().join(o.full_key())).collect();
        assert_eq!(data.len() > 1, full_at == several, "{data:?}");
        let data = data.iter().map(|path| format!("'{}'", path.display())).collect::<Vec<_>>().join(" ");

        let out = tempfile::tempdir().expect("a folder");
        let unpack = match algorithm {
            Algorithm::Zstd => "zstd -dc",
            Algorithm::Gzip => "gzip -dc",
            Algorithm::None => "cat",
        };
        let script =
            format!("set -e -o pipefail; {unpack} {data} | tar xp -C '{}'; sha256sum {data}", out.path().display());
        let ran = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(image(out.path()) == image(tree.folder.path()), "{algorithm:?}");
        let sum = String::from_utf8_lossy(&ran.stdout);
        for (line, object) in sum.lines().zip(&backup.objects[1..]) {
            assert!(line.starts_with(&object.sha256), "{sum}");
        }
        let ours = out.path().with_extension("ours");
        run(case.restore(&backup, &ours, None)).expect("restored");
        assert!(image(&ours) == image(tree.folder.path()), "{algorithm:?}");
        fs::remove_dir_all(&ours).expect("removed");
    }
}
