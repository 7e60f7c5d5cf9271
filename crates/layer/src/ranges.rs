//! Sets of byte ranges.

use std::ops::Range;

/// A set of bytes, kept as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// The ranges, sorted.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }

    /// How many bytes are in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether every byte of `range` is in the set; true of empty ranges.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let i = self.0.partition_point(|r| r.end < range.end);
        self.0.get(i).is_some_and(|r| r.start <= range.start)
    }

    /// The parts of `range` that are not in the set.
    pub fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = range.start;
        let first = self.0.partition_point(|r| r.end <= range.start);
        for known in self.0[first..].iter().take_while(|r| r.start < range.end) {
            if from < known.start {
                gaps.push(from..known.start);
            }
            from = known.end;
        }
        if from < range.end {
            gaps.push(from..range.end);
        }
        gaps
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_unstable_by_key(|r| r.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(
            parts in prop::collection::vec((0u64..60, 0u64..8), 0..12),
            (start, length) in (0u64..60, 0u64..20),
        ) {
            let set: Ranges = parts.iter().map(|(s, l)| *s..s + l).collect();
            let has = |b: u64| parts.iter().any(|(s, l)| (*s..s + l).contains(&b));
            let asked = start..start + length;
            let lacking: Vec<u64> = asked.clone().filter(|b| !has(*b)).collect();
            prop_assert_eq!(set.missing(&asked).into_iter().flatten().collect::<Vec<_>>(), lacking.clone());
            prop_assert_eq!(set.contains(&asked), lacking.is_empty());
            prop_assert_eq!(set.total(), (0..80).filter(|b| has(*b)).count() as u64);
        }
    }
}
