//! How an exchange ends.

use std::io;

use crate::clock::Instant;
use crate::message::BadMessage;
use crate::multiplex::{Oversized, StreamFailure};
use crate::proxy::after::After;
use crate::proxy::deadlines::Limit;
use crate::proxy::outbound::{Outbound, Reuse};
use crate::proxy::progress::Progress;
use crate::proxy::shortage::is_shortage;
use crate::ring::{Chunk, Gather, SendError};
use crate::telemetry::TlsOutcome;

/// A response that went to the client.
pub(crate) enum Response {
    /// All of it.
    Complete {
        /// Whether the upstream's connection may carry another request.
        reuse: Reuse,
        /// What becomes of the caller's connection, as it was told.
        after: After,
        /// When the last of the response was handed to the client.
        ended: Instant,
    },
    /// The protocol was switched.
    Switched,
}

/// A response of which the head has come, and nothing has gone to the client; its
/// parsed head is in the scratch.
#[derive(Debug)]
pub(crate) struct HeldResponse {
    /// Its head as it came.
    pub head: Chunk,
    /// What came along of its body.
    pub rest: Option<Chunk>,
}

/// How an exchange failed.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The kernel took no byte of the request; this is what it did not take: of
    /// the whole request, or of what went along with its head.
    Unsent(Box<Gather>),
    /// The connection failed while the request was handed to the kernel; a
    /// part of it may have arrived.
    Send,
    /// The upstream says that it has not processed the request.
    Unprocessed,
    /// The same, and that it would over HTTP/1.1.
    Http1Required,
    /// The upstream takes no head or trailers as large as those of the request.
    Oversized,
    /// The upstream's connection ended before a whole final head.
    Ended,
    /// This machine lacks what it takes to send or receive.
    Shortage,
    /// The upstream did not accept what it was shown when the connection was opened.
    Refused(TlsOutcome),
    /// The upstream had waited too long for a request, and says so with a 408.
    Stale,
    /// What the upstream sent is not HTTP.
    Response(BadMessage),
    /// A limit has passed before the final response head.
    Expired(Limit),
    /// The response was cut after the client had been sent a part; by what was
    /// wrong with it.
    Cut(Option<BadMessage>),
    /// The request body is malformed.
    Request(BadMessage),
    /// The upstream sends the body of its response more slowly than it may.
    SlowResponse,
    /// The client reads its response more slowly than it may.
    SlowReader,
    /// The client is gone.
    ClientGone,
}

impl ExchangeError {
    /// The upstream's connection did not take what was sent.
    pub(super) fn of_send(error: SendError) -> Self {
        match error.unsent {
            _ if is_shortage(&error.source) => Self::Shortage,
            Some(gather) => Self::Unsent(gather),
            None => Self::Send,
        }
    }

    /// The client's connection has failed, or takes nothing as large.
    #[cold]
    pub(super) fn of_client(error: &io::Error) -> Self {
        const BAD: BadMessage = BadMessage::TooLargeForCaller;
        match Oversized::of(error) {
            Some(Oversized::Head) => Self::Response(BAD),
            Some(Oversized::Trailers) => Self::Cut(Some(BAD)),
            None if is_shortage(error) => Self::Shortage,
            None => Self::ClientGone,
        }
    }

    /// The same, as the failure of its stream explains it.
    pub(crate) fn on_stream(self, failure: Option<StreamFailure>) -> Self {
        match (failure, self) {
            (Some(StreamFailure::Unprocessed), Self::Send | Self::Ended) => Self::Unprocessed,
            (Some(StreamFailure::Http1Required), Self::Send | Self::Ended) => Self::Http1Required,
            (Some(StreamFailure::Oversized), Self::Send | Self::Ended) => Self::Oversized,
            (Some(StreamFailure::Slow), Self::Send | Self::Ended) => Self::Expired(Limit::Try),
            (Some(StreamFailure::Error(_)), Self::Send | Self::Ended) => {
                Self::Response(BadMessage::StreamError)
            }
            (_, error) => error,
        }
    }

    /// The same without the head, of so many bytes, in what was not taken.
    pub(crate) fn behind_head(self, head_bytes: usize) -> Self {
        match self {
            Self::Unsent(mut gather) => {
                gather.advance(head_bytes);
                Self::Unsent(gather)
            }
            other => other,
        }
    }

    /// Whether a reused connection that was dead before would show like this.
    pub(crate) fn may_be_a_dead_connection(&self, progress: &Progress<'_>) -> bool {
        match self {
            Self::Unsent(_) | Self::Send | Self::Ended => !progress.any_byte.get(),
            Self::Stale => true,
            _ => false,
        }
    }

    /// Whether the connection was useless before the request went over it: dead, as one
    /// may be that has stood idle, or refused for a certificate that has ended, which some
    /// servers say and others show by closing it.
    pub(crate) fn may_be_of(&self, outbound: &Outbound, progress: &Progress<'_>) -> bool {
        let may_be_dead = self.may_be_a_dead_connection(progress);
        match outbound.has_ended() {
            _ if matches!(self, Self::Unprocessed) => true,
            true => may_be_dead || matches!(self, Self::Refused(_)),
            false => may_be_dead && outbound.past().has_stood_idle(),
        }
    }
}

impl HeldResponse {
    /// Lets go of shared buffers.
    pub(crate) fn detach(&mut self) {
        self.head.detach();
        if let Some(rest) = &mut self.rest {
            rest.detach();
        }
    }
}

impl Response {
    /// It came before the whole request had been sent.
    pub(crate) fn early(self) -> Self {
        match self {
            Self::Complete { ended, .. } => Self::Complete {
                reuse: Reuse::MayNot,
                after: After::Close,
                ended,
            },
            switched => switched,
        }
    }
}
