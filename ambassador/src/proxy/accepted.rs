//! Decides what an accepted connection carries, and serves it.
//!
//! On an explicit listener the configuration decides. A captured connection is
//! HTTP or opaque, by its first bytes: it has 5 ms to send some, once, and 100 ms
//! more where they are too few, or a second where they begin like TLS. A server
//! that speaks first is remembered for a while, and its silent clients are
//! connected at once. TLS is routed by its
//! server name and passed through; adopted, it is an upstream of that name.

use std::rc::Rc;
use std::time::Duration;

use crate::addr::{Authority, OriginalDst};
use crate::clock::Instant;
use crate::policy::breaker::State;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::{Client, Patience};
use crate::proxy::context::Context;
use crate::proxy::fault;
use crate::proxy::first_bytes::{FirstSpeaker, classify, server_name, who_speaks};
use crate::proxy::generation::Target;
use crate::proxy::http1;
use crate::proxy::http2;
use crate::proxy::leg::{Leg, Purpose, RelayFailure, dial, speaks_http_only};
use crate::proxy::listener::Entry;
use crate::proxy::pick;
use crate::proxy::server_first::{Place, is_greeting};
use crate::proxy::tunnel::Tunnel;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{self, timer};
use crate::route::Resolution;
use crate::route::settings::{Endpoints, Protocol};
use crate::sniff::Sniff;
use crate::telemetry::{RelayGuard, RelayProtocol, TcpOutcome, UpstreamIndex};

/// How long a captured client may stay silent before its upstream is dialled
/// without knowing the protocol.
const SNIFF_WAIT: Duration = Duration::from_millis(5);

/// Serves a connection to its end.
pub(crate) async fn serve(client: Box<Client>, entry: Entry) {
    let context = Rc::clone(&client.context);
    let listener = client.origin.listener;
    context.telemetry.cells.connection_opened(listener);
    context.connection_opened();
    let _open = OpenConnection {
        context: Rc::clone(&context),
        listener,
    };
    let generation = context.generation();
    let patience = Patience::of(&generation.table.settings().adopted.timeouts);
    match entry {
        Entry::Http => {
            drop(generation);
            match client.stream.is_http2() {
                // Nothing else may come (RFC 9113 section 3.3).
                true => Box::pin(http2::serve(client, patience, http1::boxed)).await,
                false => {
                    http1::serve(client, patience).await;
                }
            }
        }
        Entry::Tcp(name) => {
            let target = generation.target_by_name(&name);
            drop(generation);
            Box::pin(relay(client, ring::now(), target, None)).await;
        }
        Entry::Captured => match client.origin.original {
            Some(original) => {
                drop(generation);
                captured(client, original, patience).await;
            }
            None => client.stream.reset(),
        },
    }
}

/// Counts the connection out, however it ends.
struct OpenConnection {
    context: Rc<Context>,
    listener: crate::telemetry::ListenerIndex,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.context.connection_closed();
        self.context
            .telemetry
            .cells
            .connection_closed(self.listener);
    }
}

async fn captured(mut client: Box<Client>, original: OriginalDst, patience: Patience) {
    let accepted = ring::now();
    let (protocol, patience) = by_address(&client.context, original, patience);
    match protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
            http1::serve(client, patience).await;
            return;
        }
        Protocol::Tcp => {
            let target = resolve(&client.context, original, None);
            return Box::pin(relay(client, accepted, target, None)).await;
        }
        Protocol::Auto => {}
    }
    match Box::pin(sniff(&mut client, original, patience)).await {
        SniffOutcome::Http => {
            http1::serve(client, patience).await;
        }
        SniffOutcome::Opaque(Some(Dialled { target, leg })) => {
            Box::pin(relay(client, accepted, Some(target), Some(leg))).await;
        }
        SniffOutcome::Opaque(None) => {
            let target = resolve(&client.context, original, None);
            Box::pin(relay(client, accepted, target, None)).await;
        }
        SniffOutcome::Tls(dialled) => {
            Box::pin(relay_tls(client, accepted, original, patience, dialled)).await
        }
        SniffOutcome::Ended => {}
        SniffOutcome::RelayFailure(label, failed) => {
            let mut record = begin(&client, accepted, RelayProtocol::Tcp);
            record.passage.upstream = label;
            refuse(*client, record, failed);
        }
    }
}

/// What the upstream that claims the address says. Nothing is adopted yet: it
/// may be for an authority.
fn by_address(
    context: &Context,
    original: OriginalDst,
    patience: Patience,
) -> (Protocol, Patience) {
    let generation = context.generation();
    match generation.table.resolve_connection(original, None) {
        Resolution::Upstream(matched) => {
            let timeouts = &matched.upstream.policies.timeouts;
            (matched.upstream.protocol, patience.with_head_of(timeouts))
        }
        Resolution::Adopt(_) | Resolution::Unmatched(_) | Resolution::NoRoute => {
            (Protocol::Auto, patience)
        }
    }
}

/// Whose a connection is that ends before it names a server.
fn label_by_address(context: &Context, original: OriginalDst) -> UpstreamIndex {
    let generation = context.generation();
    match generation.table.resolve_connection(original, None) {
        Resolution::Upstream(matched) => generation.target(matched.index).shared.label,
        Resolution::Adopt(_) | Resolution::Unmatched(_) | Resolution::NoRoute => {
            UpstreamIndex::UNMATCHED
        }
    }
}

/// What the first bytes tell; the connections are those that were dialled
/// because there were none.
enum SniffOutcome {
    Http,
    Opaque(Option<Dialled>),
    Tls(Option<Dialled>),
    Ended,
    RelayFailure(UpstreamIndex, RelayFailure),
}

/// A connection by the address alone.
struct Dialled {
    target: Target,
    leg: Box<Leg>,
}

async fn sniff(client: &mut Client, original: OriginalDst, patience: Patience) -> SniffOutcome {
    let idle = patience.idle();
    let context = Rc::clone(&client.context);
    let place = Place {
        namespace: client.origin.namespace,
        original,
    };
    let purpose = match context.speaks_first(place) {
        true => Purpose::Relay,
        false => Purpose::Guess,
    };
    let may_speak = |within| timer::timeout(within, client.stream.readable());
    if purpose == Purpose::Guess && may_speak(SNIFF_WAIT).await.is_ok() {
        return sniff_bytes(client, idle).await;
    }
    let target = resolve(&context, original, None);
    // Over TLS a connection is dialled for a server of a name, which the client may still
    // say; and it may be about to encrypt for itself.
    let Some(target) = target.filter(|target| target.upstream.tls.is_none()) else {
        return sniff_bytes(client, idle).await;
    };
    // While the circuit is open, nothing is dialled for a guess. Who speaks HTTP
    // is answered in time; who waits for the server to speak is given up as if
    // the connect took too long, or may be the probe.
    let health = pick::health_for(&context.pools, &target, client.origin.namespace);
    if health.breaker.state() != State::Closed {
        let limit = match purpose {
            Purpose::Relay | Purpose::RelayTls => SNIFF_WAIT,
            Purpose::Guess => target.upstream.policies.timeouts.connect,
        };
        if may_speak(limit).await.is_ok() {
            return sniff_bytes(client, idle).await;
        }
        if purpose == Purpose::Guess {
            return SniffOutcome::RelayFailure(target.shared.label, RelayFailure::CIRCUIT_OPEN);
        }
    }
    // Nothing to go by: dial where the address leads and see who speaks.
    let mut caller = CallerEnd::of(client);
    let mut leg = match dial(&caller, &target, purpose).await {
        Ok(leg) => leg,
        Err(failed) => return SniffOutcome::RelayFailure(target.shared.label, failed),
    };
    let silence = target.upstream.policies.timeouts.tunnel;
    match who_speaks(&mut caller, &leg.connection.stream, silence, idle).await {
        FirstSpeaker::Nobody => {
            let silent = RelayFailure {
                endpoint: Some(leg.connection.endpoint()),
                ..RelayFailure::nowhere(TcpOutcome::IdleTimeout)
            };
            SniffOutcome::RelayFailure(target.shared.label, silent)
        }
        FirstSpeaker::Server => {
            leg.said = leg.connection.stream.try_recv();
            if leg.said.as_deref().is_some_and(is_greeting) {
                context.learn_speaks_first(place);
            }
            SniffOutcome::Opaque(Some(Dialled { target, leg }))
        }
        FirstSpeaker::Client(Sniff::Http1 | Sniff::Http2Preface) => {
            leg.connection.release_unused();
            SniffOutcome::Http
        }
        FirstSpeaker::Client(Sniff::Tls) => SniffOutcome::Tls(Some(Dialled { target, leg })),
        FirstSpeaker::Client(_) => SniffOutcome::Opaque(Some(Dialled { target, leg })),
        FirstSpeaker::Ended => SniffOutcome::Ended,
    }
}

/// What the first bytes tell of a client that has no connection yet.
async fn sniff_bytes(client: &mut Client, idle: Duration) -> SniffOutcome {
    match classify(&mut CallerEnd::of(client), idle).await {
        Some(Sniff::Http1 | Sniff::Http2Preface) => SniffOutcome::Http,
        Some(Sniff::Tls) => SniffOutcome::Tls(None),
        Some(_) => SniffOutcome::Opaque(None),
        None => SniffOutcome::Ended,
    }
}

/// Relays TLS to the upstream that claims the server name it asks for, else by
/// its address; `dialled` is used where that is the same.
async fn relay_tls(
    mut client: Box<Client>,
    accepted: Instant,
    original: OriginalDst,
    patience: Patience,
    dialled: Option<Dialled>,
) {
    let asked = match server_name(&mut CallerEnd::of(&mut client), patience).await {
        Ok(asked) => asked,
        Err(failure) => {
            let mut record = begin(&client, accepted, RelayProtocol::Tls);
            record.passage.upstream = label_by_address(&client.context, original);
            record.explain(failure.detail);
            return refuse(*client, record, RelayFailure::nowhere(failure.outcome));
        }
    };
    // What is adopted is told apart by port too, and shown with it.
    let port = Some(original.0.port());
    let authority = asked.as_deref().map(|name| Authority::new(name, port));
    let authority = authority.and_then(Result::ok);
    let target = resolve(&client.context, original, authority.as_ref());
    if target.as_ref().is_some_and(speaks_http_only) {
        http1::serve(client, patience).await;
        return;
    }
    let mut record = begin(&client, accepted, RelayProtocol::Tls);
    if let Some(name) = &asked {
        record.describe(name);
    }
    let leg = match (&target, dialled) {
        (Some(target), Some(dialled)) if leads_there(&client, target, &dialled) => {
            Some(dialled.leg)
        }
        _ => None,
    };
    let to = Destination {
        target,
        name: authority.as_ref().map(Authority::host),
        purpose: Purpose::RelayTls,
    };
    relay_recorded(client, record, to, leg).await;
}

/// Whether what was dialled is good for bytes that the client encrypts itself, and that
/// go to `target`: both lead to the same server, and `target` has nothing to say about
/// its connections.
fn leads_there(client: &Client, target: &Target, dialled: &Dialled) -> bool {
    if dialled.leg.connection.stream.tls().is_some() {
        return false;
    }
    let dialled = &dialled.target;
    if target.shared.id == dialled.shared.id {
        return true;
    }
    let original = |target: &Target| target.upstream.endpoints == Endpoints::Original;
    let pools = &client.context.pools;
    original(target)
        && original(dialled)
        && target.upstream.policies.pool.max_connections.is_none()
        && pick::health_for(pools, target, client.origin.namespace)
            .breaker
            .state()
            == State::Closed
}

/// Relays opaque bytes.
async fn relay(
    client: Box<Client>,
    accepted: Instant,
    target: Option<Target>,
    dialled: Option<Box<Leg>>,
) {
    let record = begin(&client, accepted, RelayProtocol::Tcp);
    let to = Destination {
        target,
        name: None,
        purpose: Purpose::Relay,
    };
    relay_recorded(client, record, to, dialled).await;
}

fn begin(client: &Client, accepted: Instant, protocol: RelayProtocol) -> RelayGuard {
    let telemetry = &client.context.telemetry;
    let mut record = telemetry.begin_relay(client.passage(accepted), protocol);
    record.describe_peer(client.peer_id());
    record
}

/// Where a relayed connection goes.
struct Destination<'a> {
    /// The upstream; `None`: there is none.
    target: Option<Target>,
    /// What its client calls it by.
    name: Option<&'a str>,
    /// Whose the encryption is.
    purpose: Purpose,
}

/// Relays a connection of which `record` tells, over `dialled` where that leads
/// there already.
async fn relay_recorded(
    mut client: Box<Client>,
    mut record: RelayGuard,
    to: Destination<'_>,
    dialled: Option<Box<Leg>>,
) {
    let Some(target) = to.target else {
        return refuse(*client, record, RelayFailure::nowhere(TcpOutcome::NoRoute));
    };
    target.count_use();
    client.member.relays(target.shared.id);
    record.passage.upstream = target.shared.label;
    if let Some(settings) = &target.upstream.policies.fault {
        let faults = fault::of_connection(settings, to.name, client.origin.original);
        let mut caller = CallerEnd::of(&mut client);
        let ended = fault::inject_relayed(&mut caller, faults, &record.passage);
        if let Some(outcome) = ended.await {
            return refuse(*client, record, RelayFailure::nowhere(outcome));
        }
    }
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    let mut leg = match dialled {
        Some(leg) => leg,
        None => match dial(&CallerEnd::of(&mut client), &target, to.purpose).await {
            Ok(leg) => leg,
            Err(failed) => return refuse(*client, record, failed),
        },
    };
    record.passage.endpoint.set(Some(leg.connection.endpoint()));
    if let Some(tls) = leg.connection.stream.tls() {
        record.passage.tls.set(Some(tls));
    }
    let tunnel = Tunnel {
        cells: &client.context.telemetry.cells,
        passage: &record.passage,
        answered_bytes: record.passage.bytes_out.get(),
        silence: target.upstream.policies.timeouts.tunnel,
        keep_alive: target.upstream.policies.timeouts.keep_alive,
    };
    let (client_first, server_first) = (client.ahead.take(), leg.said.take());
    let client_end = TunnelEnd::Own(&client.stream);
    let server_end = TunnelEnd::Own(&leg.connection.stream);
    let ended = tunnel
        .run(client_end, client_first, server_end, server_first)
        .await;
    let refused = tunnel.refusal(server_end, ended);
    record.outcome = ended;
    if let Some(refused) = refused {
        target.shared.handshakes.failed(refused);
        record.explain(refused.as_str());
    }
    if client.member.is_shed() {
        record.outcome = TcpOutcome::Overloaded;
    }
}

/// A connection that is given up is reset, never closed politely, so that
/// its caller sees a failure.
fn refuse(client: Client, mut record: RelayGuard, failed: RelayFailure) {
    record.outcome = failed.outcome;
    record.passage.endpoint.set(failed.endpoint);
    if let Some(cause) = failed.tls {
        record.explain(cause.as_str());
    }
    client.stream.reset();
}

/// Where a connection goes that carries no request.
fn resolve(
    context: &Context,
    original: OriginalDst,
    server_name: Option<&Authority>,
) -> Option<Target> {
    let generation = context.generation();
    match generation.table.resolve_connection(original, server_name) {
        Resolution::Upstream(matched) => Some(generation.target(matched.index)),
        Resolution::Adopt(key) => Some(context.adopt(&generation, key)),
        Resolution::Unmatched(_) => Some(generation.unmatched()),
        Resolution::NoRoute => None,
    }
}

#[cfg(test)]
mod tests;
