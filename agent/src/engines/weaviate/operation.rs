//! A backup or restore that Weaviate works on, watched until it is over.
//!
//! Weaviate's status cannot simply be believed. It comes from memory while the operation runs, and from the object in the
//! bucket afterwards; that object says STARTED for ever when the server was restarted in the middle, and a restore's is
//! shared by everybody who restores the same backup, so it may speak of another restore. But a running operation is looked
//! up by its id alone. So the status is asked for at a path where no backup can be: an answer is the memory's, and means
//! that it runs here and now; 404 means that it does not. Only then is the object read, which is final by then.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{self, Client, Request};
use crate::engine::EngineError;
use crate::engine::native::{Place, Root};

/// A folder below the real one that never holds a backup.
const NOWHERE: &str = "no-backup-is-ever-here";
/// The engine may be out of reach (or of its bucket's) for so long without the operation being given up.
const GRACE: Duration = Duration::from_secs(60);
/// A cancelled operation may take so long to stop.
const STOPPING: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the engine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Backup,
    Restore,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// One backup or restore.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) client: &'a Client,
    pub(super) kind: Kind,
    pub(super) place: &'a Place,
}

#[derive(Deserialize)]
struct Status {
    status: String,
    error: Option<String>,
}

impl<'a> Operation<'a> {
    pub(super) fn new(client: &'a Client, kind: Kind, place: &'a Place) -> Self {
        Self { client, kind, place }
    }

    /// Where requests about it go; a restore is asked about one level further down.
    pub(super) fn address(&self) -> Vec<&'a str> {
        let mut path = vec!["backups", self.backend(), self.place.id.as_str()];
        if self.kind == Kind::Restore {
            path.push("restore");
        }
        path
    }

    /// The engine's name for the kind of root.
    pub(super) fn backend(&self) -> &'static str {
        match self.place.root {
            Root::Bucket(_) => "s3",
            Root::Folder(_) => "filesystem",
        }
    }

    /// The part of a request's `config` that says where the backup is.
    pub(super) fn config(&self) -> Map<String, Value> {
        let mut config = Map::new();
        if let Root::Bucket(bucket) = &self.place.root {
            config.insert("Bucket".into(), json!(bucket));
        }
        config.insert("Path".into(), json!(self.path()));
        config
    }

    /// The path override. An empty one would mean the engine's own default path, so the root itself is `.`.
    fn path(&self) -> String {
        match &self.place.root {
            Root::Bucket(_) if self.place.path.is_empty() => ".".into(),
            Root::Bucket(_) => self.place.path.clone(),
            Root::Folder(folder) => format!("{folder}/{}", self.place.path).trim_end_matches('/').to_owned(),
        }
    }

    /// The state it is in, if it runs in this engine right now.
    pub(super) async fn running(&self) -> Result<Option<String>, EngineError> {
        let status = self.status_at(&format!("{}/{NOWHERE}", self.path())).await?;
        Ok(status.map(|s| s.status))
    }

    async fn status_at(&self, path: &str) -> Result<Option<Status>, EngineError> {
        let mut query = vec![("path", path)];
        if let Root::Bucket(bucket) = &self.place.root {
            query.push(("bucket", bucket));
        }
        self.client.find(Request::get(&self.address()).query(&query)).await
    }

    /// Begins it. `None` when it began, or what the engine said against it.
    pub(super) async fn begin(&self, body: Value) -> Result<Option<EngineError>, EngineError> {
        let mut path = self.address();
        if self.kind == Kind::Backup {
            path.pop();
        }
        let answer = match self.client.try_change(Request::post(&path, body)).await {
            Ok(answer) => answer,
            // The answer was lost; the request may have arrived.
            Err(e) if e.is_absence() => return if self.running().await?.is_some() { Ok(None) } else { Err(e) },
            Err(e) => return Err(e),
        };
        // Weaviate answers 200 with nothing when it caught a panic of its own.
        if answer.status.is_success() && !answer.body.is_empty() {
            return Ok(None);
        }
        let why = client::message(&answer.body);
        Ok(Some(match answer.status {
            _ if why.contains("already in progress") => Self::busy(&why),
            _ if why.contains("no available classes to backup") => EngineError::Empty,
            StatusCode::NOT_FOUND => EngineError::NotFound { id: self.place.id.clone(), path: self.location() },
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::INTERNAL_SERVER_ERROR => self.failed(why),
            _ => self.client.unexpected(&format!("beginning the {} of {}", self.kind.word(), self.place.id), &answer),
        }))
    }

    fn busy(message: &str) -> EngineError {
        let before = message.split(" already in progress").next().unwrap_or_default();
        let id = before.split_whitespace().next_back().unwrap_or("unknown").trim_matches('"').to_owned();
        EngineError::Busy { what: if message.contains("restor") { "restore" } else { "backup" }, id }
    }

    pub(super) fn failed(&self, why: String) -> EngineError {
        EngineError::Failed { what: self.kind.word(), id: self.place.id.clone(), why }
    }

    fn location(&self) -> String {
        match &self.place.root {
            Root::Bucket(bucket) => format!("s3://{bucket}/{}", self.place.path),
            Root::Folder(_) => self.path(),
        }
    }

    /// Waits until it is over and succeeded. One that takes longer than `patience` is cancelled.
    pub(super) async fn wait(
        &self,
        patience: Duration,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EngineError> {
        let begun = Instant::now();
        let (mut answered, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match self.running().await {
                Ok(Some(status)) => {
                    answered = Instant::now();
                    progress(&status);
                }
                Ok(None) => return self.result().await,
                Err(e @ (EngineError::Unauthorized { .. } | EngineError::Forbidden { .. })) => return Err(e),
                Err(e) if answered.elapsed() > GRACE => return Err(e),
                Err(_) => progress("no answer"),
            }
            if begun.elapsed() > patience {
                return Err(self.give_up(begun.elapsed()).await);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// How it ended, from the object that the engine wrote last.
    async fn result(&self) -> Result<(), EngineError> {
        let Some(Status { status, error }) = self.status_at(&self.path()).await? else {
            return Err(self.abandoned("nothing"));
        };
        match status.as_str() {
            "SUCCESS" => Ok(()),
            "FAILED" | "CANCELED" => {
                let why = error.filter(|e| !e.is_empty()).unwrap_or_else(|| "no reason given".into());
                Err(self.failed(format!("{status}: {why}")))
            }
            _ => Err(self.abandoned(&status)),
        }
    }

    fn abandoned(&self, status: &str) -> EngineError {
        EngineError::Abandoned { what: self.kind.word(), id: self.place.id.clone(), status: status.into() }
    }

    async fn give_up(&self, waited: Duration) -> EngineError {
        let outcome = match self.cancel().await {
            Ok(()) => "it was cancelled".to_owned(),
            Err(e) => format!("cancelling it failed: {e}"),
        };
        EngineError::TimedOut { what: self.kind.word(), id: self.place.id.clone(), waited, outcome }
    }

    /// Cancels it and waits until the engine has let go of it.
    pub(super) async fn cancel(&self) -> Result<(), EngineError> {
        let path = self.path();
        let mut query = vec![("path", path.as_str())];
        if let Root::Bucket(bucket) = &self.place.root {
            query.push(("bucket", bucket));
        }
        let begun = Instant::now();
        while self.running().await?.is_some() {
            if begun.elapsed() > STOPPING {
                return Err(self.failed(format!("it did not stop within {} s of being cancelled", STOPPING.as_secs())));
            }
            // Refused (422) once it is over or about to be; then the next look finds it gone.
            self.client.try_change(Request::delete(&self.address()).query(&query)).await?;
            tokio::time::sleep(FIRST_PAUSE * 2).await;
        }
        Ok(())
    }
}
