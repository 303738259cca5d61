//! The bytes of a backup's objects: fetched several requests at a time, decompressed and hashed on all cores.
//!
//! Every chunk is compared with the hash that the index has of it; of an object that is read whole, its SHA-256 with the manifest's.
//! What is wrong is fetched once more before it is called damage: it may have been damaged on its way.
//!
//! Memory: [`AT_ONCE`] requests of some MiB, with a frame or two of each in the clear.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Progress;
use super::plan::{self, Share, Step};
use super::record::PLACES;
use super::report::{Damages, blamed};
use crate::archive::entry::FrameRef;
use crate::archive::frame::{Content, Decompressor, PLAIN};
use crate::archive::objects::{Objects, ReadError};

/// Requests in flight.
const AT_ONCE: usize = 8;
/// After so many failed requests no more are made: the store is not there, and each failure took minutes of retries.
const PATIENCE: usize = 4;

/// Reads what the plan says.
#[derive(Clone)]
pub(super) struct Reader {
    objects: Objects,
    deadline: Option<Instant>,
    progress: Arc<Progress>,
    failures: Arc<AtomicUsize>,
}

/// What was found in one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Frames that begin before this were right.
    pub(super) reached: u64,
    /// Something was wrong, or not read.
    pub(super) stuck: bool,
    /// Some frames were not in the usual order, so that `reached` says nothing unless all was read.
    pub(super) unordered: bool,
    /// Frames that were decompressed.
    pub(super) frames: u64,
    /// Chunks whose hash was right.
    pub(super) chunks: u64,
    /// Bytes that were read and right.
    pub(super) bytes: u64,
    /// Damaged places: where they begin and end, and what is wrong.
    pub(super) damaged: Vec<(Range<u64>, String)>,
    /// Where frames begin that had been damaged before and are right.
    pub(super) healed: Vec<u64>,
    share: Share,
    /// SHA-256 of everything up to `reached`, of an object that is read whole.
    hash: Option<Sha256>,
}

/// What was found altogether.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// By the objects' numbers.
    pub(super) found: Vec<Found>,
    /// Damaged objects and what is wrong.
    pub(super) damage: Damages,
    /// Why some could not be read.
    pub(super) doubts: Vec<String>,
    /// Bytes for which time ran out.
    pub(super) late: u64,
}

/// One step, done.
struct Brought {
    step: Arc<Step>,
    outcome: Outcome,
}

enum Outcome {
    /// All of its chunks were right.
    Right(Bytes, u64),
    /// These places are not.
    Damaged(Vec<(Range<u64>, String)>),
    Doubt(String),
    Late,
}

impl Reader {
    pub(super) fn new(objects: Objects, deadline: Option<Instant>, progress: Arc<Progress>) -> Self {
        Self { objects, deadline, progress, failures: Arc::default() }
    }

    /// Reads everything that comes.
    pub(super) async fn run(self, shares: &[Share], mut steps: mpsc::Receiver<Step>) -> Data {
        let found = shares.iter().map(Found::of).collect();
        let mut data = Data { found, ..Data::default() };
        // Tasks of their own, which go on while an object's SHA-256 is waited for.
        let work = |step| tokio::spawn(self.clone().bring(Arc::new(step)));
        let mut brought = stream::poll_fn(move |context| steps.poll_recv(context)).map(work).buffered(AT_ONCE);
        while let Some(done) = brought.next().await {
            match done {
                Ok(done) => data.take(done, &self.objects).await,
                Err(e) => data.doubts.push(e.to_string()),
            }
        }
        data
    }

    async fn bring(self, step: Arc<Step>) -> Brought {
        let outcome = self.outcome(&step).await;
        if let Outcome::Doubt(_) = outcome {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        Brought { step, outcome }
    }

    async fn outcome(&self, step: &Arc<Step>) -> Outcome {
        let late = self.deadline.is_some_and(|d| Instant::now() >= d);
        if late || self.failures.load(Ordering::Relaxed) >= PATIENCE {
            return Outcome::Late;
        }
        match self.once(step).await {
            Outcome::Damaged(_) => self.once(step).await,
            outcome => outcome,
        }
    }

    async fn once(&self, step: &Arc<Step>) -> Outcome {
        let length = step.range.end - step.range.start;
        let bytes = match self.objects.range(step.object, step.range.start, length).await {
            Ok(bytes) => bytes,
            Err(e) => return blamed(e).map_or_else(Outcome::Doubt, |(_, why)| Outcome::Damaged(step.damaged(&why))),
        };
        let (objects, step, progress) = (self.objects.clone(), Arc::clone(step), Arc::clone(&self.progress));
        let checking = spawn_blocking(move || {
            let outcome = check(&objects, &step, bytes);
            progress.add(length);
            outcome
        });
        checking.await.unwrap_or_else(|e| Outcome::Doubt(e.to_string()))
    }
}

/// Decompresses every frame and compares every chunk.
fn check(objects: &Objects, step: &Step, bytes: Bytes) -> Outcome {
    let mut decompressor = match Decompressor::new() {
        Ok(decompressor) => decompressor,
        Err(e) => return Outcome::Doubt(e.to_string()),
    };
    let (mut damage, mut chunks) = (vec![], 0);
    let mut plain = PLAIN.buffer();
    for (frame, pieces) in &step.frames {
        let mut damaged = |why: String| damage.push(plan::damaged(frame, &why));
        let begin = usize::try_from(frame.offset - step.range.start).unwrap_or(usize::MAX);
        let stored = bytes.slice(begin..begin + frame.length as usize);
        if let Err(why) = decompress(objects, frame, stored, &mut decompressor, &mut plain) {
            damaged(format!("{why} ({})", pieces.first().map_or_else(String::new, |p| p.file.to_string())));
            continue;
        }
        let content = Content::whole(&plain);
        for piece in pieces {
            match piece.checked(&content) {
                Ok(_) => chunks += piece.hashes.len() as u64,
                Err(why) => damaged(format!("{why} ({})", piece.file)),
            }
        }
    }
    if damage.is_empty() { Outcome::Right(bytes, chunks) } else { Outcome::Damaged(damage) }
}

/// A frame's content.
fn decompress(
    objects: &Objects,
    frame: &FrameRef,
    stored: Bytes,
    decompressor: &mut Decompressor,
    plain: &mut Vec<u8>,
) -> Result<(), String> {
    let opened = objects.open(frame.object, frame.offset, stored).map_err(|e| match e {
        ReadError::Damaged { why, .. } => why,
        ReadError::Store(e) => e.to_string(),
    })?;
    decompressor.decompress(objects.algorithm(frame.object), &opened, plain).map_err(|e| e.to_string())
}

impl Found {
    fn of(share: &Share) -> Self {
        let hash = share.whole.then(Sha256::new);
        Self { reached: share.range.start, share: share.clone(), hash, ..Self::default() }
    }

    /// Takes over what is wrong. However much it is, the memory is that of a few.
    fn damage(&mut self, places: Vec<(Range<u64>, String)>) {
        let room = PLACES.saturating_sub(self.damaged.len());
        self.damaged.extend(places.into_iter().take(room));
    }

    /// The SHA-256 of an object of this size that was read whole.
    pub(super) fn sha256(&self, size: u64) -> Option<String> {
        let whole = !self.stuck && self.reached == size;
        self.hash.clone().filter(|_| whole).map(|hash| hex::encode(hash.finalize()))
    }
}

impl Data {
    async fn take(&mut self, brought: Brought, objects: &Objects) {
        let Brought { step, outcome } = brought;
        let Some(found) = self.found.get_mut(step.object as usize) else { return };
        // What is read again only because it was damaged says nothing of how far the rest was reached.
        let due = found.share.range.contains(&step.range.start);
        found.unordered |= due && !step.in_order;
        found.stuck |= due && !matches!(outcome, Outcome::Right(..));
        match outcome {
            Outcome::Right(bytes, chunks) => {
                let offsets = step.frames.iter().map(|(frame, _)| frame.offset);
                found.healed.extend(offsets.filter(|at| found.share.again.contains(at)));
                found.frames += step.frames.len() as u64;
                found.chunks += chunks;
                found.bytes += bytes.len() as u64;
                if step.in_order && !found.stuck {
                    found.reached = step.range.end;
                    found.hash = hashed(found.hash.take(), bytes).await;
                }
            }
            Outcome::Damaged(places) => {
                let key = objects.key(step.object);
                for (_, what) in &places {
                    self.damage.add(&key, what.clone());
                }
                found.damage(places);
            }
            Outcome::Doubt(why) => self.doubts.push(why),
            Outcome::Late => self.late += step.range.end - step.range.start,
        }
    }
}

/// Goes on with an object's SHA-256.
async fn hashed(hash: Option<Sha256>, bytes: Bytes) -> Option<Sha256> {
    let mut hash = hash?;
    let hashing = spawn_blocking(move || {
        hash.update(&bytes);
        hash
    });
    hashing.await.ok()
}
