//! A set of response statuses.

use std::fmt;

/// The lowest and highest status there can be (RFC 9110 section 15).
const FIRST: u16 = 100;
const LAST: u16 = 599;

/// Statuses from 100 to 599, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses([u64; 8]);

impl Statuses {
    /// Adds every status of the range; those that cannot be are left out.
    pub fn with(mut self, statuses: std::ops::RangeInclusive<u16>) -> Self {
        for status in statuses {
            if let Some((word, bit)) = place(status) {
                self.0[word] |= bit;
            }
        }
        self
    }

    /// Whether the status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Whether there is none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn place(status: u16) -> Option<(usize, u64)> {
    let index = (FIRST..=LAST).contains(&status).then(|| status - FIRST)?;
    Some((usize::from(index / 64), 1 << (index % 64)))
}

/// As the file writes it: single statuses and ranges, `429, 500-599`.
impl fmt::Display for Statuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut status = FIRST;
        while status <= LAST {
            if !self.contains(status) {
                status += 1;
                continue;
            }
            let start = status;
            while self.contains(status + 1) {
                status += 1;
            }
            if !std::mem::take(&mut first) {
                out.write_str(", ")?;
            }
            match start == status {
                true => write!(out, "{start}")?,
                false => write!(out, "{start}-{status}")?,
            }
            status += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_statuses() {
        let set = Statuses::default()
            .with(500..=599)
            .with(429..=429)
            .with(100..=101);
        for (status, expected) in [
            (99, false),
            (100, true),
            (102, false),
            (429, true),
            (499, false),
            (500, true),
            (599, true),
            (600, false),
            (u16::MAX, false),
        ] {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        assert_eq!(set.to_string(), "100-101, 429, 500-599");
        assert!(Statuses::default().is_empty() && !set.is_empty());
    }

    #[test]
    fn statuses_that_cannot_be_are_left_out() {
        assert!(Statuses::default().with(600..=700).is_empty());
        assert!(Statuses::default().with(0..=99).is_empty());
    }
}
