//! The blocking half of the folder store: files, links, renames, syncs.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::lock::{self, Lock};
use super::upload;
use crate::store::parts;
use crate::store::{Cause, Meta, Object, StoreError, Version, check_key, check_prefix};

/// The folder's own folder: the lock and temporary files.
pub(super) const OWN: &str = ".perennial";
/// What is replaced (pointer, records) is small and known by its hash. Archives are not: to tell their version by
/// content, every listing would read the whole repository.
const HASHED_UP_TO: u64 = 1 << 20;
/// No write takes this long, so an older temporary file is a crash's.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);
/// An upload may take days and be taken up again after days, but one that no part has come to for this long is over.
const UPLOAD_LEFT_BEHIND: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn location(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// A folder that went away must not look like one without objects.
    pub(super) fn check_root(&self, key: &str) -> Result<(), StoreError> {
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(StoreError::invalid(key, self.location(), "it is not a folder")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::invalid(key, self.location(), "there is no such folder: mount or create it first"))
            }
            Err(error) => Err(self.explain(key, error)),
        }
    }

    pub(super) fn open(&self, key: &str) -> Result<File, StoreError> {
        let path = self.path(key)?;
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
        match opened {
            Ok((true, file)) => Ok(file),
            Ok((false, _)) => Err(StoreError::not_found(key, self.location(), "it is a folder")),
            Err(error) if is_absence(&error) => {
                self.check_root(key)?;
                Err(StoreError::not_found(key, self.location(), error))
            }
            Err(error) => Err(self.explain(key, error)),
        }
    }

    pub(super) fn get(&self, key: &str) -> Result<Object, StoreError> {
        let mut file = self.open(key)?;
        let mut body = Vec::new();
        let metadata = file.read_to_end(&mut body).and_then(|_| file.metadata());
        let metadata = metadata.map_err(|error| self.explain(key, error))?;
        let version = if is_hashed(&metadata) { hash_version(&body) } else { place_version(&metadata) };
        let meta = self.meta(key, &metadata, version)?;
        Ok(Object { meta: Meta { size: body.len() as u64, ..meta }, body: body.into() })
    }

    pub(super) fn read_range(&self, key: &str, range: &Range<u64>) -> Result<Bytes, StoreError> {
        parts::check_range(range, key, &self.location())?;
        let file = self.open(key)?;
        let size = file.metadata().map_err(|error| self.explain(key, error))?.len();
        if range.end > size {
            return Err(parts::too_short(range, size, key, &self.location()));
        }
        let length = usize::try_from(range.end - range.start)
            .map_err(|error| StoreError::invalid(key, self.location(), error))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::corrupt(key, self.location(), "it was cut while it was read"),
            _ => self.explain(key, error),
        })?;
        Ok(bytes.into())
    }

    pub(super) fn head(&self, key: &str) -> Result<Meta, StoreError> {
        let file = self.open(key)?;
        let metadata = file.metadata().map_err(|error| self.explain(key, error))?;
        if is_hashed(&metadata) {
            return Ok(self.get(key)?.meta);
        }
        self.meta(key, &metadata, place_version(&metadata))
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        check_prefix(prefix, &self.location())?;
        self.check_root(prefix)?;
        // Every match is in, or below, the folder that the prefix ends in.
        let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (mut found, mut folders) = (Vec::new(), vec![start.to_owned()]);
        while let Some(folder) = folders.pop() {
            for key in self.keys_in(&folder)?.into_iter().filter(|key| key.starts_with(prefix)) {
                match fs::metadata(self.root.join(&key)) {
                    Ok(metadata) if metadata.is_dir() => folders.push(key),
                    Ok(metadata) if metadata.is_file() => found.extend(self.still_there(&key)?),
                    Ok(_) => (),
                    Err(error) if is_absence(&error) => (),
                    Err(error) => return Err(self.explain(&key, error)),
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    pub(super) fn create(&self, key: &str, body: &Bytes) -> Result<Version, StoreError> {
        let path = self.path(key)?;
        let temporary = self.write_temporary(key, body)?;
        let linked = self.make_parent(&path).and_then(|()| fs::hard_link(&temporary.path, &path));
        match linked {
            Ok(()) => {
                sync_parent(&path).map_err(|error| self.explain(key, error))?;
                Ok(temporary.version.clone())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.settle_create(key, body, error),
            Err(error) => Err(self.explain(key, error)),
        }
    }

    /// Somebody was first: perhaps ourselves, before a crash.
    fn settle_create(&self, key: &str, body: &Bytes, error: io::Error) -> Result<Version, StoreError> {
        match self.get(key) {
            Ok(stored) if stored.body == body => Ok(stored.meta.version),
            Ok(_) => Err(StoreError::already_exists(key, self.location(), error)),
            // Either it is a folder, or it came and went.
            Err(StoreError::NotFound { .. }) if self.path(key)?.is_dir() => {
                Err(StoreError::invalid(key, self.location(), "objects below this key exist, so it is a folder here"))
            }
            Err(StoreError::NotFound { .. }) => Err(StoreError::unavailable(key, self.location(), error)),
            Err(unreadable) => Err(unreadable),
        }
    }

    pub(super) fn replace(&self, key: &str, body: &Bytes, expected: &Version) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let _held = self.lock(key)?;
        let stored = self.get(key)?;
        if stored.meta.version == *expected {
            return self.overwrite(key, body);
        }
        if stored.body == body {
            return Ok(stored.meta.version);
        }
        let why = format!("it is {} and was expected to be {expected}", stored.meta.version);
        Err(StoreError::changed(key, self.location(), why))
    }

    pub(super) fn put(&self, key: &str, body: &Bytes) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let _held = self.lock(key)?;
        self.overwrite(key, body)
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let _held = self.lock(key)?;
        match fs::remove_file(&path).and_then(|()| sync_parent(&path)) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(()),
            Err(error) if is_absence(&error) => self.check_root(key),
            Err(error) => Err(self.explain(key, error)),
            Ok(()) => Ok(()),
        }
    }

    /// The lock must be held.
    fn overwrite(&self, key: &str, body: &Bytes) -> Result<Version, StoreError> {
        let path = self.path(key)?;
        let temporary = self.write_temporary(key, body)?;
        self.make_parent(&path)
            .and_then(|()| fs::rename(&temporary.path, &path))
            .and_then(|()| sync_parent(&path))
            .map_err(|error| self.explain(key, error))?;
        Ok(temporary.version.clone())
    }

    fn lock(&self, key: &str) -> Result<Lock, StoreError> {
        self.make_own(key)?;
        lock::take(&self.own().join("lock")).map_err(|error| self.explain(key, error))
    }

    fn write_temporary(&self, key: &str, body: &[u8]) -> Result<Temporary, StoreError> {
        self.make_own(key)?;
        let own = self.own();
        remove_left_behind(&own).map_err(|error| self.explain(key, error))?;
        let path = own.join(format!("{:032x}.tmp", rand::random::<u128>()));
        Temporary::write(path, body).map_err(|error| self.explain(key, error))
    }

    pub(super) fn own(&self) -> PathBuf {
        self.root.join(OWN)
    }

    pub(super) fn make_own(&self, key: &str) -> Result<(), StoreError> {
        match fs::create_dir(self.own()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_root(key)?;
                Err(self.explain(key, error))
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.explain(key, error)),
            _ => Ok(()),
        }
    }

    /// Makes the missing folders from the top, each synced into its parent, so that a power cut loses none of them
    /// under an object that was reported as written. The root itself is never made.
    pub(super) fn make_parent(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let missing: Vec<&Path> =
            parent.ancestors().take_while(|folder| *folder != self.root && !folder.is_dir()).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                // A racing writer may have made it; whether it is a folder shows in the next step.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => sync_parent(folder)?,
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key, &self.location())?;
        if is_own(key) {
            return Err(StoreError::invalid(key, self.location(), format!("{OWN} is the folder's own")));
        }
        Ok(self.root.join(key))
    }

    /// What is in a folder, without the store's own; nothing where the folder does not exist.
    fn keys_in(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if is_absence(&error) => return self.check_root(folder).map(|()| Vec::new()),
            Err(error) => return Err(self.explain(folder, error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| self.explain(folder, error))?.file_name();
            let name = name.into_string().map_err(|name| {
                StoreError::invalid(folder, self.location(), format!("the file name {} is not UTF-8", name.display()))
            })?;
            let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if !is_own(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// A file may be deleted between being seen and being looked at.
    fn still_there(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        match self.head(key) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    fn meta(&self, key: &str, metadata: &Metadata, version: Version) -> Result<Meta, StoreError> {
        let modified = metadata.modified().map_err(|error| self.explain(key, error))?;
        let modified =
            jiff::Timestamp::try_from(modified).map_err(|error| StoreError::invalid(key, self.location(), error))?;
        Ok(Meta { key: key.to_owned(), size: metadata.len(), version, modified })
    }

    pub(super) fn explain(&self, key: &str, error: io::Error) -> StoreError {
        use io::ErrorKind as Kind;
        let make: fn(&str, String, Cause) -> StoreError = match error.kind() {
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => StoreError::denied,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => StoreError::full,
            // A part of the key is an object already, or the file system cannot have such a name, or no hard links.
            Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidFilename
            | Kind::InvalidInput
            | Kind::Unsupported => StoreError::invalid,
            _ => StoreError::unavailable,
        };
        make(key, self.location(), error.into())
    }
}

/// A file on its way to its name. Linking and renaming keep its version.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    version: Version,
}

impl Temporary {
    fn write(path: PathBuf, body: &[u8]) -> io::Result<Self> {
        let mut file = File::create_new(&path)?;
        // From here on a failure removes the file.
        let mut temporary = Self { path, version: hash_version(body) };
        file.write_all(body)?;
        file.sync_all()?;
        let metadata = file.metadata()?;
        if !is_hashed(&metadata) {
            temporary.version = place_version(&metadata);
        }
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is none; one that cannot be removed now is removed as left behind.
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn remove_left_behind(own: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(own)? {
        let path = entry?.path();
        let patience = match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => LEFT_BEHIND,
            Some(upload::DATA | upload::RECORD) => UPLOAD_LEFT_BEHIND,
            _ => continue,
        };
        let is_old = |modified: SystemTime| now.duration_since(modified).is_ok_and(|age| age > patience);
        if path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old) {
            fs::remove_file(&path).or_else(|error| if is_absence(&error) { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(())
}

/// Nothing of that name, or an object where a folder would have to be.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_own(key: &str) -> bool {
    key.split('/').next() == Some(OWN)
}

fn is_hashed(metadata: &Metadata) -> bool {
    metadata.len() <= HASHED_UP_TO
}

fn hash_version(body: &[u8]) -> Version {
    Version::new(format!("sha256-{}", hex::encode(Sha256::digest(body))))
}

fn place_version(metadata: &Metadata) -> Version {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Version::new(format!("place-{}-{}-{seconds}.{nanoseconds:09}", metadata.len(), metadata.ino()))
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_says_is_sorted_by_what_follows() {
        let disk = Disk::new("/repository".into());
        let explained = |kind: io::ErrorKind| disk.explain("a", io::Error::from(kind));
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(matches!(explained(kind), StoreError::Full { .. }), "{kind}");
        }
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(matches!(explained(kind), StoreError::Denied { .. }), "{kind}");
        }
        assert!(explained(io::ErrorKind::TimedOut).is_temporary());
        assert_eq!(explained(io::ErrorKind::Other).location(), "file:///repository");
    }

    #[test]
    fn a_large_object_is_told_by_its_place_and_a_small_one_by_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path().to_path_buf());
        let small = disk.create("small", &Bytes::from_static(b"x")).expect("create");
        assert_eq!(small, hash_version(b"x"));
        let large = disk.create("large", &vec![0; 1 + usize::try_from(HASHED_UP_TO).expect("fits")].into());
        assert!(large.expect("create").as_str().starts_with("place-"));
    }
}
