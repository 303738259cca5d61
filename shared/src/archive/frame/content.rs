//! What a frame holds, where it stands.

/// A frame's content: slices of one length, but for the last, which is no longer.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    slices: Vec<&'a [u8]>,
    each: usize,
}

impl<'a> Content<'a> {
    /// In one piece.
    pub fn whole(plain: &'a [u8]) -> Self {
        Self { slices: vec![plain], each: plain.len().max(1) }
    }

    /// In slices of `each` bytes.
    pub(super) fn of_slices(slices: Vec<&'a [u8]>, each: usize) -> Self {
        Self { slices, each }
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.slices.iter().map(|s| s.len()).sum()
    }

    /// The bytes from `begin` to `end`, in one slice or more; both are within the content.
    pub fn slices(&self, begin: usize, end: usize) -> impl Iterator<Item = &'a [u8]> {
        let (each, first) = (self.each, begin / self.each);
        let slices = self.slices[first..end.div_ceil(each).max(first)].iter();
        slices.enumerate().map(move |(n, slice)| {
            let start = (first + n) * each;
            &slice[begin.saturating_sub(start)..slice.len().min(end - start)]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_part_of_slices_is_the_part_of_the_whole(
            plain in prop::collection::vec(any::<u8>(), 1..200), each in 1_usize..80, (a, b) in (0_usize..200, 0_usize..200),
        ) {
            let (begin, end) = (a.min(b).min(plain.len()), a.max(b).min(plain.len()));
            for content in [Content::whole(&plain), Content::of_slices(plain.chunks(each).collect(), each)] {
                prop_assert_eq!(content.size(), plain.len());
                prop_assert_eq!(content.slices(begin, end).collect::<Vec<_>>().concat(), &plain[begin..end]);
            }
        }
    }
}
