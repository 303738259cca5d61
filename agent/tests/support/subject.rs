//! What the conformance suite asks of a real engine: to be written to, to be looked into, to be taken away.

pub mod qdrant;
pub mod redis;
pub mod weaviate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use perennial::engine::Engine;
use perennial_shared::settings::Service;

/// A running engine and the client of an application on it. Row number `n` is one object whose content follows from `n`.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Engine and method, for the report.
    fn name(&self) -> &'static str;

    /// The lines of the settings that tell this engine from others: engine, method, url, service, data folder.
    fn settings(&self) -> String;

    /// Its API key or password.
    fn key(&self) -> &'static str;

    /// The product's client of it, with another key when one is given.
    fn engine(&self, key: Option<&str>) -> Box<dyn Engine>;

    /// The product's client of an address where nothing listens.
    fn nowhere(&self) -> Box<dyn Engine>;

    /// Name of the collection that the rows are in, as the product calls it.
    fn collection(&self) -> &'static str;

    /// The row's id, as the product calls it.
    fn object(&self, row: u64) -> String;

    /// Puts many rows, each of which must be acknowledged.
    async fn load(&self, rows: std::ops::Range<u64>);

    /// Puts one row; whether it was acknowledged.
    async fn write(&self, row: u64) -> bool;

    /// Deletes one row; whether that was acknowledged.
    async fn delete(&self, row: u64) -> bool;

    /// Every row that a client can read; a row with another content than its own is a failure.
    async fn rows(&self) -> BTreeSet<u64>;

    /// How the product stops and starts it; `None` where it never does.
    fn service(&self) -> Option<Service>;

    /// Ends the engine without warning and starts it again on the same data.
    async fn restart(&mut self);
}

/// What one client did, in order.
#[derive(Debug, Clone, Copy)]
pub struct Act {
    /// When it was acknowledged.
    pub at: Instant,
    /// How long the acknowledgement took.
    pub took: Duration,
    /// The row.
    pub row: u64,
    /// Whether the row was deleted.
    pub deleted: bool,
}

/// A client that never stops.
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Act>>,
}

impl Writer {
    /// Begins to write rows from `first` on, and deletes one of four of its own again.
    pub fn start(subject: Arc<dyn Subject>, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut acts = vec![];
            let mut next = first;
            while !stopped.load(Ordering::Relaxed) {
                act(&*subject, next, false, &mut acts).await;
                if next % 4 == 3 {
                    act(&*subject, next - 2, true, &mut acts).await;
                }
                next += 1;
            }
            acts
        });
        Self { stop, task }
    }

    /// Ends it: everything that was acknowledged.
    pub async fn stop(self) -> Vec<Act> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it wrote")
    }
}

async fn act(subject: &dyn Subject, row: u64, deleted: bool, acts: &mut Vec<Act>) {
    let begun = Instant::now();
    let done = if deleted { subject.delete(row).await } else { subject.write(row).await };
    if done {
        acts.push(Act { at: Instant::now(), took: begun.elapsed(), row, deleted });
    }
}

/// What must be there, and what must not, of what was acknowledged before `moment`; later acts may or may not be in.
pub fn settled(acts: &[Act], moment: Instant) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for act in acts.iter().filter(|a| a.at < moment) {
        if act.deleted {
            there.remove(&act.row);
            gone.insert(act.row);
        } else {
            there.insert(act.row);
        }
    }
    for later in acts.iter().filter(|a| a.at >= moment) {
        there.remove(&later.row);
    }
    (there, gone)
}

/// The waits that a client saw: median, 99th of a hundred, longest; milliseconds.
pub fn waits(acts: &[Act]) -> [f64; 3] {
    let mut all: Vec<_> = acts.iter().map(|a| a.took.as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1))).copied().unwrap_or(0.0);
    [at(50), at(99), at(100)]
}
