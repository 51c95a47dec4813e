//! What carries the bytes of a connection: a socket in clear, or TLS over one.
//!
//! The codecs, tunnels and pools above speak to this alone. What a transport has
//! received and not yet given out counts as bytes that wait, whoever asks.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
#[cfg(test)]
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ServerConfig;

use crate::clock::Instant;
use crate::ring::timer::Elapsed;
use crate::ring::{self, Chunk, Departure, Gather, Liveness, SendError, Stream, StreamId};
use crate::telemetry::{TlsOutcome, TlsSummary};
use crate::tls::{Agreement, HandshakeError, Session};

/// One end of a connection. Dropping it closes it, the session before the stream.
#[derive(Debug)]
pub(crate) struct Transport {
    /// `None`: in clear.
    session: Option<Session>,
    stream: Stream,
}

/// A transport between two shards. Dropping it closes it.
pub(crate) struct Detached {
    socket: OwnedFd,
    session: Option<Box<Agreement>>,
}

/// A send; see [`Transport::send`] and [`Transport::post`].
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    sending: ring::Sending<'a>,
    /// `None`: in clear.
    session: Option<&'a Session>,
}

impl Future for Sending<'_> {
    type Output = Result<(), SendError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.sending).poll(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(unsealed(self.session, error))),
        }
    }
}

#[cold]
fn unsealed(session: Option<&Session>, error: SendError) -> SendError {
    match session {
        Some(session) => session.unsealed(error),
        None => error,
    }
}

impl Transport {
    /// In clear.
    pub(crate) fn plain(stream: Stream) -> Self {
        Self {
            session: None,
            stream,
        }
    }

    /// Connects a socket, in clear. Dropping the future abandons the attempt.
    pub(crate) async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<Self> {
        Stream::connect(socket, address).await.map(Self::plain)
    }

    /// Agrees upon a TLS session as the client of the server `name`. Dropping the
    /// future closes the connection.
    pub(crate) async fn encrypt(
        mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        if self.session.is_none() {
            self.session = Some(Session::connect(&self.stream, config, name).await?);
        }
        Ok(self)
    }

    /// Agrees upon a TLS session as the server of whoever has connected. Dropping the
    /// future closes the connection.
    pub(crate) async fn accept_tls(
        mut self,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        if self.session.is_none() {
            self.session = Some(Session::accept(&self.stream, config).await?);
        }
        Ok(self)
    }

    /// How the other side of its TLS session has refused what it was shown; `None`: it has
    /// not.
    pub(crate) fn refusal(&self) -> Option<TlsOutcome> {
        self.session.as_ref()?.refusal(&self.stream)
    }

    /// The certificate that the other side of its TLS session has shown, in DER.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.session.as_ref()?.peer_certificate()
    }

    /// Both ends of a connection within this process.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = UnixStream::pair()?;
        let near = Stream::from_connected(near.into())?;
        let far = Stream::from_connected(far.into())?;
        Ok((Self::plain(near), Self::plain(far)))
    }

    /// Takes over a connected socket in clear.
    #[cfg(test)]
    pub(crate) fn from_connected(socket: OwnedFd) -> io::Result<Self> {
        Stream::from_connected(socket).map(Self::plain)
    }

    /// Goes on with one that has left another shard.
    pub(crate) fn attach(detached: Detached) -> io::Result<Self> {
        let stream = Stream::from_connected(detached.socket)?;
        Ok(Self {
            session: detached.session.map(|it| Session::new(&stream, *it)),
            stream,
        })
    }

    /// What its TLS session was agreed upon with; `None`: it is in clear.
    #[inline]
    pub(crate) fn tls(&self) -> Option<TlsSummary> {
        self.session.as_ref().map(Session::summary)
    }

    /// Whether ALPN has chosen HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_http2)
    }

    /// Names it to those who do not own it.
    pub(crate) fn id(&self) -> StreamId {
        self.stream.id()
    }

    /// The next bytes; `None`: the peer has ended its direction. Cancelling it
    /// loses nothing.
    #[inline(always)]
    pub(crate) fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> + '_ {
        poll_fn(move |context| self.poll_recv(context))
    }

    /// The same as a step.
    #[inline(always)]
    pub(crate) fn poll_recv(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match &self.session {
            None => self.stream.poll_recv(context),
            Some(session) => session.poll_recv(&self.stream, context),
        }
    }

    /// The same, but not past `deadline`. What is here already comes even then.
    #[inline(always)]
    pub(crate) fn recv_by(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<io::Result<Option<Chunk>>, Elapsed>> + '_ {
        poll_fn(move |context| self.poll_recv_by(deadline, context))
    }

    /// The same as a step.
    #[inline(always)]
    pub(crate) fn poll_recv_by(
        &self,
        deadline: Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<io::Result<Option<Chunk>>, Elapsed>> {
        match &self.session {
            None => self.stream.poll_recv_by(deadline, context),
            Some(session) => session.poll_recv_by(&self.stream, deadline, context),
        }
    }

    /// Bytes that have arrived already.
    #[inline(always)]
    pub(crate) fn try_recv(&self) -> Option<Chunk> {
        match &self.session {
            None => self.stream.try_recv(),
            Some(session) => session.try_recv(&self.stream),
        }
    }

    /// Whether bytes, the end or an error wait to be received, or something is
    /// still being sent: any of them means that a pooled connection cannot be
    /// used.
    #[inline(always)]
    pub(crate) fn is_closed_or_busy(&self) -> bool {
        match &self.session {
            None => self.stream.is_closed_or_busy(),
            Some(session) => session.is_closed_or_busy(&self.stream),
        }
    }

    /// Leaves this shard, so that another can go on with it. `None`, and closed:
    /// it cannot be used any more. Dropping the future closes it.
    pub(crate) async fn leave(self) -> Option<Detached> {
        if self.is_closed_or_busy() {
            return None;
        }
        let socket = self.stream.leave().await?;
        let session = self.session.and_then(Session::into_agreement);
        Some(Detached {
            socket,
            session: session.map(Box::new),
        })
    }

    /// Whether the peer has ended its direction in order, and all before it was
    /// received.
    pub(crate) fn ended_with_fin(&self) -> bool {
        match &self.session {
            None => self.stream.ended_with_fin(),
            Some(session) => session.ended_in_order(),
        }
    }

    /// The same as [`Transport::readable`], but not past `deadline`.
    #[inline(always)]
    pub(crate) fn readable_by(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Elapsed>> + '_ {
        poll_fn(move |context| match &self.session {
            None => self.stream.poll_readable_by(deadline, context),
            Some(session) => session.poll_readable_by(&self.stream, deadline, context),
        })
    }

    /// Resolves when bytes, the end or an error wait; takes nothing.
    pub(crate) fn readable(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(move |context| match &self.session {
            None => self.stream.poll_readable(context),
            Some(session) => session.poll_readable(&self.stream, context),
        })
    }

    /// Resolves when the peer has ended its direction or the connection has
    /// failed; never for bytes, and takes nothing.
    #[inline(always)]
    pub(crate) fn departure(&self) -> impl Future<Output = Departure> + '_ {
        self.stream.departure()
    }

    /// The same as of now, by asking the kernel; `None`: the peer is there.
    pub(crate) fn departure_now(&self) -> Option<Departure> {
        self.stream.departure_now()
    }

    /// How the connection has failed, where it has.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.stream.failure()
    }

    /// Resolves when the connection has failed, be it after the peer had ended its
    /// direction.
    pub(crate) fn failed(&self) -> impl Future<Output = ()> + '_ {
        self.stream.failed()
    }

    /// Sends all of `gather`; see [`Stream::send`].
    #[inline(always)]
    pub(crate) fn send(&self, gather: Gather) -> Sending<'_> {
        self.sealed(self.stream.send(gather))
    }

    /// Sends like [`Transport::send`], but does not wait for the kernel to take
    /// little; see [`Stream::post`].
    #[inline(always)]
    pub(crate) fn post(&self, gather: Gather) -> Sending<'_> {
        self.sealed(self.stream.post(gather))
    }

    /// A send that has not begun, of the same bytes in the form in which they go. Long,
    /// and so not moved in clear.
    #[inline(always)]
    fn sealed<'a>(&'a self, mut sending: ring::Sending<'a>) -> Sending<'a> {
        let session = self.session.as_ref();
        if let Some(session) = session {
            sending.replace(|gather| session.seal(gather));
        }
        Sending { sending, session }
    }

    /// Waits until the kernel has taken everything that was posted.
    pub(crate) async fn flush(&self) -> Result<(), SendError> {
        match self.stream.flush().await {
            Ok(()) => Ok(()),
            Err(error) => Err(unsealed(self.session.as_ref(), error)),
        }
    }

    /// How a post has failed, if it has; told once.
    #[inline(always)]
    pub(crate) fn send_failure(&self) -> Option<SendError> {
        let failure = self.stream.send_failure()?;
        Some(unsealed(self.session.as_ref(), failure))
    }

    /// Bytes that the peer has taken so far, as far as the kernel can tell; see
    /// [`Stream::taken`].
    pub(crate) fn taken(&self) -> i64 {
        self.stream.taken()
    }

    /// Whether the peer leaves unread what it is sent: the kernel takes no more.
    pub(crate) fn leaves_unread(&self) -> bool {
        self.stream.leaves_unread()
    }

    /// Ends the sending direction: the peer sees the end of the bytes.
    pub(crate) fn shutdown_write(&self) {
        if let Some(session) = &self.session {
            session.close_write();
        }
        self.stream.shutdown_write();
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        self.reset_on_close();
    }

    /// Makes a reset of the close to come.
    pub(crate) fn reset_on_close(&self) {
        if let Some(session) = &self.session {
            session.cut();
        }
        self.stream.reset_on_close();
    }

    /// Has it ask a silent peer for a sign of life.
    pub(crate) fn keep_alive(&self, silence: Option<Duration>, expected: Liveness) {
        self.stream.keep_alive(silence, expected)
    }

    /// Bears with a peer of which progress is expected and that pauses.
    pub(crate) fn allow_pause(&self, silence: Duration) {
        self.stream.allow_pause(silence)
    }

    /// The address of this end.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The socket, for what only the kernel knows of it.
    #[cfg(test)]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Detached {
    /// Whether nothing has come meanwhile.
    pub(crate) fn is_quiet(&self) -> bool {
        ring::is_quiet(&self.socket)
    }
}

#[cfg(test)]
mod tests;
