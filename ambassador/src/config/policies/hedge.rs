//! `hedge`: when a second try is made beside a slow one.

use crate::config::setting::settings;
use crate::config::values::{HedgeAfter, Percent};
use crate::policy::hedge;

settings! {
    /// When a second try is made beside a slow one. The first response is passed
    /// on, and the other try given up.
    Hedge for hedge::Settings as hedge {
        /// How slow: `p95` is more than 95 of 100 answers of the upstream took
        /// lately, as far as this thread has seen; or a time; or `off`.
        after: HedgeAfter = hedge.after,
        /// Second tries as a share of the requests of the last 10 s, over all
        /// threads.
        budget: Percent = hedge.budget,
    }
}
