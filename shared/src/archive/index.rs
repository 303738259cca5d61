//! The index: a tree of pages, written bottom-up in one pass and read top-down in one pass.
//!
//! Pages end where a path's hash says so, not after a number of entries: a file that is added moves no other page's border, and a
//! page whose content is the parent's is not stored again. The memory of both passes is a few pages a level.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::chunk::ChunkHash;
use super::entry::{CHUNKS_IN_PAGE, CHUNKS_INLINE, Content, Entry, Extent, File, Kind, check_extents, push};
use super::page::{Chunks, Leaf, Node, PageDamaged, PageRef, pack, unpack};
use super::path::RelPath;
use super::{chunk, page};

/// A page of the tree may end once it has this many bytes, and ends where it has [`FULL`].
const FAIR: usize = 16 << 10;
const FULL: usize = 128 << 10;
/// One path in so many ends a page.
const BORDER: u8 = 32;
/// Pages of the parent that are remembered. Forgetting one costs storing it again.
const REMEMBERED: usize = 1 << 16;

/// The top of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The page at the top.
    pub page: PageRef,
    /// Levels of pages above the leaves.
    pub height: u32,
}

/// Takes packed pages and says where they are.
pub trait Sink {
    /// Stores a page and tells its object, offset and length.
    fn store(&mut self, bytes: Vec<u8>) -> std::io::Result<(u32, u64, u32)>;
}

/// Writes an index.
pub struct Builder<S> {
    sink: S,
    known: HashMap<ChunkHash, PageRef>,
    leaf: Leaf,
    leaf_size: usize,
    levels: Vec<Node>,
    file: Option<Open>,
}

/// A file whose chunks are still coming.
struct Open {
    entry: Entry,
    chunk_size: u32,
    inline: bool,
    extents: Vec<Extent>,
    held: u32,
    pages: Vec<PageRef>,
}

impl<S: Sink> Builder<S> {
    /// An empty index.
    pub fn new(sink: S) -> Self {
        Self { sink, known: HashMap::new(), leaf: vec![], leaf_size: 0, levels: vec![], file: None }
    }

    /// Remembers pages of the parent's index, so that equal ones are not stored again.
    pub fn remember<'a>(&mut self, pages: impl IntoIterator<Item = &'a PageRef>) {
        for page in pages {
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
            self.known.insert(page.hash, page.clone());
        }
    }

    /// Appends an entry that is complete. Entries come in the order of their paths.
    pub fn entry(&mut self, entry: Entry) -> std::io::Result<()> {
        self.leaf_size += size_of_entry(&entry);
        let ends = self.leaf_size >= FULL || (self.leaf_size >= FAIR && is_border(&entry.path));
        self.leaf.push(entry);
        if ends { self.end_leaf() } else { Ok(()) }
    }

    /// Begins a file; its content is what [`Builder::extent`] brings until [`Builder::end_file`].
    pub fn begin_file(&mut self, entry: Entry) {
        let Kind::File(File { size, chunk_size, .. }) = entry.kind else { return };
        let inline = chunk::count(size, chunk_size) <= CHUNKS_INLINE;
        self.file = Some(Open { entry, chunk_size, inline, extents: vec![], held: 0, pages: vec![] });
    }

    /// The next chunks of the file.
    pub fn extent(&mut self, extent: &Extent) -> std::io::Result<()> {
        let Some(mut file) = self.file.take() else { return Err(std::io::Error::other("no file was begun")) };
        let (mut done, total) = (0, extent.chunks());
        while done < total {
            let room = if file.inline { total } else { CHUNKS_IN_PAGE - file.held };
            let count = room.min(total - done);
            push(&mut file.extents, extent.part(done, count, file.chunk_size), file.chunk_size);
            done += count;
            file.held += count;
            if !file.inline && file.held == CHUNKS_IN_PAGE {
                self.end_chunks(&mut file)?;
            }
        }
        self.file = Some(file);
        Ok(())
    }

    /// Ends the file.
    pub fn end_file(&mut self) -> std::io::Result<()> {
        let Some(mut file) = self.file.take() else { return Err(std::io::Error::other("no file was begun")) };
        if !file.inline && file.held > 0 {
            self.end_chunks(&mut file)?;
        }
        let found = if file.inline { Content::Inline(file.extents) } else { Content::Paged(file.pages) };
        if let Kind::File(File { content, .. }) = &mut file.entry.kind {
            *content = found;
        }
        // A file with other chunks than its size asks for would be found out only by a restore.
        file.entry.check().map_err(std::io::Error::other)?;
        self.entry(file.entry)
    }

    /// Ends the index. It always has a root.
    pub fn finish(mut self) -> std::io::Result<(Root, S)> {
        if !self.leaf.is_empty() || self.levels.is_empty() {
            self.end_leaf()?;
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            if is_top && self.levels[level].len() == 1 {
                let (_, page) = self.levels[level].remove(0);
                let height = u32::try_from(level).unwrap_or(u32::MAX);
                return Ok((Root { page, height }, self.sink));
            }
            if !self.levels[level].is_empty() {
                self.end_node(level)?;
            }
            level += 1;
        }
    }

    fn end_chunks(&mut self, file: &mut Open) -> std::io::Result<()> {
        let chunks: Chunks = std::mem::take(&mut file.extents);
        file.held = 0;
        let page = self.store(&chunks)?;
        file.pages.push(page);
        Ok(())
    }

    fn end_leaf(&mut self) -> std::io::Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        self.leaf_size = 0;
        let first = leaf.first().map_or_else(RelPath::root, |e| e.path.clone());
        let page = self.store(&leaf)?;
        self.child(0, first, page)
    }

    fn end_node(&mut self, level: usize) -> std::io::Result<()> {
        let node = std::mem::take(&mut self.levels[level]);
        let first = node.first().map_or_else(RelPath::root, |(path, _)| path.clone());
        let page = self.store(&node)?;
        self.child(level + 1, first, page)
    }

    fn child(&mut self, level: usize, first: RelPath, page: PageRef) -> std::io::Result<()> {
        if self.levels.len() == level {
            self.levels.push(vec![]);
        }
        let border = is_border_hash(&page.hash);
        self.levels[level].push((first, page));
        let size: usize = self.levels[level].iter().map(|(path, _)| path.as_bytes().len() + 32).sum();
        if size >= FULL || (size >= FAIR && border) { self.end_node(level) } else { Ok(()) }
    }

    fn store<T: Serialize>(&mut self, content: &T) -> std::io::Result<PageRef> {
        let packed = pack(content)?;
        if let Some(known) = self.known.get(&packed.hash) {
            return Ok(known.clone());
        }
        let (object, offset, length) = self.sink.store(packed.bytes)?;
        Ok(PageRef { object, offset, length, hash: packed.hash })
    }
}

fn size_of_entry(entry: &Entry) -> usize {
    let content = match &entry.kind {
        Kind::Folder => 0,
        Kind::Link(to) => to.len(),
        Kind::File(file) => match &file.content {
            Content::Inline(extents) => extents.iter().map(|e| 24 + 16 * e.chunks() as usize).sum(),
            Content::Paged(pages) => pages.len() * 32,
        },
    };
    40 + entry.path.as_bytes().len() + content
}

fn is_border(path: &RelPath) -> bool {
    blake3::hash(path.as_bytes()).as_bytes()[0].is_multiple_of(BORDER)
}

fn is_border_hash(hash: &ChunkHash) -> bool {
    hash.0[0].is_multiple_of(BORDER)
}

/// Decodes a leaf and checks every entry of it, and that they stand in order after `last`.
pub fn leaf(page: &PageRef, bytes: &[u8], last: Option<&RelPath>) -> Result<Leaf, PageDamaged> {
    let leaf: Leaf = unpack(page, bytes)?;
    let damaged = |why: String| PageDamaged { object: page.object, offset: page.offset, why };
    let mut last = last;
    for entry in &leaf {
        entry.check().map_err(damaged)?;
        if last.is_some_and(|last| *last >= entry.path) {
            return Err(damaged(format!("{} stands out of order", entry.path)));
        }
        last = Some(&entry.path);
    }
    Ok(leaf)
}

/// Decodes a node.
pub fn node(page: &PageRef, bytes: &[u8]) -> Result<Node, PageDamaged> {
    let node: Node = unpack(page, bytes)?;
    if node.is_empty() {
        let why = "a page that lists pages lists none".into();
        return Err(PageDamaged { object: page.object, offset: page.offset, why });
    }
    Ok(node)
}

/// Decodes page number `number` of a large file's chunks.
pub fn chunks(page: &PageRef, bytes: &[u8], file: &File, number: usize) -> Result<Chunks, PageDamaged> {
    let chunks: Chunks = unpack(page, bytes)?;
    check_extents(&chunks, file.chunks_of_page(number), file.chunk_size).map_err(|why| PageDamaged {
        object: page.object,
        offset: page.offset,
        why,
    })?;
    Ok(chunks)
}

/// Whether a reference can be one: no page is larger than [`page::LARGEST`].
pub fn check_ref(page: &PageRef) -> Result<(), PageDamaged> {
    if page.length as usize <= page::LARGEST + 1024 && page.offset.checked_add(u64::from(page.length)).is_some() {
        return Ok(());
    }
    Err(PageDamaged { object: page.object, offset: page.offset, why: "no page is that large".into() })
}
