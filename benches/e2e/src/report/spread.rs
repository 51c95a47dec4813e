//! A figure over several rounds.

use serde::Serialize;

/// What is shown of a figure, and the range of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The median of the rounds, where nothing better is known.
    pub shown: f64,
    /// The least of a round.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of the rounds; none where there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values.get(middle)? + values.get(middle.checked_sub(1)?)?) / 2.0,
            _ => *values.get(middle)?,
        };
        Some(Self {
            shown: median,
            least: *values.first()?,
            greatest: *values.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_its_median_and_its_ends() {
        let spread = Spread::of(vec![3.0, 1.0, f64::NAN, 2.0]).unwrap();
        assert_eq!(
            (spread.least, spread.shown, spread.greatest),
            (1.0, 2.0, 3.0)
        );
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
