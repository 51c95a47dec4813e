//! Counts by key.

/// Counts by key where few keys occur: a list, the frequent ones drifting to
/// its front, so that the usual count is one comparison. The sets of keys are
/// closed; the largest, methods by statuses by reasons, has some thousands.
#[derive(Debug, Clone)]
pub(super) struct Tally<K> {
    /// The frequent ones first, as a rule.
    pub(super) counts: Vec<(K, u64)>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { counts: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Tally<K> {
    /// Counts under a coarser key what is new beyond `max` keys.
    pub(super) fn count_within(&mut self, max: usize, key: K, coarser: impl Fn(K) -> K) {
        let is_full = self.counts.len() >= max;
        let is_known = |counts: &[(K, u64)]| counts.iter().any(|(known, _)| *known == key);
        match is_full && !is_known(&self.counts) {
            true => self.count(coarser(key)),
            false => self.count(key),
        }
    }

    pub(super) fn count(&mut self, key: K) {
        let at = self.add(key, 1);
        if at > 0 && self.counts[at].1 > self.counts[at - 1].1 {
            self.counts.swap(at, at - 1);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            self.add(*key, *count);
        }
    }

    fn add(&mut self, key: K, count: u64) -> usize {
        match self.counts.iter().position(|(known, _)| *known == key) {
            Some(at) => {
                self.counts[at].1 += count;
                at
            }
            None => {
                self.counts.push((key, count));
                self.counts.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_key_drifts_to_the_front() {
        let mut tally = Tally::default();
        tally.count("rare");
        for _ in 0..3 {
            tally.count("frequent");
        }
        assert_eq!(tally.counts, [("frequent", 3), ("rare", 1)]);
    }
}
