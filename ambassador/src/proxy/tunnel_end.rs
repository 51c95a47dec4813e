//! One end of what carries opaque bytes: a connection of its own, or a stream of one
//! that others share.
//!
//! A FIN and END_STREAM are the same thing, and so are a reset of the connection and one
//! of the stream (RFC 9113 section 8.5, RFC 8441 section 5). Credit for what comes on a
//! stream is given back when it is taken, so whoever passes it on before it takes more
//! keeps to the pace of the other end.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::Instant;
use crate::http2::ErrorCode;
use crate::message::End;
use crate::multiplex::{Http2Stream, Received, StreamFailure};
use crate::proxy::departure;
use crate::proxy::post::Post;
use crate::ring::timer::{self, Elapsed};
use crate::ring::{Chunk, Gather, SendError};
use crate::telemetry::TlsOutcome;
use crate::transport::Transport;
use crate::upstream::pool::Leased;

/// One end of what carries opaque bytes.
#[derive(Clone, Copy)]
pub(crate) enum TunnelEnd<'a> {
    /// A connection of its own.
    Own(&'a Transport),
    /// A stream, and what its peer is told where it is cut.
    Shared(&'a Http2Stream, ErrorCode),
}

/// See [`TunnelEnd::recv`]. A type of its own, so that it is inlined where it is awaited.
pub(crate) struct Recv<'a> {
    end: TunnelEnd<'a>,
}

impl Future for Recv<'_> {
    type Output = io::Result<Option<Chunk>>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.end {
            TunnelEnd::Own(transport) => transport.poll_recv(context),
            TunnelEnd::Shared(stream, _) => {
                let received = stream.poll_recv(context);
                received.map(|received| content(stream, received))
            }
        }
    }
}

impl<'a> TunnelEnd<'a> {
    /// The upstream's end of a switch.
    pub(crate) fn of(leased: &'a Leased) -> Self {
        match leased {
            Leased::Own(lease) => Self::Own(&lease.stream),
            Leased::Shared(lease) => Self::Shared(&lease.stream, ErrorCode::CANCEL),
        }
    }

    /// The next bytes; `None`: the peer has ended its direction. Cancelling it loses
    /// nothing.
    #[inline(always)]
    pub(crate) fn recv(self) -> Recv<'a> {
        Recv { end: self }
    }

    /// The same, but not past `deadline`.
    pub(crate) async fn recv_by(
        self,
        deadline: Instant,
    ) -> Result<io::Result<Option<Chunk>>, Elapsed> {
        match self {
            Self::Own(transport) => transport.recv_by(deadline).await,
            Self::Shared(..) => timer::timeout_at(deadline, self.recv()).await,
        }
    }

    /// Bytes that have arrived already.
    #[inline(always)]
    pub(crate) fn try_recv(self) -> Option<Chunk> {
        match self {
            Self::Own(transport) => transport.try_recv(),
            Self::Shared(stream, _) => match stream.try_recv()? {
                Received::Content(content) => Some(content),
                Received::Head(_) => None,
            },
        }
    }

    /// Resolves when bytes, the end or an error wait; takes nothing.
    pub(crate) async fn readable(self) {
        match self {
            Self::Own(transport) => transport.readable().await,
            Self::Shared(stream, _) => stream.readable().await,
        }
    }

    /// Whether the peer has ended its direction in order, and all before it was
    /// received.
    pub(crate) fn has_ended(self) -> bool {
        match self {
            Self::Own(transport) => transport.ended_with_fin(),
            Self::Shared(stream, _) => stream.is_whole() && stream.failure().is_none(),
        }
    }

    /// Hands bytes over; little need not have been taken when it resolves.
    #[inline(always)]
    pub(crate) fn post(self, gather: Gather) -> Post<'a> {
        match self {
            Self::Own(transport) => Post::Http1(transport.post(gather)),
            Self::Shared(stream, _) => Post::Http2(stream.send(None, gather, End::More)),
        }
    }

    /// Ends the sending direction, behind all that was handed over.
    pub(crate) async fn finish(self) -> Result<(), SendError> {
        match self {
            Self::Own(transport) => {
                transport.flush().await?;
                transport.shutdown_write();
                Ok(())
            }
            Self::Shared(stream, _) => {
                let end = stream.send(None, Gather::default(), End::Whole(b""));
                end.await
            }
        }
    }

    /// Resolves when the peer has reset it, whatever it had sent before.
    pub(crate) async fn reset(self) {
        match self {
            Self::Own(transport) => departure::reset(transport).await,
            Self::Shared(stream, _) => match stream.failed().await {
                // As behind a FIN: what was said before may be meant to arrive.
                StreamFailure::Ended if stream.is_ended() => pending().await,
                _ => {}
            },
        }
    }

    /// Makes a reset of the close to come.
    pub(crate) fn cut(self) {
        match self {
            Self::Own(transport) => transport.reset_on_close(),
            Self::Shared(stream, code) => stream.reset(code),
        }
    }

    /// Bears with a peer of which progress is expected and that pauses.
    pub(crate) fn allow_pause(self, silence: Duration) {
        match self {
            Self::Own(transport) => transport.allow_pause(silence),
            // Its connection looks after itself.
            Self::Shared(..) => {}
        }
    }

    /// How the other side of its TLS session has refused what it was shown; `None`: it
    /// has not.
    pub(crate) fn refusal(self) -> Option<TlsOutcome> {
        match self {
            Self::Own(transport) => transport.refusal(),
            Self::Shared(stream, _) => stream.connection().transport().refusal(),
        }
    }
}

/// What has come on a stream, as a connection would give it.
fn content(
    stream: &Http2Stream,
    received: Result<Received, StreamFailure>,
) -> io::Result<Option<Chunk>> {
    match received {
        Ok(Received::Content(content)) if content.is_empty() && stream.is_whole() => Ok(None),
        Ok(Received::Content(content)) => Ok(Some(content)),
        Ok(Received::Head(_)) => Err(io::ErrorKind::InvalidData.into()),
        Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
