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
        let stored = match self.disk.open(&self.key) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) if is_absence(&error) => return Err(self.explain(error)),
            Err(StoreError::NotFound { .. }) => return Err(StoreError::unavailable(&self.key, location, error)),
            Err(unreadable) => return Err(unreadable),
        };
        let size = stored.metadata().map_err(|error| self.explain(error))?.len();
        if size != whole.size || crc64nvme_of(stored).map_err(|error| self.explain(error))? != whole.crc64 {
            return Err(StoreError::already_exists(&self.key, location, error));
        }
        let meta = self.disk.head(&self.key)?;
        self.abort()?;
        Ok(meta)
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
