//! A limit on the bytes a second, for lines that others need too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keeps to a number of bytes a second, if there is one: all that goes by it and its clones together.
#[derive(Clone)]
pub struct Pace {
    rate: Option<u64>,
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// Bytes a second; `None` is as fast as it goes.
    pub fn new(rate: Option<u64>) -> Self {
        Self { rate, next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until `size` more bytes may go.
    pub(super) async fn wait(&self, size: u64) {
        if let Some(begin) = self.begin(size, Instant::now()) {
            tokio::time::sleep_until(begin.into()).await;
        }
    }

    /// When `size` more bytes may go that are ready `now`. Time in which nothing was ready is not made up for.
    fn begin(&self, size: u64, now: Instant) -> Option<Instant> {
        let rate = self.rate.filter(|r| *r > 0)?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.max(*next);
        #[allow(clippy::cast_precision_loss)] // a second more or less in a petabyte
        let takes = Duration::from_secs_f64(size as f64 / rate as f64);
        *next = begin + takes;
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_bandwidth_is_kept_to_and_lost_time_is_not_made_up_for() {
        let pace = Pace::new(Some(4 * MIB));
        let start = *pace.next.lock().expect("a time");
        let other = pace.clone();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        // Each part goes when those before it had their time, however early it is ready.
        for (size, ready, goes) in [(8, 0, 0), (8, 0, 2), (4, 1, 4), (0, 1, 5), (4, 100, 100), (4, 100, 101)] {
            let pace = if ready == 1 { &other } else { &pace };
            assert_eq!(pace.begin(size * MIB, at(ready)), Some(at(goes)), "{size} MiB, ready after {ready} s");
        }
        for none in [None, Some(0)] {
            assert_eq!(Pace::new(none).begin(MIB, start), None);
        }
    }
}
