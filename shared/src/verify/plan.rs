//! Which parts of which objects a deep verification reads, from an index that goes by. Pure.
//!
//! A backup writes its frames in the order of the walk, and an increment keeps the order of its parents: so in the walk of any
//! backup the frames of each object come in the order in which they stand in it. This is all that is needed to read each frame once
//! with the memory of one request an object. An index with another order is read right too, some frames twice.

use std::ops::Range;
use std::sync::Arc;

use crate::archive::entry::FrameRef;
use crate::archive::path::RelPath;
use crate::archive::plan;

/// Bytes of one request.
pub(super) const LARGEST_FETCH: u64 = 4 << 20;
/// A gap that costs less to fetch than another request would.
const GAP: u64 = 64 << 10;
/// Pieces of frames that may wait; more are as many tiny files in a frame.
const MOST_PIECES: usize = 1 << 18;

/// A part of a frame, and whose it is.
pub(super) type Piece = plan::Piece<Arc<RelPath>>;

/// What is to be read of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Share {
    /// The frames that begin here.
    pub(super) range: Range<u64>,
    /// Everything is read, in its order, also what no file has a part in: the range is the whole object.
    pub(super) whole: bool,
    /// Frames that begin here were damaged, and are read again wherever they are.
    pub(super) again: Vec<u64>,
}

impl Share {
    fn wants(&self, frame: &FrameRef) -> bool {
        self.range.contains(&frame.offset) || self.again.contains(&frame.offset)
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Number of the object.
    pub(super) object: u32,
    /// What to fetch.
    pub(super) range: Range<u64>,
    /// The frames in it.
    pub(super) frames: Vec<(FrameRef, Vec<Piece>)>,
    /// It begins where, or behind where, the last one of the object ended.
    pub(super) in_order: bool,
}

impl Step {
    /// All of it, where it could not be had.
    pub(super) fn damaged(&self, why: &str) -> Vec<(Range<u64>, String)> {
        if self.frames.is_empty() {
            return vec![(self.range.clone(), why.to_owned())];
        }
        self.frames.iter().map(|(frame, _)| damaged(frame, why)).collect()
    }
}

/// A damaged frame: where it is, and what to say of it.
pub(super) fn damaged(frame: &FrameRef, why: &str) -> (Range<u64>, String) {
    (frame.offset..frame.offset + u64::from(frame.length), format!("the frame at {}: {why}", frame.offset))
}

/// Turns pieces, as the walk brings them, into steps.
pub(super) struct Planner {
    lanes: Vec<Lane>,
    waiting: usize,
    ready: Vec<Step>,
}

struct Lane {
    object: u32,
    share: Share,
    /// Everything before it is planned or not wanted.
    position: u64,
    frame: Option<(FrameRef, Vec<Piece>)>,
    step: Option<Step>,
}

impl Planner {
    /// For these shares of the objects, by their numbers.
    pub(super) fn new(shares: Vec<Share>) -> Self {
        let lane = |(object, share): (u32, Share)| Lane {
            object,
            position: share.range.start,
            share,
            frame: None,
            step: None,
        };
        Self { lanes: (0..).zip(shares).map(lane).collect(), waiting: 0, ready: vec![] }
    }

    /// Whether the frame is to be read.
    pub(super) fn wants(&self, frame: &FrameRef) -> bool {
        self.lanes.get(frame.object as usize).is_some_and(|lane| lane.share.wants(frame))
    }

    /// A piece of a frame that is wanted.
    pub(super) fn add(&mut self, frame: FrameRef, piece: Piece) {
        let Some(lane) = self.lanes.get_mut(frame.object as usize) else { return };
        self.waiting += 1;
        match &mut lane.frame {
            Some((open, pieces)) if *open == frame => pieces.push(piece),
            _ => {
                lane.end_frame(&mut self.ready);
                lane.frame = Some((frame, vec![piece]));
            }
        }
        if self.waiting >= MOST_PIECES {
            self.waiting = 0;
            for lane in &mut self.lanes {
                lane.end_frame(&mut self.ready);
                lane.end_step(&mut self.ready);
            }
        }
    }

    /// What can be fetched now.
    pub(super) fn take(&mut self) -> Vec<Step> {
        for step in &self.ready {
            let pieces: usize = step.frames.iter().map(|(_, pieces)| pieces.len()).sum();
            self.waiting = self.waiting.saturating_sub(pieces);
        }
        std::mem::take(&mut self.ready)
    }

    /// The rest.
    pub(super) fn finish(mut self) -> Vec<Step> {
        for lane in &mut self.lanes {
            lane.end_frame(&mut self.ready);
            lane.end_step(&mut self.ready);
            if lane.share.whole {
                lane.skip_to(lane.share.range.end, &mut self.ready);
            }
        }
        self.ready
    }
}

impl Lane {
    fn end_frame(&mut self, ready: &mut Vec<Step>) {
        let Some((frame, pieces)) = self.frame.take() else { return };
        let end = frame.offset + u64::from(frame.length);
        if frame.offset < self.position || !self.share.range.contains(&frame.offset) {
            let (range, frames) = (frame.offset..end, vec![(frame, pieces)]);
            ready.push(Step { object: self.object, range, frames, in_order: false });
            return;
        }
        let near = frame.offset - self.position <= GAP;
        if !self.step.as_ref().is_some_and(|step| near && end - step.range.start <= LARGEST_FETCH) {
            self.end_step(ready);
            if self.share.whole && !near {
                self.skip_to(frame.offset, ready);
            }
            let start = if self.share.whole { self.position } else { frame.offset };
            self.step = Some(Step { object: self.object, range: start..start, frames: vec![], in_order: true });
        }
        if let Some(step) = &mut self.step {
            step.range.end = end;
            step.frames.push((frame, pieces));
        }
        self.position = end;
    }

    fn end_step(&mut self, ready: &mut Vec<Step>) {
        ready.extend(self.step.take());
    }

    /// Plans bytes that no file has a part in.
    fn skip_to(&mut self, offset: u64, ready: &mut Vec<Step>) {
        while self.position < offset {
            let end = offset.min(self.position + LARGEST_FETCH);
            ready.push(Step { object: self.object, range: self.position..end, frames: vec![], in_order: true });
            self.position = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::subset::Subset;
    use super::*;

    /// Objects whose frames have these lengths, with a gap after each.
    fn objects() -> impl Strategy<Value = Vec<Vec<(u32, u64)>>> {
        let gap = prop_oneof![4 => Just(0_u64), 1 => 1..200_000_u64, 1 => 1..20_000_000_u64];
        prop::collection::vec(prop::collection::vec((1..3_000_000_u32, gap), 0..30), 1..4)
    }

    fn frames(objects: &[Vec<(u32, u64)>]) -> (Vec<FrameRef>, Vec<u64>) {
        let (mut frames, mut sizes) = (vec![], vec![]);
        for (object, lengths) in (0..).zip(objects) {
            let mut offset = 0;
            for (length, gap) in lengths {
                frames.push(FrameRef { object, offset, length: *length });
                offset += u64::from(*length) + gap;
            }
            sizes.push(offset);
        }
        (frames, sizes)
    }

    fn piece(at: u32) -> Piece {
        let file = Arc::new(RelPath::root());
        Piece { file, offset: 0, at, length: 1, chunk_size: crate::archive::chunk::SMALLEST, hashes: vec![] }
    }

    /// Feeds each frame twice, as two files that share it would.
    fn plan(walk: &[FrameRef], shares: Vec<Share>) -> Vec<Step> {
        let (mut planner, mut steps) = (Planner::new(shares), vec![]);
        for frame in walk.iter().filter(|f| f.length > 0) {
            for at in 0..2 {
                if planner.wants(frame) {
                    planner.add(*frame, piece(at));
                }
            }
            steps.extend(planner.take());
        }
        steps.extend(planner.finish());
        steps
    }

    fn count(steps: &[Step]) -> BTreeMap<FrameRef, usize> {
        let mut read = BTreeMap::new();
        for (frame, pieces) in steps.iter().flat_map(|s| &s.frames) {
            assert_eq!(pieces.len(), 2);
            *read.entry(*frame).or_default() += 1;
        }
        read
    }

    /// Interleaves the objects' frames without changing the order within each.
    fn shuffled(mut frames: Vec<FrameRef>, seed: &[u32]) -> Vec<FrameRef> {
        let mut lanes: BTreeMap<u32, Vec<FrameRef>> = BTreeMap::new();
        frames.reverse();
        for frame in &frames {
            lanes.entry(frame.object).or_default().push(*frame);
        }
        let mut out = vec![];
        for n in (0..).take(frames.len()) {
            let live: Vec<_> = lanes.iter().filter(|(_, l)| !l.is_empty()).map(|(o, _)| *o).collect();
            let chosen = live[seed.get(n % seed.len().max(1)).copied().unwrap_or(0) as usize % live.len()];
            out.extend(lanes.get_mut(&chosen).and_then(Vec::pop));
        }
        out
    }

    proptest! {
        #[test]
        fn the_subsets_together_read_every_frame_once(objects in objects(), of in 1..9_u32, seed in prop::collection::vec(any::<u32>(), 1..20)) {
            let (frames, sizes) = frames(&objects);
            let walk = shuffled(frames.clone(), &seed);
            let mut read = BTreeMap::new();
            for part in 1..=of {
                let subset = Subset::parse(&format!("{part}/{of}"), jiff::Timestamp::UNIX_EPOCH).expect("good");
                let shares = sizes.iter().map(|size| Share { range: subset.range(*size), whole: false, again: vec![] }).collect();
                let steps = plan(&walk, shares);
                prop_assert!(steps.iter().all(|s| s.in_order && s.range.end - s.range.start <= LARGEST_FETCH));
                for (frame, times) in count(&steps) {
                    *read.entry(frame).or_insert(0) += times;
                }
            }
            prop_assert_eq!(read.keys().copied().collect::<Vec<_>>(), frames);
            prop_assert!(read.values().all(|times| *times == 1));
        }

        #[test]
        fn an_object_that_is_read_whole_is_read_in_its_order_without_a_gap(objects in objects(), seed in prop::collection::vec(any::<u32>(), 1..20)) {
            let (frames, sizes) = frames(&objects);
            let shares = sizes.iter().map(|size| Share { range: 0..*size, whole: true, again: vec![] }).collect();
            let steps = plan(&shuffled(frames.clone(), &seed), shares);
            let mut ends = vec![0; sizes.len()];
            for step in &steps {
                prop_assert!(step.in_order && step.range.end - step.range.start <= LARGEST_FETCH + GAP);
                let end = &mut ends[step.object as usize];
                prop_assert_eq!(step.range.start, *end);
                *end = step.range.end;
            }
            prop_assert_eq!(ends, sizes);
            prop_assert_eq!(count(&steps).len(), frames.len());
        }

        #[test]
        fn in_any_order_every_frame_is_read(objects in objects(), whole: bool, seed: u64) {
            let (frames, sizes) = frames(&objects);
            let mut walk = frames.clone();
            walk.sort_by_key(|f| (f.offset ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let shares = sizes.iter().map(|size| Share { range: 0..*size, whole, again: vec![] }).collect();
            prop_assert_eq!(count(&plan(&walk, shares)).into_keys().collect::<Vec<_>>(), frames);
        }

        #[test]
        fn what_was_damaged_is_read_again_by_itself_and_changes_nothing_of_the_rest(objects in objects(), seed in prop::collection::vec(any::<u32>(), 1..20), part in 1..4_u32) {
            let (frames, sizes) = frames(&objects);
            let walk = shuffled(frames.clone(), &seed);
            let subset = Subset::parse(&format!("{part}/3"), jiff::Timestamp::UNIX_EPOCH).expect("good");
            let share = |again: Vec<u64>| sizes.iter().map(|size| Share { range: subset.range(*size), whole: false, again: again.clone() }).collect();
            let again: Vec<_> = frames.iter().step_by(3).map(|f| f.offset).collect();
            let is_due = |step: &Step| subset.range(sizes[step.object as usize]).contains(&step.range.start);
            let (due, more): (Vec<_>, Vec<_>) = plan(&walk, share(again.clone())).into_iter().partition(is_due);
            let of = |steps: &[Step], object: usize| steps.iter().filter(|s| s.object as usize == object).cloned().collect::<Vec<_>>();
            let usual = plan(&walk, share(vec![]));
            for object in 0..sizes.len() {
                prop_assert_eq!(of(&due, object), of(&usual, object));
            }
            prop_assert!(more.iter().all(|s| s.frames.len() == 1 && !s.in_order));
            let read = count(&[due, more].concat());
            prop_assert!(frames.iter().filter(|f| again.contains(&f.offset)).all(|f| read.get(f) == Some(&1)));
        }
    }
}
