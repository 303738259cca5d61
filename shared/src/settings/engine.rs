//! Which database engine a target is, how its data is captured, and how it is started and stopped.

use serde::Deserialize;

use super::parse::{Check, SettingsError};

/// The database engines that can be a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Weaviate, single node.
    Weaviate,
    /// Qdrant, single node.
    Qdrant,
    /// Redis 7, one server.
    Redis,
    /// Any folder: of a service that Perennial does not know.
    Files,
}

/// How an engine's data becomes a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Weaviate's own backup, written into the repository by the engine.
    Native,
    /// Weaviate's files, caught in an instant and archived.
    Physical,
    /// Qdrant's collection snapshots, archived.
    Snapshot,
    /// Redis' append-only files where it writes them, else its point-in-time file.
    Auto,
    /// Redis' point-in-time file.
    Rdb,
    /// Redis' append-only files.
    Aof,
    /// Both of Redis'.
    Both,
    /// A folder as it is.
    Folder,
}

/// How the engine is started and stopped where its files are put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A systemd unit.
    Systemd(String),
    /// A Docker container.
    Docker(String),
    /// Programs, as words, without a shell.
    Commands {
        /// Starts it and ends; the engine goes on.
        start: Vec<String>,
        /// Stops it and ends when it has stopped.
        stop: Vec<String>,
        /// Prints its process id; where none is given the engine cannot be frozen.
        pid: Vec<String>,
    },
}

impl Engine {
    const ALL: [Self; 4] = [Self::Weaviate, Self::Qdrant, Self::Redis, Self::Files];

    /// The word in settings, object names and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Weaviate => "weaviate",
            Self::Qdrant => "qdrant",
            Self::Redis => "redis",
            Self::Files => "files",
        }
    }

    pub(super) fn parse(word: &str, check: &Check) -> Result<Self, SettingsError> {
        let found = Self::ALL.into_iter().find(|e| e.word() == word);
        found.ok_or_else(|| check.error("engine", "one of: weaviate, qdrant, redis, files"))
    }

    /// Where it answers when the settings do not say.
    pub(super) fn default_url(self) -> &'static str {
        match self {
            Self::Weaviate | Self::Files => "http://127.0.0.1:8080",
            Self::Qdrant => "http://127.0.0.1:6333",
            Self::Redis => "redis://127.0.0.1:6379",
        }
    }

    /// The beginnings that its address may have.
    pub(super) fn schemes(self) -> [&'static str; 2] {
        match self {
            Self::Redis => ["redis://", "rediss://"],
            _ => ["http://", "https://"],
        }
    }

    /// Its methods, the default first.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Weaviate => &[Method::Native, Method::Physical],
            Self::Qdrant => &[Method::Snapshot],
            Self::Redis => &[Method::Auto, Method::Rdb, Method::Aof, Method::Both],
            Self::Files => &[Method::Folder],
        }
    }

    /// Why `service` would be of no use; `None` where a restore stops and starts the engine.
    fn without_service(self) -> Option<&'static str> {
        match self {
            Self::Weaviate | Self::Redis => None,
            Self::Qdrant => {
                Some("nothing with `engine: qdrant`: it is restored through its API while it runs, and never stopped")
            }
            Self::Files => {
                Some("nothing with `engine: files`: what stops and starts a service around its folder are `commands`")
            }
        }
    }

    pub(super) fn method(self, word: Option<&str>, check: &Check) -> Result<Method, SettingsError> {
        let Some(word) = word else { return Ok(self.methods()[0]) };
        let found = self.methods().iter().find(|m| m.word() == word);
        let words: Vec<_> = self.methods().iter().map(|m| m.word()).collect();
        let allowed = || format!("with `engine: {}` one of: {}", self.word(), words.join(", "));
        found.copied().ok_or_else(|| check.error("method", &allowed()))
    }
}

impl Method {
    /// The word in settings and manifests.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Physical => "physical",
            Self::Snapshot => "snapshot",
            Self::Auto => "auto",
            Self::Rdb => "rdb",
            Self::Aof => "aof",
            Self::Both => "both",
            Self::Folder => "folder",
        }
    }

    /// Whether a backup that follows another stores only what changed since.
    pub fn makes_increments(self) -> bool {
        !matches!(self, Self::Native)
    }

    /// Whether a final backup is made while all writes are refused and reads go on. Else clients are cut off before it:
    /// Qdrant has nothing that refuses writes, and a Weaviate that refuses them acknowledges most of a batch without storing it.
    pub fn keeps_reads(self) -> bool {
        matches!(self, Self::Auto | Self::Rdb | Self::Aof | Self::Both)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    systemd: Option<String>,
    docker: Option<String>,
    start: Option<Vec<String>>,
    stop: Option<Vec<String>>,
    #[serde(default)]
    pid: Vec<String>,
}

impl RawService {
    pub(super) fn check(self, engine: Engine, check: &Check) -> Result<Service, SettingsError> {
        if let Some(why) = engine.without_service() {
            return Err(check.error("service", why));
        }
        match (self.systemd, self.docker, self.start, self.stop) {
            (Some(unit), None, None, None) => {
                check.name("service.systemd", &unit, 255, "-_.@:\\")?;
                Ok(Service::Systemd(unit))
            }
            (None, Some(container), None, None) => {
                check.name("service.docker", &container, 255, "-_.")?;
                Ok(Service::Docker(container))
            }
            (None, None, Some(start), Some(stop)) if !start.is_empty() && !stop.is_empty() => {
                Ok(Service::Commands { start, stop, pid: self.pid })
            }
            _ => Err(check.error(
                "service",
                "exactly one of: systemd (a unit), docker (a container), or start and stop (programs, as lists of words) \
                 with pid (a program that prints the process id)",
            )),
        }
    }
}
