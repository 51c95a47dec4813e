//! `outlier`: what ejects endpoints, and for how long.

use crate::config::setting::settings;
use crate::config::values::{Count, OrOff, Percent, Period, Switch};
use crate::policy::outlier;

settings! {
    /// Which endpoints get no requests for a while. What counts as a failure:
    /// no connection, a reset, a timeout, a status from 500 to 599.
    Outlier for outlier::Settings as outlier {
        /// So many failures without a success between them eject an endpoint.
        consecutive: OrOff<Count<1>> = outlier.consecutive,
        /// Whether an endpoint is ejected whose share of successes in an
        /// `interval` is more than 1.9 standard deviations below the mean. Only
        /// endpoints with 100 requests in it are compared, five at least.
        success_rate: Switch = outlier.success_rate,
        /// How often shares of successes are compared, and how long an endpoint
        /// has to do well until one of its ejections is forgotten.
        interval: Period = outlier.interval,
        /// How long the first ejection lasts; each further one lasts longer by
        /// this, up to 5 min. One request is then sent there as a probe.
        base_ejection: Period = outlier.base_ejection,
        /// The share of endpoints that may be ejected at a time. One may be in
        /// any case, but never the last. Others that fail as often are avoided:
        /// they get requests where no other is left. Where fewer than half are not
        /// ejected, ejections are ignored.
        max_ejected: Percent = outlier.max_ejected,
    }
}
