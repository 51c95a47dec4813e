//! HTTP connections that become tunnels: CONNECT and upgrades.

use std::rc::Rc;

use crate::clock::{self, Instant};
use crate::combinators::{First, first};
use crate::message::{LocalReply, Reason};
use crate::proxy::after::After;
use crate::proxy::attempt::Try;
use crate::proxy::caller::Caller;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::{Client, Patience};
use crate::proxy::departure::caller_left;
use crate::proxy::downstream::Downstream;
use crate::proxy::failure::{Detail, Unanswered};
use crate::proxy::fault;
use crate::proxy::first_bytes::{FirstSpeaker, server_name, who_speaks};
use crate::proxy::generation::Target;
use crate::proxy::leg::{Leg, Purpose, dial, speaks_http_only};
use crate::proxy::pick::{self, Criteria};
use crate::proxy::reach::reach;
use crate::proxy::reply;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::tries::Tries;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{self, Chunk};
use crate::route::settings::Protocol;
use crate::route::{Resolution, Tunnelled};
use crate::sniff::Sniff;
use crate::telemetry::{AttemptOutcome, Direction, RequestGuard, TcpOutcome};
use crate::upstream::key;
use crate::upstream::pool::Lease;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// CONNECT on an explicit listener: what comes through the tunnel is treated as
/// on a captured connection to the upstream that claims the authority. HTTP is
/// served under its policies, TLS goes by its server name, all else is relayed.
pub(crate) struct Connect<'a> {
    /// What it asked for.
    pub facts: RequestFacts,
    /// The upstream that claims the authority.
    pub target: &'a Target,
    /// What its endpoint is chosen by.
    pub key: Option<u64>,
    /// What it makes of the connection.
    pub tunnel: Tunnelled,
}

/// Makes the tunnel and serves what comes through it.
pub(crate) async fn connect(
    downstream: &mut Downstream<'_>,
    mut record: RequestGuard,
    wanted: Connect<'_>,
) -> After {
    let Connect {
        facts,
        target,
        key,
        tunnel,
    } = wanted;
    let Some(client) = downstream.client_mut() else {
        return refuse(downstream, record, facts, no_tunnel()).await;
    };
    client.detach();
    let context = Rc::clone(&client.context);
    let origin = client.origin;
    let health = pick::health_for(&context.pools, target, origin.namespace);
    let criteria = Criteria {
        namespace: origin.namespace,
        key,
        ..Criteria::default()
    };
    let mut tries = Tries::new(&context, target, &health, criteria);
    let mut one = match tries.begin() {
        Ok(one) => one,
        Err(reason) => return refuse(downstream, record, facts, LocalReply::new(reason)).await,
    };
    // The probe does not wait for what its client may say.
    let purpose = match one.is_probe() || target.upstream.protocol == Protocol::Tcp {
        true => Purpose::Relay,
        false => Purpose::Guess,
    };
    let server = target.server(None);
    let caller = Caller {
        namespace: origin.namespace,
        peer: client.member.peer(),
        server: server.as_ref(),
        protocol: key::Protocol::Http1,
    };
    let reached = {
        let on_try = |one: &mut Try<'_>| {
            record.begin_try();
            record.is_tried_at(one.endpoint());
            one.begin();
        };
        let left = caller_left(&context, &client.stream, &client.origin);
        first(reach(&mut tries, &mut one, caller, on_try), left).await
    };
    match reached {
        First::Left(Ok(connection)) => {
            one.end(AttemptOutcome::Response);
            if purpose == Purpose::Relay {
                one.is_relayed();
            }
            let reached = TunnelConnection { connection, one };
            establish(client, record, target, reached, tunnel).await
        }
        First::Left(Err(unanswered)) => {
            refuse(downstream, record, facts, reply_to(unanswered)).await
        }
        First::Right(()) => {
            record.reason = Some(client.departure());
            After::Reset
        }
    }
}

/// What is answered where no connection came about.
fn reply_to(unanswered: Unanswered) -> LocalReply {
    let reply = LocalReply::new(unanswered.reason);
    match unanswered.detail {
        Some(Detail::Tls(cause)) => reply.with_detail(cause.as_str()),
        Some(Detail::Malformed(_)) | None => reply,
    }
}

/// What is answered to a CONNECT over HTTP/2, whose stream cannot become a connection.
fn no_tunnel() -> LocalReply {
    LocalReply::new(Reason::NoRoute).with_status(501)
}

/// Answers that there is no tunnel. What follows the head is then not for this
/// proxy to read.
async fn refuse(
    downstream: &mut Downstream<'_>,
    record: RequestGuard,
    facts: RequestFacts,
    reply: LocalReply,
) -> After {
    downstream.close_after();
    reply::answer(downstream, record, facts, reply).await
}

/// A connection for a tunnel, and the try that it came of: its endpoint is busy
/// for as long as that is kept.
struct TunnelConnection<'a> {
    connection: Lease,
    one: Try<'a>,
}

/// A CONNECT that has been answered.
struct Answered {
    record: RequestGuard,
    at: Instant,
}

/// Answers that there is a tunnel, and serves what comes through it.
async fn establish(
    client: &mut Client,
    mut record: RequestGuard,
    target: &Target,
    reached: TunnelConnection<'_>,
    tunnel: Tunnelled,
) -> After {
    record.status.set(200);
    if !client.reply(ESTABLISHED.to_vec()).await {
        record.reason = Some(client.departure());
        return After::Reset;
    }
    let length = ESTABLISHED.len() as u64;
    record.passage.count(Direction::Received, length);
    let answered = Answered {
        record,
        at: clock::now(),
    };
    serve(client, answered, target, reached, tunnel).await
}

/// Serves what comes through the tunnel.
async fn serve(
    client: &mut Client,
    answered: Answered,
    target: &Target,
    mut reached: TunnelConnection<'_>,
    tunnel: Tunnelled,
) -> After {
    let Answered { mut record, at } = answered;
    // What a drain leaves standing.
    record.tunnel = Some(TcpOutcome::Drained);
    let timeouts = &target.upstream.policies.timeouts;
    let server = &reached.connection.stream;
    let spoke = match target.upstream.protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => FirstSpeaker::Client(Sniff::Http1),
        Protocol::Tcp => FirstSpeaker::Client(Sniff::Opaque),
        Protocol::Auto => who_speaks(&mut CallerEnd::of(client), server, timeouts.tunnel, timeouts.idle).await,
    };
    let (mut to, mut purpose) = (None, Purpose::Relay);
    match spoke {
        FirstSpeaker::Client(Sniff::Http1 | Sniff::Http2Preface) => {
            reached.connection.release_unused();
            return requests(client, Answered { record, at }, tunnel);
        }
        FirstSpeaker::Client(Sniff::Tls) => {
            let patience = Patience::of(timeouts);
            match by_server_name(client, &mut record, &tunnel, patience).await {
                Ok(named) => to = named,
                Err(outcome) => return end(record, outcome),
            }
            purpose = Purpose::RelayTls;
        }
        FirstSpeaker::Client(_) | FirstSpeaker::Server => {}
        FirstSpeaker::Nobody => return end(record, TcpOutcome::IdleTimeout),
        FirstSpeaker::Ended => return end(record, TcpOutcome::ClientReset),
    }
    // What the client encrypts itself is not encrypted once more.
    let is_fit = purpose == Purpose::Relay || reached.connection.stream.tls().is_none();
    let to = match to.filter(|to| to.shared.id != target.shared.id) {
        None if !is_fit => Some(target.clone()),
        to => to,
    };
    match to {
        None => relay(client, record, target, reached, &tunnel).await,
        Some(to) => {
            // Another one may be wanted, but this is as good as any idle one.
            reached.connection.release_unused();
            drop(reached);
            to.count_use();
            record.passage.upstream = to.shared.label;
            if speaks_http_only(&to) {
                return requests(client, Answered { record, at }, tunnel);
            }
            if let Some(outcome) = inject(client, &mut record, &to, &tunnel).await {
                return end(record, outcome);
            }
            match dial(&CallerEnd::of(client), &to, purpose).await {
                Ok(leg) => over(client, record, &to, *leg).await,
                Err(failed) => {
                    record.passage.endpoint.set(failed.endpoint);
                    if let Some(cause) = failed.tls {
                        record.explain(cause.as_str());
                    }
                    end(record, failed.outcome)
                }
            }
        }
    }
}

/// Relays what comes through the tunnel over the connection that there is.
async fn relay(
    client: &mut Client,
    mut record: RequestGuard,
    target: &Target,
    mut reached: TunnelConnection<'_>,
    tunnel: &Tunnelled,
) -> After {
    if let Some(outcome) = inject(client, &mut record, target, tunnel).await {
        return end(record, outcome);
    }
    reached.one.is_relayed();
    count(client, target);
    let TunnelConnection { connection, one } = reached;
    let said = connection.stream.try_recv();
    let after = self::tunnel(client, record, target, connection, said).await;
    // The endpoint was busy until now.
    drop(one);
    after
}

async fn over(client: &mut Client, record: RequestGuard, to: &Target, leg: Leg) -> After {
    record.passage.endpoint.set(Some(leg.connection.endpoint()));
    let Leg { connection, .. } = leg;
    tunnel(client, record, to, connection, None).await
}

/// Goes on with the requests that come through the tunnel.
fn requests(client: &mut Client, answered: Answered, tunnel: Tunnelled) -> After {
    let Answered { mut record, at } = answered;
    client.tunnel = Some(Box::new(tunnel));
    record.tunnel = None;
    record.complete(at);
    After::KeepAlive
}

/// The tunnel ends before anything has gone through it.
fn end(mut record: RequestGuard, outcome: TcpOutcome) -> After {
    record.tunnel = Some(outcome);
    record.complete(clock::now());
    After::Reset
}

fn count(client: &Client, target: &Target) {
    let pools = &client.context.pools;
    pools.count_request(&target.shared, ring::now());
}

/// The upstream that the server name in a TLS hello leads to.
///
/// # Errors
/// How the tunnel ends whose hello does not.
async fn by_server_name(
    client: &mut Client,
    record: &mut RequestGuard,
    tunnel: &Tunnelled,
    patience: Patience,
) -> Result<Option<Target>, TcpOutcome> {
    let name = server_name(&mut CallerEnd::of(client), patience).await;
    let name = name.map_err(|failure| {
        record.explain(failure.detail);
        failure.outcome
    })?;
    if let Some(name) = &name {
        record.describe_tls(name);
    }
    let generation = client.context.generation();
    let resolved = generation.table.resolve_tunnel(tunnel, name.as_deref());
    Ok(match resolved {
        Resolution::Upstream(matched) => Some(generation.target(matched.index)),
        Resolution::Adopt(_) | Resolution::Unmatched(_) | Resolution::NoRoute => None,
    })
}

/// Lets the faults of a relayed connection happen.
async fn inject(
    client: &mut Client,
    record: &mut RequestGuard,
    target: &Target,
    tunnel: &Tunnelled,
) -> Option<TcpOutcome> {
    let settings = target.upstream.policies.fault.as_ref()?;
    let faults = fault::of_connection(settings, Some(tunnel.authority.host()), None);
    fault::inject_relayed(&mut CallerEnd::of(client), faults, &record.passage).await
}

/// The connection carries opaque bytes from here on.
pub(crate) async fn tunnel(
    client: &mut Client,
    mut record: RequestGuard,
    target: &Target,
    connection: Lease,
    upstream_first: Option<Chunk>,
) -> After {
    let context = Rc::clone(&client.context);
    // What a drain leaves standing.
    record.tunnel = Some(TcpOutcome::Drained);
    client.member.relays(target.shared.id);
    let tunnel = Tunnel {
        cells: &context.telemetry.cells,
        passage: &record.passage,
        answered_bytes: record.passage.bytes_out.get(),
        silence: target.upstream.policies.timeouts.tunnel,
        keep_alive: target.upstream.policies.timeouts.keep_alive,
    };
    let client_first = client.ahead.take();
    let (caller, upstream) = (TunnelEnd::Own(&client.stream), TunnelEnd::Own(&connection.stream));
    let relay = Box::pin(tunnel.run(caller, client_first, upstream, upstream_first));
    let outcome = relay.await;
    let refused = tunnel.refusal(upstream, outcome);
    if let Some(refused) = refused {
        target.shared.handshakes.failed(refused);
        record.explain(refused.as_str());
    }
    record.tunnel = Some(match client.member.is_shed() {
        true => TcpOutcome::Overloaded,
        false => outcome,
    });
    record.complete(clock::now());
    After::Close
}

#[cfg(test)]
mod tests;
