//! Threads that do the work of which there is most, in whatever order; whoever asked takes the results in the order of asking.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use perennial_shared::archive::frame::{Compression, Compressor};

type Job = Box<dyn FnOnce(&mut Compressor) + Send>;

/// As many threads as there are cores. They end when the pool and its clones are gone.
#[derive(Clone)]
pub struct Pool {
    jobs: SyncSender<Job>,
}

/// A result that is still being made.
pub struct Ticket<T>(Receiver<T>);

impl<T> Ticket<T> {
    /// Waits for it. Fails only when the thread that should have made it panicked.
    pub fn wait(self) -> io::Result<T> {
        self.0.recv().map_err(|_| io::Error::other("a worker thread ended unexpectedly"))
    }
}

/// How many threads are worth having.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

impl Pool {
    /// Starts the threads.
    pub fn start(compression: Compression) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(cores());
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..cores() {
            let (waiting, mut compressor) = (Arc::clone(&waiting), Compressor::new(compression)?);
            std::thread::Builder::new().name("perennial-work".into()).spawn(move || {
                loop {
                    // The lock is held while waiting, and the others wait for the lock instead: the same.
                    let Ok(job) = waiting.lock().map_err(|_| ()).and_then(|w| w.recv().map_err(|_| ())) else { return };
                    job(&mut compressor);
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Has `work` done; waits while more work is waiting than there are threads.
    pub fn submit<T: Send + 'static>(&self, work: impl FnOnce(&mut Compressor) -> T + Send + 'static) -> Ticket<T> {
        let (done, ticket) = sync_channel(1);
        let job: Job = Box::new(move |compressor| {
            // Nobody may want it any more.
            let _ = done.send(work(compressor));
        });
        // Fails only when all threads are gone; the ticket says so.
        let _ = self.jobs.send(job);
        Ticket(ticket)
    }
}
