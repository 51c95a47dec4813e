//! Replies made here, in the upstream's stead.

use crate::clock;
use crate::message::{BadMessage, LocalReply, Reason};
use crate::proxy::after::After;
use crate::proxy::downstream::Downstream;
use crate::proxy::request_facts::RequestFacts;
use crate::telemetry::{Direction, GrpcStatus, RequestGuard};

/// Answers a request with `reply`, which tells why.
pub(crate) async fn answer(
    downstream: &mut Downstream<'_>,
    mut record: RequestGuard,
    facts: RequestFacts,
    reply: LocalReply,
) -> After {
    let goes_on = downstream.keeps_alive();
    let mut reply = reply.to(facts.method).for_call(facts.is_call);
    if !goes_on {
        reply = reply.closing();
    }
    tell(&mut record, &reply);
    if let Some(detail) = reply.detail() {
        record.explain(detail);
    }
    if !downstream.is_whole() {
        record.passage.count(Direction::Sent, downstream.discard());
    }
    let Some(length) = downstream.reply(&reply).await else {
        record.reason = Some(downstream.departure());
        return After::Reset;
    };
    record.passage.count(Direction::Received, length);
    record.complete(clock::now());
    downstream.after(match goes_on {
        true => After::KeepAlive,
        false => After::Close,
    })
}

/// Refuses a malformed request; `field` is which one it was, if any. Where its
/// next message would begin is not known, so the connection ends.
pub(crate) async fn refuse(
    downstream: &mut Downstream<'_>,
    mut record: RequestGuard,
    bad: BadMessage,
    field: &[u8],
) -> After {
    record.explain(&bad.about(field));
    end(downstream, record, LocalReply::refusing(bad, field)).await
}

/// Gives up a request whose head is not whole, for the memory that it takes.
pub(crate) async fn give_up(downstream: &mut Downstream<'_>, mut record: RequestGuard) -> After {
    const WHY: &str = "given up: memory_limit is reached, and its head was not whole";
    record.explain(WHY);
    let reply = LocalReply::new(Reason::Overloaded).with_detail(WHY);
    end(downstream, record, reply).await
}

/// Replies, and ends the connection.
async fn end(
    downstream: &mut Downstream<'_>,
    mut record: RequestGuard,
    reply: LocalReply,
) -> After {
    let reply = reply.closing();
    tell(&mut record, &reply);
    record.passage.count(Direction::Sent, downstream.discard());
    if let Some(length) = downstream.reply(&reply).await {
        record.passage.count(Direction::Received, length);
    }
    record.complete(clock::now());
    After::Linger
}

/// Tells the record of a reply.
fn tell(record: &mut RequestGuard, reply: &LocalReply) {
    record.status.set(reply.status());
    record.grpc_status.set(reply.code().map(GrpcStatus::from));
    record.reason = Some(reply.reason().into());
}
