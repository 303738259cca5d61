//! The writer: frames become objects, facts become an index beside them.

use std::io;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use perennial_shared::archive::entry::{Extent, FrameRef};
use perennial_shared::archive::index::{Builder, Root, Sink};
use perennial_shared::archive::objects::place;
use perennial_shared::encryption::DataKey;

use super::assemble::{Fact, Placed};
use super::create::ArchiveError;
use super::upload::{ObjectWriter, Stored};

/// What was written.
pub(super) struct Written {
    pub(super) root: Root,
    /// Absent when there was nothing to store.
    pub(super) index: Option<Stored>,
    /// None when there was nothing to store, more than one when there was much.
    pub(super) data: Vec<Stored>,
}

/// Pages one after another in an object.
struct Pages {
    object: u32,
    writer: ObjectWriter,
    key: Option<DataKey>,
}

/// Frames one after another, in as many objects as they need. One tar file goes on from object to object.
struct Frames<B> {
    /// Begins the object of a number.
    begin: B,
    /// After so many bytes an object is full.
    full_at: u64,
    writer: ObjectWriter,
    number: u32,
    done: Vec<Stored>,
}

impl<B: Fn(u32) -> ObjectWriter> Frames<B> {
    fn new(begin: B, full_at: u64) -> Self {
        Self { writer: begin(0), begin, full_at, number: 0, done: vec![] }
    }

    /// The number of its object, where it begins there, and its length.
    fn append(&mut self, key: Option<&DataKey>, plain: Vec<u8>) -> Result<(u32, u64, u32), ArchiveError> {
        if self.writer.position() >= self.full_at {
            let full = std::mem::replace(&mut self.writer, (self.begin)(self.number + 1));
            self.done.extend(full.finish()?);
            self.number += 1;
        }
        let bytes = sealed(key, &self.writer, plain)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        Ok((self.number, self.writer.append(bytes)?, length))
    }

    fn finish(mut self) -> Result<Vec<Stored>, ArchiveError> {
        self.done.extend(self.writer.finish()?);
        Ok(self.done)
    }
}

/// Encrypts what will begin at the writer's position.
fn sealed(key: Option<&DataKey>, writer: &ObjectWriter, plain: Vec<u8>) -> io::Result<Bytes> {
    let Some(key) = key else { return Ok(plain.into()) };
    let sealed = key.seal(&place(writer.key(), writer.position()), plain);
    Ok(sealed.map_err(|e| io::Error::other(e.to_string()))?.into())
}

impl Sink for Pages {
    fn store(&mut self, bytes: Vec<u8>) -> io::Result<(u32, u64, u32)> {
        let bytes = sealed(self.key.as_ref(), &self.writer, bytes)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let offset = self.writer.append(bytes).map_err(io::Error::other)?;
        Ok((self.object, offset, length))
    }
}

/// Writes until the assembler is done. The index is object `first`, the data objects those after it in the chain.
pub(super) fn run(
    placed: &Receiver<Placed>,
    first: u32,
    index: ObjectWriter,
    begin_data: impl Fn(u32) -> ObjectWriter,
    full_at: u64,
    key: Option<&DataKey>,
) -> Result<Written, ArchiveError> {
    let mut builder = Builder::new(Pages { object: first, writer: index, key: key.cloned() });
    let mut data = Frames::new(begin_data, full_at);
    let mut frame = FrameRef { object: first + 1, offset: 0, length: 0 };
    loop {
        match placed.recv().map_err(|_| ArchiveError::Stopped)? {
            Placed::Done => break,
            Placed::Frame(ticket) => {
                let (number, offset, length) = data.append(key, ticket.wait()??)?;
                frame = FrameRef { object: first + 1 + number, offset, length };
            }
            Placed::Index(facts) => {
                facts.into_iter().try_for_each(|fact| tell(&mut builder, frame, fact)).map_err(told)?;
            }
        }
    }
    let data = data.finish()?;
    crate::failpoint::reach("backup-data-stored");
    let (root, pages) = builder.finish().map_err(told)?;
    let index = pages.writer.finish()?;
    Ok(Written { root, index, data })
}

/// What the index could not be told, out of what a [`Sink`] wraps it in: the store's failures stay the store's.
fn told(error: io::Error) -> ArchiveError {
    error.downcast().unwrap_or_else(ArchiveError::Local)
}

fn tell(builder: &mut Builder<Pages>, frame: FrameRef, fact: Fact) -> io::Result<()> {
    match fact {
        Fact::Entry(entry) => builder.entry(entry),
        Fact::Begin(entry) => {
            builder.begin_file(entry);
            Ok(())
        }
        Fact::New(at, hashes) => builder.extent(&Extent::Stored { frame, at, hashes }),
        Fact::Known(extent) => builder.extent(&extent),
        Fact::End => builder.end_file(),
        Fact::Remember(pages) => {
            builder.remember(&pages);
            Ok(())
        }
    }
}
