//! HTTP connections that carry opaque bytes from some point on: CONNECT and
//! upgrades.

use std::rc::Rc;

use crate::clock;
use crate::http::{BodyReader, LocalReply, RequestBody};
use crate::proxy::client::Client;
use crate::proxy::exchange::Asked;
use crate::proxy::forward::After;
use crate::proxy::generation::Target;
use crate::proxy::gone::gone;
use crate::proxy::judges::Judges;
use crate::proxy::reach::{Purpose, Reached, Unreached, reach};
use crate::proxy::reply;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::way::Aim;
use crate::ring::Chunk;
use crate::telemetry::{AttemptOutcome, CLIENT_GONE, Direction, RequestGuard, TcpOutcome};
use crate::together::{First, first};
use crate::upstream::connection::Connection;

/// CONNECT on an explicit listener: the tunnel leads to the upstream that
/// claims the authority (RFC 9110 section 9.3.6).
pub async fn connect(
    client: &mut Client,
    mut record: RequestGuard,
    asked: Asked,
    target: &Target,
    (judges, aim): (Judges<'_>, Aim<'_>),
) -> After {
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";
    let shared = &target.shared;
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    // What follows the head is not for this proxy to read as a request.
    let asked = Asked {
        keep_alive: false,
        ..asked
    };
    let body = BodyReader::of_request(RequestBody::None);
    let context = Rc::clone(&client.context);
    let cells = &context.telemetry.cells;
    let on_try = |endpoint| {
        record.attempts += 1;
        record.is_tried_at(endpoint);
    };
    let aim = (aim, Purpose::Relay);
    let reached = reach(
        &context,
        target,
        client.origin.namespace,
        judges,
        aim,
        on_try,
    );
    let gone = gone(&context, &client.stream, &client.origin);
    let reached = match first(reached, gone).await {
        First::Left(reached) => reached,
        First::Right(()) => {
            record.reason = Some(CLIENT_GONE);
            return After::Reset;
        }
    };
    match reached {
        Ok(Reached { connection, picked }) => {
            cells.attempt(shared.label, AttemptOutcome::Response);
            record.status = 200;
            if !client.reply(ESTABLISHED.to_vec()).await {
                record.reason = Some(CLIENT_GONE);
                return After::Reset;
            }
            let length = ESTABLISHED.len() as u64;
            record.passage.count(Direction::Received, length);
            let after = tunnel(client, record, target, connection, None).await;
            // The endpoint was busy until now.
            drop(picked);
            after
        }
        Err(Unreached { unanswered, .. }) => {
            cells.attempt(shared.label, unanswered.outcome());
            let reply = LocalReply::new(unanswered.reason);
            reply::answer(client, record, asked, &body, reply).await
        }
    }
}

/// The connection carries opaque bytes from here on.
pub async fn tunnel(
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
        silence: target.upstream.policies.timeouts.tunnel,
        keep_alive: target.upstream.policies.timeouts.keep_alive,
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
