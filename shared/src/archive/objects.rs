//! The objects of a chain, read: pages and frames by their references, an index from its first entry to its last.
//!
//! Fails: [`ReadError`], which says whether the backup is damaged or the store did not answer. References that are near each other
//! are fetched in one request. Pages that are wrong are fetched once more before that is called damage: they may have been damaged on
//! their way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::arriving::Arriving;
use super::entry::{Entry, Extent, File, FrameRef, Kind};
use super::frame;
use super::index::{self, Root};
use super::page::{PageDamaged, PageRef};
use super::path::RelPath;
use super::small::Small;
use crate::encryption::DataKey;
use crate::manifest::{Archive, ArchiveObject};
use crate::store::{Pieces, Store, StoreError};

/// Requests in flight for pages.
const AT_ONCE: usize = 4;
/// Pages asked for together: this many entries' worth of memory and no more.
const GROUP: usize = 16;
/// A gap that costs less to fetch than another request would.
const GAP: u64 = 64 << 10;
/// No request fetches more.
const LARGEST_FETCH: u64 = 8 << 20;

/// Something that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not what they should be.
    #[error("{key}: {why}")]
    Damaged {
        /// Key of the object in the repository.
        key: String,
        /// What is wrong with it, and where.
        why: String,
    },
}

impl ReadError {
    /// Whether the backup is to blame, rather than the way to it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(e) => matches!(e, StoreError::NotFound { .. } | StoreError::Corrupt { .. }),
        }
    }
}

/// The objects that a backup's index may point to.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
    table: Arc<[ArchiveObject]>,
    key: Option<DataKey>,
    /// Objects that pages were read of.
    small: Arc<Small>,
}

/// What encryption binds a frame or page to: its object and its first byte. One that was moved elsewhere does not open there.
pub fn place(key: &str, offset: u64) -> Vec<u8> {
    format!("{key}\0{offset}").into_bytes()
}

impl Objects {
    /// Of a backup, with the key that `archive.key_id` names; nothing is read yet.
    pub fn new(store: Arc<dyn Store>, archive: &Archive, key: Option<DataKey>) -> Self {
        Self { store, table: archive.objects.clone().into(), key, small: Arc::default() }
    }

    /// The content of the frame or page that begins at `offset`, still compressed.
    pub fn open(&self, object: u32, offset: u64, stored: Bytes) -> Result<Bytes, ReadError> {
        let Some(key) = &self.key else { return Ok(stored) };
        let name = self.key(object);
        key.open(&place(&name, offset), stored.into()).map(Bytes::from).map_err(|_| ReadError::Damaged {
            why: format!("what is at {offset} was changed since it was encrypted, or stood elsewhere"),
            key: name,
        })
    }

    /// Like [`Objects::open`], of a frame that is in pieces as it arrived.
    pub fn open_pieces(&self, object: u32, offset: u64, stored: Vec<Bytes>) -> Result<Vec<Bytes>, ReadError> {
        if self.key.is_none() {
            return Ok(stored);
        }
        self.open(object, offset, stored.concat().into()).map(|opened| vec![opened])
    }

    /// How an object is called, for messages.
    pub fn key(&self, object: u32) -> String {
        self.table.get(object as usize).map_or_else(|| format!("object {object}"), ArchiveObject::full_key)
    }

    /// How an object's frames are compressed.
    pub fn algorithm(&self, object: u32) -> frame::Algorithm {
        self.table.get(object as usize).map_or(frame::Algorithm::None, |o| o.compression)
    }

    /// A part of an object.
    pub async fn range(&self, object: u32, offset: u64, length: u64) -> Result<Bytes, ReadError> {
        let found = self.holding(object, offset, length)?;
        let bytes = self.store.read_range(&found.full_key(), offset..offset + length).await?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(ReadError::Damaged { key: self.key(object), why: format!("it ends before {}", offset + length) })
    }

    /// Like [`Objects::range`], for what is too large to be held: taken as it arrives.
    pub fn arriving(&self, fetch: &Fetch) -> Result<Arriving<'_>, ReadError> {
        self.holding(fetch.object, fetch.offset, fetch.length)?;
        Ok(Arriving::new(self, fetch.object, fetch.offset, fetch.offset + fetch.length))
    }

    /// The bytes of a range that the object reaches.
    pub(super) fn pieces(&self, object: u32, range: Range<u64>) -> Pieces<'_> {
        let key = self.table.get(object as usize).map(ArchiveObject::full_key).unwrap_or_default();
        self.store.stream_range(&key, range)
    }

    /// The object, if it reaches as far.
    fn holding(&self, object: u32, offset: u64, length: u64) -> Result<&ArchiveObject, ReadError> {
        let Some(found) = self.table.get(object as usize) else {
            return Err(ReadError::Damaged { key: self.key(object), why: "the manifest names no such object".into() });
        };
        if offset.checked_add(length).is_none_or(|end| end > found.size) {
            return Err(ReadError::Damaged { key: self.key(object), why: format!("nothing can be at {offset}") });
        }
        Ok(found)
    }

    /// Like [`Objects::range`], for pages: a small object is read whole, and only once.
    async fn fetch(&self, fetch: Fetch) -> Result<(Fetch, Bytes), ReadError> {
        let size = self.holding(fetch.object, fetch.offset, fetch.length)?.size;
        let bytes = match self.small.whole(fetch.object, size, self.range(fetch.object, 0, size)).await? {
            Some(whole) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
                whole.slice(at(fetch.offset)..at(fetch.offset + fetch.length))
            }
            None => self.range(fetch.object, fetch.offset, fetch.length).await?,
        };
        Ok((fetch, bytes))
    }

    /// What `refs` refer to, in their order, decrypted.
    pub async fn pages(&self, refs: &[PageRef]) -> Result<Vec<Bytes>, ReadError> {
        for page in refs {
            index::check_ref(page).map_err(|e| self.damaged(&e))?;
        }
        let places: Vec<_> =
            refs.iter().map(|p| FrameRef { object: p.object, offset: p.offset, length: p.length }).collect();
        let mut found = vec![Bytes::new(); refs.len()];
        let fetches = fetches(&places, LARGEST_FETCH);
        let mut arriving = stream::iter(fetches).map(|fetch| self.fetch(fetch)).buffer_unordered(AT_ONCE);
        while let Some((fetch, bytes)) = arriving.try_next().await? {
            for part in &fetch.parts {
                let place = places[*part];
                let start = usize::try_from(place.offset - fetch.offset).unwrap_or(usize::MAX);
                let stored = bytes.slice(start..start + place.length as usize);
                found[*part] = self.open(place.object, place.offset, stored).inspect_err(|_| self.small.forget())?;
            }
        }
        Ok(found)
    }

    /// The chunks of a large file, of the pages from number `first` on that `pages` refer to.
    pub async fn chunks(&self, file: &File, first: usize, pages: &[PageRef]) -> Result<Vec<Vec<Extent>>, ReadError> {
        match self.chunks_once(file, first, pages).await {
            Err(e) if e.is_damage() => self.chunks_once(file, first, pages).await,
            found => found,
        }
    }

    async fn chunks_once(&self, file: &File, first: usize, pages: &[PageRef]) -> Result<Vec<Vec<Extent>>, ReadError> {
        let bodies = self.pages(pages).await?;
        let decoded = pages.iter().zip(bodies).enumerate();
        decoded
            .map(|(n, (page, body))| index::chunks(page, &body, file, first + n).map_err(|e| self.damaged(&e)))
            .collect()
    }

    fn damaged(&self, error: &PageDamaged) -> ReadError {
        // Who asks again wants it from the store.
        self.small.forget();
        ReadError::Damaged { key: self.key(error.object), why: error.to_string() }
    }

    /// An index from its first entry to its last.
    pub fn walk(&self, root: &Root) -> Walk {
        let top = Waiting { page: root.page.clone(), height: root.height };
        Walk {
            objects: self.clone(),
            waiting: VecDeque::from([top]),
            ready: VecDeque::new(),
            last: None,
            folders: vec![],
            leaves: vec![],
        }
    }
}

/// One request, and which of the wanted places it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Number of the object.
    pub object: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Which of the places that were asked for.
    pub parts: Vec<usize>,
}

/// The fewest sensible requests for `places`: neighbours together, up to `largest` bytes each.
pub fn fetches(places: &[FrameRef], largest: u64) -> Vec<Fetch> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|n| places[*n]);
    let mut fetches: Vec<Fetch> = vec![];
    for n in order {
        let FrameRef { object, offset, length } = places[n];
        let end = offset + u64::from(length);
        if let Some(last) = fetches.last_mut()
            && last.object == object
            // Nobody has looked yet whether an object reaches as far.
            && offset <= (last.offset + last.length).saturating_add(GAP)
            && end.max(last.offset + last.length) - last.offset <= largest
        {
            last.length = end.max(last.offset + last.length) - last.offset;
            last.parts.push(n);
            continue;
        }
        fetches.push(Fetch { object, offset, length: u64::from(length), parts: vec![n] });
    }
    fetches
}

struct Waiting {
    page: PageRef,
    height: u32,
}

/// Reads an index's entries in their order, a few pages ahead.
pub struct Walk {
    objects: Objects,
    waiting: VecDeque<Waiting>,
    ready: VecDeque<Entry>,
    last: Option<RelPath>,
    /// The folders on the way down to the last entry.
    folders: Vec<RelPath>,
    leaves: Vec<PageRef>,
}

impl Walk {
    /// The next entry.
    pub async fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        while self.ready.is_empty() {
            let Some(height) = self.waiting.front().map(|w| w.height) else { return Ok(None) };
            match self.descend(height).await {
                Err(e) if e.is_damage() => self.descend(height).await?,
                done => done?,
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The pages of the tree that were read since this was asked last.
    pub fn take_pages(&mut self) -> Vec<PageRef> {
        std::mem::take(&mut self.leaves)
    }

    /// Reads the pages of one level that stand next, and puts what they list in their place. Failing changes nothing.
    async fn descend(&mut self, height: u32) -> Result<(), ReadError> {
        let group = self.waiting.iter().take(GROUP).take_while(|w| w.height == height).count();
        let pages: Vec<_> = self.waiting.iter().take(group).map(|w| w.page.clone()).collect();
        let bodies = self.objects.pages(&pages).await?;
        let mut below = vec![];
        if height == 0 {
            self.leaves(&pages, &bodies)?;
        } else {
            for (page, body) in pages.iter().zip(bodies) {
                let node = index::node(page, &body).map_err(|e| self.objects.damaged(&e))?;
                below.extend(node.into_iter().map(|(_, page)| Waiting { page, height: height - 1 }));
            }
        }
        self.waiting.drain(..group);
        for waiting in below.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        self.leaves.extend(pages);
        Ok(())
    }

    fn leaves(&mut self, pages: &[PageRef], bodies: &[Bytes]) -> Result<(), ReadError> {
        let (mut last, mut folders, mut ready) = (self.last.clone(), self.folders.clone(), vec![]);
        for (page, body) in pages.iter().zip(bodies) {
            let leaf = index::leaf(page, body, last.as_ref()).map_err(|e| self.objects.damaged(&e))?;
            for entry in &leaf {
                admit(&mut folders, entry)
                    .map_err(|why| ReadError::Damaged { key: self.objects.key(page.object), why })?;
            }
            last = leaf.last().map(|e| e.path.clone()).or(last);
            ready.extend(leaf);
        }
        (self.last, self.folders) = (last, folders);
        self.ready.extend(ready);
        Ok(())
    }
}

/// What is in a folder must follow that folder's own entry: otherwise it could stand behind a link that leads anywhere.
fn admit(folders: &mut Vec<RelPath>, entry: &Entry) -> Result<(), String> {
    let parent = entry.path.parent();
    while folders.last().is_some_and(|folder| Some(folder) != parent.as_ref()) {
        folders.pop();
    }
    if folders.is_empty() && parent.is_some() {
        return Err(format!("{} is in no folder of the archive", entry.path));
    }
    if entry.kind == Kind::Folder {
        folders.push(entry.path.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::id::{BackupId, Generation};
    use crate::store::faulty::{Fault, FaultyStore};
    use crate::store::memory::MemoryStore;

    #[test]
    fn neighbours_are_fetched_together() {
        let place = |object, offset, length| FrameRef { object, offset, length };
        let places = [place(1, 0, 10), place(0, 100, 50), place(0, 0, 100), place(0, 1 << 30, 5)];
        let fetches = fetches(&places, 1 << 20);
        let said: Vec<_> = fetches.iter().map(|f| (f.object, f.offset, f.length, f.parts.clone())).collect();
        assert_eq!(said, [(0, 0, 150, vec![2, 1]), (0, 1 << 30, 5, vec![3]), (1, 0, 10, vec![0])]);
    }
    /// A store with one object of `bytes`, which fails as it is told, and what reads it.
    async fn stored(bytes: &Bytes, faults: &[(usize, Fault)]) -> (Objects, Arc<FaultyStore>) {
        let inner = Arc::new(MemoryStore::default());
        let backup_id = BackupId::new(Timestamp::UNIX_EPOCH, Generation(1));
        let compression = frame::Algorithm::Zstd;
        let object = ArchiveObject {
            backup_id,
            key: "data-0".into(),
            size: bytes.len() as u64,
            sha256: String::new(),
            compression,
        };
        inner.create(&object.full_key(), bytes.clone()).await.expect("created");
        let store = Arc::new(FaultyStore::at(inner, faults.iter().copied()));
        let objects = Objects {
            store: Arc::<FaultyStore>::clone(&store),
            table: [object].into(),
            key: None,
            small: Arc::default(),
        };
        (objects, store)
    }

    fn fetch(range: Range<u64>) -> Fetch {
        Fetch { object: 0, offset: range.start, length: range.end - range.start, parts: vec![] }
    }

    #[tokio::test]
    async fn what_arrives_is_taken_where_it_stands() {
        let bytes: Bytes = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let (objects, _) = stored(&bytes, &[]).await;
        let mut arriving = objects.arriving(&fetch(10..19_000_000)).expect("in the object");
        for (offset, length) in [(10, 5), (15, 0), (100, 9_000_000), (9_000_100, 1), (18_999_000, 1000)] {
            let taken = arriving.take(offset, length).await.expect("taken");
            let at = |n: u64| usize::try_from(n).expect("fits");
            assert!(taken.concat() == bytes[at(offset)..at(offset + length)], "at {offset}");
        }
        let past = arriving.take(19_000_000, 1).await.expect_err("past the end");
        assert!(past.is_damage(), "{past}");
        assert!(objects.arriving(&fetch(10..20_000_001)).is_err(), "the object does not reach as far");
    }

    #[tokio::test]
    async fn what_ends_too_early_is_asked_for_once_more() {
        let bytes = Bytes::from(vec![7; 100]);
        for (faults, expected) in [(vec![], Some(1)), (vec![0], Some(2)), (vec![0, 1], None)] {
            let faults: Vec<_> = faults.into_iter().map(|operation| (operation, Fault::Truncate)).collect();
            let (objects, store) = stored(&bytes, &faults).await;
            let taken = objects.arriving(&fetch(0..100)).expect("in the object").take(0, 100).await;
            match expected {
                Some(operations) => {
                    assert!(taken.expect("all of it").concat() == bytes);
                    assert_eq!(store.operations(), operations);
                }
                None => assert!(taken.expect_err("never whole").is_damage()),
            }
        }
        // What failed for another reason was asked for often enough by the store.
        let (objects, store) = stored(&bytes, &[(0, Fault::Throttle)]).await;
        let failed =
            objects.arriving(&fetch(0..100)).expect("in the object").take(0, 100).await.expect_err("throttled");
        assert_eq!((failed.is_damage(), store.operations()), (false, 1));
    }
}
