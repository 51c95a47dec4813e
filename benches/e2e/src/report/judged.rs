//! Targets, and what came of them.

use serde::Serialize;

use super::{Report, Spread};
use crate::targets::limits::{self, Alone, Limit};
use crate::targets::{self, Bound, Target, Why};
use crate::variant::Variant;

/// A target and what came of it.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// In words.
    pub text: String,
    /// The scenario, where it is of one.
    pub scenario: Option<&'static str>,
    /// What was to be kept.
    pub bound: Bound,
    /// Median of the rounds' ratios, and the least and the greatest; none where
    /// a side was not measured.
    pub ratio: Option<Spread>,
    /// Why it was missed, where it was, and that is known.
    pub why: Option<Why>,
}

impl Judged {
    /// All of them.
    pub fn all(report: &Report) -> Vec<Self> {
        let ratios = targets::all();
        let limits = limits::all();
        let ratios = ratios.iter().map(|target| Self::ratio(report, target));
        let limits = limits.iter().map(|limit| Self::limit(report, limit));
        ratios.chain(limits).collect()
    }

    /// Whether the target was reached; none where it was not measured.
    pub fn is_reached(&self) -> Option<bool> {
        self.ratio.map(|ratio| self.bound.holds(ratio.shown))
    }

    /// The same as a word.
    pub fn verdict(&self) -> &'static str {
        match self.is_reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "not measured",
        }
    }

    fn ratio(report: &Report, target: &Target) -> Self {
        let value = |scenario, variant, round| {
            if report.is_only_tried(scenario) {
                return None;
            }
            let direct = report.find(scenario, Variant::Direct, round);
            let sample = report.find(scenario, variant, round)?;
            target.figure.value(sample, direct)
        };
        let ratios = (0..report.rounds).filter_map(|round| {
            let of = value(target.scenario, target.of, round)?;
            Some(of / value(target.by_scenario, target.by, round)?)
        });
        Self {
            text: format!("{} ({:?})", target.text, target.figure),
            scenario: Some(target.scenario),
            bound: target.bound,
            ratio: Spread::of(ratios.collect()),
            why: None,
        }
        .explained(target.why)
    }

    fn limit(report: &Report, limit: &Limit) -> Self {
        let value = report.alone(limit.of);
        Self {
            text: limit.text.to_owned(),
            scenario: None,
            bound: limit.bound,
            ratio: value.and_then(|value| Spread::of(vec![value])),
            why: None,
        }
        .explained(limit.why)
    }

    fn explained(self, why: Option<Why>) -> Self {
        let missed = self.is_reached() == Some(false);
        Self {
            why: why.filter(|_| missed),
            ..self
        }
    }
}

impl Report {
    fn is_only_tried(&self, scenario: &str) -> bool {
        let mut scenarios = self.scenarios.iter();
        scenarios.any(|known| known.name == scenario && known.is_only_tried)
    }

    /// A figure that is compared with nothing.
    fn alone(&self, figure: Alone) -> Option<f64> {
        let memory = |of| {
            let mut all = self.memory.iter();
            let found = all.find(|(variant, _)| *variant == of);
            found.map(|(_, memory)| memory)
        };
        let of_tls = |of| {
            let mut all = self.tls_memory.iter();
            let found = all.find(|(variant, _)| *variant == of);
            found.map(|(_, memory)| memory)
        };
        let mebibytes = |bytes: u64| bytes as f64 / 1048576.0;
        match figure {
            Alone::TlsIdle => Some(mebibytes(of_tls(Variant::ListenerTls)?.idle)),
            Alone::TlsIdleBy(other) => {
                let (ours, theirs) = (of_tls(Variant::ListenerTls)?, of_tls(other)?);
                Some(ours.idle as f64 / theirs.idle as f64)
            }
            Alone::TlsIdleConnectionBy(other) => {
                let (ours, theirs) = (of_tls(Variant::ListenerTls)?, of_tls(other)?);
                Some(ours.idle_connection / theirs.idle_connection)
            }
            Alone::AtRest => Some(mebibytes(memory(Variant::Ebpf)?.at_rest)),
            Alone::IdleConnection => {
                let memory = memory(Variant::Listener)?;
                let more = memory.with_idle?.saturating_sub(memory.at_rest);
                Some(more as f64 / 1024e3)
            }
            Alone::AfterBurst => {
                let memory = memory(Variant::Ebpf)?;
                Some(mebibytes(memory.after.saturating_sub(memory.at_rest)))
            }
            Alone::Uncaptured => {
                let connect = |variant| {
                    let rounds = (0..self.rounds)
                        .filter_map(|round| self.find(targets::NEW, variant, round)?.connect_p50);
                    Spread::of(rounds.collect()).map(|spread| spread.shown)
                };
                Some(connect(Variant::EbpfExcluded)? - connect(Variant::Direct)?)
            }
            Alone::FirstAnswer => Some(self.start_up.as_ref()?.listener),
            Alone::FirstAnswerCaptured => Some(self.start_up.as_ref()?.exec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(value: f64) -> Judged {
        let why = Why {
            sentence: "It has a reason.",
            profile: "a test",
        };
        Judged {
            text: String::new(),
            scenario: None,
            bound: Bound::AtMost(1.0),
            ratio: Spread::of(vec![value]),
            why: None,
        }
        .explained(Some(why))
    }

    #[test]
    fn only_what_is_missed_is_explained() {
        assert_eq!((judged(0.9).verdict(), judged(0.9).why), ("reached", None));
        assert_eq!(judged(1.1).verdict(), "MISSED");
        assert!(judged(1.1).why.is_some());
        assert_eq!(judged(f64::NAN).verdict(), "not measured");
        assert!(judged(f64::NAN).why.is_none());
    }
}
