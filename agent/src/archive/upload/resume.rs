//! What an earlier run left of an object, and what is still to be sent of it.
//!
//! The upload may be open, with parts that arrived: these are the store's to tell. Or it was completed, and the object
//! stands at its key: then nothing is sent, and what would be is compared with the parts that the earlier run had when
//! it completed the object. That memory only ends a run early whose data is another by now. Whether the object is the
//! one that this run made is asked of the store at the end, by size and checksum.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use perennial_shared::store::{Meta, Part, StoreError, Upload};

use super::Destination;
use crate::archive::create::ArchiveError;

/// Remembers an upload across a crash.
pub trait Resume: Send {
    /// Token of the upload of `key` that an earlier run began.
    fn token(&self, key: &str) -> Option<String>;
    /// The upload of `key` was begun.
    fn begun(&self, key: &str, token: &str) -> io::Result<()>;
    /// The parts of `key` when an earlier run was about to complete it.
    fn parts(&self, key: &str) -> Option<Vec<Part>>;
    /// `key` is about to be completed, of these parts: from now on it may stand there.
    fn completing(&self, key: &str, parts: &[Part]) -> io::Result<()>;
}

/// What is to be done with parts.
pub(super) struct Way {
    /// What sends them; absent where the object stands at its key, whole.
    pub(super) upload: Option<Arc<dyn Upload>>,
    /// Those that an earlier run sent, by number.
    pub(super) arrived: HashMap<u32, Part>,
}

/// Takes up what an earlier run left, or begins.
pub(super) async fn find(to: &Destination) -> Result<Way, ArchiveError> {
    let Destination { store, key, resume, .. } = to;
    let token = resume.as_ref().and_then(|r| r.token(key));
    if let Some(token) = &token
        && let Some(upload) = store.resume(key, token).await?
    {
        let arrived = by_number(upload.arrived().await?);
        return Ok(Way { upload: Some(Arc::from(upload)), arrived });
    }
    let parts = resume.as_ref().and_then(|r| r.parts(key));
    if (token.is_some() || parts.is_some()) && to.stands().await? {
        return Ok(Way { upload: None, arrived: by_number(parts.unwrap_or_default()) });
    }
    let upload = store.upload(key).await?;
    if let (Some(resume), Some(token)) = (resume, upload.token()) {
        resume.begun(key, &token)?;
    }
    Ok(Way { upload: Some(Arc::from(upload)), arrived: HashMap::new() })
}

/// An object of one part that an earlier run completed, if it was this one.
pub(super) async fn completed(to: &Destination, part: &Part) -> Result<Option<Meta>, StoreError> {
    let known = to.resume.as_ref().and_then(|r| r.parts(&to.key));
    if known.as_deref() == Some(std::slice::from_ref(part)) {
        return to.store.completed(&to.key, std::slice::from_ref(part)).await;
    }
    Ok(None)
}

/// Remembers what is about to be completed.
pub(super) fn completing(to: &Destination, parts: &[Part]) -> io::Result<()> {
    to.resume.as_ref().map_or(Ok(()), |r| r.completing(&to.key, parts))
}

fn by_number(parts: Vec<Part>) -> HashMap<u32, Part> {
    parts.into_iter().map(|part| (part.number, part)).collect()
}
