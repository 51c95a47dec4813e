//! Notices that the caller of a request has left.
//!
//! A reset means that it has. A FIN may be a half-close, whose sender waits for
//! its answer, or a close: for a caller on this machine the kernel knows which.
//! From other machines a FIN is taken for a half-close; TCP keep-alive finds
//! callers that have vanished.

use std::time::Duration;

use crate::proxy::client::Origin;
use crate::proxy::context::Context;
use crate::ring::{Departure, timer};
use crate::transport::Transport;
use crate::workload::Owner;

/// How often to check a caller that has unread bytes, which hide its end. It
/// limits how long an upstream works for a caller that has left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a caller that has sent a FIN is looked at. The kernel sends the FIN of a
/// close a moment before it takes the socket from its owner: the first look may
/// come too early, where the closing program was held up in between.
const LOOKS_AFTER_FIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// Resolves when the caller at the other end of `client` has left. Raced once
/// beside everything that is done for a request.
pub(crate) async fn caller_left(context: &Context, client: &Transport, origin: &Origin) {
    if ended(client).await == Departure::Failed {
        return;
    }
    for wait in LOOKS_AFTER_FIN {
        timer::sleep(wait).await;
        if has_left(context, client, origin) {
            return;
        }
    }
    client.failed().await;
}

/// Resolves when the connection to a client was reset, whatever it had sent
/// before. Opaque bytes may be meant to arrive after their sender has closed.
pub(crate) async fn reset(client: &Transport) {
    if ended(client).await != Departure::Failed {
        client.failed().await;
    }
}

/// Resolves when the client has sent a FIN, or its connection has failed. One of
/// which more has arrived than is read is looked at every now and then.
async fn ended(client: &Transport) -> Departure {
    loop {
        let departure = match client.departure().await {
            Departure::Unseen => client.departure_now(),
            seen => Some(seen),
        };
        match departure {
            Some(departure @ (Departure::Failed | Departure::Fin)) => return departure,
            Some(Departure::Unseen) | None => timer::sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether a caller that has sent a FIN has closed its socket.
fn has_left(context: &Context, client: &Transport, origin: &Origin) -> bool {
    let Some(peer) = origin.peer else {
        // A unix socket tells the two apart by itself.
        return client.departure_now() == Some(Departure::Failed);
    };
    let Ok(local) = client.local_addr() else {
        return false;
    };
    let is_here = origin.original.is_some()
        || peer.ip().to_canonical().is_loopback()
        || peer.ip().to_canonical() == local.ip().to_canonical();
    if !is_here {
        return false;
    }
    let dialer = context.pools.dialer();
    match dialer.owner_of(origin.namespace, local, peer) {
        Ok(owner) => owner == Owner::Nobody,
        Err(error) => {
            tracing::debug!(%error, %peer, "cannot tell a close from a half-close");
            false
        }
    }
}
