//! The writer: frames become an object, facts become an index beside it.

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
    pub(super) data: Option<Stored>,
}

/// Pages one after another in an object.
struct Pages {
    object: u32,
    writer: ObjectWriter,
    key: Option<DataKey>,
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

/// Writes until the assembler is done. The index is object `first`, the data object `first + 1` of the chain.
pub(super) fn run(
    placed: &Receiver<Placed>,
    first: u32,
    index: ObjectWriter,
    mut data: ObjectWriter,
    key: Option<&DataKey>,
) -> Result<Written, ArchiveError> {
    let mut builder = Builder::new(Pages { object: first, writer: index, key: key.cloned() });
    let mut frame = FrameRef { object: first + 1, offset: 0, length: 0 };
    loop {
        match placed.recv().map_err(|_| ArchiveError::Stopped)? {
            Placed::Done => break,
            Placed::Frame(ticket) => {
                let bytes = sealed(key, &data, ticket.wait()??)?;
                frame.length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                frame.offset = data.append(bytes)?;
            }
            Placed::Index(facts) => facts.into_iter().try_for_each(|fact| tell(&mut builder, frame, fact))?,
        }
    }
    let data = data.finish()?;
    crate::failpoint::reach("backup-data-stored");
    let (root, pages) = builder.finish()?;
    let index = pages.writer.finish()?;
    Ok(Written { root, index, data })
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
