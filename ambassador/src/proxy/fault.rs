//! Injected faults. They come after the limits and before the circuit breaker,
//! once for a request. They are not retried and not counted against the upstream.

use crate::addr::OriginalDst;
use crate::clock::{self, Instant};
use crate::combinators::{First, first};
use crate::message::{Reason, RequestHead};
use crate::policy::fault::{End, Faults, Settings};
use crate::proxy::caller_end::CallerEnd;
use crate::ring::{self, timer};
use crate::telemetry::{Cells, FaultKind, Passage, TcpOutcome};

/// What becomes of a request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is served.
    Serve,
    /// It is answered with this status.
    Abort(u16),
    /// Its connection is reset.
    Reset,
}

/// The faults that a request gets, if any.
pub(super) fn of_request(
    settings: &Settings,
    request: &RequestHead,
    head: &[u8],
    original: Option<OriginalDst>,
) -> Faults {
    let has_field = |name: &str| request.field(head, name).is_some();
    let is_meant = settings.header.as_deref().is_none_or(has_field)
        && is_for_authority(settings, request, head, original);
    match is_meant && !settings.is_over(clock::wall()) {
        true => settings.of_request([clock::random_u64(), clock::random_u64()]),
        false => Faults::default(),
    }
}

/// The faults that a relayed connection gets, if any; `name` is what a TLS client
/// asks for.
pub(super) fn of_connection(
    settings: &Settings,
    name: Option<&str>,
    original: Option<OriginalDst>,
) -> Faults {
    let port = original.map(|OriginalDst(address)| address.port());
    let address = original.map(|OriginalDst(address)| address.ip().to_canonical().to_string());
    let host = name.or(address.as_deref()).unwrap_or_default();
    // It has no fields.
    let is_meant = settings.header.is_none() && settings.are_for(host, port, None);
    match is_meant && !settings.is_over(clock::wall()) {
        true => settings.of_connection([clock::random_u64(), clock::random_u64()]),
        false => Faults::default(),
    }
}

/// Whether a request goes to the authority that these are for.
fn is_for_authority(
    settings: &Settings,
    request: &RequestHead,
    head: &[u8],
    original: Option<OriginalDst>,
) -> bool {
    if settings.authority.is_none() {
        return true;
    }
    let default_port = original.map_or(80, |OriginalDst(address)| address.port());
    match request.authority(head, None) {
        Ok(Some(authority)) => {
            settings.are_for(authority.host(), authority.port(), Some(default_port))
        }
        _ => false,
    }
}

/// Lets the faults of a request happen, and writes them down. A delay that would
/// take longer than the request has, `until` then, ends it with the status of a
/// request out of time.
pub(super) async fn inject(
    cells: &Cells,
    faults: Faults,
    until: Option<Instant>,
    passage: &Passage,
) -> Fate {
    if let Some(wait) = faults.delay {
        note(cells, passage, FaultKind::Delay);
        let due = ring::now() + wait;
        let ends = until.filter(|until| *until <= due);
        timer::sleep_until(ends.unwrap_or(due)).await;
        if ends.is_some() {
            return Fate::Abort(Reason::RequestTimeout.status());
        }
    }
    match faults.end {
        None => Fate::Serve,
        Some(End::Abort(status)) => {
            note(cells, passage, FaultKind::Abort);
            Fate::Abort(status)
        }
        Some(End::Reset) => {
            note(cells, passage, FaultKind::Reset);
            Fate::Reset
        }
    }
}

/// The same of a relayed connection: how it ends, where it is not relayed.
pub(super) async fn inject_relayed(
    caller: &mut CallerEnd<'_>,
    faults: Faults,
    passage: &Passage,
) -> Option<TcpOutcome> {
    let cells = &caller.context.telemetry.cells;
    if let Some(wait) = faults.delay {
        note(cells, passage, FaultKind::Delay);
        caller.detach();
        if let First::Right(()) = first(timer::sleep(wait), caller.end.reset()).await {
            return Some(TcpOutcome::ClientReset);
        }
    }
    faults.end.map(|_| {
        note(cells, passage, FaultKind::Reset);
        TcpOutcome::FaultInjected
    })
}

fn note(cells: &Cells, passage: &Passage, kind: FaultKind) {
    passage.add_fault(kind);
    cells.fault(passage.upstream, kind);
}
