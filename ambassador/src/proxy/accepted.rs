//! What an accepted connection turns out to be.
//!
//! On an explicit listener the configuration says. A captured connection is
//! HTTP or opaque: its first bytes tell, for which it is given 5 ms, once. A
//! server that speaks first is remembered, and its clients never wait again.
//! TLS goes by the server name it asks for, and is passed through.

use std::rc::Rc;
use std::time::Duration;

use crate::addr::OriginalDst;
use crate::http::{self, ServerName, Sniff};
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::generation::{Generation, Target};
use crate::proxy::http1;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::way;
use crate::ring::{Chunk, timer};
use crate::route::Resolution;
use crate::route::settings::Protocol;
use crate::telemetry::{TcpOutcome, UpstreamIndex};
use crate::together::{First, first};
use crate::upstream::dial::DialError;
use crate::upstream::pool::{CheckoutError, Connection, Place, Want};

/// How long a captured client may stay silent before its upstream is dialled
/// without knowing the protocol.
const SNIFF_WAIT: Duration = Duration::from_millis(5);

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
pub async fn serve(client: Client, entry: Entry) {
    let context = Rc::clone(&client.context);
    let listener = client.origin.listener;
    context.telemetry.cells.connection_opened(listener);
    context.connection_opened();
    let _open = Open {
        context: Rc::clone(&context),
        listener,
    };
    let generation = context.generation();
    let idle = generation.table.settings().adopted.timeouts.idle;
    match entry {
        Entry::Http => {
            drop(generation);
            http1::serve(client, idle).await;
        }
        Entry::Tcp(name) => {
            let target = generation.target_by_name(&name);
            drop(generation);
            Box::pin(relay(client, target, Start::default())).await;
        }
        Entry::Captured => match client.origin.original {
            Some(original) => captured(client, original, generation, idle).await,
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

async fn captured(
    mut client: Client,
    original: OriginalDst,
    generation: std::sync::Arc<Generation>,
    idle: Duration,
) {
    let target = resolve(&generation, original, None);
    drop(generation);
    let protocol = target
        .as_ref()
        .map_or(Protocol::Auto, |target| target.upstream.protocol);
    match protocol {
        Protocol::Http1 => return http1::serve(client, idle).await,
        Protocol::Tcp => return Box::pin(relay(client, target, Start::default())).await,
        Protocol::Auto => {}
    }
    let start = Box::pin(sniff(&mut client, original, target.as_ref(), idle)).await;
    match start {
        Sniffed::Http => http1::serve(client, idle).await,
        Sniffed::Opaque(start) => Box::pin(relay(client, target, start)).await,
        Sniffed::Tls(start) => Box::pin(relay_tls(client, original, target, start)).await,
        Sniffed::Ended => {}
        Sniffed::DialFailed(error) => {
            let label = target.map_or(UpstreamIndex::UNMATCHED, |target| target.shared.label);
            dial_failed(client, label, &error);
        }
    }
}

enum Sniffed {
    Http,
    Opaque(Start),
    Tls(Start),
    Ended,
    DialFailed(CheckoutError),
}

/// What a relay starts with.
#[derive(Default)]
struct Start {
    connection: Option<Connection>,
    upstream_first: Option<Chunk>,
}

async fn sniff(
    client: &mut Client,
    original: OriginalDst,
    target: Option<&Target>,
    idle: Duration,
) -> Sniffed {
    let context = Rc::clone(&client.context);
    if context.speaks_first(original) {
        return Sniffed::Opaque(Start::default());
    }
    let silent = match timer::timeout(SNIFF_WAIT, client.stream.readable()).await {
        Ok(()) => None,
        Err(_) => target,
    };
    if let Some(target) = silent {
        // Nothing to go by: dial where the address leads and see who speaks.
        let Some(endpoint) = way::endpoint(&context.pools, target, Some(original)) else {
            return Sniffed::Opaque(Start::default());
        };
        let (upstream, shared) = (&target.upstream, &target.shared);
        let policies = (&upstream.pool, &upstream.timeouts);
        let dialled = context
            .pools
            .checkout(
                shared,
                policies,
                (client.origin.namespace, endpoint),
                Want::Fresh,
            )
            .await;
        let connection = match dialled {
            Ok(connection) => connection,
            Err(error) => return Sniffed::DialFailed(error),
        };
        let spoke = first(client.stream.readable(), connection.stream.readable());
        match timer::timeout(idle, spoke).await {
            Err(_) => return Sniffed::Ended,
            Ok(First::Right(())) => {
                context.learn_speaks_first(original);
                return Sniffed::Opaque(Start {
                    connection: Some(connection),
                    upstream_first: None,
                });
            }
            Ok(First::Left(())) => match classify(client, idle).await {
                Some(Sniff::Http1) => {
                    context.pools.checkin(shared, policies, connection);
                    return Sniffed::Http;
                }
                Some(known) => {
                    return Sniffed::by(
                        known,
                        Start {
                            connection: Some(connection),
                            upstream_first: None,
                        },
                    );
                }
                None => return Sniffed::Ended,
            },
        }
    }
    match classify(client, idle).await {
        Some(Sniff::Http1) => Sniffed::Http,
        Some(known) => Sniffed::by(known, Start::default()),
        None => Sniffed::Ended,
    }
}

impl Sniffed {
    /// What is relayed as it is, by what it was found to be.
    fn by(known: Sniff, start: Start) -> Self {
        match known {
            Sniff::Tls => Self::Tls(start),
            _ => Self::Opaque(start),
        }
    }
}

/// Reads until the first bytes tell what they are; they stay in `ahead`.
/// `None`: the client ended before.
async fn classify(client: &mut Client, idle: Duration) -> Option<Sniff> {
    look_ahead(client, idle, |bytes| match http::sniff(bytes) {
        Sniff::NeedMore => None,
        known => Some(known),
    })
    .await
}

/// Reads until `tell` can tell something of all bytes so far, which it must
/// within a bound of its own; they stay in `ahead`. `None`: the client ended
/// before.
async fn look_ahead<T>(
    client: &mut Client,
    idle: Duration,
    tell: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut bytes = client.next(idle).await?;
    loop {
        if let Some(told) = tell(&bytes) {
            client.ahead = Some(bytes);
            return Some(told);
        }
        let mut longer = bytes.to_vec();
        drop(bytes);
        longer.extend_from_slice(&client.next(idle).await?);
        bytes = Chunk::from(longer);
    }
}

/// Relays TLS to the upstream that claims the server name it asks for, else
/// to `by_address`, to which `start` may have a connection.
async fn relay_tls(
    mut client: Client,
    original: OriginalDst,
    by_address: Option<Target>,
    start: Start,
) {
    let generation = client.context.generation();
    let idle = generation.table.settings().adopted.timeouts.idle;
    drop(generation);
    let told = look_ahead(&mut client, idle, |bytes| match http::server_name(bytes) {
        ServerName::NeedMore => None,
        known => Some(known),
    });
    let name = match told.await {
        Some(ServerName::Name(name)) => name,
        Some(_) => return relay(client, by_address, start).await,
        None => return,
    };
    let by_name = resolve(&client.context.generation(), original, Some(&name));
    let shared_id = |target: &Option<Target>| target.as_ref().map(|target| target.shared.id);
    let start = if shared_id(&by_name) == shared_id(&by_address) {
        start
    } else {
        Start::default()
    };
    relay(client, by_name, start).await;
}

/// Relays opaque bytes; a connection that can't be placed is reset, never
/// closed politely, so that its caller sees a failure.
async fn relay(mut client: Client, target: Option<Target>, start: Start) {
    let context = Rc::clone(&client.context);
    let cells = &context.telemetry.cells;
    let Some(target) = target else {
        cells.tcp_connection(UpstreamIndex::UNMATCHED, TcpOutcome::NoRoute);
        return client.stream.reset();
    };
    let _in_use = target.begin_use();
    let (upstream, shared) = (&target.upstream, &target.shared);
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    let connection = match start.connection {
        Some(connection) => connection,
        None => {
            let endpoint = way::endpoint(&context.pools, &target, client.origin.original);
            let Some(endpoint) = endpoint else {
                cells.tcp_connection(shared.label, TcpOutcome::ConnectFailed);
                return client.stream.reset();
            };
            match dial(&context, &target, (client.origin.namespace, endpoint)).await {
                Ok(connection) => connection,
                Err(error) => return dial_failed(client, shared.label, &error),
            }
        }
    };
    let tunnel = Tunnel {
        cells,
        label: shared.label,
        idle: upstream.timeouts.idle,
    };
    let client_first = client.ahead.take();
    let outcome = tunnel
        .run(
            &client.stream,
            client_first,
            &connection.stream,
            start.upstream_first,
        )
        .await;
    cells.tcp_connection(shared.label, outcome);
    if outcome != TcpOutcome::Closed {
        client.stream.reset();
        connection.reset();
    }
}

async fn dial(
    context: &Rc<Context>,
    target: &Target,
    place: Place,
) -> Result<Connection, CheckoutError> {
    let policies = (&target.upstream.pool, &target.upstream.timeouts);
    context
        .pools
        .checkout(&target.shared, policies, place, Want::Fresh)
        .await
}

fn dial_failed(client: Client, label: UpstreamIndex, error: &CheckoutError) {
    tracing::debug!(?error, "opaque connection: dial failed");
    let outcome = match error {
        CheckoutError::Overloaded => TcpOutcome::Overloaded,
        CheckoutError::PendingTimeout | CheckoutError::Dial(DialError::Timeout) => {
            TcpOutcome::ConnectTimeout
        }
        CheckoutError::Dial(DialError::Loop) => TcpOutcome::Loop,
        CheckoutError::Dial(DialError::Connect(_)) => TcpOutcome::ConnectFailed,
    };
    client
        .context
        .telemetry
        .cells
        .tcp_connection(label, outcome);
    client.stream.reset();
}

/// Where a connection goes that carries no request.
fn resolve(
    generation: &Generation,
    original: OriginalDst,
    server_name: Option<&str>,
) -> Option<Target> {
    match generation.table.resolve_connection(original, server_name) {
        Resolution::Upstream(matched) => Some(generation.target(matched.index)),
        Resolution::Adopt(key) => Some(generation.adopt(key, crate::ring::now())),
        Resolution::Unmatched(_) => Some(generation.unmatched()),
        Resolution::NoRoute => None,
    }
}
