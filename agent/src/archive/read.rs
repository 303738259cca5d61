//! Blocks of files, read and hashed, and compared with what the parent has.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use perennial_shared::archive::chunk::{self, ChunkHash};
use perennial_shared::archive::entry::{self, Content, Entry, Extent, Identity, Kind, Time};
use perennial_shared::archive::path::RelPath;

use super::walk;

/// What one job reads at most, and a frame's size: a block is one frame's worth.
pub(super) const BLOCK: u64 = 1 << 20;
/// A file that changed this recently may change again without a trace, because clocks tick.
const SETTLES_AFTER: i64 = 2;

/// What was promised of a file cannot be had any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} became shorter while it was read; let `commands.before_capture` keep the data still, or back up a snapshot of it",
    .0.display()
)]
struct BecameShorter(PathBuf);

/// A regular file that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: RelPath,
    full: PathBuf,
    file: File,
    pub(super) metadata: Metadata,
    /// Bytes that belong to the backup.
    pub(super) size: u64,
    /// Whether bytes are only added to it, so that those that belong to the backup stay as they are.
    grows: bool,
    settled: bool,
}

impl Opened {
    /// Opens a file that is to be archived with at most `most` bytes; `None` if it has gone.
    pub(super) fn open(root: &Path, path: RelPath, most: Option<u64>) -> io::Result<Option<Self>> {
        let full = path.under(root);
        // What was a file a moment ago may be a link now, or a pipe, which nobody may ever write to.
        let careful = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = match File::options().read(true).custom_flags(careful.bits().cast_signed()).open(&full) {
            Ok(file) => file,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(walk::named(&full, &e)),
        };
        let metadata = file.metadata().map_err(|e| walk::named(&full, &e))?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let size = match most {
            Some(most) if metadata.len() < most => {
                let why =
                    format!("{}: had {most} bytes when it was captured and has {} now", full.display(), metadata.len());
                return Err(io::Error::other(why));
            }
            Some(most) => most,
            None => metadata.len(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
        let settled = metadata.ctime() + SETTLES_AFTER <= now;
        Ok(Some(Self { path, full, file, metadata, size, grows: most.is_some(), settled }))
    }

    /// The file's entry, without its chunks.
    pub(super) fn entry(&self, chunk_size: u32) -> Entry {
        let identity =
            Identity { inode: self.metadata.ino(), ctime: walk::ctime(&self.metadata), settled: self.settled };
        let file = entry::File { size: self.size, chunk_size, identity, content: Content::Inline(vec![]) };
        walk::entry(self.path.clone(), &self.metadata, Kind::File(file))
    }

    /// Stretches of the file that the file system stores, in whole chunks, as (offset, length).
    pub(super) fn data(&self, chunk_size: u32) -> io::Result<Vec<(u64, u64)>> {
        let all = vec![(0, self.size)];
        if self.size == 0 {
            return Ok(vec![]);
        }
        if self.metadata.blocks() * 512 >= self.size {
            return Ok(all);
        }
        Ok(self.stretches(u64::from(chunk_size)).map_err(|e| walk::named(&self.full, &e))?.unwrap_or(all))
    }

    /// `None` when there are too many for a header.
    fn stretches(&self, chunk_size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        const MOST: usize = 10_000;
        let mut found: Vec<(u64, u64)> = vec![];
        let mut at = 0;
        while at < self.size {
            let begin = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
                Ok(begin) => begin,
                Err(rustix::io::Errno::NXIO) => break,
                Err(rustix::io::Errno::INVAL) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            let end = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(begin))?;
            let begin = begin / chunk_size * chunk_size;
            let end = (end.div_ceil(chunk_size) * chunk_size).min(self.size);
            match found.last_mut() {
                Some((last, length)) if *last + *length >= begin => *length = end.saturating_sub(*last),
                _ if begin < end => found.push((begin, end - begin)),
                _ => {}
            }
            if found.len() > MOST {
                return Ok(None);
            }
            at = end;
        }
        Ok(Some(found))
    }

    /// Reads `length` bytes at `offset`. A file that became shorter is an error: what was promised of it cannot be had any more.
    fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        // Into memory that nobody clears first: that would cost as much as the hashing.
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::Error::other(BecameShorter(self.full.clone()))),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(walk::named(&self.full, &e.into())),
            }
        }
        // A capacity may be larger than what was asked for.
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Whether it was written to since it was opened.
    pub(super) fn changed(&self) -> bool {
        let before = (self.metadata.len(), walk::mtime(&self.metadata));
        self.file.metadata().map_or(true, |now| {
            if self.grows { now.len() < self.size } else { (now.len(), walk::mtime(&now)) != before }
        })
    }
}

/// A part of a file, read.
pub(super) struct Block {
    /// Bytes of the chunks that are new, one after another.
    pub(super) data: Vec<u8>,
    /// Every chunk of the block, in order.
    pub(super) runs: Vec<Run>,
    /// Bytes that were read for it.
    pub(super) read: u64,
}

/// Chunks that follow each other.
pub(super) enum Run {
    /// New ones; their bytes stand in the block's data.
    New {
        /// Their hashes.
        hashes: Vec<ChunkHash>,
        /// Their bytes together.
        length: usize,
    },
    /// The same as in the parent.
    Same(Extent),
}

/// Reads the chunks from number `first` on, `count` of them, and compares them with the parent's extents for the same chunks.
pub(super) fn block(
    file: &Arc<Opened>,
    chunk_size: u32,
    first: u64,
    count: u32,
    parent: &[Extent],
) -> io::Result<Block> {
    let offset = first * u64::from(chunk_size);
    let length = (u64::from(count) * u64::from(chunk_size)).min(file.size - offset);
    let mut data = file.bytes(offset, usize::try_from(length).unwrap_or(usize::MAX))?;
    if parent.is_empty() {
        let hashes: Vec<_> = data.chunks(chunk_size as usize).map(ChunkHash::of).collect();
        let length = data.len();
        let runs = if hashes.is_empty() { vec![] } else { vec![Run::New { hashes, length }] };
        return Ok(Block { data, runs, read: length as u64 });
    }
    let read = data.len() as u64;
    let runs = compare(&mut data, chunk_size, parent);
    Ok(Block { data, runs, read })
}

/// Sorts chunks into new and same, and keeps only the new ones' bytes in `data`.
fn compare(data: &mut Vec<u8>, chunk_size: u32, parent: &[Extent]) -> Vec<Run> {
    let mut was = parent.iter().flat_map(|extent| (0..extent.chunks()).map(move |n| (extent, n)));
    let (mut runs, mut kept): (Vec<Run>, usize) = (vec![], 0);
    let mut at = 0;
    while at < data.len() {
        let end = (at + chunk_size as usize).min(data.len());
        let hash = ChunkHash::of(&data[at..end]);
        let same = was.next().filter(|(extent, n)| match extent {
            Extent::Hole(_) => false,
            Extent::Stored { hashes, .. } => hashes[*n as usize] == hash,
        });
        if let Some((extent, n)) = same {
            same_run(&mut runs, extent.part(n, 1, chunk_size), chunk_size);
        } else {
            data.copy_within(at..end, kept);
            kept += end - at;
            match runs.last_mut() {
                Some(Run::New { hashes, length }) => {
                    hashes.push(hash);
                    *length += end - at;
                }
                _ => runs.push(Run::New { hashes: vec![hash], length: end - at }),
            }
        }
        at = end;
    }
    data.truncate(kept);
    runs
}

fn same_run(runs: &mut Vec<Run>, extent: Extent, chunk_size: u32) {
    if let Some(Run::Same(last)) = runs.last_mut() {
        let mut joined = vec![last.clone()];
        entry::push(&mut joined, extent.clone(), chunk_size);
        if let [one] = &joined[..] {
            *last = one.clone();
            return;
        }
    }
    runs.push(Run::Same(extent));
}

/// A small file, read whole by one job.
pub(super) struct Small {
    pub(super) entry: Entry,
    pub(super) block: Block,
    pub(super) changed: bool,
}

/// Reads a small file: opened, read and looked at again in one go. `None` if it has gone. One that becomes shorter meanwhile is read
/// again: nothing of it was passed on yet.
pub(super) fn small(
    root: &Path,
    path: &RelPath,
    most: Option<u64>,
    chunk_size: u32,
    parent: &[Extent],
) -> io::Result<Option<Small>> {
    let mut tries = 3;
    loop {
        tries -= 1;
        match small_once(root, path, most, chunk_size, parent) {
            Err(e) if tries > 0 && became_shorter(&e) => {}
            result => return result,
        }
    }
}

/// Whether no file stands at the path any more, but nothing, a link or a socket.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NXIO];
    gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn became_shorter(error: &io::Error) -> bool {
    error.get_ref().and_then(|e| e.downcast_ref::<BecameShorter>()).is_some()
}

fn small_once(
    root: &Path,
    path: &RelPath,
    most: Option<u64>,
    chunk_size: u32,
    parent: &[Extent],
) -> io::Result<Option<Small>> {
    let Some(mut opened) = Opened::open(root, path.clone(), most)? else { return Ok(None) };
    // What has grown since it was met is taken as far as a block goes; the rest is the next backup's.
    let grew = opened.size > BLOCK;
    opened.size = opened.size.min(BLOCK);
    let opened = Arc::new(opened);
    let count = u32::try_from(chunk::count(opened.size, chunk_size)).unwrap_or(u32::MAX);
    let block = block(&opened, chunk_size, 0, count, parent)?;
    Ok(Some(Small { entry: opened.entry(chunk_size), block, changed: grew || opened.changed() }))
}

/// Whether a file is the one that the parent read, by what the file system says.
pub(super) fn is_unchanged(metadata: &Metadata, size: u64, before: &Entry, ctime_is_ours: bool) -> bool {
    let Kind::File(file) = &before.kind else { return false };
    let Identity { inode, ctime, settled } = file.identity;
    let time_agrees = ctime_is_ours || (settled && ctime == walk::ctime(metadata));
    let same_time: Time = walk::mtime(metadata);
    file.size == size
        && before.mtime == same_time
        && inode == metadata.ino()
        && time_agrees
        && (before.mode, before.uid, before.gid) == (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_took_a_file_s_place_is_not_read_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("a link");
        std::fs::write(folder.path().join("file"), b"").expect("written");
        std::fs::create_dir(folder.path().join("folder")).expect("made");
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).expect("a socket");
        for path in ["link", "file/below", "folder", "socket", "nothing"] {
            let path = RelPath::checked(path.as_bytes()).expect("a path");
            assert!(Opened::open(folder.path(), path, None).expect("looked at").is_none());
        }
    }

    #[test]
    fn a_pipe_that_took_a_file_s_place_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        mknodat(CWD, folder.path().join("file"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let (root, (out, opened)) = (folder.path().to_owned(), channel());
        thread::spawn(move || {
            let opened = Opened::open(&root, RelPath::checked(b"file").expect("a path"), None);
            let _ = out.send(opened.map(|opened| opened.is_some()));
        });
        let is_file = opened.recv_timeout(Duration::from_mins(1)).expect("an answer");
        assert!(!is_file.expect("looked at"));
    }
}
