//! One accepted connection of an application.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::addr::OriginalDst;
use crate::proxy::bound::Bound;
use crate::proxy::context::Context;
use crate::ring::{Chunk, Gather, Stream, timer};
use crate::telemetry::{ListenerIndex, Passage};
use crate::together::{First, first};
use crate::upstream::dial::Namespace;

/// What is read and thrown away before a connection with unread request bytes
/// is closed, so that the close does not turn into a reset that destroys the
/// reply (RFC 9112 section 9.6).
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long that may take.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// An accepted connection. Boxed while it is served: the futures that pass it on
/// would each hold a copy, and the size of these is what an idle connection
/// costs.
pub struct Client {
    /// The shard's state.
    pub context: Rc<Context>,
    /// Its socket.
    pub stream: Stream,
    /// Where it came in.
    pub origin: Origin,
    /// Received and not yet consumed; what `recv` returns next.
    pub ahead: Option<Chunk>,
    /// The upstream connection that is its own.
    pub bound: Bound,
}

/// Where a connection came in and where it was going.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The listener.
    pub listener: ListenerIndex,
    /// Where the application meant to go; `None` on explicit listeners.
    pub original: Option<OriginalDst>,
    /// Where its upstream sockets are made.
    pub namespace: Namespace,
    /// The application's address, where it has one.
    pub peer: Option<SocketAddr>,
}

/// What woke an idle connection.
pub enum Woken {
    /// Bytes.
    Bytes(Chunk),
    /// The client closed, reset or fell silent; or the connection ended that is
    /// its own; or the shard drains.
    Ended,
}

impl Client {
    /// What the log is told of something that begins on this connection.
    pub fn passage(&self, started: Instant) -> Passage {
        let mut passage = Passage::new(self.origin.listener, started);
        passage.original = self.origin.original;
        passage.client = self.origin.peer;
        passage
    }

    /// The next bytes, within `idle`; `None` at the end, after an error and
    /// after silence.
    pub async fn next(&mut self, idle: Duration) -> Option<Chunk> {
        if let Some(chunk) = self.ahead.take().or_else(|| self.stream.try_recv()) {
            return Some(chunk);
        }
        self.receive(idle).await
    }

    async fn receive(&self, idle: Duration) -> Option<Chunk> {
        timer::timeout(idle, self.stream.recv())
            .await
            .ok()?
            .ok()
            .flatten()
    }

    /// Waits between requests: for bytes, the end, or a drain.
    pub async fn next_request(&mut self, idle: Duration) -> Woken {
        if self.ahead.is_none() && self.context.drain.has_begun() {
            return Woken::Ended;
        }
        if let Some(chunk) = self.ahead.take().or_else(|| self.stream.try_recv()) {
            return Woken::Bytes(chunk);
        }
        let ended = first(self.bound.lost(), self.context.drain.begun());
        match first(self.receive(idle), ended).await {
            First::Left(Some(chunk)) => Woken::Bytes(chunk),
            First::Left(None) | First::Right(_) => Woken::Ended,
        }
    }

    /// Sends a reply made here. `false` when the client is gone. A client that
    /// reads no replies must not hold buffers that others need.
    pub async fn reply(&mut self, bytes: Vec<u8>) -> bool {
        if let Some(ahead) = &mut self.ahead {
            ahead.detach();
        }
        self.stream
            .send(Gather::from(Chunk::from(bytes)))
            .await
            .is_ok()
    }

    /// Waits until the client has taken what it was sent, before it is closed.
    pub async fn flush(&self, limit: Duration) {
        // It is closed either way.
        let _ = timer::timeout(limit, self.stream.flush()).await;
    }

    /// Closes without destroying a reply that is still on its way.
    pub async fn linger(self: Box<Self>) {
        self.stream.shutdown_write();
        let drained = async {
            let mut bytes = 0;
            while bytes < LINGER_BYTES_MAX
                && let Ok(Some(chunk)) = self.stream.recv().await
            {
                bytes += chunk.len();
            }
        };
        // Either way the connection is closed; the time only limits the wait.
        let _ = timer::timeout(LINGER_TIME_MAX, drained).await;
    }
}
