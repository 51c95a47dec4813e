//! One request, from its head to its end: the order of the filters, written
//! once, as straight-line code.

use std::rc::Rc;
use std::time::Instant;

use crate::addr::EndpointAddr;
use crate::clock;
use crate::http::{BadMessage, BodyReader, LocalReply, Reason};
use crate::proxy::client::Client;
use crate::proxy::context::Scratch;
use crate::proxy::exchange::{self, Answer, Asked, Exchange, ExchangeError, Seen};
use crate::proxy::generation::Target;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::way;
use crate::ring::{self, Chunk, Gather};
use crate::route::settings::Protocol;
use crate::telemetry::{AttemptOutcome, Description, Direction, RequestGuard, TcpOutcome};
use crate::upstream::dial::DialError;
use crate::upstream::pool::{CheckoutError, Connection, Want};

/// A request over a reused connection is kept for a replay up to this size,
/// head and body together.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It may carry another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed once the unread rest of the request has been drained.
    Linger,
    /// It is reset: the response was cut, or there is none to give.
    Reset,
}

/// Serves one request whose head is `head`, parsed into `scratch.request`.
pub async fn forward(client: &mut Client, scratch: &mut Scratch, head: Chunk) -> After {
    let context = Rc::clone(&client.context);
    let cells = &context.telemetry.cells;
    let request = &scratch.request;
    let asked = Asked::of(request);
    let mut body = BodyReader::of_request(request.body());
    let mut record = context.telemetry.begin(client.passage(ring::now()));
    record.method = asked.method.as_str();
    record.passage.bytes_in.set(head.len() as u64);

    // Where to.
    let original = client.origin.original;
    let way = match way::find(&context, original, request, &head, &mut scratch.host) {
        Ok(Some(way)) => way,
        Ok(None) => {
            drop(head);
            return answer(client, record, asked, &body, Reason::NoRoute).await;
        }
        Err(bad) => {
            drop(head);
            return refuse(client, record, bad).await;
        }
    };
    way.target.count_use();
    let (upstream, shared) = (&way.target.upstream, &way.target.shared);
    record.passage.upstream = shared.label;
    if upstream.protocol == Protocol::Tcp {
        drop(head);
        return answer(client, record, asked, &body, Reason::NoRoute).await;
    }
    let Some(endpoint) = way::endpoint(&context.pools, &way.target, original) else {
        drop(head);
        return answer(client, record, asked, &body, Reason::NoEndpoint).await;
    };
    record.passage.endpoint = Some(endpoint);

    // Identity and trace, then the head as the upstream gets it.
    let identity = way::Identity::of(request, &head);
    if record.is_logged() {
        record.describe(Description {
            method: request.method_bytes(&head),
            authority: request.field(&head, "host").unwrap_or_default(),
            path: request.path(&head),
            request_id: identity.request_id(request, &head),
        });
    }
    if request.is_connect() && original.is_none() {
        drop(head);
        return connect(client, record, &way.target, endpoint).await;
    }
    let outgoing = way.encode(request, &head, endpoint, &identity, original);
    let mut outgoing = Gather::from(outgoing);
    let repeatable = way::may_be_sent_twice(request, &head);
    drop(head);

    // What of the body is here already. Nothing of the shared buffers is kept
    // while a peer is waited for.
    if !body.is_done()
        && let Some(chunk) = client.ahead.take()
    {
        match exchange::take_body(&mut body, chunk) {
            Ok((mine, rest)) => {
                record.passage.count(Direction::Sent, mine.len() as u64);
                outgoing.push(mine);
                client.ahead = rest;
            }
            Err(bad) => return refuse(client, record, bad).await,
        }
    }
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }

    // One try, and a second where a reused connection turns out to be dead.
    let policies = (&upstream.policies.pool, &upstream.policies.timeouts);
    let place = (client.origin.namespace, endpoint);
    let mut want = Want::Any;
    let (failure, seen) = loop {
        record.attempts += 1;
        let connection = match context.pools.take_idle(shared, place, want) {
            Some(connection) => connection,
            None => {
                outgoing.detach();
                match context.pools.checkout(shared, policies, place, want).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(upstream = %upstream.name, %endpoint, ?error, "no connection");
                        let (reason, outcome) = checkout_failed(&error);
                        cells.attempt(shared.label, outcome);
                        return answer(client, record, asked, &body, reason).await;
                    }
                }
            }
        };
        record.reused = connection.reused;
        if connection.reused {
            cells.pool_reuse(shared.label);
        }
        let keep = connection.reused
            && repeatable
            && body.is_done()
            && outgoing.bytes() <= REPLAY_BYTES_MAX;
        let copy = keep.then(|| outgoing.copy());
        cells.bytes(shared.label, Direction::Sent, outgoing.bytes() as u64);

        let seen = Seen::default();
        let sent_at = clock::now();
        let exchange = Exchange {
            client: &client.stream,
            ahead: &mut client.ahead,
            upstream: &connection.stream,
            asked,
            body: &mut body,
            head: &mut scratch.response,
            limits: &context.head_limits,
            idle: upstream.policies.timeouts.idle,
            drain: &context.drain,
            cells,
            label: shared.label,
            seen: &seen,
        };
        match exchange.run(std::mem::take(&mut outgoing)).await {
            Ok(Answer::Complete {
                reusable,
                keep_alive,
                ended,
            }) => {
                cells.attempt(shared.label, AttemptOutcome::Response);
                fill(&mut record, &seen, sent_at);
                if reusable {
                    context.pools.checkin(shared, policies, connection);
                }
                record.complete(ended);
                return match (keep_alive, body.is_done()) {
                    (true, true) => After::KeepAlive,
                    (false, true) => After::Close,
                    (_, false) => After::Linger,
                };
            }
            Ok(Answer::Switched(upstream_first)) => {
                cells.attempt(shared.label, AttemptOutcome::Response);
                fill(&mut record, &seen, sent_at);
                return tunnel(client, record, &way.target, connection, upstream_first).await;
            }
            Err(failure) => {
                cells.attempt(shared.label, failure.outcome());
                match replay(failure, connection.reused, copy, seen.any_byte.get()) {
                    Ok(again) => (outgoing, want) = (again, Want::Fresh),
                    Err(failure) => break (failure, seen),
                }
                cells.retry(shared.label, "reset");
            }
        }
    };

    // The try failed for good.
    record.status = seen.status.get();
    record.passage.bytes_out.set(seen.bytes_out.get());
    record.passage.count(Direction::Sent, seen.bytes_in.get());
    tracing::debug!(upstream = %upstream.name, %endpoint, ?failure, "exchange failed");
    match failure {
        ExchangeError::ClientGone => After::Reset,
        ExchangeError::Cut => {
            record.reason = Some(Reason::UpstreamReset.as_str());
            After::Reset
        }
        ExchangeError::Request(bad) => refuse(client, record, bad).await,
        ExchangeError::Silent => answer(client, record, asked, &body, Reason::RequestTimeout).await,
        ExchangeError::Response(_) => {
            answer(client, record, asked, &body, Reason::ProtocolError).await
        }
        ExchangeError::Unsent(_) | ExchangeError::Send | ExchangeError::Ended => {
            answer(client, record, asked, &body, Reason::UpstreamReset).await
        }
    }
}

/// What to send over a fresh connection after a try has failed, or the failure
/// where that is final. Only a reused connection may have been dead before the
/// request came. What the kernel took no byte of is sent whatever it is; `copy`,
/// the whole of a request that may be sent twice, where the upstream has not
/// begun to answer.
fn replay(
    failure: ExchangeError,
    reused: bool,
    copy: Option<Gather>,
    answered: bool,
) -> Result<Gather, ExchangeError> {
    match (failure, copy) {
        (ExchangeError::Unsent(whole), _) if reused => Ok(whole),
        (ExchangeError::Send | ExchangeError::Ended, Some(copy)) if !answered => Ok(copy),
        (failure, _) => Err(failure),
    }
}

/// Fills in what a finished exchange tells about itself.
fn fill(record: &mut RequestGuard, seen: &Seen, sent_at: Instant) {
    record.status = seen.status.get();
    record.passage.bytes_out.set(seen.bytes_out.get());
    record.passage.count(Direction::Sent, seen.bytes_in.get());
    let before = sent_at.saturating_duration_since(record.passage.started);
    let after = match (seen.head_at.get(), seen.forwarded_at.get()) {
        // The shard's clock stands while a turn lasts.
        (Some(head_at), Some(forwarded_at)) => {
            forwarded_at.saturating_duration_since(head_at.max(sent_at))
        }
        _ => std::time::Duration::ZERO,
    };
    record.overhead = before + after;
}

/// CONNECT on an explicit listener: the tunnel leads to the upstream that
/// claims the authority (RFC 9110 section 9.3.6).
async fn connect(
    client: &mut Client,
    mut record: RequestGuard,
    target: &Target,
    endpoint: EndpointAddr,
) -> After {
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";
    let (upstream, shared) = (&target.upstream, &target.shared);
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    record.attempts = 1;
    let pools = Rc::clone(&client.context.pools);
    let policies = (&upstream.policies.pool, &upstream.policies.timeouts);
    let place = (client.origin.namespace, endpoint);
    match pools.checkout(shared, policies, place, Want::Fresh).await {
        Ok(connection) => {
            client
                .context
                .telemetry
                .cells
                .attempt(shared.label, AttemptOutcome::Response);
            record.status = 200;
            record.passage.bytes_out.set(ESTABLISHED.len() as u64);
            if !client.reply(ESTABLISHED.to_vec()).await {
                return After::Reset;
            }
            tunnel(client, record, target, connection, None).await
        }
        Err(error) => {
            let (reason, outcome) = checkout_failed(&error);
            client
                .context
                .telemetry
                .cells
                .attempt(shared.label, outcome);
            record.status = reason.status();
            record.reason = Some(reason.as_str());
            client
                .reply(LocalReply::new(reason).closing().encode())
                .await;
            record.complete(clock::now());
            After::Close
        }
    }
}

/// The connection carries opaque bytes from here on.
async fn tunnel(
    client: &mut Client,
    mut record: RequestGuard,
    target: &Target,
    connection: Connection,
    upstream_first: Option<Chunk>,
) -> After {
    let context = Rc::clone(&client.context);
    // What a drain leaves standing.
    record.tunnel = Some(TcpOutcome::Drained);
    let tunnel = Tunnel {
        cells: &context.telemetry.cells,
        passage: &record.passage,
        idle: target.upstream.policies.timeouts.idle,
    };
    let client_first = client.ahead.take();
    let relay = Box::pin(tunnel.run(
        &client.stream,
        client_first,
        &connection.stream,
        upstream_first,
    ));
    record.tunnel = Some(relay.await);
    record.complete(clock::now());
    After::Close
}

/// Answers in the upstream's stead.
async fn answer(
    client: &mut Client,
    mut record: RequestGuard,
    asked: Asked,
    body: &BodyReader,
    reason: Reason,
) -> After {
    let keep_alive = asked.keep_alive && body.is_done() && !client.context.drain.has_begun();
    let mut reply = LocalReply::new(reason).to(asked.method);
    if !keep_alive {
        reply = reply.closing();
    }
    let bytes = reply.encode();
    record.status = reason.status();
    record.reason = Some(reason.as_str());
    record.passage.bytes_out.set(bytes.len() as u64);
    if !client.reply(bytes).await {
        return After::Reset;
    }
    record.complete(clock::now());
    match (keep_alive, body.is_done()) {
        (true, _) => After::KeepAlive,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}

/// Refuses a malformed request. Where its next message would begin is not
/// known, so the connection ends.
pub async fn refuse(client: &mut Client, mut record: RequestGuard, bad: BadMessage) -> After {
    let reason = bad.reason();
    let bytes = LocalReply::new(reason).because(bad).closing().encode();
    record.status = bad.status();
    record.reason = Some(reason.as_str());
    record.passage.bytes_out.set(bytes.len() as u64);
    client.reply(bytes).await;
    record.complete(clock::now());
    After::Linger
}

fn checkout_failed(error: &CheckoutError) -> (Reason, AttemptOutcome) {
    match error {
        CheckoutError::Overloaded => (Reason::Overloaded, AttemptOutcome::ConnectFailed),
        CheckoutError::PendingTimeout | CheckoutError::Dial(DialError::Timeout) => {
            (Reason::ConnectTimeout, AttemptOutcome::ConnectTimeout)
        }
        CheckoutError::Dial(DialError::Loop) => (Reason::Loop, AttemptOutcome::ConnectFailed),
        CheckoutError::Dial(DialError::Connect(_)) => {
            (Reason::ConnectFailed, AttemptOutcome::ConnectFailed)
        }
    }
}

impl ExchangeError {
    fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Unsent(_) | Self::Send | Self::Ended | Self::Cut => AttemptOutcome::Reset,
            Self::Response(_) => AttemptOutcome::ProtocolError,
            Self::Silent => AttemptOutcome::IdleTimeout,
            Self::Request(_) | Self::ClientGone => AttemptOutcome::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests;
