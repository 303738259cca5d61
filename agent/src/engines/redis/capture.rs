//! Capturing: a point-in-time file, the append-only files, or both.
//!
//! Promises: what was acknowledged before the call is in what is captured. The point-in-time file is begun after the call. The
//! append-only files are taken at a length that they had after it, and as one set: their list is the same before and after the
//! links were made. Both are read before they are archived, and what is damaged is an error. Nothing is stopped and nothing is copied; the
//! server's own rewriting goes on, and what it replaces stays with us under its second name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use perennial_shared::archive::path::RelPath;
use perennial_shared::settings::Method;

use super::aof::List;
use super::captured::{self, Captured};
use super::client::Link;
use super::info::{Info, name_of};
use super::layout::Layout;
use super::{Redis, appended, blocking, rdb, save};
use crate::archive::source::Source;
use crate::engine::files::{CaptureWish, CapturedFiles};
use crate::engine::{EngineError, Step};

const PAUSE: Duration = Duration::from_millis(100);
/// The server postpones writing for two seconds at most while the disk is busy with an earlier write.
const POSTPONED: Duration = Duration::from_secs(3);
/// Times that the list of append-only files may change under a capture. It changes when the server begins or ends a rewrite.
const TRIES: usize = 50;

/// What an append-only capture is.
struct Appended {
    lengths: BTreeMap<RelPath, u64>,
    collections: Vec<String>,
    known: appended::Known,
}

pub(super) async fn capture(redis: &Redis, wish: &CaptureWish<'_>) -> Result<CapturedFiles, EngineError> {
    let deadline = Instant::now() + wish.patience;
    redis.identify().await?;
    let mut link = redis.client.open().await?;
    let layout = Layout::ask(&mut link).await?;
    let data_dir = redis.data_dir().await?;
    let method = match redis.options.method {
        Method::Auto if layout.append_only => Method::Aof,
        Method::Auto => Method::Rdb,
        Method::Aof if !layout.append_only => return Err(not_append_only()),
        chosen => chosen,
    };
    let wants_aof = layout.append_only && method != Method::Rdb;
    let wants_rdb = method != Method::Aof;
    let place = data_dir.clone();
    let captured = blocking(move || Captured::begin(&place)).await?;
    let mut files = CapturedFiles {
        method: Some(method),
        source: Source { root: captured.folder.clone(), ctime_is_ours: true, ..Source::default() },
        ..CapturedFiles::default()
    };
    if wants_rdb {
        let left = deadline.saturating_duration_since(Instant::now());
        let dump = data_dir.join(&layout.dump);
        save::save(&mut link, &dump, left, wish.progress).await?;
        let kept = captured.folder.join(&layout.dump);
        let summary = blocking(move || {
            captured::link(&dump, &kept).map_err(|e| EngineError::files(&dump, &e))?;
            rdb::check(&kept)
        });
        let summary = summary.await?;
        if !summary.has_checksum {
            files.findings.push("the point-in-time file has no checksum: `rdbchecksum` is off".into());
        }
        files.collections = match summary.keys {
            Some(keys) => keys.into_keys().map(name_of).collect(),
            None => names(&link.info("keyspace").await?),
        };
    }
    if wants_aof {
        (wish.progress)(Step { state: "taking the append-only files", done: None });
        match append_only(&mut link, &layout, &data_dir, &captured.folder, wish).await {
            Ok(appended) => {
                files.source.lengths = appended.lengths;
                files.collections = appended.collections;
                files.remember = serde_json::to_value(appended.known).ok();
            }
            Err(e @ EngineError::Failed { .. }) if wants_rdb => {
                files.findings.push(format!("the append-only files are not in this backup: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    files.collections.sort();
    Ok(files)
}

fn not_append_only() -> EngineError {
    EngineError::Unsupported(
        "`method: aof` needs append-only files, and this server keeps none (`appendonly no`); turn them on by `CONFIG SET \
         appendonly yes` and in its configuration file, or set `method: rdb`"
            .into(),
    )
}

fn names(keyspace: &Info) -> Vec<String> {
    keyspace.databases().into_iter().map(|d| name_of(d.database)).collect()
}

async fn append_only(
    link: &mut Link,
    layout: &Layout,
    data_dir: &Path,
    into: &Path,
    wish: &CaptureWish<'_>,
) -> Result<Appended, EngineError> {
    let before = names(&link.info("keyspace").await?);
    rewritten(link, wish.patience).await?;
    written(link).await?;
    let (from, to) = (data_dir.join(&layout.aof_folder), into.join(&layout.aof_folder));
    let list = layout.aof_manifest();
    let folder = layout.aof_folder.clone();
    let linked = to.clone();
    let files = blocking(move || {
        for _ in 0..TRIES {
            if let Some(files) = set(&from, &to, &list)? {
                return Ok(files);
            }
            std::thread::sleep(PAUSE);
        }
        let why = "the server replaced its append-only files faster than they could be linked".into();
        Err(EngineError::Failed { what: "backup", id: from.display().to_string(), why })
    });
    let files = files.await?;
    let after = names(&link.info("keyspace").await?);
    (wish.progress)(Step { state: "reading the append-only files", done: None });
    // What was remembered by another version of this program is nothing.
    let known = wish.parent.and_then(|(_, said)| serde_json::from_value(said.clone()).ok()).unwrap_or_default();
    let read = files.clone();
    let known = blocking(move || appended::check(&linked, &read, &known)).await?;
    let folder = RelPath::root().join(OsStr::new(&folder));
    let lengths = files.into_iter().map(|(name, length)| (folder.join(OsStr::new(&name)), length)).collect();
    Ok(Appended { lengths, collections: before.into_iter().filter(|name| after.contains(name)).collect(), known })
}

/// Waits for a rewrite to end. Before the first one after `appendonly yes` has ended, the files on the disk are those of an earlier time,
/// and nothing tells the first one from another.
async fn rewritten(link: &mut Link, patience: Duration) -> Result<(), EngineError> {
    let begun = Instant::now();
    loop {
        let info = link.info("persistence").await?;
        if !info.is_on("aof_rewrite_in_progress") && !info.is_on("aof_rewrite_scheduled") {
            let status = info.text("aof_last_bgrewrite_status");
            if status == "ok" {
                return Ok(());
            }
            let why =
                format!("the server says that its last rewrite ended {status:?}; run BGREWRITEAOF and look at its log");
            return Err(EngineError::Failed { what: "backup", id: "the append-only files".into(), why });
        }
        if begun.elapsed() >= patience {
            return Err(EngineError::TimedOut {
                what: "backup",
                id: "the append-only files".into(),
                waited: patience,
                outcome: "the server was still rewriting them".into(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until everything that was acknowledged is written. With `appendfsync everysec` a write is postponed while the disk is busy.
async fn written(link: &mut Link) -> Result<(), EngineError> {
    let deadline = Instant::now() + POSTPONED;
    while link.info("persistence").await?.is_on("aof_buffer_length") && Instant::now() < deadline {
        tokio::time::sleep(PAUSE / 10).await;
    }
    Ok(())
}

/// Links the files of the list, and tells in its order how long they are: the last one grows. `None` when the list changed meanwhile.
fn set(from: &Path, to: &Path, list: &str) -> Result<Option<Vec<(String, u64)>>, EngineError> {
    let path = from.join(list);
    let read = || fs::read_to_string(&path).map_err(|e| EngineError::files(&path, &e));
    let text = read()?;
    let parsed = List::parse(&path.display().to_string(), &text)?;
    if !parsed.has_base() {
        return Ok(None);
    }
    match fs::remove_dir_all(to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(EngineError::files(to, &e)),
        _ => fs::create_dir(to).map_err(|e| EngineError::files(to, &e))?,
    }
    let mut files = vec![];
    for part in &parsed.parts {
        let (here, there) = (from.join(&part.name), to.join(&part.name));
        match captured::link(&here, &there) {
            // A rewrite has ended, and its list does not name this file any more.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            linked => linked.map_err(|e| EngineError::files(&here, &e))?,
        }
        let length = fs::metadata(&there).map_err(|e| EngineError::files(&there, &e))?.len();
        files.push((part.name.clone(), length));
    }
    if read()? != text {
        return Ok(None);
    }
    let kept = to.join(list);
    fs::write(&kept, parsed.text()).map_err(|e| EngineError::files(&kept, &e))?;
    Ok(Some(files))
}
