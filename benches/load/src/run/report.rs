//! What a run says: one JSON object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde::Serialize;

use super::errors::Errors;
use super::generator::{Load, Outcome};
use super::{Reuse, Settings};
use crate::protocol::Protocol;

/// Figures of one run. Fields of what was not measured are absent.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was spoken.
    pub protocol: Protocol,
    /// Bytes per answer.
    pub size: u64,
    /// Concurrent requests at most, and kept connections.
    pub connections: usize,
    /// Whether each request had a connection of its own.
    pub new_connections: bool,
    /// Valid answers in the window.
    pub requests: u64,
    /// All requests without one.
    pub errors_total: u64,
    /// The same by kind.
    pub errors: Errors,
    /// The length of the window, in seconds.
    pub seconds: f64,
    /// Valid answers that came within the window, per second of it.
    pub requests_per_second: f64,
    /// Kept connections that the peer closed or that failed, opened anew.
    pub reconnects: u64,
    /// From when a request was due (closed loop: begun) to the last byte of its
    /// answer.
    pub latency: Latency,
    /// With a connection per request: the time of the connect() call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_call: Option<Latency>,
    /// With a connection per request: from connect() to an established
    /// connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established: Option<Latency>,
    /// Of an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoopReport>,
}

/// What an open loop has besides.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoopReport {
    /// Requests due per second.
    pub rate: u64,
    /// Requests in the window that were sent later than `late_after_us` after
    /// they could have been: where there are many, the sample tells of the
    /// generator and not of what it measures.
    pub generator_late: u64,
    /// In microseconds.
    pub late_after_us: u64,
    /// What the generator itself added before it sent.
    pub start_delay: Latency,
    /// Whether the queue of due requests ran over.
    pub saturated: bool,
    /// Requests that were not sent for that reason, the warm-up included.
    pub overflowed: u64,
    /// The most requests that waited for a connection.
    pub queue_peak: usize,
    /// How many waited when the window ended.
    pub queue_at_end: usize,
}

/// A distribution of times.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// In microseconds.
    pub us: Microseconds,
    /// HDR histogram in nanoseconds, V2 encoding, base64.
    pub hdr_v2_ns: String,
}

/// Points of a distribution, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Microseconds {
    /// The shortest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// 90 % are shorter.
    pub p90: f64,
    /// 99 % are shorter.
    pub p99: f64,
    /// 99.9 % are shorter.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Report {
    /// The report of a run that was done with `settings`.
    pub fn new(settings: &Settings, outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let seconds = settings.length.as_secs_f64();
        let of_connects = |histogram| match settings.reuse {
            Reuse::KeepAlive => None,
            Reuse::NewConnections => Some(Latency::new(histogram)),
        };
        Self {
            protocol: settings.protocol,
            size: settings.size,
            connections: settings.connections,
            new_connections: settings.reuse == Reuse::NewConnections,
            requests: tally.requests(),
            errors_total: tally.errors().total(),
            errors: tally.errors().clone(),
            seconds,
            requests_per_second: tally.in_window() as f64 / seconds,
            reconnects: tally.reconnects(),
            latency: Latency::new(tally.latency()),
            connect_call: of_connects(tally.connect_calls()),
            established: of_connects(tally.establishments()),
            open_loop: OpenLoopReport::new(settings, outcome),
        }
    }
}

impl OpenLoopReport {
    fn new(settings: &Settings, outcome: &Outcome) -> Option<Self> {
        let (Some(rate), Load::Open(open)) = (settings.rate, &outcome.load) else {
            return None;
        };
        let delays = outcome.tally.start_delays();
        let threshold = settings.late_after.as_nanos() as u64;
        let in_time = delays.count_between(0, threshold);
        Some(Self {
            rate: rate.get(),
            generator_late: delays.len() - in_time,
            late_after_us: settings.late_after.as_micros() as u64,
            start_delay: Latency::new(delays),
            saturated: open.overflowed() > 0,
            overflowed: open.overflowed(),
            queue_peak: open.queue_peak(),
            queue_at_end: outcome.waiting_at_end,
        })
    }
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let mut encoded = Vec::new();
        V2Serializer::new()
            .serialize(histogram, &mut encoded)
            .expect("a vector takes all that is written");
        Self {
            us: Microseconds {
                min: histogram.min() as f64 / 1000.0,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                max: histogram.max() as f64 / 1000.0,
                mean: histogram.mean() / 1000.0,
            },
            hdr_v2_ns: STANDARD.encode(encoded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_its_encoding() {
        let mut histogram = Histogram::new_with_max(3_600_000_000_000, 3).unwrap();
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000).unwrap();
        }
        let latency = Latency::new(&histogram);
        let encoded = STANDARD.decode(&latency.hdr_v2_ns).unwrap();
        let decoded: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut encoded.as_slice())
            .unwrap();
        assert_eq!(decoded, histogram);
        assert!((latency.us.p50 - 500.0).abs() < 1.0, "{}", latency.us.p50);
        assert!((latency.us.max - 1000.0).abs() < 1.0, "{}", latency.us.max);
    }
}
