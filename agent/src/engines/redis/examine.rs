//! What `doctor` looks at in Redis alone: settings and states that lose data, or that keep a backup or a restore from working.
//!
//! What is seen is collected first and judged afterwards, so that every judgement is a line of a table and a test of its own. What the
//! server does not tell is not judged.

mod judge;
mod restart;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::aof::List;
use super::info::Info;
use super::layout::Layout;
use super::startup::Startup;
use super::{Redis, blocking, save, writes};
use crate::check::{Check, Found};
use crate::engine::EngineError;
use crate::failure::{Exit, Failure};

/// The settings that are judged.
const SETTINGS: [&str; 15] = [
    "appendonly",
    "save",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "auto-aof-rewrite-percentage",
    "stop-writes-on-bgsave-error",
    "rdbchecksum",
    "dir",
    "dbfilename",
    "appendfilename",
    "appenddirname",
    "maxmemory",
    "maxmemory-policy",
    "databases",
    "min-replicas-to-write",
];

/// What was seen of a server.
#[derive(Debug, Default)]
struct Seen {
    info: Info,
    settings: BTreeMap<&'static str, String>,
    /// Its configuration file, where there is one that can be read here.
    startup: Option<Startup>,
    config_file: String,
    disk: Disk,
    writes_refused: bool,
    now: u64,
}

/// What was seen on the disk; `None` for what cannot be seen from here.
#[derive(Debug, Default)]
struct Disk {
    folder: String,
    appended: Option<Appended>,
    /// Free bytes, and bytes that a save may need.
    room: Option<(u64, u64)>,
    /// A kind of file system that does not outlive the machine or the container.
    fleeting: Option<&'static str>,
    overcommit: Option<String>,
    huge_pages: Option<String>,
}

/// The folder of append-only files.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Appended {
    Absent,
    Whole,
    Broken(String),
}

impl Seen {
    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn is_append_only(&self) -> bool {
        self.setting("appendonly") == "yes"
    }

    fn has_save_points(&self) -> bool {
        !self.setting("save").is_empty()
    }
}

pub(super) async fn checks(redis: &Redis) -> Vec<Check> {
    match see(redis).await {
        Ok(seen) => judge::all(&seen),
        Err(e) => {
            let failure = Failure::from(e);
            let found = if failure.exit == Exit::CouldNotTell { Found::CouldNotTell } else { Found::Problem };
            vec![Check { name: "persistence", found, detail: failure.message }]
        }
    }
}

async fn see(redis: &Redis) -> Result<Seen, EngineError> {
    redis.identify().await?;
    let mut link = redis.client.open().await?;
    let info = link.info("everything").await?;
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        settings.insert(name, link.setting(name).await?.unwrap_or_default());
    }
    let layout = Layout::ask(&mut link).await?;
    let writes_refused = writes::are_refused(&mut link).await?;
    let (data_dir, memory) = (redis.data_dir().await?, info.number("used_memory").unwrap_or(0));
    let config_file = info.text("config_file").to_owned();
    let path = config_file.clone();
    let (startup, disk) = blocking(move || Ok((Startup::read(&path), disk(&data_dir, &layout, memory)))).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(Seen { info, settings, startup, config_file, disk, writes_refused, now })
}

fn disk(data_dir: &Path, layout: &Layout, memory: u64) -> Disk {
    let text = |path: &str| std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned());
    let dump = data_dir.join(&layout.dump);
    Disk {
        folder: data_dir.display().to_string(),
        appended: data_dir.is_dir().then(|| appended(data_dir, layout)),
        room: save::room(&dump, memory).ok(),
        fleeting: rustix::fs::statfs(data_dir).ok().and_then(|s| fleeting(s.f_type.cast_unsigned())),
        overcommit: text("/proc/sys/vm/overcommit_memory"),
        huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled"),
    }
}

/// The numbers are those of `statfs(2)`.
fn fleeting(kind: u64) -> Option<&'static str> {
    match kind {
        0x0102_1994 => Some("in memory (tmpfs)"),
        0x794c_7630 => Some("in a container's own layer (overlayfs)"),
        _ => None,
    }
}

/// Whether the server would find all of its append-only files.
fn appended(data_dir: &Path, layout: &Layout) -> Appended {
    let folder = data_dir.join(&layout.aof_folder);
    let list = folder.join(layout.aof_manifest());
    let text = match std::fs::read_to_string(&list) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let holds = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
            let why = || format!("{} holds files, and the list of them is missing", folder.display());
            return if holds { Appended::Broken(why()) } else { Appended::Absent };
        }
        Err(e) => return Appended::Broken(format!("{}: {e}", list.display())),
    };
    match List::parse(&list.display().to_string(), &text) {
        Err(e) => Appended::Broken(e.to_string()),
        Ok(list) => match list.parts.iter().find(|p| !folder.join(&p.name).is_file()) {
            Some(missing) => Appended::Broken(format!("{} is missing", folder.join(&missing.name).display())),
            None => Appended::Whole,
        },
    }
}
