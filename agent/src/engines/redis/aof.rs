//! Append-only files: the list that names them, and where the last of them can be cut.

mod list;
mod walk;

pub(super) use list::List;
pub(super) use walk::walk;
