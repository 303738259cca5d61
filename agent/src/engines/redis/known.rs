//! What the server said of its data folder, kept while a restore goes on: one that was killed finds the server stopped.
//!
//! A record that cannot be read counts as none; then the server is asked again, or its names are taken to be the usual ones.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::engine::EngineError;

/// The record, where there is a place for one.
#[derive(Debug, Clone)]
pub(super) struct Known {
    path: Option<PathBuf>,
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    /// Another server's names are not this one's.
    url: String,
    layout: Layout,
}

impl Known {
    pub(super) fn new(path: Option<&Path>, url: &str) -> Self {
        Self { path: path.map(Into::into), url: url.into() }
    }

    pub(super) fn remember(&self, layout: &Layout) -> Result<(), EngineError> {
        let Some(path) = &self.path else { return Ok(()) };
        let record = Record { url: self.url.clone(), layout: layout.clone() };
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        // Whole or not at all.
        let new = path.with_extension("new");
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
        written.map_err(|e| EngineError::files(path, &e))
    }

    pub(super) fn layout(&self) -> Option<Layout> {
        let record: Record = serde_json::from_slice(&std::fs::read(self.path.as_ref()?).ok()?).ok()?;
        (record.url == self.url).then_some(record.layout)
    }

    pub(super) fn forget(&self) -> Result<(), EngineError> {
        let Some(path) = &self.path else { return Ok(()) };
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(EngineError::files(path, &e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_names_are_known_until_they_are_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("redis.json");
        let known = Known::new(Some(&path), "redis://a");
        assert_eq!(known.layout(), None);
        let layout = Layout { dump: "data.rdb".into(), ..Layout::default() };
        known.remember(&layout).expect("written");
        assert_eq!(known.layout(), Some(layout));
        assert_eq!(Known::new(Some(&path), "redis://b").layout(), None, "another server's");
        std::fs::write(&path, "{").expect("damaged");
        assert_eq!(known.layout(), None);
        known.forget().expect("forgotten");
        known.forget().expect("again");
        assert!(!path.exists());
        let nowhere = Known::new(None, "redis://a");
        nowhere.remember(&Layout::default()).expect("nothing to do");
        assert_eq!(nowhere.layout(), None);
    }
}
