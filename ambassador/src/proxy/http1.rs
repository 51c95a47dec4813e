//! The life of an HTTP/1 connection: one request after another.

use std::future::Future;
use std::pin::Pin;

use crate::proxy::after::After;
use crate::proxy::client::{Client, ClientEvent, Patience};
use crate::proxy::context::Scratch;
use crate::proxy::downstream::Downstream;
use crate::proxy::forward;
use crate::proxy::http2;
use crate::proxy::reply;
use crate::proxy::slot::{self, Slot, Slots};
use crate::ring;
use crate::telemetry::Direction;

/// Slots of requests that are kept.
const SLOTS_KEPT_MAX: usize = 16;

/// A request of which the first bytes are ahead.
struct NextRequest {
    client: Box<Client>,
    patience: Patience,
}

/// The connection of a request that is served, and what becomes of it.
type RequestEnd = (Box<Client>, After);

thread_local! {
    static SLOTS: Slots<NextRequest, RequestEnd> = const { Slots::new(SLOTS_KEPT_MAX) };
}

/// Frees what is kept for the next requests.
pub(super) fn drop_spares() {
    SLOTS.with(Slots::drop_all);
}

/// Serves requests until the connection ends. Gives how it did.
pub(crate) async fn serve(mut client: Box<Client>, patience: Patience) -> After {
    let after = loop {
        match client.next_request(patience.idle()).await {
            ClientEvent::Bytes => {}
            // Boxed, as it is larger, and waits by itself.
            ClientEvent::Http2 => {
                Box::pin(http2::serve(client, patience, boxed)).await;
                return After::Close;
            }
            ClientEvent::Ended => break After::Close,
            ClientEvent::Drained => break After::Linger,
        }
        let mut request = SLOTS.with(Slots::take).unwrap_or_else(empty_slot);
        request.as_mut().begin(NextRequest { client, patience });
        let after;
        (client, after) = request.as_mut().await;
        SLOTS.with(|slots| slots.keep(request));
        client.member.rests();
        if after != After::KeepAlive {
            break after;
        }
    };
    if after == After::Reset {
        client.stream.reset();
        return after;
    }
    // What it was sent last may still be on its way.
    client.flush(patience.idle()).await;
    if after == After::Linger {
        client.linger().await;
    }
    after
}

/// The same for whoever cannot name it.
pub(crate) fn boxed(
    client: Box<Client>,
    patience: Patience,
) -> Pin<Box<dyn Future<Output = After>>> {
    Box::pin(serve(client, patience))
}

fn empty_slot() -> Slot<NextRequest, RequestEnd> {
    slot::empty(|next: NextRequest, mut scratch| async move {
        let mut client = next.client;
        let after = one(&mut client, &mut scratch, next.patience).await;
        ((client, after), scratch)
    })
}

async fn one(client: &mut Client, scratch: &mut Scratch, patience: Patience) -> After {
    let head = client.read_request(&mut scratch.request, patience);
    match head.await {
        Ok(Some(head)) => {
            let mut downstream = Downstream::http1(client, &scratch.request);
            forward::forward(&mut downstream, scratch, head).await
        }
        Ok(None) if client.member.is_shed() => {
            let mut record = client.context.telemetry.begin(client.passage(ring::now()));
            record.describe_sender(client.peer_id());
            reply::give_up(&mut Downstream::headless(client), record).await
        }
        Ok(None) => After::Close,
        Err((bad, bytes)) => {
            let mut record = client.context.telemetry.begin(client.passage(ring::now()));
            record.describe_sender(client.peer_id());
            record.passage.count(Direction::Sent, bytes);
            let field = scratch.request.fields().blamed();
            reply::refuse(&mut Downstream::headless(client), record, bad, field).await
        }
    }
}
