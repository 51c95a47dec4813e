//! One accepted connection of an application.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use memchr::memchr;

use crate::addr::OriginalDst;
use crate::clock::Instant;
use crate::combinators::{First, first, rarely};
use crate::http1;
use crate::message::{BadMessage, RequestHead};
use crate::policy::limits::Timeouts;
use crate::proxy::bound::Bound;
use crate::proxy::client_certificate::ClientCertificate;
use crate::proxy::clients::Membership;
use crate::proxy::context::Context;
use crate::proxy::room::Seat;
use crate::proxy::routing::{Addressee, Destination};
use crate::proxy::shortage::is_shortage;
use crate::ring::{self, Chunk, Gather, timer};
use crate::route::Tunnelled;
use crate::sniff;
use crate::telemetry::{ListenerIndex, Passage, ReasonLabel, TlsSummary};
use crate::transport::Transport;
use crate::upstream::dial::Namespace;

/// What is read and thrown away before a connection with unread request bytes
/// is closed, so that the close does not turn into a reset that destroys the
/// reply (RFC 9112 section 9.6).
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A connection on which nothing was asked when the drain began was connected for
/// a request: it is given this many times the grace of a drain.
const FIRST_REQUEST_GRACES: u32 = 10;

/// How long that may take.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a reply made here may wait for a client that has not read those
/// before. It is small, so that one which reads at all takes it.
pub(crate) const REPLY_TIME_MAX: Duration = Duration::from_secs(10);

/// An accepted connection. Boxed while it is served: the futures that pass it on
/// would each hold a copy, and the size of these is what an idle connection
/// costs.
pub(crate) struct Client {
    /// The shard's state.
    pub context: Rc<Context>,
    /// Its socket.
    pub stream: Transport,
    /// Where it came in.
    pub origin: Origin,
    /// Received and not yet consumed; what `recv` returns next.
    pub ahead: Option<Chunk>,
    /// The upstream connection that is its own.
    pub bound: Bound,
    /// Which request it waits for.
    pub turn: Turn,
    /// The tunnel that it has become, on an explicit listener.
    pub tunnel: Option<Box<Tunnelled>>,
    /// What its client has shown; `None`: it is in clear.
    pub certificate: Option<Rc<ClientCertificate>>,
    /// Its place among the clients of the shard.
    pub member: Membership,
    /// Its place among all connections; `None`: it comes through one that has a place.
    /// Last, so that its socket is closed before another takes the place.
    pub seat: Option<Seat>,
}

/// How long a client may take with its requests, which no upstream has yet. In
/// milliseconds: every connection has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    idle_ms: u32,
    head_ms: u32,
}

impl Patience {
    /// What these limits say.
    pub(crate) fn of(timeouts: &Timeouts) -> Self {
        Self {
            idle_ms: milliseconds(timeouts.idle),
            head_ms: milliseconds(timeouts.head),
        }
    }

    /// The same with the time for a head of other limits.
    pub(crate) fn with_head_of(self, timeouts: &Timeouts) -> Self {
        Self {
            head_ms: milliseconds(timeouts.head),
            ..self
        }
    }

    /// Silence, between requests and within a head.
    pub(crate) fn idle(self) -> Duration {
        Duration::from_millis(self.idle_ms.into())
    }

    /// From the first byte of a head to its end.
    pub(crate) fn head(self) -> Duration {
        Duration::from_millis(self.head_ms.into())
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Where a connection came in and where it was going.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The listener.
    pub listener: ListenerIndex,
    /// Where the application meant to go; `None` on explicit listeners.
    pub original: Option<OriginalDst>,
    /// Where its upstream sockets are made.
    pub namespace: Namespace,
    /// The application's address, where it has one.
    pub peer: Option<SocketAddr>,
}

/// Which request of a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The one that it was made for.
    First,
    /// One more, if there is one.
    Later,
}

/// What is known of whoever makes a request, whatever its connection speaks.
pub(crate) struct ClientRef<'a> {
    /// The shard's state.
    pub context: &'a Rc<Context>,
    /// Where it came in.
    pub origin: Origin,
    /// The upstream connection that is its own.
    pub bound: &'a Bound,
    /// The tunnel that it comes through, on an explicit listener.
    pub tunnel: Option<&'a Tunnelled>,
    /// What its client has shown; `None`: it is in clear.
    pub certificate: Option<&'a Rc<ClientCertificate>>,
    /// Its place among the clients of the shard.
    pub member: &'a Membership,
    /// What its connection is encrypted with; `None`: it is in clear.
    pub tls: Option<TlsSummary>,
}

impl<'a> ClientRef<'a> {
    /// Whom its requests are addressed to: on an explicit listener this proxy,
    /// but for what comes through a tunnel.
    pub(crate) fn addresses(&self) -> Addressee {
        match self.origin.original.is_none() && self.tunnel.is_none() {
            true => Addressee::Proxy,
            false => Addressee::Upstream,
        }
    }

    /// Where the connection was going, before its requests say more.
    pub(crate) fn destination(&self) -> Destination<'a> {
        Destination {
            original: self.origin.original,
            tunnel: self.tunnel,
        }
    }

    /// What the log is told of something that begins on this connection.
    pub(crate) fn passage(&self, started: Instant) -> Passage {
        let mut passage = Passage::new(self.origin.listener, started);
        passage.original = self.origin.original;
        passage.client = self.origin.peer;
        passage.tls.set(self.tls);
        passage
    }

    /// Who it is by its certificate; empty: it has shown none.
    pub(crate) fn peer_id(&self) -> &'a [u8] {
        let id = self.certificate.and_then(|it| it.id.as_ref());
        id.map_or(b"", |id| id.as_bytes())
    }
}

/// What woke an idle connection.
pub(crate) enum ClientEvent {
    /// Bytes, which are ahead.
    Bytes,
    /// The first bytes, which are ahead, begin as those of HTTP/2 do.
    Http2,
    /// The client closed, reset or fell silent; or the connection ended that is
    /// its own.
    Ended,
    /// The shard drains, and the client had time to ask once more.
    Drained,
}

impl Client {
    /// What is known of it.
    #[inline]
    pub(crate) fn known(&self) -> ClientRef<'_> {
        ClientRef {
            context: &self.context,
            origin: self.origin,
            bound: &self.bound,
            tunnel: self.tunnel.as_deref(),
            certificate: self.certificate.as_ref(),
            member: &self.member,
            tls: self.stream.tls(),
        }
    }

    /// What the log is told of something that begins on this connection.
    pub(crate) fn passage(&self, started: Instant) -> Passage {
        self.known().passage(started)
    }

    /// The next bytes, within `idle`; `None` at the end, after an error and
    /// after silence.
    pub(crate) async fn next(&mut self, idle: Duration) -> Option<Chunk> {
        if let Some(chunk) = self.ahead.take().or_else(|| self.stream.try_recv()) {
            return Some(chunk);
        }
        self.receive(idle).await
    }

    async fn receive(&self, idle: Duration) -> Option<Chunk> {
        let received = self.stream.recv_by(ring::now() + idle).await;
        received.ok()?.ok().flatten()
    }

    /// Waits between requests: for bytes, which stay ahead, for the end, or a
    /// drain.
    pub(crate) async fn next_request(&mut self, idle: Duration) -> ClientEvent {
        if self.ahead.is_some() {
            return self.woken();
        }
        let ended = first(self.bound.lost(), self.context.drain.begun());
        let readable = self.stream.readable_by(ring::now() + idle);
        match first(readable, ended).await {
            First::Left(_) | First::Right(First::Left(())) => self.woken(),
            // Boxed, so that nobody pays for it before.
            First::Right(First::Right(())) => rarely(self.last_request()).await,
        }
    }

    /// What it was woken by, which is no drain.
    fn woken(&mut self) -> ClientEvent {
        if self.ahead.is_none() {
            self.ahead = self.stream.try_recv();
        }
        if self.turn == Turn::First {
            self.turn = Turn::Later;
            if self.ahead.as_deref().is_some_and(sniff::is_http2) {
                return ClientEvent::Http2;
            }
        }
        match self.ahead {
            Some(_) => ClientEvent::Bytes,
            None => ClientEvent::Ended,
        }
    }

    /// A request that is on its way when the drain begins would be reset by the
    /// close.
    async fn last_request(&mut self) -> ClientEvent {
        let grace = self.context.drain_grace();
        let within = match self.turn {
            Turn::First => grace * FIRST_REQUEST_GRACES,
            Turn::Later => grace * 2,
        };
        match self.stream.readable_by(ring::now() + within).await {
            Ok(()) => self.woken(),
            Err(_) => ClientEvent::Drained,
        }
    }

    /// Lets go of shared buffers.
    pub(crate) fn detach(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.detach();
        }
    }

    /// Sends a reply made here. `false` when the client is gone, or does not read
    /// it. A client that reads no replies must not hold buffers that others need.
    pub(crate) async fn reply(&mut self, bytes: Vec<u8>) -> bool {
        self.detach();
        let sent = self.stream.send(Gather::from(Chunk::from(bytes)));
        matches!(timer::timeout(REPLY_TIME_MAX, sent).await, Ok(Ok(())))
    }

    /// Who it is by its certificate; empty: it has shown none.
    pub(crate) fn peer_id(&self) -> &[u8] {
        self.known().peer_id()
    }

    /// The reason of a request whose client has left: of its own accord, or because
    /// it was shed or this machine lacks what its connection takes.
    pub(crate) fn departure(&self) -> ReasonLabel {
        let lacks = || self.stream.failure().is_some_and(|e| is_shortage(&e));
        match self.member.is_shed() || lacks() {
            true => ReasonLabel::Overloaded,
            false => ReasonLabel::ClientGone,
        }
    }

    /// Waits until the client has taken what it was sent, before it is closed.
    pub(crate) async fn flush(&self, limit: Duration) {
        // It is closed either way.
        let _ = timer::timeout(limit, self.stream.flush()).await;
    }

    /// Closes without destroying a reply that is still on its way.
    pub(crate) async fn linger(self: Box<Self>) {
        let limit = match self.context.drain.has_begun() {
            true => LINGER_TIME_MAX.min(self.context.drain_grace() * 2),
            false => LINGER_TIME_MAX,
        };
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
        let _ = timer::timeout(limit, drained).await;
    }

    /// Reads a request head, of which the first bytes are ahead; `None`: the client
    /// ended or fell silent before it was whole.
    pub(crate) async fn read_request(
        &mut self,
        request: &mut RequestHead,
        patience: Patience,
    ) -> Result<Option<Chunk>, (BadMessage, u64)> {
        let limits = self.context.head_limits;
        let mut until = None;
        let Some(mut chunk) = self.ahead.take() else {
            return Ok(None);
        };
        loop {
            let refused = |bad| (bad, chunk.len() as u64);
            if let Some(length) = http1::parse_request(request, &chunk, &limits).map_err(refused)? {
                self.ahead = chunk.split_rest(length);
                return Ok(Some(chunk));
            }
            let mut collected = chunk.to_vec();
            drop(chunk);
            self.member.keeps(collected.len());
            loop {
                let until = *until.get_or_insert_with(|| ring::now() + patience.head());
                let left = until.saturating_duration_since(ring::now());
                let Some(more) = self.next(left.min(patience.idle())).await else {
                    return match ring::now() < until {
                        true => Ok(None),
                        false => Err((BadMessage::HeadTimeout, collected.len() as u64)),
                    };
                };
                collected.extend_from_slice(&more);
                self.member.keeps(collected.capacity());
                if memchr(b'\n', &more).is_some() || collected.len() > limits.head_bytes_max {
                    break;
                }
            }
            chunk = Chunk::from(collected);
        }
    }
}
