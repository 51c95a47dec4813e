//! An open connection to an endpoint, and what it may be used for.

use std::time::Instant;

use crate::addr::EndpointAddr;
use crate::http::challenge::Asker;
use crate::ring::Stream;
use crate::upstream::dial::Namespace;
use crate::upstream::permits::Permit;

/// An open connection to an endpoint, in use by one request or tunnel, or idle.
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// Whom it leads to.
    pub endpoint: EndpointAddr,
    pub(super) namespace: Namespace,
    /// Whether an exchange was completed on it before.
    pub reused: bool,
    /// Whether it is one caller's own.
    pub tie: Tie,
    pub(super) permit: Permit,
    pub(super) born: Instant,
}

/// An endpoint as seen from a network namespace: what a connection is reused
/// for.
pub type Place = (Namespace, EndpointAddr);

/// Whether a connection is one caller's own: the upstream knows the caller by
/// the connection, and would take what others send over it for theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tie {
    /// It is not.
    #[default]
    Free,
    /// A response has offered to authenticate the connection.
    Offered(Asker),
    /// The caller has sent credentials for it.
    Begun(Asker),
}

impl Connection {
    /// What it may be reused for.
    pub fn place(&self) -> Place {
        (self.namespace, self.endpoint)
    }

    /// Whether it leads to `place`, and nothing speaks against using it.
    pub fn is_live_at(&self, place: Place) -> bool {
        self.place() == place && !self.stream.is_closed_or_busy()
    }
}

impl Tie {
    /// After a request that carries credentials.
    pub fn presented(self, to: Option<Asker>) -> Self {
        to.map_or(self, Self::Begun)
    }

    /// After a response with an offer.
    pub fn offered(self, by: Option<Asker>) -> Self {
        match (self, by) {
            (Self::Begun(_), _) | (_, None) => self,
            (Self::Free | Self::Offered(_), Some(by)) => Self::Offered(by),
        }
    }

    /// Whether the caller has begun to authenticate: no other connection can
    /// stand in.
    pub fn has_begun(self) -> bool {
        matches!(self, Self::Begun(_))
    }
}
