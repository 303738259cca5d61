//! What is written below the staging folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use perennial_shared::archive::entry::{self, Entry, Extent, FrameRef, Kind, Time};
use perennial_shared::archive::frame::{Decompressor, PLAIN};
use perennial_shared::archive::objects::{Objects, ReadError};
use perennial_shared::archive::plan::Piece;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::RestoreError;
use super::on_disk::OnDisk;
use crate::archive::walk::named;

/// Slices that the system takes in one call (`UIO_MAXIOV` of Linux).
const SLICES: usize = 1024;

/// A file that is being brought back.
#[derive(Debug)]
pub(super) struct Target {
    entry: Entry,
    full: PathBuf,
    /// Whether the length has to be set, because the last chunk may never be written or the file was there before.
    set_length: bool,
    /// Pieces that are planned and not written, and one while planning goes on.
    left: AtomicU32,
    /// Held while a piece is written: file systems let one in at a time anyway, and have the others burn a core while they wait.
    writing: Mutex<()>,
    size: u64,
}

impl Target {
    /// A file below the staging folder, and what of it is on the disk already. A file of an interrupted restore is kept as
    /// far as it is right; in a `fresh` staging folder there is none.
    pub(super) fn prepare(
        entry: Entry,
        full: PathBuf,
        fresh: bool,
        local: Option<PathBuf>,
        dry: bool,
    ) -> io::Result<(Self, OnDisk)> {
        let size = if let Kind::File(file) = &entry.kind { file.size } else { 0 };
        let mut on_disk = OnDisk::default();
        let mut was_there = false;
        match if fresh { None } else { fs::symlink_metadata(&full).ok() } {
            Some(found) if found.is_file() => {
                was_there = true;
                // A finished one has its own mode, which may let nobody write but root.
                if !dry && found.mode() & 0o600 != 0o600 {
                    fs::set_permissions(&full, fs::Permissions::from_mode(0o600)).map_err(|e| named(&full, &e))?;
                }
                on_disk.add(&full, true);
            }
            Some(_) if !dry => remove(&full)?,
            _ => {}
        }
        if let Some(path) = local {
            on_disk.add(&path, false);
        }
        let set_length = was_there || has_holes(&entry) || size == 0;
        Ok((Self { entry, full, set_length, left: AtomicU32::new(1), writing: Mutex::default(), size }, on_disk))
    }

    /// One more piece will come.
    pub(super) fn expect_piece(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// All pieces were planned.
    pub(super) fn planned(&self) -> io::Result<()> {
        if !self.is_last() {
            return Ok(());
        }
        self.open().and_then(|file| self.finish(&file))
    }

    /// Writes a piece that was planned. After the last one the file is finished.
    fn place<'a>(&self, slices: impl Iterator<Item = &'a [u8]>, offset: u64) -> io::Result<()> {
        let file = self.open()?;
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_all(&file, &mut slices.map(IoSlice::new).collect::<Vec<_>>(), offset)
            .map_err(|e| named(&self.full, &e))?;
        drop(writing);
        if self.is_last() { self.finish(&file) } else { Ok(()) }
    }

    /// Writes what was found on the disk.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.open()?.write_all_at(bytes, offset).map_err(|e| named(&self.full, &e))
    }

    fn open(&self) -> io::Result<File> {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow).clone();
        options.open(&self.full).map_err(|e| named(&self.full, &e))
    }

    /// Whether the piece that was written, or the planning that has ended, was the last that the file waited for.
    fn is_last(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Gives the file its length, owner, mode and times.
    fn finish(&self, file: &File) -> io::Result<()> {
        let finish = || {
            if self.set_length {
                file.set_len(self.size)?;
            }
            give(file, &self.entry)
        };
        finish().map_err(|e: io::Error| named(&self.full, &e))
    }
}

/// Writes one slice after the other, in as few calls as it takes: where one ends within a page, that page is touched once.
fn write_all(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !slices.is_empty() {
        match rustix::io::pwritev(file, &slices[..slices.len().min(SLICES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Decompresses a frame that has arrived, checks and writes its pieces. What arrived damaged may stand right in the store, so it is
/// fetched once more before it is called damage.
pub(super) async fn frame(
    objects: &Objects,
    frame: FrameRef,
    stored: Vec<Bytes>,
    pieces: &[Piece<Arc<Target>>],
) -> Result<(), RestoreError> {
    match place_all(objects, frame, stored, pieces) {
        Err(RestoreError::Read(e)) if e.is_damage() => {
            let again = objects.range(frame.object, frame.offset, u64::from(frame.length)).await?;
            place_all(objects, frame, vec![again], pieces)
        }
        placed => placed,
    }
}

/// Writes the pieces of one frame: all of them, or none where one is damaged.
fn place_all(
    objects: &Objects,
    frame: FrameRef,
    stored: Vec<Bytes>,
    pieces: &[Piece<Arc<Target>>],
) -> Result<(), RestoreError> {
    let damaged = |why: String| ReadError::Damaged {
        key: objects.key(frame.object),
        why: format!("the frame at {}: {why}", frame.offset),
    };
    let opened = objects.open_pieces(frame.object, frame.offset, stored)?;
    let (mut decompressor, mut plain) = (Decompressor::new()?, PLAIN.buffer());
    let content = decompressor.content(objects.algorithm(frame.object), &opened, &mut plain);
    let content = content.map_err(|e| damaged(e.to_string()))?;
    let check = |piece: &Piece<Arc<Target>>| {
        piece.checked(&content).map_err(|why| damaged(format!("{why} ({})", piece.file.entry.path)))
    };
    let checked: Vec<_> = pieces.iter().map(check).collect::<Result<_, _>>()?;
    for (piece, bytes) in pieces.iter().zip(checked) {
        piece.file.place(bytes, piece.offset)?;
    }
    Ok(())
}

fn has_holes(entry: &Entry) -> bool {
    match &entry.kind {
        Kind::File(entry::File { content: entry::Content::Inline(extents), .. }) => {
            extents.iter().any(|e| matches!(e, Extent::Hole(_)))
        }
        // Whether a large file has any stands in pages; setting the length once more costs nothing there.
        Kind::File(_) => true,
        _ => false,
    }
}

/// A folder that only we can look into until it is finished. Whether it is new.
pub(super) fn make_folder(full: &Path) -> io::Result<bool> {
    let make = || fs::DirBuilder::new().mode(0o700).create(full).map(|()| true);
    match make() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(full) {
            // Of an interrupted restore; it may have been finished already.
            Ok(found) if found.is_dir() => fs::set_permissions(full, fs::Permissions::from_mode(0o700)).map(|()| false),
            _ => remove(full).and_then(|()| make()),
        },
        result => result,
    }
    .map_err(|e| named(full, &e))
}

/// Whether there is a folder with anything in it.
pub(super) fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

pub(super) fn link(entry: &Entry, to: &[u8], full: &Path) -> io::Result<()> {
    let make = || {
        if fs::symlink_metadata(full).is_ok() {
            remove(full)?;
        }
        std::os::unix::fs::symlink(Path::new(std::ffi::OsStr::from_bytes(to)), full)?;
        own(full, entry)?;
        Ok(rustix::fs::utimensat(CWD, full, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    };
    make().map_err(|e: io::Error| named(full, &e))
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Owner, mode and times. Only root can give a file away; anybody else's files are their own, as with `tar x`.
pub(super) fn give(file: &File, entry: &Entry) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let found = file.metadata()?;
        if (found.uid(), found.gid()) != (entry.uid, entry.gid) {
            std::os::unix::fs::fchown(file, Some(entry.uid), Some(entry.gid))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(entry.mode))?;
    Ok(rustix::fs::futimens(file, &times(entry.mtime))?)
}

fn own(path: &Path, entry: &Entry) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(entry.uid), Some(entry.gid))?;
    }
    Ok(())
}

fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// One call for all files: a call for each of thousands waits for the disk thousands of times.
pub(super) fn sync_all(staging: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(staging)?)?)
}
