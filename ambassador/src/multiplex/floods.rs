//! Connections that this shard has ended for a flood.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::clock::Instant;
use crate::http2::{Cause, ConnectionError, Flood, Role};
use crate::telemetry::{FloodCause, FloodCounts, FloodPeer};

/// The log tells of one in this time: it is no means to fill a disk.
const TOLD_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static COUNTS: RefCell<FloodCounts> = const { RefCell::new(FloodCounts::new()) };
    static TOLD_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What this shard has counted so far.
pub(crate) fn floods() -> FloodCounts {
    COUNTS.with_borrow(FloodCounts::clone)
}

/// Counts it, if a flood is what a connection has ended for.
pub(super) fn count(role: Role, error: &ConnectionError) {
    if let Cause::Flood(flood) = error.cause {
        let peer = match role {
            Role::Server => FloodPeer::Caller,
            Role::Client => FloodPeer::Upstream,
        };
        COUNTS.with_borrow_mut(|counts| counts.count(peer, cause(flood)));
    }
}

/// Tells the log why a connection with `peer` has ended.
pub(crate) fn explain(error: &ConnectionError, peer: &dyn std::fmt::Debug, now: Instant) {
    let is_due = TOLD_AT
        .get()
        .is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
    match error.cause {
        Cause::Flood(flood) if is_due => {
            TOLD_AT.set(Some(now));
            let cause = cause(flood).as_str();
            tracing::warn!(?peer, cause, %error, "an HTTP/2 connection was ended for a flood");
        }
        Cause::Flood(_) | Cause::Violation(_) | Cause::Slowness => {
            tracing::debug!(?peer, %error, "an HTTP/2 connection has ended");
        }
    }
}

fn cause(flood: Flood) -> FloodCause {
    match flood {
        Flood::ControlFrames => FloodCause::ControlFrames,
        Flood::PeerResets => FloodCause::PeerResets,
        Flood::StreamErrors => FloodCause::StreamErrors,
        Flood::Continuations => FloodCause::Continuations,
        Flood::HeaderList => FloodCause::HeaderList,
        Flood::Settings => FloodCause::Settings,
    }
}
