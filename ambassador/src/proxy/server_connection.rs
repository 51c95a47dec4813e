//! An HTTP/2 connection of a caller, as its requests know it.

use std::cell::Cell;
use std::rc::Rc;

use crate::addr::Peer;
use crate::clock::Instant;
use crate::multiplex::{Http2Stream, Multiplexed};
use crate::proxy::bound::Bound;
use crate::proxy::client::{ClientRef, Origin, Patience};
use crate::proxy::client_certificate::ClientCertificate;
use crate::proxy::clients::Membership;
use crate::proxy::context::Context;
use crate::proxy::inner::Serve;
use crate::proxy::room::Seat;
use crate::route::Tunnelled;

/// An HTTP/2 connection of a caller.
pub(crate) struct ServerConnection {
    pub(super) context: Rc<Context>,
    pub(super) origin: Origin,
    pub(super) tunnel: Option<Box<Tunnelled>>,
    pub(super) certificate: Option<Rc<ClientCertificate>>,
    pub(super) peer: Peer,
    pub(super) connection: Rc<Multiplexed>,
    /// How long its client may take with its requests.
    pub(super) patience: Patience,
    /// What serves the requests that come through a tunnel in it.
    pub(super) serve_inner: Serve,
    /// When its last request ended.
    pub(super) rests_since: Cell<Instant>,
    /// Its place among the clients of the shard: for what no request of it holds.
    pub(super) member: Membership,
    /// Its place among all connections. Last, so that its socket is closed before
    /// another takes the place.
    #[expect(dead_code, reason = "held until the client is gone")]
    pub(super) seat: Option<Seat>,
}

impl ServerConnection {
    /// A place for one of its requests among the clients of the shard.
    pub(super) fn join(&self, stream: &Http2Stream) -> Membership {
        self.context.clients.join_stream(stream, self.peer)
    }

    /// What is known of whoever makes a request on it.
    pub(crate) fn client<'a>(&'a self, member: &'a Membership, bound: &'a Bound) -> ClientRef<'a> {
        ClientRef {
            context: &self.context,
            origin: self.origin,
            bound,
            tunnel: self.tunnel.as_deref(),
            certificate: self.certificate.as_ref(),
            member,
            tls: self.connection.transport().tls(),
        }
    }
}
