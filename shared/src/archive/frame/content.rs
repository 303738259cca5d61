//! What a frame holds, where it stands.

/// A frame's content: slices that follow each other.
#[derive(Debug, Clone, Default)]
pub struct Content<'a> {
    slices: Vec<&'a [u8]>,
    /// Where each of them ends in the content.
    ends: Vec<usize>,
}

impl<'a> Content<'a> {
    /// In one piece.
    pub fn whole(plain: &'a [u8]) -> Self {
        Self { slices: vec![plain], ends: vec![plain.len()] }
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The bytes from `begin` to `end`, in one slice or more; both are within the content.
    pub fn slices(&self, begin: usize, end: usize) -> impl Iterator<Item = &'a [u8]> {
        let first = self.ends.partition_point(|slice_end| *slice_end <= begin);
        let slices = self.slices[first..].iter().zip(&self.ends[first..]);
        let touched = slices
            .map(|(slice, slice_end)| (slice, slice_end - slice.len()))
            .take_while(move |(_, start)| *start < end);
        touched.map(move |(slice, start)| &slice[begin.saturating_sub(start)..slice.len().min(end - start)])
    }
}

impl<'a> Extend<&'a [u8]> for Content<'a> {
    fn extend<I: IntoIterator<Item = &'a [u8]>>(&mut self, slices: I) {
        for slice in slices {
            self.ends.push(self.size() + slice.len());
            self.slices.push(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_part_of_slices_is_the_part_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6), (a, b) in (0_usize..200, 0_usize..200),
        ) {
            let plain = pieces.concat();
            let (begin, end) = (a.min(b).min(plain.len()), a.max(b).min(plain.len()));
            let mut in_pieces = Content::default();
            in_pieces.extend(pieces.iter().map(|piece| &piece[..]));
            for content in [Content::whole(&plain), in_pieces] {
                prop_assert_eq!(content.size(), plain.len());
                prop_assert_eq!(content.slices(begin, end).collect::<Vec<_>>().concat(), &plain[begin..end]);
            }
        }
    }
}
