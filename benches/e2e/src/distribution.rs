//! Distributions of times, as `ambassador-load` writes them: an HDR histogram in
//! nanoseconds, V2 encoding, base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// A distribution. Encoded it takes a few kilobytes, decoded some hundred.
#[derive(Debug, Clone)]
pub struct Distribution(Vec<u8>);

/// Several distributions as one.
#[derive(Debug)]
pub struct Merged(Histogram<u64>);

impl Distribution {
    /// From one of the times in a report of `ambassador-load`.
    pub fn read(times: &serde_json::Value) -> Option<Self> {
        let bytes = STANDARD.decode(times["hdr_v2_ns"].as_str()?).ok()?;
        decoded(&bytes)?;
        Some(Self(bytes))
    }
}

impl Merged {
    /// All that was recorded in any of them; none where nothing was.
    pub fn of<'a>(distributions: impl IntoIterator<Item = &'a Distribution>) -> Option<Self> {
        let mut all = distributions
            .into_iter()
            .filter_map(|Distribution(bytes)| decoded(bytes));
        let mut merged = all.next()?;
        for next in all {
            merged
                .add(next)
                .expect("all histograms of the generator have the same bounds");
        }
        (!merged.is_empty()).then_some(Self(merged))
    }

    /// The time that this part of all is not longer than, in microseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1000.0
    }
}

fn decoded(bytes: &[u8]) -> Option<Histogram<u64>> {
    Deserializer::new().deserialize(&mut &*bytes).ok()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2Serializer};

    use super::*;

    fn times(microseconds: impl Iterator<Item = u64>) -> serde_json::Value {
        let mut histogram = Histogram::<u64>::new_with_max(3_600_000_000_000, 3).unwrap();
        for time in microseconds {
            histogram.record(time * 1000).unwrap();
        }
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&histogram, &mut bytes)
            .unwrap();
        serde_json::json!({ "hdr_v2_ns": STANDARD.encode(bytes) })
    }

    #[test]
    fn a_quantile_of_several_is_that_of_all_they_recorded() {
        // Medians of 50 and 1000, and far more of the former.
        let few = Distribution::read(&times(999..1002)).unwrap();
        let many = Distribution::read(&times(1..100)).unwrap();
        let merged = Merged::of([&few, &many]).unwrap();
        assert!((merged.quantile(0.5) - 51.0).abs() < 0.1, "{merged:?}");
        assert!((merged.quantile(1.0) - 1001.0).abs() < 1.0, "{merged:?}");
    }

    #[test]
    fn nothing_recorded_has_no_quantiles() {
        let none = Distribution::read(&times(std::iter::empty())).unwrap();
        assert!(Merged::of([&none]).is_none());
        assert!(Merged::of([]).is_none());
        assert!(Distribution::read(&serde_json::Value::Null).is_none());
    }
}
