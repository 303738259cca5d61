//! The assembler: new chunks become frames, in the order of the walk, and the index learns where they will be.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender};

use perennial_shared::archive::chunk::ChunkHash;
use perennial_shared::archive::entry::{Entry, Extent, Kind};
use perennial_shared::archive::frame::TARGET;
use perennial_shared::archive::page::PageRef;
use perennial_shared::archive::path::RelPath;
use perennial_shared::archive::tar;

use super::create::ArchiveError;
use super::pool::{Pool, Ticket};
use super::produce::{BATCH, Step};
use super::read::{Block, Run, Small};

/// Facts about unchanged files that may wait for a frame to fill.
const WAITING: usize = 4096;
/// Findings about single files; more than a person reads are only counted.
const NAMED: usize = 20;

/// What the writer is to do next.
pub(super) enum Placed {
    /// Append this frame.
    Frame(Ticket<io::Result<Vec<u8>>>),
    /// Tell the index.
    Index(Vec<Fact>),
    /// That was all. Without it the backup was cut short.
    Done,
}

/// What the index is told. New chunks are in the frame that came last.
pub(super) enum Fact {
    Entry(Entry),
    Begin(Entry),
    New(u32, Vec<ChunkHash>),
    Known(Extent),
    End,
    Remember(Vec<PageRef>),
}

/// What was assembled.
#[derive(Debug, Default)]
pub(super) struct Assembled {
    /// Files that the index is told of.
    pub(super) files: u64,
    /// Sum of their sizes as it is told them.
    pub(super) data_bytes: u64,
    pub(super) read_bytes: u64,
    pub(super) new_bytes: u64,
    pub(super) findings: Vec<String>,
    changed: usize,
    gone: usize,
}

impl Assembled {
    /// Counts the files that were not named.
    fn count_the_rest(&mut self) {
        let changed = (self.changed, "were written to while they were read");
        let gone = (self.gone, "were deleted before they were read");
        for (count, what) in [changed, gone].into_iter().filter(|(count, _)| *count > NAMED) {
            self.findings.push(format!("{} more files {what}", count - NAMED));
        }
    }
}

pub(super) struct Assembler {
    pool: Pool,
    out: SyncSender<Placed>,
    /// Whether the frames make a tar file.
    tar: bool,
    frame: Vec<u8>,
    waiting: Vec<Fact>,
    /// Bytes of the open file's stored stretches.
    stored: u64,
    done: Assembled,
}

impl Assembler {
    pub(super) fn new(pool: Pool, out: SyncSender<Placed>, tar: bool) -> Self {
        let (frame, waiting) = (vec![], vec![]);
        Self { pool, out, tar, frame, waiting, stored: 0, done: Assembled::default() }
    }

    pub(super) fn run(mut self, steps: &Receiver<Step>) -> Result<Assembled, ArchiveError> {
        loop {
            match steps.recv().map_err(|_| ArchiveError::Stopped)? {
                Step::Done => break,
                step => self.step(step)?,
            }
        }
        if self.tar {
            self.frame.extend(tar::END);
        }
        self.cut()?;
        self.send(Placed::Done)?;
        self.done.count_the_rest();
        Ok(self.done)
    }

    fn step(&mut self, step: Step) -> Result<(), ArchiveError> {
        match step {
            Step::Whole(entry) => {
                self.header(&entry, 0, &[]);
                self.tell(Fact::Entry(entry))?;
            }
            Step::Reuse(entries) => {
                for entry in entries {
                    self.tell(Fact::Entry(entry))?;
                }
            }
            Step::Remember(pages) => self.tell(Fact::Remember(pages))?,
            Step::Small(ticket) => {
                for small in ticket.wait()? {
                    match small? {
                        Ok(small) => self.small(small)?,
                        Err(path) => self.gone(&path),
                    }
                }
            }
            Step::Gone(path) => self.gone(&path),
            Step::Begin(entry, stretches) => {
                if let Kind::File(file) = &entry.kind {
                    self.header(&entry, file.size, &stretches);
                }
                self.stored = stretches.iter().map(|(_, length)| length).sum();
                self.tell(Fact::Begin(entry))?;
            }
            Step::Block(ticket) => self.block(ticket.wait()??)?,
            Step::Hole(chunks) => self.tell(Fact::Known(Extent::Hole(chunks)))?,
            Step::End(opened) => {
                if opened.changed() {
                    self.changed(&opened.path);
                }
                self.end()?;
            }
            Step::Done => {}
        }
        if self.frame.len() >= TARGET || self.waiting.len() >= WAITING { self.cut() } else { Ok(()) }
    }

    fn small(&mut self, small: Small) -> Result<(), ArchiveError> {
        let Small { entry, block, changed } = small;
        if changed {
            self.changed(&entry.path);
        }
        self.stored = if let Kind::File(file) = &entry.kind { file.size } else { 0 };
        self.header(&entry, self.stored, &[(0, self.stored)]);
        self.tell(Fact::Begin(entry))?;
        self.block(block)?;
        self.end()?;
        if self.frame.len() >= TARGET { self.cut() } else { Ok(()) }
    }

    fn header(&mut self, entry: &Entry, size: u64, stretches: &[(u64, u64)]) {
        if self.tar {
            self.frame.extend(tar::header(entry, size, stretches));
        }
    }

    fn block(&mut self, block: Block) -> Result<(), ArchiveError> {
        self.done.read_bytes += block.read;
        self.done.new_bytes += block.data.len() as u64;
        let whole = matches!(&block.runs[..], [Run::New { .. }]);
        if whole && self.frame.is_empty() {
            // The usual case of a large file: its block is the frame, and nothing is copied.
            self.frame = block.data;
            for run in block.runs {
                if let Run::New { hashes, .. } = run {
                    self.tell(Fact::New(0, hashes))?;
                }
            }
        } else {
            let mut at = 0;
            for run in block.runs {
                match run {
                    Run::Same(extent) => self.tell(Fact::Known(extent))?,
                    Run::New { hashes, length } => {
                        let place = u32::try_from(self.frame.len()).map_err(io::Error::other)?;
                        self.frame.extend_from_slice(&block.data[at..at + length]);
                        at += length;
                        self.tell(Fact::New(place, hashes))?;
                    }
                }
            }
        }
        if self.frame.len() >= TARGET { self.cut() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        if self.tar {
            self.frame.resize(self.frame.len() + tar::padding(self.stored), 0);
        }
        self.tell(Fact::End)
    }

    fn changed(&mut self, path: &RelPath) {
        self.done.changed += 1;
        self.find(self.done.changed, || format!("{path} was written to while it was read"));
    }

    fn gone(&mut self, path: &RelPath) {
        self.done.gone += 1;
        self.find(self.done.gone, || format!("{path} was deleted before it was read"));
    }

    /// The `number`-th finding of its kind.
    fn find(&mut self, number: usize, finding: impl FnOnce() -> String) {
        if number <= NAMED {
            self.done.findings.push(finding());
        }
    }

    /// A fact waits until the frame that it may be about is on its way. One that is about none may as well come after it.
    fn tell(&mut self, fact: Fact) -> Result<(), ArchiveError> {
        if let Fact::Entry(Entry { kind: Kind::File(file), .. }) | Fact::Begin(Entry { kind: Kind::File(file), .. }) =
            &fact
        {
            self.done.files += 1;
            self.done.data_bytes += file.size;
        }
        self.waiting.push(fact);
        if self.frame.is_empty() && self.waiting.len() >= BATCH { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> Result<(), ArchiveError> {
        if !self.frame.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            let ticket = self.pool.submit(move |compressor| compressor.compress(frame));
            self.send(Placed::Frame(ticket))?;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let facts = std::mem::take(&mut self.waiting);
        self.send(Placed::Index(facts))
    }

    fn send(&self, placed: Placed) -> Result<(), ArchiveError> {
        self.out.send(placed).map_err(|_| ArchiveError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use perennial_shared::archive::frame::Compression;

    use super::*;

    #[test]
    fn files_that_are_gone_are_named_as_far_as_a_person_reads() {
        let pool = Pool::start(Compression::default()).expect("threads");
        let (steps_out, steps) = sync_channel(100);
        let (out, _placed) = sync_channel(100);
        let path = |n: usize| RelPath::checked(format!("file-{n}").as_bytes()).expect("a path");
        let small = pool.submit(move |_| (0..15).map(|n| Ok(Err(path(n)))).collect());
        steps_out.send(Step::Small(small)).expect("sent");
        for n in 15..25 {
            steps_out.send(Step::Gone(path(n))).expect("sent");
        }
        steps_out.send(Step::Done).expect("sent");
        let done = Assembler::new(pool, out, true).run(&steps).expect("assembled");
        let named = (0..NAMED).map(|n| format!("file-{n} was deleted before it was read"));
        let counted = "5 more files were deleted before they were read".to_owned();
        assert_eq!(done.findings, named.chain([counted]).collect::<Vec<_>>());
        assert_eq!((done.files, done.data_bytes), (0, 0));
    }
}
