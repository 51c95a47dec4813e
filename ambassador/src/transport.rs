//! What carries the bytes of a connection: a socket in clear today, later TLS over
//! one.
//!
//! The codecs, tunnels and pools above speak to this alone, so that encryption is
//! one more variant here and nothing there. What a transport has received and not
//! yet given out counts as bytes that wait, whoever asks.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
#[cfg(test)]
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::clock::Instant;
use crate::ring::timer::Elapsed;
use crate::ring::{Chunk, Departure, Gather, Liveness, SendError, Stream, StreamId};

pub(crate) use crate::ring::Sending;

/// One end of a connection. Dropping it closes it.
#[derive(Debug)]
pub enum Transport {
    /// In clear.
    Plain(Stream),
}

impl Transport {
    /// Connects a socket, in clear. Dropping the future abandons the attempt.
    pub(crate) async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<Self> {
        Stream::connect(socket, address).await.map(Self::Plain)
    }

    /// Takes over a connected socket in clear, such as one that has left another
    /// shard.
    pub(crate) fn from_connected(socket: OwnedFd) -> io::Result<Self> {
        Stream::from_connected(socket).map(Self::Plain)
    }

    /// Names it to those who do not own it.
    pub(crate) fn id(&self) -> StreamId {
        match self {
            Self::Plain(stream) => stream.id(),
        }
    }

    /// The next bytes; `None`: the peer has ended its direction. Cancelling it
    /// loses nothing.
    #[inline]
    pub(crate) fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> + '_ {
        match self {
            Self::Plain(stream) => stream.recv(),
        }
    }

    /// The same, but not past `deadline`. What is here already comes even then.
    #[inline]
    pub(crate) fn recv_by(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<io::Result<Option<Chunk>>, Elapsed>> + '_ {
        match self {
            Self::Plain(stream) => stream.recv_by(deadline),
        }
    }

    /// Bytes that have arrived already.
    #[inline]
    pub(crate) fn try_recv(&self) -> Option<Chunk> {
        match self {
            Self::Plain(stream) => stream.try_recv(),
        }
    }

    /// Whether bytes, the end or an error wait to be received, or something is
    /// still being sent: any of them means that a pooled connection cannot be
    /// used.
    #[inline]
    pub(crate) fn is_closed_or_busy(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_closed_or_busy(),
        }
    }

    /// Leaves this shard, so that another can go on with it. `None`, and closed:
    /// it cannot be used any more. Dropping the future closes it.
    pub(crate) async fn leave(self) -> Option<OwnedFd> {
        match self {
            Self::Plain(stream) => stream.leave().await,
        }
    }

    /// Whether the peer has ended its direction in order, and all before it was
    /// received.
    pub(crate) fn ended_with_fin(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.ended_with_fin(),
        }
    }

    /// The same as [`Transport::readable`], but not past `deadline`.
    #[inline]
    pub(crate) fn readable_by(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Elapsed>> + '_ {
        match self {
            Self::Plain(stream) => stream.readable_by(deadline),
        }
    }

    /// Resolves when bytes, the end or an error wait; takes nothing.
    pub(crate) fn readable(&self) -> impl Future<Output = ()> + '_ {
        match self {
            Self::Plain(stream) => stream.readable(),
        }
    }

    /// Resolves when the peer has ended its direction or the connection has
    /// failed; never for bytes, and takes nothing.
    #[inline]
    pub(crate) fn departure(&self) -> impl Future<Output = Departure> + '_ {
        match self {
            Self::Plain(stream) => stream.departure(),
        }
    }

    /// The same as of now, by asking the kernel; `None`: the peer is there.
    pub(crate) fn departure_now(&self) -> Option<Departure> {
        match self {
            Self::Plain(stream) => stream.departure_now(),
        }
    }

    /// How the connection has failed, where it has.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        match self {
            Self::Plain(stream) => stream.failure(),
        }
    }

    /// Resolves when the connection has failed, be it after the peer had ended its
    /// direction.
    pub(crate) fn failed(&self) -> impl Future<Output = ()> + '_ {
        match self {
            Self::Plain(stream) => stream.failed(),
        }
    }

    /// Sends all of `gather`; see [`Stream::send`].
    #[inline]
    pub(crate) fn send(&self, gather: Gather) -> Sending<'_> {
        match self {
            Self::Plain(stream) => stream.send(gather),
        }
    }

    /// Sends like [`Transport::send`], but does not wait for the kernel to take
    /// little; see [`Stream::post`].
    #[inline]
    pub(crate) fn post(&self, gather: Gather) -> Sending<'_> {
        match self {
            Self::Plain(stream) => stream.post(gather),
        }
    }

    /// Waits until the kernel has taken everything that was posted.
    pub(crate) async fn flush(&self) -> Result<(), SendError> {
        match self {
            Self::Plain(stream) => stream.flush().await,
        }
    }

    /// How a post has failed, if it has; told once.
    #[inline]
    pub(crate) fn send_failure(&self) -> Option<SendError> {
        match self {
            Self::Plain(stream) => stream.send_failure(),
        }
    }

    /// Bytes that the peer has taken so far, as far as the kernel can tell; see
    /// [`Stream::taken`].
    pub(crate) fn taken(&self) -> i64 {
        match self {
            Self::Plain(stream) => stream.taken(),
        }
    }

    /// Whether the peer leaves unread what it is sent: the kernel takes no more.
    pub(crate) fn leaves_unread(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.leaves_unread(),
        }
    }

    /// Ends the sending direction: the peer sees the end of the bytes.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Self::Plain(stream) => stream.shutdown_write(),
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        match self {
            Self::Plain(stream) => stream.reset(),
        }
    }

    /// Makes a reset of the close to come.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
        }
    }

    /// Has it ask a silent peer for a sign of life.
    pub(crate) fn keep_alive(&self, silence: Option<Duration>, expected: Liveness) {
        match self {
            Self::Plain(stream) => stream.keep_alive(silence, expected),
        }
    }

    /// Bears with a peer of which progress is expected and that pauses.
    pub(crate) fn allow_pause(&self, silence: Duration) {
        match self {
            Self::Plain(stream) => stream.allow_pause(silence),
        }
    }

    /// The address of this end.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.local_addr(),
        }
    }

    /// The socket, for what only the kernel knows of it.
    #[cfg(test)]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
        }
    }
}
