//! What an accepted connection turns out to be.
//!
//! On an explicit listener the configuration says. A captured connection is
//! HTTP or opaque: its first bytes tell, for which it is given 5 ms, once, and
//! 100 ms more where they are too few. A server that speaks first is remembered
//! for a while, and its silent clients are connected at once. TLS goes by the server name it asks for, and
//! is passed through; adopted, it is an upstream of that name.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::addr::{Authority, EndpointAddr, OriginalDst};
use crate::http::{self, Reason, ServerName, Sniff};
use crate::policy::breaker::State;
use crate::proxy::client::{Client, Patience};
use crate::proxy::context::Context;
use crate::proxy::fault;
use crate::proxy::generation::Target;
use crate::proxy::gone::reset;
use crate::proxy::http1;
use crate::proxy::judges::Judges;
use crate::proxy::reach::{Purpose, Reached, Unreached, reach};
use crate::proxy::server_first::is_greeting;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::way::{self, Aim};
use crate::ring::{self, Chunk, timer};
use crate::route::Resolution;
use crate::route::settings::{Endpoints, Protocol};
use crate::telemetry::{RelayGuard, RelayProtocol, TcpOutcome, UpstreamIndex};
use crate::together::{First, first};
use crate::upstream::balancer::{Picked, Probe};
use crate::upstream::connection::Connection;

/// How long a captured client may stay silent before its upstream is dialled
/// without knowing the protocol.
const SNIFF_WAIT: Duration = Duration::from_millis(5);

/// How long more is waited for where the first bytes are too few to tell. Who
/// speaks HTTP or TLS sends the rest at once; anybody else waits for an answer.
const SNIFF_MORE: Duration = Duration::from_millis(100);

/// What a listener does with its connections.
#[derive(Debug, Clone)]
pub enum Entry {
    /// HTTP, routed by what each request says.
    Http,
    /// Opaque bytes for the upstream of this name.
    Tcp(std::sync::Arc<str>),
    /// Captured: the origin has the original destination.
    Captured,
}

/// Serves a connection to its end.
pub async fn serve(client: Box<Client>, entry: Entry) {
    let context = Rc::clone(&client.context);
    let listener = client.origin.listener;
    context.telemetry.cells.connection_opened(listener);
    context.connection_opened();
    let _open = Open {
        context: Rc::clone(&context),
        listener,
    };
    let generation = context.generation();
    let patience = Patience::of(&generation.table.settings().adopted.timeouts);
    match entry {
        Entry::Http => {
            drop(generation);
            http1::serve(client, patience).await;
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
struct Open {
    context: Rc<Context>,
    listener: crate::telemetry::ListenerIndex,
}

impl Drop for Open {
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
        Protocol::Http1 => return http1::serve(client, patience).await,
        Protocol::Tcp => {
            let target = resolve(&client.context, original, None);
            return Box::pin(relay(client, accepted, target, None)).await;
        }
        Protocol::Auto => {}
    }
    match Box::pin(sniff(&mut client, original, patience)).await {
        Sniffed::Http => http1::serve(client, patience).await,
        Sniffed::Opaque(Some((target, leg))) => {
            Box::pin(relay(client, accepted, Some(target), Some(leg))).await;
        }
        Sniffed::Opaque(None) => {
            let target = resolve(&client.context, original, None);
            Box::pin(relay(client, accepted, target, None)).await;
        }
        Sniffed::Tls(dialled) => {
            Box::pin(relay_tls(client, accepted, original, patience, dialled)).await
        }
        Sniffed::Ended => {}
        Sniffed::GivenUp(label, failed) => {
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

/// What the first bytes tell; the connections are those that were dialled
/// because there were none.
enum Sniffed {
    Http,
    Opaque(Option<Dialled>),
    Tls(Option<Dialled>),
    Ended,
    GivenUp(UpstreamIndex, GivenUp),
}

/// Why a connection is not relayed, and where it would have gone.
struct GivenUp {
    outcome: TcpOutcome,
    endpoint: Option<EndpointAddr>,
}

impl GivenUp {
    const CIRCUIT_OPEN: Self = Self {
        outcome: TcpOutcome::CircuitOpen,
        endpoint: None,
    };
}

/// A connection by the address alone.
type Dialled = (Target, Box<Leg>);

/// The way on: a connection to an endpoint, which is busy with it for as long as
/// this lives. Boxed, as an idle connection pays for what it could hold.
struct Leg {
    connection: Connection,
    /// What the server said first.
    said: Option<Chunk>,
    _picked: Picked,
}

async fn sniff(client: &mut Client, original: OriginalDst, patience: Patience) -> Sniffed {
    let idle = patience.idle();
    let context = Rc::clone(&client.context);
    let place = (client.origin.namespace, original);
    let purpose = match context.speaks_first(place) {
        true => Purpose::Relay,
        false => Purpose::Guess,
    };
    let may_speak = |within| timer::timeout(within, client.stream.readable());
    if purpose == Purpose::Guess && may_speak(SNIFF_WAIT).await.is_ok() {
        return sniff_bytes(client, idle).await;
    }
    let Some(target) = resolve(&context, original, None) else {
        return sniff_bytes(client, idle).await;
    };
    // An upstream that is left alone is not dialled for a guess. Who speaks HTTP
    // is answered in time; who waits for the server to speak is given up as if
    // the connect took too long, or may be the probe.
    if target.shared.breaker.state() != State::Closed {
        let limit = match purpose {
            Purpose::Relay => SNIFF_WAIT,
            Purpose::Guess => target.upstream.policies.timeouts.connect,
        };
        if may_speak(limit).await.is_ok() {
            return sniff_bytes(client, idle).await;
        }
        if purpose == Purpose::Guess {
            return Sniffed::GivenUp(target.shared.label, GivenUp::CIRCUIT_OPEN);
        }
    }
    // Nothing to go by: dial where the address leads and see who speaks.
    let mut leg = match dial(client, &target, purpose).await {
        Ok(leg) => leg,
        Err(failed) => return Sniffed::GivenUp(target.shared.label, failed),
    };
    let spoke = first(client.stream.readable(), leg.connection.stream.readable());
    let limit = target.upstream.policies.timeouts.tunnel;
    match timer::timeout(limit, spoke).await {
        Err(_) => {
            let silent = GivenUp {
                outcome: TcpOutcome::IdleTimeout,
                endpoint: Some(leg.connection.endpoint),
            };
            return Sniffed::GivenUp(target.shared.label, silent);
        }
        Ok(First::Right(())) => {
            leg.said = leg.connection.stream.try_recv();
            if leg.said.as_deref().is_some_and(is_greeting) {
                context.learn_speaks_first(place);
            }
            return Sniffed::Opaque(Some((target, leg)));
        }
        Ok(First::Left(())) => {}
    }
    match classify(client, idle).await {
        Some(Sniff::Http1) => {
            let policies = target.pool_policies();
            context
                .pools
                .checkin(&target.shared, policies, leg.connection);
            Sniffed::Http
        }
        Some(Sniff::Tls) => Sniffed::Tls(Some((target, leg))),
        Some(_) => Sniffed::Opaque(Some((target, leg))),
        None => Sniffed::Ended,
    }
}

/// What the first bytes tell of a client that has no connection yet.
async fn sniff_bytes(client: &mut Client, idle: Duration) -> Sniffed {
    match classify(client, idle).await {
        Some(Sniff::Http1) => Sniffed::Http,
        Some(Sniff::Tls) => Sniffed::Tls(None),
        Some(_) => Sniffed::Opaque(None),
        None => Sniffed::Ended,
    }
}

/// Reads until the first bytes tell what they are; they stay in `ahead`. Too
/// few of them before a FIN are no HTTP and no TLS, but may be all that a
/// client has to say. `None`: it broke off.
async fn classify(client: &mut Client, idle: Duration) -> Option<Sniff> {
    let mut unfinished = Sniff::NeedMore;
    let tell = |bytes: &[u8]| match http::sniff(bytes) {
        told @ (Sniff::NeedMore | Sniff::RequestLine) => {
            unfinished = told;
            None
        }
        known => Some(known),
    };
    match look_ahead(client, (idle, SNIFF_MORE), tell).await {
        Looked::Told(told) => Some(told),
        Looked::Silent if unfinished == Sniff::RequestLine => Some(Sniff::Http1),
        Looked::Silent | Looked::Finished => Some(Sniff::Opaque),
        Looked::Broken => None,
    }
}

/// What came of looking ahead.
enum Looked<T> {
    /// The bytes told it.
    Told(T),
    /// They did not, and no more came in time.
    Silent,
    /// Nor will more come: a FIN.
    Finished,
    /// The connection broke off, or nothing came at all.
    Broken,
}

/// Reads until `tell` can tell something of all bytes so far, which it must
/// within a bound of its own; they stay in `ahead` in any case. The first have to
/// come within one time, the rest within another.
async fn look_ahead<T>(
    client: &mut Client,
    (idle, more_within): (Duration, Duration),
    mut tell: impl FnMut(&[u8]) -> Option<T>,
) -> Looked<T> {
    let Some(mut bytes) = client.next(idle).await else {
        return match client.stream.ended_with_fin() {
            true => Looked::Finished,
            false => Looked::Broken,
        };
    };
    let mut until = None;
    loop {
        if let Some(told) = tell(&bytes) {
            client.ahead = Some(bytes);
            return Looked::Told(told);
        }
        bytes.detach();
        let until = *until.get_or_insert_with(|| ring::now() + more_within);
        let ended = match timer::timeout_at(until, client.stream.recv()).await {
            Ok(Ok(Some(more))) => {
                bytes = Chunk::from([&bytes[..], &more[..]].concat());
                continue;
            }
            Ok(Ok(None)) => Looked::Finished,
            Ok(Err(_)) => Looked::Broken,
            Err(_) => Looked::Silent,
        };
        client.ahead = Some(bytes);
        return ended;
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
    let tell = |bytes: &[u8]| match http::server_name(bytes) {
        ServerName::NeedMore => None,
        known => Some(known),
    };
    let within = (patience.idle(), patience.head());
    let name = match look_ahead(&mut client, within, tell).await {
        Looked::Told(ServerName::Name(name)) => Some(name),
        Looked::Told(ServerName::Absent | ServerName::NeedMore) | Looked::Finished => None,
        Looked::Silent | Looked::Broken => return,
    };
    let mut record = begin(&client, accepted, RelayProtocol::Tls);
    if let Some(name) = &name {
        record.describe(name);
    }
    // What is adopted is told apart by port too, and shown with it.
    let port = Some(original.0.port());
    let name = name.and_then(|name| Authority::new(&name, port).ok());
    let target = resolve(&client.context, original, name.as_ref());
    let leg = match (&target, dialled) {
        (Some(target), Some((by_address, leg))) if leads_there(target, &by_address) => Some(leg),
        _ => None,
    };
    let name = name.as_ref().map(Authority::host);
    relay_recorded(client, record, (target, name), leg).await;
}

/// Whether what was dialled for the one is good for the other.
fn leads_there(target: &Target, dialled: &Target) -> bool {
    let original = |target: &Target| target.upstream.endpoints == Endpoints::Original;
    target.shared.id == dialled.shared.id || original(target) && original(dialled)
}

/// Relays opaque bytes.
async fn relay(
    client: Box<Client>,
    accepted: Instant,
    target: Option<Target>,
    dialled: Option<Box<Leg>>,
) {
    let record = begin(&client, accepted, RelayProtocol::Tcp);
    relay_recorded(client, record, (target, None), dialled).await;
}

fn begin(client: &Client, accepted: Instant, protocol: RelayProtocol) -> RelayGuard {
    let telemetry = &client.context.telemetry;
    telemetry.begin_relay(client.passage(accepted), protocol)
}

/// Relays a connection of which `record` tells, to `target`, which its client
/// calls by a name, over `dialled` where that leads there already.
async fn relay_recorded(
    mut client: Box<Client>,
    mut record: RelayGuard,
    (target, name): (Option<Target>, Option<&str>),
    dialled: Option<Box<Leg>>,
) {
    let Some(target) = target else {
        let nowhere = GivenUp {
            outcome: TcpOutcome::NoRoute,
            endpoint: None,
        };
        return refuse(*client, record, nowhere);
    };
    target.count_use();
    record.passage.upstream = target.shared.label;
    if let Some(settings) = &target.upstream.policies.fault {
        let faults = fault::of_connection(settings, name, client.origin.original);
        let ended = fault::inject_relayed(&mut client, faults, &mut record.passage);
        if let Some(outcome) = ended.await {
            let endpoint = None;
            return refuse(*client, record, GivenUp { outcome, endpoint });
        }
    }
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    let mut leg = match dialled {
        Some(leg) => leg,
        None => match dial(&client, &target, Purpose::Relay).await {
            Ok(leg) => leg,
            Err(failed) => return refuse(*client, record, failed),
        },
    };
    record.passage.endpoint = Some(leg.connection.endpoint);
    let tunnel = Tunnel {
        cells: &client.context.telemetry.cells,
        passage: &record.passage,
        silence: target.upstream.policies.timeouts.tunnel,
        keep_alive: target.upstream.policies.timeouts.keep_alive,
    };
    let (client_first, server_first) = (client.ahead.take(), leg.said.take());
    let (client_end, server_end) = (&client.stream, &leg.connection.stream);
    record.outcome = tunnel
        .run(client_end, client_first, server_end, server_first)
        .await;
}

/// A connection that is given up is reset, never closed politely, so that
/// its caller sees a failure.
fn refuse(client: Client, mut record: RelayGuard, failed: GivenUp) {
    record.outcome = failed.outcome;
    record.passage.endpoint = failed.endpoint;
    client.stream.reset();
}

/// A new connection to one of the endpoints.
async fn dial(client: &Client, target: &Target, purpose: Purpose) -> Result<Box<Leg>, GivenUp> {
    let policies = &target.upstream.policies;
    let now = ring::now();
    let admitted = {
        let settings = &policies.circuit_breaker;
        target
            .shared
            .breaker
            .admit(settings, client.context.shard, now)
    };
    let Some(trial) = admitted else {
        return Err(GivenUp::CIRCUIT_OPEN);
    };
    let pools = &client.context.pools;
    let aim = Aim {
        namespace: client.origin.namespace,
        original: client.origin.original,
        key: way::source_key(target, client.origin.peer),
        tried: &[],
        probe: Probe::beside(&trial),
        bound: None,
    };
    let Some(picked) = way::pick(pools, target, aim) else {
        return Err(GivenUp {
            outcome: TcpOutcome::ConnectFailed,
            endpoint: None,
        });
    };
    if purpose == Purpose::Relay {
        pools.count_request(&target.shared, target.pool_policies(), now);
    }
    let judges = Judges::new(picked, trial);
    let (context, namespace) = (&client.context, client.origin.namespace);
    let reached = reach(context, target, namespace, judges, (aim, purpose), |_| {});
    match first(reached, reset(&client.stream)).await {
        First::Left(Ok(Reached { connection, picked })) => Ok(Box::new(Leg {
            connection,
            said: None,
            _picked: picked,
        })),
        First::Left(Err(Unreached {
            unanswered,
            endpoint,
        })) => Err(GivenUp {
            outcome: outcome_of(unanswered.reason),
            endpoint: Some(endpoint),
        }),
        First::Right(()) => Err(GivenUp {
            outcome: TcpOutcome::ClientReset,
            endpoint: None,
        }),
    }
}

fn outcome_of(reason: Reason) -> TcpOutcome {
    match reason {
        Reason::Overloaded => TcpOutcome::Overloaded,
        Reason::ConnectTimeout => TcpOutcome::ConnectTimeout,
        Reason::Loop => TcpOutcome::Loop,
        _ => TcpOutcome::ConnectFailed,
    }
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
