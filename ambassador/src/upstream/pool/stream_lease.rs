//! A stream on loan of a connection that many requests share.

use std::rc::Rc;

use super::waiting::Waiting;
use crate::multiplex::Http2Stream;
use crate::ring;
use crate::upstream::multiplexed::MultiplexedConnection;
use crate::upstream::permits::Handover;

/// The right to one stream of a shared connection. Dropped before the exchange is
/// complete, it resets the stream; the connection goes on.
pub(crate) struct StreamLease {
    /// The stream. Before the connection, which is told when it is gone.
    pub(crate) stream: Http2Stream,
    connection: Rc<MultiplexedConnection>,
    waiting: Rc<Waiting>,
    /// Of the connection.
    shard: u16,
}

impl StreamLease {
    /// A place on `connection`, which has counted it.
    pub(super) fn new(
        connection: Rc<MultiplexedConnection>,
        waiting: Rc<Waiting>,
        shard: u16,
    ) -> Self {
        Self {
            stream: Http2Stream::on(Rc::clone(connection.multiplexed())),
            connection,
            waiting,
            shard,
        }
    }

    /// The connection that it is on.
    pub(crate) fn connection(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

/// What a place that comes free is for.
enum Freed {
    /// Whoever of this shard waits for a place, or nobody.
    Place,
    /// One of this shard who waits for a connection, and was told.
    Granted,
    /// Its connection closes.
    Nothing,
}

impl StreamLease {
    /// What the place is for that was given back. Where it was the last one, the limits
    /// hold as for a connection of HTTP/1 that comes back.
    fn freed(&self) -> Freed {
        let shared = self.connection.shared();
        if !self.connection.is_idle() || self.connection.is_over() {
            return Freed::Place;
        }
        if shared.above_cap() > 0 {
            return Freed::Nothing;
        }
        match shared.permits.hand_over(self.shard, ring::now()) {
            Handover::Granted => Freed::Granted,
            Handover::Close => Freed::Nothing,
            Handover::NobodyWaits if shared.limits.max_idle() == 0 && self.waiting.len() == 0 => {
                Freed::Nothing
            }
            Handover::NobodyWaits => Freed::Place,
        }
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.connection.gives_place();
        match self.freed() {
            Freed::Place => self.waiting.wake_one(self.connection.key()),
            Freed::Granted => {}
            // Whoever waits is told when it has closed.
            Freed::Nothing => self.connection.leave(),
        }
    }
}
