//! How much the counts of collections go up and down while a capture runs.
//!
//! A backup holds one instant between two counts, and a client that writes and deletes can make that instant's count lie outside of
//! both. A restore that were measured by the two alone would be refused for a single object, on the day that it is needed. So counts are
//! also taken while the capture runs. How far the captured count may lie outside is what was seen outside, and for what happened
//! between two looks the longest step from one to the next, at least one in a hundred objects: as many may come as go. Where nothing is
//! written it is 0, and a restore must have every object.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::{Counted, Engine};

/// The least time between two counts.
const PAUSE: Duration = Duration::from_millis(200);
/// Parts of the time that are spent counting: one of so many.
const SHARE: u32 = 10;
/// Of objects that are written to, one in so many may have come or gone unseen.
const COME_AND_GO: u64 = 100;

/// The counts of every collection, one after the other in time.
#[derive(Debug, Default)]
pub(super) struct Churn(Vec<BTreeMap<String, Look>>);

#[derive(Debug, Clone, Copy, Default)]
struct Look {
    count: u64,
    changes: u64,
}

impl Churn {
    /// Counts that were taken later than those before.
    pub(super) fn add<'a>(&mut self, counted: impl IntoIterator<Item = &'a Counted>) {
        let look = |c: &Counted| (c.name.clone(), Look { count: c.count, changes: c.changes });
        self.0.push(counted.into_iter().map(look).collect());
    }

    /// How far a count between the first and the last may lie outside of these two.
    pub(super) fn of(&self, collection: &str) -> u64 {
        let looks: Vec<Look> = self.0.iter().map(|c| c.get(collection).copied().unwrap_or_default()).collect();
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return 0 };
        let (low, high) = (first.count.min(last.count), first.count.max(last.count));
        let outside = looks.iter().map(|l| low.saturating_sub(l.count).max(l.count.saturating_sub(high)));
        let steps = looks.windows(2).map(|l| l[0].count.abs_diff(l[1].count).max(l[0].changes.abs_diff(l[1].changes)));
        let (outside, step) = (outside.max().unwrap_or(0), steps.max().unwrap_or(0));
        if step == 0 { 0 } else { outside + step.max((high + outside) / COME_AND_GO) }
    }

    /// Does `work`, and counts while it is done. An engine that does not answer a count meanwhile is not counted any more: the
    /// count after the capture, which has to be there, tells what is wrong with it.
    pub(super) async fn during<T>(&mut self, engine: &dyn Engine, work: impl Future<Output = T>) -> T {
        let counting = async {
            loop {
                let begun = Instant::now();
                match engine.count().await {
                    Ok(counted) => self.add(&counted),
                    Err(_) => std::future::pending().await,
                }
                sleep(PAUSE.max(begun.elapsed() * SHARE)).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = counting => never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churn(looks: &[(u64, u64)]) -> u64 {
        let mut churn = Churn::default();
        for (count, changes) in looks {
            churn.add(&[Counted { name: "Doc".into(), count: *count, changes: *changes, ..Counted::default() }]);
        }
        churn.of("Doc")
    }

    fn of_counts(counts: &[u64]) -> u64 {
        churn(&counts.iter().map(|c| (*c, 0)).collect::<Vec<_>>())
    }

    #[test]
    fn a_count_may_lie_as_far_outside_as_it_was_seen_to_and_a_step_more() {
        for (counts, expected) in [
            (&[][..], 0),
            (&[7], 0),
            (&[70_000, 70_000, 70_000], 0),
            (&[7, 8], 1),
            (&[8, 7], 1),
            (&[10, 20, 30], 10),
            (&[10, 12, 10], 2 + 2),
            (&[10, 7, 10], 3 + 3),
            (&[10, 0, 0, 5], 5 + 10),
            (&[1000, 1001, 1000], 1 + 10),
        ] {
            assert_eq!(of_counts(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn changes_that_the_counts_do_not_show_are_known_by_the_engines_own_number() {
        assert_eq!(churn(&[(50, 7), (50, 7)]), 0);
        assert_eq!(churn(&[(50, 7), (50, 9)]), 2);
        assert_eq!(churn(&[(50, 7), (50, 0), (51, 1)]), 7, "a save makes the number begin anew");
    }

    #[test]
    fn a_collection_that_was_not_there_had_nothing() {
        let mut churn = Churn::default();
        churn.add(&[]);
        churn.add(&[Counted { name: "New".into(), count: 3, ..Counted::default() }]);
        assert_eq!((churn.of("New"), churn.of("Other")), (3, 0));
    }
}
