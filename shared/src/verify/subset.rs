//! Which part of the data is read: a small one each day, so that every few days all of it was.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;

/// Nobody verifies a smaller part than this.
const MOST: u32 = 10_000;

/// Part `part` of `of`, counted from 1. Every object is cut into `of` parts of the same length; a frame belongs to the part in
/// which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    part: u32,
    of: u32,
}

impl Subset {
    /// `1/7` is the first of seven parts; `7` is the part that is due at `now`, another one each day (UTC).
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a number"));
        let subset = match text.split_once('/') {
            Some((part, of)) => Self { part: number(part)?, of: number(of)? },
            None => Self::by_date(number(text)?.max(1), now),
        };
        if (1..=subset.of).contains(&subset.part) && subset.of <= MOST && text != "0" {
            return Ok(subset);
        }
        Err(format!("{text} is no part of a whole: 1/{MOST} is the smallest, as in 1/7, 2/7 … 7/7"))
    }

    /// The part that is due at `now`.
    pub fn by_date(of: u32, now: Timestamp) -> Self {
        let day = now.as_second().div_euclid(24 * 60 * 60);
        let part = u32::try_from(day.rem_euclid(i64::from(of))).unwrap_or(0) + 1;
        Self { part, of }
    }

    /// Which bytes of an object of `size` bytes are its own. The parts of an object touch and do not overlap.
    pub fn range(self, size: u64) -> Range<u64> {
        let cut = |part: u32| {
            let at = u128::from(size) * u128::from(part) / u128::from(self.of);
            u64::try_from(at).unwrap_or(size)
        };
        cut(self.part - 1)..cut(self.part)
    }

    /// Whether the object with this number is read, where objects are read whole or not at all.
    pub fn has_object(self, number: usize) -> bool {
        number % self.of as usize == self.part as usize - 1
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    #[test]
    fn the_parts_of_a_whole_touch() {
        for (size, of) in [(0, 3), (1, 7), (7, 7), (1000, 7), (u64::MAX, 10_000)] {
            let mut end = 0;
            for part in 1..=of {
                let range = Subset { part, of }.range(size);
                assert_eq!(range.start, end);
                end = range.end;
            }
            assert_eq!(end, size);
        }
    }

    #[test]
    fn every_day_is_another_part() {
        let on = |day: i64| Subset::parse("7", Timestamp::from_second(day * DAY + 5).expect("in range")).expect("good");
        let parts: Vec<_> = (20_000..20_008).map(|day| on(day).part).collect();
        assert_eq!(parts[0], parts[7]);
        let mut sorted = parts[..7].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn no_part_is_refused_and_a_part_is_said_as_it_was_asked_for() {
        for bad in ["", "0", "0/7", "8/7", "1/0", "x", "1/20000", "-1", "20000"] {
            assert!(Subset::parse(bad, Timestamp::UNIX_EPOCH).is_err(), "{bad}");
        }
        assert_eq!(Subset::parse("3/7", Timestamp::UNIX_EPOCH).expect("good").to_string(), "3/7");
    }
}
