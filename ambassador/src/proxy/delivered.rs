//! How a caller was answered.

use crate::clock::Instant;
use crate::proxy::after::After;
use crate::ring::Chunk;
use crate::upstream::pool::Leased;

/// A response that went to the client whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Complete {
    /// What becomes of the client's connection.
    pub after: After,
    /// When the last of the response was handed to the client.
    pub ended: Instant,
}

/// How a client was answered.
pub(crate) enum Delivered {
    /// The response went to it whole.
    Complete(Complete),
    /// The protocol was switched. Boxed, as it is rare.
    Switched(Box<SwitchedLease>),
}

/// A connection over which another protocol goes from here on.
pub(crate) struct SwitchedLease {
    /// The connection, or the stream.
    pub lease: Leased,
    /// What the upstream sent after its head.
    pub first: Option<Chunk>,
}
