//! A stream on loan of a connection that many requests share.

use std::rc::Rc;

use super::waiting::Waiting;
use crate::multiplex::Http2Stream;
use crate::upstream::multiplexed::MultiplexedConnection;

/// The right to one stream of a shared connection. Dropped before the exchange is
/// complete, it resets the stream; the connection goes on.
pub(crate) struct StreamLease {
    /// The stream. Before the connection, which is told when it is gone.
    pub(crate) stream: Http2Stream,
    connection: Rc<MultiplexedConnection>,
    waiting: Rc<Waiting>,
}

impl StreamLease {
    /// A place on `connection`, which has counted it.
    pub(super) fn new(connection: Rc<MultiplexedConnection>, waiting: Rc<Waiting>) -> Self {
        Self {
            stream: Http2Stream::on(Rc::clone(connection.multiplexed())),
            connection,
            waiting,
        }
    }

    /// The connection that it is on.
    pub(crate) fn connection(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.connection.gives_place();
        self.waiting.wake_one();
    }
}
