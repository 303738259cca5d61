//! A large object on its way into the folder: one temporary file with every part at its place, and a record of the
//! parts that arrived.
//!
//! Promises: a part is recorded after its bytes are on the disk, so whoever takes the upload up after a kill or a power
//! cut believes in no part that is not there. A recorded part that comes again with other bytes is struck out first.
//! The object appears by a hard link, as by `create`.
//!
//! A crash leaves both files, to be taken up again or removed after a week; or, after the link, a second name of the
//! object, which is never written again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk::{Disk, is_absence, remove_left_behind, sync_parent};
use crate::store::parts::{self, Arrived, Whole};
use crate::store::{Meta, Part, StoreError};

/// Extension of the file with the bytes.
pub(super) const DATA: &str = "upload";
/// Extension of the record.
pub(super) const RECORD: &str = "parts";
const BUFFER: usize = 1 << 20;

/// One line of the record.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Key(String),
    Arrived(Arrived),
    /// This part is being written again with other bytes.
    Struck(u32),
}

#[derive(Debug)]
pub(super) struct DiskUpload {
    disk: Disk,
    key: String,
    token: String,
    arrived: Mutex<BTreeMap<u32, Arrived>>,
}

impl DiskUpload {
    pub(super) fn begin(disk: Disk, key: &str) -> Result<Self, StoreError> {
        disk.path(key)?;
        disk.make_own(key)?;
        let token = format!("{:032x}", rand::random::<u128>());
        let upload = Self { disk, key: key.to_owned(), token, arrived: Mutex::default() };
        upload.make_files().map_err(|error| upload.disk.explain(key, error))?;
        Ok(upload)
    }

    fn make_files(&self) -> io::Result<()> {
        remove_left_behind(&self.disk.own())?;
        File::create_new(self.path(DATA))?.sync_all()?;
        File::create_new(self.path(RECORD))?;
        self.note(&Line::Key(self.key.clone()))?;
        sync_parent(&self.path(RECORD))
    }

    pub(super) fn resume(disk: Disk, key: &str, token: &str) -> Result<Option<Self>, StoreError> {
        disk.path(key)?;
        disk.check_root(key)?;
        // It becomes a file's name.
        if token.len() != 32 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let upload = Self { disk, key: key.to_owned(), token: token.to_owned(), arrived: Mutex::default() };
        let found = upload.open().and_then(|_| upload.read_record());
        match found {
            Ok((of, arrived)) if of.as_deref() == Some(key) => {
                *upload.lock() = arrived;
                Ok(Some(upload))
            }
            Ok(_) => Ok(None),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(upload.disk.explain(key, error)),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        self.open().map_err(|error| self.explain(error))?;
        Ok(self.lock().values().map(|arrived| arrived.part.clone()).collect())
    }

    pub(super) fn send(&self, number: u32, offset: u64, body: &[Bytes]) -> Result<Part, StoreError> {
        parts::check_number(number, &self.key, &self.disk.location())?;
        let crc64 = parts::crc64nvme(body);
        let part = Part { number, size: parts::size(body), crc64, tag: format!("{crc64:016x}") };
        self.write(&Arrived { offset, part: part.clone() }, body).map_err(|error| self.explain(error))?;
        Ok(part)
    }

    fn write(&self, arriving: &Arrived, body: &[Bytes]) -> io::Result<()> {
        let data = self.open()?;
        let number = arriving.part.number;
        let known = self.lock().get(&number).cloned();
        if known.as_ref() == Some(arriving) {
            return Ok(());
        }
        if known.is_some() {
            self.lock().remove(&number);
            self.note(&Line::Struck(number))?;
        }
        let mut at = arriving.offset;
        for piece in body {
            data.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        data.sync_data()?;
        self.note(&Line::Arrived(arriving.clone()))?;
        self.lock().insert(number, arriving.clone());
        Ok(())
    }

    pub(super) fn complete(&self, whole: Whole, parts: &[Part]) -> Result<Meta, StoreError> {
        let data = match self.open() {
            Ok(data) => data,
            Err(error) if is_absence(&error) => return self.settle(whole, error),
            Err(error) => return Err(self.explain(error)),
        };
        parts::check_arrived(parts, &self.lock(), &self.key, &self.disk.location())?;
        self.finish(&data, whole.size)?;
        let path = self.disk.path(&self.key)?;
        let linked = self.disk.make_parent(&path).and_then(|()| fs::hard_link(self.path(DATA), &path));
        match linked {
            Ok(()) => sync_parent(&path).map_err(|error| self.explain(error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return self.settle(whole, error),
            Err(error) => return Err(self.disk.explain(&self.key, error)),
        }
        let meta = self.disk.head(&self.key)?;
        self.abort()?;
        Ok(meta)
    }

    /// The file as the object will be: a last part may have been longer once.
    fn finish(&self, data: &File, size: u64) -> Result<(), StoreError> {
        let found = data.metadata().map_err(|error| self.explain(error))?.len();
        if found < size {
            let why = format!("{found} bytes arrived of {size}");
            return Err(StoreError::corrupt(&self.key, self.disk.location(), why));
        }
        data.set_len(size).and_then(|()| data.sync_all()).map_err(|error| self.explain(error))
    }

    /// The upload is over, or somebody was first: perhaps ourselves, before a crash.
    fn settle(&self, whole: Whole, error: io::Error) -> Result<Meta, StoreError> {
        let location = self.disk.location();
        if self.disk.path(&self.key)?.is_dir() {
            let why = "objects below this key exist, so it is a folder here";
            return Err(StoreError::invalid(&self.key, location, why));
        }
        match standing(&self.disk, &self.key, whole) {
            Ok(None) if is_absence(&error) => Err(self.explain(error)),
            Ok(None) => Err(StoreError::unavailable(&self.key, location, error)),
            Ok(Some(meta)) => {
                self.abort()?;
                Ok(meta)
            }
            Err(other @ StoreError::AlreadyExists { .. }) => {
                self.abort()?;
                Err(other)
            }
            Err(unreadable) => Err(unreadable),
        }
    }

    pub(super) fn abort(&self) -> Result<(), StoreError> {
        for extension in [DATA, RECORD] {
            match fs::remove_file(self.path(extension)) {
                Err(error) if !is_absence(&error) => return Err(self.disk.explain(&self.key, error)),
                _ => (),
            }
        }
        Ok(())
    }

    /// The bytes' file, as long as it is not an object already.
    fn open(&self) -> io::Result<File> {
        let data = File::options().write(true).open(self.path(DATA))?;
        if data.metadata()?.nlink() > 1 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the upload was completed"));
        }
        Ok(data)
    }

    fn note(&self, line: &Line) -> io::Result<()> {
        // The line's end comes first, so that a line cut by a crash spoils no other.
        let text = format!("\n{}", serde_json::to_string(line)?);
        let mut record = File::options().append(true).open(self.path(RECORD))?;
        record.write_all(text.as_bytes())?;
        record.sync_data()
    }

    fn read_record(&self) -> io::Result<(Option<String>, BTreeMap<u32, Arrived>)> {
        let (mut key, mut arrived) = (None, BTreeMap::new());
        let text = fs::read(self.path(RECORD))?;
        for line in text.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Key(of)) => key = Some(of),
                Ok(Line::Arrived(part)) => drop(arrived.insert(part.part.number, part)),
                Ok(Line::Struck(number)) => drop(arrived.remove(&number)),
                // Cut by a crash: what it would have told counts as not arrived.
                Err(_) => (),
            }
        }
        Ok((key, arrived))
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.disk.own().join(format!("{}.{extension}", self.token))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that is not there means that the upload is not.
    fn explain(&self, error: io::Error) -> StoreError {
        if !is_absence(&error) {
            return self.disk.explain(&self.key, error);
        }
        match self.disk.check_root(&self.key) {
            Ok(()) => parts::unknown_upload(&self.key, &self.disk.location()),
            Err(gone) => gone,
        }
    }
}

/// The object at the key, if it is this one.
pub(super) fn standing(disk: &Disk, key: &str, whole: Whole) -> Result<Option<Meta>, StoreError> {
    let stored = match disk.open(key) {
        Ok(stored) => stored,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(unreadable) => return Err(unreadable),
    };
    let explain = |error| disk.explain(key, error);
    let size = stored.metadata().map_err(explain)?.len();
    if size != whole.size || crc64nvme_of(stored).map_err(explain)? != whole.crc64 {
        return Err(parts::other_bytes(key, &disk.location()));
    }
    disk.head(key).map(Some)
}

fn crc64nvme_of(mut file: File) -> io::Result<u64> {
    let mut digest = parts::Digest::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            count => digest.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "archives/a";

    struct Folder {
        disk: Disk,
        _root: tempfile::TempDir,
    }

    fn folder() -> Folder {
        let root = tempfile::tempdir().expect("a folder");
        Folder { disk: Disk::new(root.path().to_path_buf()), _root: root }
    }

    impl Folder {
        fn begin(&self) -> DiskUpload {
            DiskUpload::begin(self.disk.clone(), KEY).expect("it begins")
        }

        fn resume(&self, token: &str) -> Option<DiskUpload> {
            DiskUpload::resume(self.disk.clone(), KEY, token).expect("an answer")
        }

        fn own_files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.disk.own()).expect("a folder");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
            entries.map(|entry| name(entry).expect("UTF-8")).collect()
        }
    }

    fn send(upload: &DiskUpload, number: u32, offset: u64, body: &'static str) -> Part {
        upload.send(number, offset, &[Bytes::from_static(body.as_bytes())]).expect("sent")
    }

    fn complete(upload: &DiskUpload, parts: &[Part]) -> Result<Meta, StoreError> {
        let (whole, parts) = parts::whole(parts, KEY, "here").expect("parts");
        upload.complete(whole, &parts)
    }

    /// Cuts the record after each of its bytes, as a power cut may.
    #[test]
    fn a_record_that_breaks_off_anywhere_never_tells_too_much() {
        let folder = folder();
        let upload = folder.begin();
        let first = send(&upload, 1, 0, "first");
        let second = send(&upload, 2, 5, "second");
        let again = send(&upload, 1, 0, "FIRST");
        let record = fs::read(upload.path(RECORD)).expect("a record");
        let mut seen = Vec::new();
        for length in 0..=record.len() {
            fs::write(upload.path(RECORD), &record[..length]).expect("a shorter record");
            let Some(resumed) = folder.resume(upload.token()) else { continue };
            let arrived = resumed.arrived().expect("arrived");
            if seen.last() != Some(&arrived) {
                seen.push(arrived);
            }
        }
        let only = |parts: &[&Part]| parts.iter().map(|part| (*part).clone()).collect::<Vec<_>>();
        let steps = [vec![], only(&[&first]), only(&[&first, &second]), only(&[&second]), only(&[&again, &second])];
        assert_eq!(seen, steps);

        // What comes after a torn line is read.
        fs::write(upload.path(RECORD), &record[..record.len() - 3]).expect("a torn record");
        let resumed = folder.resume(upload.token()).expect("known");
        let again = send(&resumed, 1, 0, "FIRST");
        let arrived = folder.resume(upload.token()).expect("known").arrived().expect("arrived");
        assert_eq!(arrived, [again.clone(), second.clone()]);
        complete(&resumed, &[again, second]).expect("complete");
        assert_eq!(folder.disk.get(KEY).expect("an object").body, "FIRSTsecond");
        assert_eq!(folder.own_files(), [""; 0]);
    }

    /// The link was made, and the process died before it removed its files.
    #[test]
    fn a_completed_upload_is_not_written_to_again() {
        let folder = folder();
        let upload = folder.begin();
        let (first, second) = (send(&upload, 1, 0, "first"), send(&upload, 2, 5, "second"));
        let path = folder.disk.path(KEY).expect("a path");
        folder.disk.make_parent(&path).and_then(|()| fs::hard_link(upload.path(DATA), &path)).expect("linked");

        assert!(folder.resume(upload.token()).is_none());
        let late = upload.send(1, 0, &["other".into()]).expect_err("it is an object now");
        assert!(matches!(late, StoreError::NotFound { .. }), "{late:?}");
        let shorter = complete(&upload, std::slice::from_ref(&first)).expect_err("not what stands there");
        assert!(matches!(shorter, StoreError::AlreadyExists { .. }), "{shorter:?}");
        complete(&upload, &[first, second]).expect("what stands there");
        assert_eq!(folder.disk.get(KEY).expect("an object").body, "firstsecond");
        assert_eq!(folder.own_files(), [""; 0]);
    }

    #[test]
    fn parts_that_do_not_lie_one_behind_the_other_are_no_object() {
        let folder = folder();
        let upload = folder.begin();
        let (first, second) = (send(&upload, 1, 0, "first"), send(&upload, 2, 6, "second"));
        let hole = complete(&upload, &[first.clone(), second]).expect_err("a hole");
        assert!(matches!(hole, StoreError::Corrupt { .. }), "{hole:?}");

        let second = send(&upload, 2, 5, "second");
        fs::File::options().write(true).open(upload.path(DATA)).and_then(|file| file.set_len(7)).expect("cut");
        let cut = complete(&upload, &[first, second]).expect_err("bytes are gone");
        assert!(matches!(cut, StoreError::Corrupt { .. }), "{cut:?}");
        assert!(matches!(folder.disk.open(KEY), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn an_upload_waits_for_days_but_not_for_ever() {
        let folder = folder();
        let upload = folder.begin();
        let age = |days: u64| {
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 60 * 60);
            for extension in [DATA, RECORD] {
                let file = File::options().write(true).open(upload.path(extension)).expect("a file");
                file.set_modified(then).expect("ages");
            }
            folder.disk.put("other", &"x".into()).expect("a write removes what is left behind");
        };
        age(6);
        assert!(folder.resume(upload.token()).is_some());
        age(8);
        assert!(folder.resume(upload.token()).is_none());
        assert!(matches!(upload.arrived(), Err(StoreError::NotFound { .. })));
        assert_eq!(folder.own_files(), ["lock"]);
    }

    #[test]
    fn a_folder_that_went_away_is_not_an_upload_that_is_unknown() {
        let root = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(root.path().join("mount"));
        fs::create_dir(root.path().join("mount")).expect("a folder");
        let upload = DiskUpload::begin(disk.clone(), KEY).expect("it begins");
        let part = send(&upload, 1, 0, "first");
        fs::remove_dir_all(root.path().join("mount")).expect("it goes away");
        let refusals = [
            upload.arrived().err(),
            upload.send(2, 5, &["x".into()]).err(),
            complete(&upload, &[part]).err(),
            DiskUpload::resume(disk.clone(), KEY, upload.token()).err(),
            DiskUpload::begin(disk, KEY).err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Some(StoreError::Invalid { .. })), "{refusal:?}");
        }
    }
}
