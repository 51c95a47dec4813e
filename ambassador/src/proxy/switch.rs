//! HTTP connections that carry opaque bytes from some point on: CONNECT and
//! upgrades.

use std::rc::Rc;

use crate::clock;
use crate::http::{BodyReader, LocalReply, RequestBody};
use crate::policy::breaker::Trial;
use crate::proxy::client::Client;
use crate::proxy::exchange::Asked;
use crate::proxy::failure::Unanswered;
use crate::proxy::forward::After;
use crate::proxy::generation::Target;
use crate::proxy::reply;
use crate::proxy::tunnel::Tunnel;
use crate::ring::{self, Chunk};
use crate::telemetry::{AttemptOutcome, RequestGuard, TcpOutcome};
use crate::upstream::balancer::{Grade, Picked};
use crate::upstream::connection::Connection;
use crate::upstream::pool::Want;

/// CONNECT on an explicit listener: the tunnel leads to the upstream that
/// claims the authority (RFC 9110 section 9.3.6).
pub async fn connect(
    client: &mut Client,
    mut record: RequestGuard,
    asked: Asked,
    target: &Target,
    (mut picked, trial): (Picked, Trial<'_>),
) -> After {
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";
    let (upstream, shared) = (&target.upstream, &target.shared);
    if let Some(ahead) = &mut client.ahead {
        ahead.detach();
    }
    // What follows the head is not for this proxy to read as a request.
    let asked = Asked {
        keep_alive: false,
        ..asked
    };
    let body = BodyReader::of_request(RequestBody::None);
    record.attempts = 1;
    record.passage.endpoint = Some(picked.endpoint);
    let context = Rc::clone(&client.context);
    let cells = &context.telemetry.cells;
    let place = (client.origin.namespace, picked.endpoint);
    let checkout = context
        .pools
        .checkout(shared, target.pool_policies(), place, Want::Fresh);
    match checkout.await {
        Ok(connection) => {
            let now = ring::now();
            trial.succeeded(now);
            picked.ended(Grade::Good, &upstream.policies.outlier, now);
            cells.attempt(shared.label, AttemptOutcome::Response);
            record.status = 200;
            record.passage.bytes_out.set(ESTABLISHED.len() as u64);
            if !client.reply(ESTABLISHED.to_vec()).await {
                return After::Reset;
            }
            tunnel(client, record, target, connection, None).await
        }
        Err(error) => {
            let failed = Unanswered::without_connection(&error);
            failed.report(target, &mut picked, trial);
            cells.attempt(shared.label, failed.outcome());
            let reply = LocalReply::new(failed.reason);
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
