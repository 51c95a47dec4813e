//! An observer of a breaker: it learns what the breaker refuses.

use std::fmt;

use crate::clock::Instant;

/// For how long a breaker refuses tries, as its [`Observer`] learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalPeriod {
    /// Nothing: it is closed.
    Nothing,
    /// Every try before this time. Behind it one goes through as the probe.
    Until(Instant),
    /// Every try, until an operator sets it otherwise.
    Always,
}

/// Is told whenever a breaker opens, opens again or closes, in the order in
/// which that happens. That a probe was let through is not told: it follows from
/// the time. Called under the lock of the breaker, so it must not use it.
pub struct Observer(pub Box<dyn Fn(RefusalPeriod) + Send>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
