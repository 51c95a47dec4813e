//! HTTP connections that become tunnels: CONNECT and upgrades.

use std::rc::Rc;

use crate::clock::{self, Instant};
use crate::combinators::{First, first};
use crate::message::LocalReply;
use crate::proxy::after::After;
use crate::proxy::attempt::Try;
use crate::proxy::caller::Caller;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::Patience;
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
use crate::telemetry::{AttemptOutcome, Direction, Journal, RequestGuard, TcpOutcome};
use crate::upstream::key;
use crate::upstream::pool::{Lease, Leased};

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
    downstream.caller_end().detach();
    let client = downstream.client();
    let context = Rc::clone(client.context);
    let (origin, peer) = (client.origin, client.member.peer());
    let health = pick::health_for(&context.pools, target, origin.namespace);
    let criteria = Criteria {
        namespace: origin.namespace,
        key,
        ..Criteria::default()
    };
    // The record moves on.
    let journal = Journal::default();
    let mut tries = Tries::new(&context, target, &health, criteria, &journal);
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
        peer,
        server: server.as_ref(),
        protocol: spoken_to(target),
    };
    let reached = {
        let on_try = |one: &mut Try<'_>| {
            record.begin_try();
            record.is_tried_at(one.endpoint());
            one.begin();
        };
        let left = downstream.parts().send.caller_left(&context);
        first(reach(&mut tries, &mut one, caller, on_try), left).await
    };
    match reached {
        First::Left(Ok(leased)) => {
            one.end(AttemptOutcome::Response);
            record.passage.journal.follow(&journal);
            if purpose == Purpose::Relay {
                one.is_relayed();
            }
            let reached = TunnelConnection::of(leased, one);
            establish(downstream, record, target, reached, tunnel).await
        }
        First::Left(Err(unanswered)) => {
            record.passage.journal.follow(&journal);
            refuse(downstream, record, facts, reply_to(unanswered)).await
        }
        First::Right(()) => {
            record.reason = Some(downstream.departure());
            After::Reset
        }
    }
}

/// What a connection for a tunnel is of: requests of HTTP/2 have no use for one of HTTP/1.
fn spoken_to(target: &Target) -> key::Protocol {
    match target.upstream.protocol {
        Protocol::Http2 | Protocol::Grpc => key::Protocol::Http2,
        Protocol::Auto | Protocol::Http1 | Protocol::Tcp => key::Protocol::Http1,
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

impl<'a> TunnelConnection<'a> {
    /// `None`: it is shared, and requests take places of their own.
    fn of(leased: Leased, one: Try<'a>) -> Option<Self> {
        match leased {
            Leased::Own(connection) => Some(Self { connection, one }),
            Leased::Shared(_) => None,
        }
    }
}

/// A CONNECT that has been answered.
struct Answered {
    record: RequestGuard,
    at: Instant,
}

/// Answers that there is a tunnel, and serves what comes through it: requests, where it
/// has no connection of its own.
async fn establish(
    downstream: &mut Downstream<'_>,
    mut record: RequestGuard,
    target: &Target,
    reached: Option<TunnelConnection<'_>>,
    tunnel: Tunnelled,
) -> After {
    record.status.set(200);
    let Some(length) = downstream.establish().await else {
        record.reason = Some(downstream.departure());
        return After::Reset;
    };
    record.passage.count(Direction::Received, length);
    let answered = Answered {
        record,
        at: clock::now(),
    };
    match reached {
        Some(reached) => serve(downstream, answered, target, reached, tunnel).await,
        None => requests(downstream, answered, tunnel).await,
    }
}

/// Serves what comes through the tunnel.
async fn serve(
    downstream: &mut Downstream<'_>,
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
        Protocol::Auto => {
            let mut caller = downstream.caller_end();
            who_speaks(&mut caller, server, timeouts.tunnel, timeouts.idle).await
        }
    };
    let (mut to, mut purpose) = (None, Purpose::Relay);
    match spoke {
        FirstSpeaker::Client(Sniff::Http1 | Sniff::Http2Preface) => {
            reached.connection.release_unused();
            drop(reached);
            return requests(downstream, Answered { record, at }, tunnel).await;
        }
        FirstSpeaker::Client(Sniff::Tls) => {
            let patience = Patience::of(timeouts);
            let caller = downstream.caller_end();
            match by_server_name(caller, &mut record, &tunnel, patience).await {
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
        None => relay(downstream.caller_end(), record, target, reached, &tunnel).await,
        Some(to) => {
            // Another one may be wanted, but this is as good as any idle one.
            reached.connection.release_unused();
            drop(reached);
            to.count_use();
            record.passage.upstream = to.shared.label;
            if speaks_http_only(&to) {
                return requests(downstream, Answered { record, at }, tunnel).await;
            }
            relay_to(downstream.caller_end(), record, &to, purpose, &tunnel).await
        }
    }
}

/// Relays what comes through the tunnel over the connection that there is.
async fn relay(
    mut caller: CallerEnd<'_>,
    mut record: RequestGuard,
    target: &Target,
    mut reached: TunnelConnection<'_>,
    tunnel: &Tunnelled,
) -> After {
    if let Some(outcome) = inject(&mut caller, &mut record, target, tunnel).await {
        return end(record, outcome);
    }
    reached.one.is_relayed();
    let pools = &caller.context.pools;
    pools.count_request(&target.shared, ring::now());
    let TunnelConnection { connection, one } = reached;
    let said = connection.stream.try_recv();
    let leased = Leased::Own(connection);
    let after = self::tunnel(caller, record, target, leased, said).await;
    // The endpoint was busy until now.
    drop(one);
    after
}

/// Relays it over another connection.
async fn relay_to(
    mut caller: CallerEnd<'_>,
    mut record: RequestGuard,
    to: &Target,
    purpose: Purpose,
    tunnel: &Tunnelled,
) -> After {
    if let Some(outcome) = inject(&mut caller, &mut record, to, tunnel).await {
        return end(record, outcome);
    }
    match dial(&caller, to, purpose).await {
        Ok(leg) => {
            let Leg { connection, .. } = *leg;
            record.passage.endpoint.set(Some(connection.endpoint()));
            self::tunnel(caller, record, to, Leased::Own(connection), None).await
        }
        Err(failed) => {
            record.passage.endpoint.set(failed.endpoint);
            if let Some(cause) = failed.tls {
                record.explain(cause.as_str());
            }
            end(record, failed.outcome)
        }
    }
}

/// Goes on with the requests that come through the tunnel.
async fn requests(downstream: &mut Downstream<'_>, answered: Answered, tunnel: Tunnelled) -> After {
    let Answered { mut record, at } = answered;
    record.tunnel = None;
    record.complete(at);
    downstream.go_on(tunnel).await
}

/// The tunnel ends before anything has gone through it.
fn end(mut record: RequestGuard, outcome: TcpOutcome) -> After {
    record.tunnel = Some(outcome);
    record.complete(clock::now());
    After::Reset
}

/// The upstream that the server name in a TLS hello leads to.
///
/// # Errors
/// How the tunnel ends whose hello does not.
async fn by_server_name(
    mut caller: CallerEnd<'_>,
    record: &mut RequestGuard,
    tunnel: &Tunnelled,
    patience: Patience,
) -> Result<Option<Target>, TcpOutcome> {
    let name = server_name(&mut caller, patience).await;
    let name = name.map_err(|failure| {
        record.explain(failure.detail);
        failure.outcome
    })?;
    if let Some(name) = &name {
        record.describe_tls(name);
    }
    let generation = caller.context.generation();
    let resolved = generation.table.resolve_tunnel(tunnel, name.as_deref());
    Ok(match resolved {
        Resolution::Upstream(matched) => Some(generation.target(matched.index)),
        Resolution::Adopt(_) | Resolution::Unmatched(_) | Resolution::NoRoute => None,
    })
}

/// Lets the faults of a relayed connection happen.
async fn inject(
    caller: &mut CallerEnd<'_>,
    record: &mut RequestGuard,
    target: &Target,
    tunnel: &Tunnelled,
) -> Option<TcpOutcome> {
    let settings = target.upstream.policies.fault.as_ref()?;
    let faults = fault::of_connection(settings, Some(tunnel.authority.host()), None);
    fault::inject_relayed(caller, faults, &record.passage).await
}

/// The connection carries opaque bytes from here on.
pub(crate) async fn tunnel(
    caller: CallerEnd<'_>,
    mut record: RequestGuard,
    target: &Target,
    leased: Leased,
    upstream_first: Option<Chunk>,
) -> After {
    // What a drain leaves standing.
    record.tunnel = Some(TcpOutcome::Drained);
    caller.member.relays(target.shared.id);
    let tunnel = Tunnel {
        cells: &caller.context.telemetry.cells,
        passage: &record.passage,
        answered_bytes: record.passage.bytes_out.get(),
        silence: target.upstream.policies.timeouts.tunnel,
        keep_alive: target.upstream.policies.timeouts.keep_alive,
    };
    let (client_first, upstream) = (caller.ahead.take(), TunnelEnd::of(&leased));
    let relay = Box::pin(tunnel.run(caller.end, client_first, upstream, upstream_first));
    let outcome = relay.await;
    let refused = tunnel.refusal(upstream, outcome);
    if let Some(refused) = refused {
        target.shared.handshakes.failed(refused);
        record.explain(refused.as_str());
    }
    record.tunnel = Some(match caller.member.is_shed() {
        true => TcpOutcome::Overloaded,
        false => outcome,
    });
    record.complete(clock::now());
    After::Close
}

#[cfg(test)]
mod tests;
