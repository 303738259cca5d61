//! Pages: the pieces of an index.
//!
//! A page is a few kilobytes that are read and checked as one. Whoever refers to it says where it is, how long it is, and its hash,
//! so a root that is vouched for vouches for every page below it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::chunk::ChunkHash;
use super::entry::{Entry, Extent};
use super::path::RelPath;

/// No page is larger, stored or read.
pub const LARGEST: usize = 1 << 20;

/// Where a page is, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Number of the object in the manifest's table.
    pub object: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
    /// Of the page's content, before it was compressed and encrypted.
    pub hash: ChunkHash,
}

/// A leaf: entries in the order of their paths.
pub type Leaf = Vec<Entry>;
/// The chunks of a part of a large file.
pub type Chunks = Vec<Extent>;
/// Pages of the level below, each with the first path that is in it.
pub type Node = Vec<(RelPath, PageRef)>;

/// A page that is not what its reference says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the page at {offset} of object {object} is damaged: {why}")]
pub struct PageDamaged {
    /// Number of the object in the manifest's table.
    pub object: u32,
    /// First byte.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

/// A page's content, hash, and bytes to store.
pub struct Packed {
    /// Names the content.
    pub hash: ChunkHash,
    /// Compressed.
    pub bytes: Vec<u8>,
}

/// Packs a page. The same content always gives the same hash.
pub fn pack<T: Serialize>(content: &T) -> std::io::Result<Packed> {
    let plain = postcard::to_allocvec(content).map_err(std::io::Error::other)?;
    let bytes = zstd::bulk::compress(&plain, 1)?;
    Ok(Packed { hash: ChunkHash::of(&plain), bytes })
}

/// Unpacks and checks a page.
pub fn unpack<T: DeserializeOwned>(page: &PageRef, bytes: &[u8]) -> Result<T, PageDamaged> {
    let damaged = |why: String| PageDamaged { object: page.object, offset: page.offset, why };
    let plain = zstd::bulk::decompress(bytes, LARGEST).map_err(|e| damaged(e.to_string()))?;
    if ChunkHash::of(&plain) != page.hash {
        return Err(damaged("its content is not what the index names".into()));
    }
    postcard::from_bytes(&plain).map_err(|e| damaged(e.to_string()))
}
