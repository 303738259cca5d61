//! Progress of a run, written to the repository every few seconds.
//!
//! `at` is when there was last a sign of progress: a new stage, more bytes, or an engine that answers about a stage of which no bytes
//! can be seen. Where bytes can be seen and stand still, `at` stands still too, which is how a function notices an engine
//! that hangs. A record that cannot be written is left out: it is only advice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use perennial_shared::id::RunId;
use perennial_shared::repository::Repository;
use perennial_shared::run;
use tokio::task::JoinHandle;

use crate::watch::{Progress, Watch};

const PERIOD: Duration = Duration::from_secs(3);

/// Writes progress until it is dropped.
#[derive(Debug)]
pub(super) struct Recorder {
    last: Arc<Mutex<Last>>,
    writer: JoinHandle<()>,
}

#[derive(Debug)]
struct Last {
    progress: Progress,
    published: bool,
    at: Timestamp,
}

impl Recorder {
    pub(super) fn start(repository: Repository, run: RunId) -> Self {
        let last = Last { progress: Progress::stage("beginning"), published: false, at: Timestamp::now() };
        let last = Arc::new(Mutex::new(last));
        let writer = tokio::spawn(write(repository, run, Arc::clone(&last)));
        Self { last, writer }
    }

    /// Notes that the backup is published: the next one need not wait for what is left to do.
    pub(super) fn published(&self) {
        let Ok(mut last) = self.last.lock() else { return };
        (last.published, last.at) = (true, Timestamp::now());
    }
}

impl Watch for Recorder {
    fn see(&self, progress: &Progress) {
        let Ok(mut last) = self.last.lock() else { return };
        let measured = progress.total.is_some() && progress.done > 0;
        if !measured || last.progress != *progress {
            last.at = Timestamp::now();
        }
        last.progress.clone_from(progress);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(repository: Repository, run: RunId, last: Arc<Mutex<Last>>) {
    let mut written: Option<Timestamp> = None;
    loop {
        let record = last.lock().ok().map(|last| run::Progress {
            run: run.clone(),
            stage: last.progress.stage.clone(),
            done: last.progress.done,
            total: last.progress.total,
            published: last.published,
            at: last.at,
        });
        if let Some(record) = record.filter(|r| written != Some(r.at)) {
            match repository.report_progress(&record).await {
                Ok(()) => written = Some(record.at),
                Err(e) => tracing::warn!(error = %e, "progress was not written"),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use perennial_shared::settings::Engine;
    use perennial_shared::store::memory::MemoryStore;

    use super::*;

    fn at(recorder: &Recorder) -> Timestamp {
        recorder.last.lock().expect("unpoisoned").at
    }

    #[tokio::test]
    async fn bytes_that_stand_still_are_no_progress() {
        let repository = Repository::new(Arc::new(MemoryStore::default()), Engine::Weaviate);
        let recorder = Recorder::start(repository.clone(), "restore-i-1-1".parse().expect("a run"));
        let measured = |done| Progress { stage: "restoring".into(), done, total: Some(100) };
        recorder.see(&measured(10));
        let first = at(&recorder);
        tokio::time::sleep(Duration::from_millis(5)).await;
        recorder.see(&measured(10));
        assert_eq!(at(&recorder), first);
        recorder.see(&measured(11));
        assert!(at(&recorder) > first);
        let second = at(&recorder);
        tokio::time::sleep(Duration::from_millis(5)).await;
        recorder.see(&Progress::stage("waiting"));
        recorder.see(&Progress::stage("waiting"));
        assert!(at(&recorder) > second, "an answer without numbers is a sign of life");
    }
}
