//! Requests through all of a shard, between scripted callers and endpoints.

mod admission;
mod beside;
mod binding;
mod bodies;
mod credentials;
mod dead_connection;
mod draining;
mod families;
mod heads;
mod hedging;
mod learning;
mod leaving;
mod messages;
mod placeholders;
mod random;
mod slow;
mod tries;

use std::time::Duration;

use crate::proxy::scripted::Deed;
use crate::route::settings::Policies;

/// A second.
const SECOND: Duration = Duration::from_secs(1);

/// The default policies, changed.
fn policies(change: impl FnOnce(&mut Policies)) -> Policies {
    let mut policies = Policies::default();
    change(&mut policies);
    policies
}

/// The same thing so many times.
fn times(count: usize, deed: Deed) -> Vec<Deed> {
    vec![deed; count]
}
