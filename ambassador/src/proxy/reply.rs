//! Replies made here, in the upstream's stead.

use crate::clock;
use crate::http1;
use crate::http1::BodyReader;
use crate::message::{BadMessage, LocalReply, Reason};
use crate::proxy::after::After;
use crate::proxy::client::Client;
use crate::proxy::request_facts::RequestFacts;
use crate::telemetry::{Direction, RequestGuard};

/// Answers a request with `reply`, which tells why.
pub(crate) async fn answer(
    client: &mut Client,
    mut record: RequestGuard,
    facts: RequestFacts,
    body: &BodyReader,
    reply: LocalReply,
) -> After {
    let keep_alive = facts.keep_alive && body.is_done() && !client.context.drain.has_begun();
    let mut reply = reply.to(facts.method);
    if !keep_alive {
        reply = reply.closing();
    }
    let bytes = http1::encode_reply(&reply);
    record.status.set(reply.status());
    record.reason = Some(reply.reason().into());
    if let Some(detail) = reply.detail() {
        record.explain(detail);
    }
    let length = bytes.len() as u64;
    if !body.is_done() {
        discard(client, &record);
    }
    if !client.reply(bytes).await {
        record.reason = Some(client.departure());
        return After::Reset;
    }
    record.passage.count(Direction::Received, length);
    record.complete(clock::now());
    match (keep_alive, body.is_done()) {
        (true, _) => After::KeepAlive,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}

/// Refuses a malformed request; `field` is which one it was, if any. Where its
/// next message would begin is not known, so the connection ends.
pub(crate) async fn refuse(
    client: &mut Client,
    mut record: RequestGuard,
    bad: BadMessage,
    field: &[u8],
) -> After {
    record.explain(&bad.about(field));
    end(client, record, LocalReply::refusing(bad, field)).await
}

/// Gives up a request whose head is not whole, for the memory that it takes.
pub(crate) async fn give_up(client: &mut Client, mut record: RequestGuard) -> After {
    const WHY: &str = "given up: memory_limit is reached, and its head was not whole";
    record.explain(WHY);
    let reply = LocalReply::new(Reason::Overloaded).with_detail(WHY);
    end(client, record, reply).await
}

/// Replies, and ends the connection.
async fn end(client: &mut Client, mut record: RequestGuard, reply: LocalReply) -> After {
    let reply = reply.closing();
    let bytes = http1::encode_reply(&reply);
    record.status.set(reply.status());
    record.reason = Some(reply.reason().into());
    let length = bytes.len() as u64;
    discard(client, &record);
    if client.reply(bytes).await {
        record.passage.count(Direction::Received, length);
    }
    record.complete(clock::now());
    After::Linger
}

/// Throws away what has come of a request that nobody takes; it came all the
/// same. The connection ends, so that nothing else is among it.
fn discard(client: &mut Client, record: &RequestGuard) {
    let mut next = client.ahead.take();
    while let Some(chunk) = next.or_else(|| client.stream.try_recv()) {
        let bytes = chunk.len() as u64;
        record.passage.count(Direction::Sent, bytes);
        next = None;
    }
}
