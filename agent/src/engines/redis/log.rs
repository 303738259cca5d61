//! The server's own log, for the one thing that it says nowhere else: that a command of an append-only file failed while it loaded.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::client::Link;
use crate::engine::EngineError;

/// What the server writes when it answers a command of its append-only file with an error.
const COMPLAINT: &str = "== CRITICAL ==";

/// A log and how long it was.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    length: u64,
}

impl Log {
    /// The log that the server writes, where it writes one that can be read here. Its name may be relative to the data folder `dir`, which
    /// this program sees at `data_dir`.
    pub(super) async fn of(link: &mut Link, dir: &Path, data_dir: &Path) -> Result<Option<Self>, EngineError> {
        let Some(name) = link.setting("logfile").await?.filter(|n| !n.is_empty()) else { return Ok(None) };
        let name = Path::new(&name);
        let path = name.strip_prefix(dir).map_or_else(|_| data_dir.join(name), |inside| data_dir.join(inside));
        Ok(std::fs::metadata(&path).ok().map(|found| Self { length: found.len(), path }))
    }

    /// Fails where the server complained since.
    pub(super) fn complaints(&self) -> Result<(), EngineError> {
        let read = || -> std::io::Result<Option<String>> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            // A log that was begun anew is read from its beginning.
            file.seek(SeekFrom::Start(if length < self.length { 0 } else { self.length }))?;
            for line in BufReader::new(file).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                if line.contains(COMPLAINT) {
                    return Ok(Some(line));
                }
            }
            Ok(None)
        };
        match read().map_err(|e| EngineError::files(&self.path, &e))? {
            Some(why) => Err(EngineError::Failed { what: "restore", id: "the append-only files".into(), why }),
            None => Ok(()),
        }
    }
}
