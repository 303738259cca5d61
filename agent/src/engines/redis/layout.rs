//! Where the server keeps its data: the folder, and the names in it.
//!
//! The names come from the server, which alone knows them; while a restore goes on they are remembered by `known`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::Link;
use crate::engine::EngineError;

/// The names in the data folder, and which of them the server reads when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The server's own word for its data folder.
    pub(super) dir: PathBuf,
    /// The point-in-time file.
    pub(super) dump: String,
    /// The folder of append-only files.
    pub(super) aof_folder: String,
    /// What their names begin with.
    pub(super) aof_name: String,
    /// Whether the append-only files are what the server reads.
    pub(super) append_only: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            dump: "dump.rdb".into(),
            aof_folder: "appendonlydir".into(),
            aof_name: "appendonly.aof".into(),
            append_only: false,
        }
    }
}

impl Layout {
    /// Asks the server.
    pub(super) async fn ask(link: &mut Link) -> Result<Self, EngineError> {
        let usual = Self::default();
        let mut of = async |name: &str| -> Result<Option<String>, EngineError> {
            Ok(link.setting(name).await?.filter(|v| !v.is_empty()))
        };
        Ok(Self {
            dir: of("dir").await?.unwrap_or_default().into(),
            dump: of("dbfilename").await?.unwrap_or(usual.dump),
            aof_folder: of("appenddirname").await?.unwrap_or(usual.aof_folder),
            aof_name: of("appendfilename").await?.unwrap_or(usual.aof_name),
            append_only: of("appendonly").await?.as_deref() == Some("yes"),
        })
    }

    /// The name of the list of append-only files.
    pub(super) fn aof_manifest(&self) -> String {
        format!("{}.manifest", self.aof_name)
    }
}

/// A name of ours beside the data folder.
pub(super) fn beside(data_dir: &Path, what: &str) -> PathBuf {
    let name = data_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    data_dir.with_file_name(format!(".{name}.perennial-{what}"))
}
