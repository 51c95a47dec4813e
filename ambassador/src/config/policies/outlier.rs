//! `outlier`: what ejects endpoints, and for how long.

use crate::config::setting::settings;
use crate::config::values::{Count, OrOff, Percent, Period, Switch};
use crate::policy::outlier;

settings! {
    /// Which endpoints get no requests for a while. What counts as a failure:
    /// no connection, a reset, a timeout, a status from 500 to 599.
    Outlier for outlier::Settings as outlier {
        /// This many failures in a row eject an endpoint.
        consecutive: OrOff<Count<1>> = outlier.consecutive,
        /// Whether an endpoint is ejected when its share of successes in an
        /// `interval` is more than 1.9 standard deviations below the mean. Only
        /// endpoints with 100 requests in the interval are compared, and at least
        /// five of them.
        success_rate: Switch = outlier.success_rate,
        /// How often shares of successes are compared, and how long an endpoint
        /// must work until one of its ejections is forgotten.
        interval: Period = outlier.interval,
        /// How long the first ejection lasts. Each further one lasts longer by
        /// this time, up to 5 min. Then one request is sent as a probe.
        base_ejection: Period = outlier.base_ejection,
        /// The share of endpoints that may be ejected at a time. One always may
        /// be, but never the last. Others that fail as often are avoided: they
        /// get requests only if no other endpoint is left. When fewer than half
        /// of the endpoints are not ejected, ejections are ignored.
        max_ejected: Percent = outlier.max_ejected,
    }
}
