//! `hedge`: when a second try is made beside a slow one.

use crate::config::setting::settings;
use crate::config::values::{HedgeAfter, Percent};
use crate::policy::hedge;

settings! {
    /// When a second try is made beside a slow one. The first response is passed
    /// on, and the other try given up.
    Hedge for hedge::Settings as hedge {
        /// When the second try is made: after a time, or `p95`: when the first
        /// takes longer than 95 of 100 recent responses of the upstream, as this
        /// thread has measured them.
        after: HedgeAfter = hedge.after,
        /// Second tries as a share of the requests of the last 10 s, over all
        /// threads.
        budget: Percent = hedge.budget,
    }
}
