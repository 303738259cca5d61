//! Having the server write its point-in-time file, and knowing that it is this one.
//!
//! Promises: when it succeeds, the file at its place was begun after the call and is whole by the server's own word. A save that
//! somebody else began is waited for and not taken for ours. `LASTSAVE` tells none of this: its clock ticks in seconds and a scheduled
//! save does not show. What tells is the count of saves begun (7.0 and later), the last one's outcome and the file's new inode.
//!
//! A save that fails can make the server refuse writes (`stop-writes-on-bgsave-error`), so what would make it fail is looked at first.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::Link;
use super::info::Info;
use super::{captured, rdb};
use crate::engine::{EngineError, Progress, Step};

const SHORTEST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Has the server save to `file` and waits until it has.
pub(super) async fn save(
    link: &mut Link,
    file: &Path,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<(), EngineError> {
    let deadline = Instant::now() + patience;
    let mut watch = Watch { link, deadline, patience, progress, pause: SHORTEST_LOOK };
    let (before, inode) = loop {
        let before = watch.until(|info| !info.is_on("rdb_bgsave_in_progress")).await?;
        has_room(watch.link, file).await?;
        // A small file is there before anybody has looked.
        let inode = inode(file)?;
        if watch.begin().await? {
            break (before, inode);
        }
        watch.look_later().await?;
    };
    let begun = |info: &Info| match (before.number("rdb_saves"), info.number("rdb_saves")) {
        (Some(before), Some(now)) => now > before,
        // Before 7.0 nothing counts them.
        _ => true,
    };
    let after = watch.until(|info| begun(info) && !info.is_on("rdb_bgsave_in_progress")).await?;
    let status = after.text("rdb_last_bgsave_status");
    if status != "ok" {
        return Err(failed(format!("the server says {status:?}; its own log says why")));
    }
    if self::inode(file)? == inode {
        let why = format!(
            "the server says that it saved, and {} is still the file that it was; is it the server's data folder that \
             `data_dir` names?",
            file.display()
        );
        return Err(failed(why));
    }
    Ok(())
}

struct Watch<'a> {
    link: &'a mut Link,
    deadline: Instant,
    patience: Duration,
    progress: Progress<'a>,
    pause: Duration,
}

impl Watch<'_> {
    /// Asks for a save; false when another one came first.
    async fn begin(&mut self) -> Result<bool, EngineError> {
        let said = match self.link.call(&["BGSAVE"]).await {
            Err(EngineError::Failed { why, .. }) if why.contains("Another child process") => {
                // The append-only file is being rewritten; a scheduled save follows it by itself.
                self.link.call(&["BGSAVE", "SCHEDULE"]).await
            }
            said => said,
        };
        match said {
            Ok(_) => Ok(true),
            Err(EngineError::Failed { why, .. }) if why.contains("in progress") || why.contains("Another child") => {
                Ok(false)
            }
            Err(EngineError::Failed { why, .. }) => {
                Err(failed(format!("the server could not begin it ({why}); its own log says why")))
            }
            Err(e) => Err(e),
        }
    }

    /// Asks until it is so.
    async fn until(&mut self, so: impl Fn(&Info) -> bool) -> Result<Info, EngineError> {
        self.pause = SHORTEST_LOOK;
        loop {
            let info = self.link.info("persistence").await?;
            (self.progress)(Step { state: "the server writes its point-in-time file", done: None });
            if so(&info) {
                return Ok(info);
            }
            self.look_later().await?;
        }
    }

    async fn look_later(&mut self) -> Result<(), EngineError> {
        if Instant::now() >= self.deadline {
            let outcome = "the server goes on with it by itself".to_owned();
            return Err(EngineError::TimedOut { what: "backup", id: "BGSAVE".into(), waited: self.patience, outcome });
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_LOOK);
        Ok(())
    }
}

fn failed(why: String) -> EngineError {
    EngineError::Failed { what: "backup", id: "BGSAVE".into(), why }
}

fn inode(file: &Path) -> Result<Option<u64>, EngineError> {
    match std::fs::metadata(file) {
        Ok(found) => Ok(Some(found.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EngineError::files(file, &e)),
    }
}

/// A save for which the disk has no room would fail, and a failed one can make the server refuse writes.
async fn has_room(link: &mut Link, file: &Path) -> Result<(), EngineError> {
    let memory = link.info("memory").await?.number("used_memory").unwrap_or(0);
    let (free, needed) = room(file, memory)?;
    if free >= needed {
        return Ok(());
    }
    Err(EngineError::Files {
        path: file.display().to_string(),
        why: format!(
            "{} MiB are free and the server's point-in-time file needs about {}; no save was begun, because one that fails can \
             make the server refuse writes",
            free >> 20,
            needed >> 20
        ),
    })
}

/// Free bytes where `file` is, and bytes that a save of a server that uses so much memory may need.
pub(super) fn room(file: &Path, memory: u64) -> Result<(u64, u64), EngineError> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(folder).map_err(|e| captured::data_folder(folder, &e.into()))?;
    let last = std::fs::metadata(file).ok().map(|m| m.len()).zip(rdb::head(file).and_then(|h| h.number("used-mem")));
    Ok((found.f_bavail * found.f_frsize, needed(memory, last)))
}

/// What a save may need: the last file's size, grown as the memory has since, and a fifth. Without one, the memory in use.
fn needed(memory: u64, last: Option<(u64, u64)>) -> u64 {
    let Some((size, memory_then)) = last.filter(|(size, memory)| *size > 0 && *memory > 0) else { return memory };
    let grown = u128::from(size) * u128::from(memory.max(memory_then)) / u128::from(memory_then);
    let grown = u64::try_from(grown).unwrap_or(u64::MAX);
    grown.saturating_add(grown / 5).min(memory.max(size.saturating_add(size / 5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_that_a_save_needs_grows_with_the_memory() {
        assert_eq!(needed(1000, None), 1000, "without a last one, all of the memory");
        assert_eq!(needed(1000, Some((100, 1000))), 120);
        assert_eq!(needed(2000, Some((100, 1000))), 240);
        assert_eq!(needed(500, Some((100, 1000))), 120, "memory that was freed makes no smaller file");
        assert_eq!(needed(u64::MAX, Some((u64::MAX, 1))), u64::MAX);
    }
}
