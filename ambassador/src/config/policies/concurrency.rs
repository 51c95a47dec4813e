//! `concurrency`: whether the limit of requests in flight adapts, and its bounds.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, choice};
use crate::policy::concurrency;

settings! {
    /// A limit of the requests in flight that is found out from the latency.
    Concurrency for concurrency::Settings as concurrency, checked by min_within_max {
        /// Whether there is an adaptive limit. A request over it is `overloaded`.
        /// Requests whose response head has arrived do not count.
        adaptive: Adaptive = concurrency.adaptive,
        /// The limit is never lower, and starts here.
        min: Count<1> = concurrency.min,
        /// The limit is never higher; nor is it higher than `pool.max_requests`.
        max: Count<1> = concurrency.max,
    }
}

choice! {
    /// Whether the limit of requests in flight adapts to the upstream.
    Adaptive: bool {
        /// It is `pool.max_requests` alone.
        Off = "off" => false,
        /// It falls when latency shows a queue, and rises while there is none.
        On = "on" => true,
    }
}

/// Said where it was written: the layer may set only one of the two.
fn min_within_max(
    written: &Concurrency,
    _: &Place,
    concurrency: &mut concurrency::Settings,
    layer: &mut Layer<'_>,
) {
    let concurrency::Settings { min, max, .. } = *concurrency;
    let at = written.min.as_ref().or(written.max.as_ref());
    if let Some(at) = at.filter(|_| min > max) {
        let what = format!("min {min} is over max {max}");
        layer.findings.mistake_at(at, what);
    }
}
