//! Folders into archives and back: the effects around `perennial_shared::archive`.
//!
//! ```text
//! producer thread      walks the folder beside the parent's index, decides what must be read      walk, produce, moved
//! pool, all cores      reads and hashes blocks of files; compresses frames                        pool, read
//! assembler thread     puts new chunks into frames, in the order of the walk                      assemble
//! writer thread        hashes the object, cuts it into parts, writes the index                    write
//! uploader tasks       send parts, several at a time                                              upload
//! ```
//!
//! Every queue between them is bounded, so memory does not depend on the data's size, and what is first in one end is first out of
//! the other, so the same files give the same bytes: an interrupted upload is taken up again by comparing parts.

pub mod assemble;
pub mod create;
mod moved;
pub mod pool;
mod produce;
mod read;
pub mod restore;
pub mod source;
pub mod upload;
mod walk;
mod write;
