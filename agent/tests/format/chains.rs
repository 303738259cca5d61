//! Repositories that version 0.1.0 wrote, of trees that are made anew here: the program of today brings them back. Never to be
//! written again: later versions have to read these bytes.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use perennial_shared::archive::entry::{Content, Kind};
use perennial_shared::archive::frame::Algorithm;
use perennial_shared::archive::objects::Objects;
use perennial_shared::manifest::{Archive, Manifest};
use perennial_shared::store::folder::FolderStore;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::support::cli::Ran;
use crate::support::folder::{image, overwrite};
use crate::support::{noise, run};

/// Of the encrypted one. It protects nothing.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const CHUNK: usize = 16 << 10;

/// Gives all of a tree the same modes and times, so that it is the same whenever and by whomever it is made.
fn even_out(path: &Path) {
    let metadata = fs::symlink_metadata(path).expect("there");
    if metadata.is_dir() {
        fs::read_dir(path).expect("a folder").flatten().for_each(|entry| even_out(&entry.path()));
    }
    if !metadata.is_symlink() {
        let mode = if metadata.is_dir() { 0o750 } else { 0o640 };
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set");
}

fn text() -> Vec<u8> {
    b"a line that is like all others\n".repeat(7000)
}

/// Chunks that all differ, and hardly need any room.
fn chunks(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("chunk {n:09}\n").repeat(CHUNK / 16).into_bytes()).collect()
}

/// Many names, so that pages stand above the leaves; a file whose chunks are listed in two pages; frames of both kinds.
fn many(to: &Path) {
    fs::create_dir(to).expect("made");
    fs::create_dir(to.join("names")).expect("made");
    for n in 0..2000 {
        fs::write(to.join(format!("names/{n:04}")), b"").expect("written");
    }
    symlink("names/0007", to.join("link")).expect("made");
    let holes = File::create(to.join("holes")).expect("made");
    holes.set_len(3_000_000).expect("made larger");
    holes.write_all_at(&text()[..20_000], 1 << 20).expect("written");
    fs::write(to.join("text"), text()).expect("written");
    fs::write(to.join("wide"), chunks(2112)).expect("written");
    fs::write(to.join("z-noise"), noise(50_000, 1)).expect("written");
}

fn many_changed(to: &Path) {
    many(to);
    overwrite(&to.join("wide"), 2100 * CHUNK as u64 + 7, b"changed in place");
    fs::write(to.join("names/0500"), noise(40_000, 2)).expect("written");
    fs::write(to.join("names/new"), text()).expect("written");
    fs::remove_file(to.join("names/1501")).expect("removed");
}

fn few(to: &Path) {
    fs::create_dir_all(to.join("folder")).expect("made");
    fs::write(to.join("text"), text()).expect("written");
    fs::write(to.join("folder/noise"), noise(40_000, 3)).expect("written");
    symlink("folder/noise", to.join("link")).expect("made");
}

fn few_changed(to: &Path) {
    few(to);
    overwrite(&to.join("folder/noise"), 20_000, b"changed in place");
    fs::remove_file(to.join("link")).expect("removed");
}

/// A copy of a repository, because the program writes records into it, and the program's settings for it.
struct Repository {
    home: tempfile::TempDir,
    archives: Vec<(Manifest, Archive)>,
}

impl Repository {
    fn of(fixture: &str, more: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let from = Path::new("fixtures").join(fixture);
        let ran = Command::new("cp").arg("-r").arg(&from).arg(home.path().join("repository")).status();
        assert!(ran.expect("cp").success(), "{} is copied", from.display());
        let settings = format!(
            "name: notes\nengine: files\ndata_dir: {0}/data\nrepository: file://{0}/repository\n{more}\n",
            home.path().display()
        );
        fs::write(home.path().join("notes.yaml"), settings).expect("written");
        let archives = archives(&home.path().join("repository"));
        Self { home, archives }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
        command.arg("--target").arg(self.home.path().join("notes.yaml")).args(words).env_clear();
        Ran::of(command.env("TEST_KEY", KEY).env("PERENNIAL_STATE_DIR", self.home.path().join("state")))
    }

    /// The base and its increments are what these trees are, as a restore and as a verification see them.
    fn holds(&self, trees: &[fn(&Path)]) {
        assert_eq!(self.archives.len(), trees.len());
        for (n, (tree, (manifest, _))) in trees.iter().zip(&self.archives).enumerate() {
            let (expected, back) = (self.home.path().join(format!("tree-{n}")), self.home.path().join(format!("{n}")));
            tree(&expected);
            even_out(&expected);
            let words = ["backup", "restore", "--id", manifest.backup_id.as_str(), "--to"];
            self.run(&[&words[..], &[&back.display().to_string()]].concat()).exits(0);
            assert_eq!(image(&back), image(&expected), "backup {n}");
        }
        self.run(&["backup", "verify", "--again"]).exits(0);
    }

    fn objects(&self, n: usize) -> (Objects, &Archive) {
        let store = FolderStore::open(self.home.path().join("repository")).expect("opened");
        let archive = &self.archives[n].1;
        (Objects::new(Arc::new(store), archive, None), archive)
    }

    fn data_object(&self, n: usize) -> Vec<u8> {
        let own = self.archives[n].1.objects.last().expect("one");
        fs::read(self.home.path().join("repository").join(own.full_key())).expect("read")
    }
}

/// What a repository's manifests say, the base first.
fn archives(repository: &Path) -> Vec<(Manifest, Archive)> {
    let folders = fs::read_dir(repository.join("backups")).expect("backups").flatten();
    let read = |folder: PathBuf| {
        let body = fs::read(folder.join("manifest.json")).expect("a manifest");
        let id = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let manifest = Manifest::parse(&id, &body).expect("format 1");
        let archive = manifest.archive.clone().expect("an archive");
        (manifest, archive)
    };
    let mut found: Vec<_> = folders.map(|folder| read(folder.path())).collect();
    found.sort_by_key(|(_, archive)| archive.position);
    found
}

fn holds(object: &[u8], part: &[u8]) -> bool {
    object.windows(part.len()).any(|window| window == part)
}

#[test]
fn many_frames_and_pages_are_read() {
    let repository = Repository::of("archive-v1-many", "");
    repository.holds(&[many, many_changed]);

    for n in 0..2 {
        let (objects, archive) = repository.objects(n);
        assert!(archive.index.height > 0, "pages stand above the leaves");
        let mut paged = vec![];
        run(async {
            let mut walk = objects.walk(&archive.index);
            while let Some(entry) = walk.next().await.expect("an index") {
                if let Kind::File(file) = entry.kind
                    && let Content::Paged(pages) = file.content
                {
                    paged = pages;
                }
            }
        });
        let index = u32::try_from(2 * n).expect("few");
        let objects: Vec<_> = paged.iter().map(|page| page.object).collect();
        assert_eq!(objects, [0, index], "the first page of a list of chunks is the base's");
    }
    let data = repository.data_object(0);
    assert!(holds(&data, &noise(50_000, 1)[30_000..30_100]), "a frame of raw blocks");
    assert!(data.len() < 200_000, "and compressed ones: {}", data.len());
}

#[test]
fn encrypted_chains_are_read() {
    let repository = Repository::of("archive-v1-encrypted", "encryption: {key: {env: TEST_KEY}}");
    repository.holds(&[few, few_changed]);
    assert!(repository.archives.iter().all(|(_, archive)| archive.key_id.is_some()));
    assert!(!holds(&repository.data_object(0), &noise(40_000, 3)[30_000..30_100]), "nothing of it is readable");
}

#[test]
fn gzip_is_read() {
    let repository = Repository::of("archive-v1-gzip", "");
    repository.holds(&[few]);
    assert_eq!(repository.archives[0].1.objects[1].compression, Algorithm::Gzip);
    assert_eq!(repository.data_object(0)[..2], [0x1f, 0x8b], "a gzip file");
}
