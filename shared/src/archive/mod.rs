//! The archive format: how a folder's files become immutable objects of a repository, and how they are found again.
//!
//! ```text
//! data-0.tar.zst   frames one after another; of a base they decompress to an ordinary tar file, which goes on in data-1
//!                  where it is larger than an object should be
//! index-0          pages one after another: a tree whose leaves list files, and for large files their chunks;
//!                  index-1 and so on where an interrupted run had completed its own
//! manifest.json    names both, and the tree's root
//! ```
//!
//! * A **chunk** ([`chunk`]) is the unit of change: a piece of a file at a multiple of the file's chunk size, known by its hash.
//! * A **frame** ([`frame`]) is the unit of compressing and fetching: new chunks one after another, about a mebibyte, compressed
//!   (and encrypted) by themselves.
//! * A **page** ([`page`]) is the unit of the index. Its reference carries its hash, so the root's reference vouches for all.
//! * An increment's objects hold only what its parent lacks; its index points into the objects of its chain for the rest. Objects are
//!   named by their number in the manifest's `archives`; an increment's table begins with its parent's.
//!
//! Promises: whatever the bytes are, reading them ends in data whose hashes agree or in an error, with memory bounded by the
//! limits here. Only [`objects`] touches a store, and nothing here a file.

pub mod arriving;
pub mod chunk;
pub mod entry;
pub mod frame;
pub mod index;
pub mod objects;
pub mod page;
pub mod path;
pub mod plan;
mod small;
pub mod tally;
pub mod tar;
