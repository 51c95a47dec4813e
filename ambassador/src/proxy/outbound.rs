//! The upstream's side of one try, whatever its connection speaks.
//!
//! A try goes over one lease. Two directions go on beside each other: the request
//! goes ([`SendRequest`]), the response comes ([`RecvResponse`]). Dropped before its
//! end, a try is cancelled: with HTTP/1 its connection closes.

mod http1;
mod http2;

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;

use crate::addr::EndpointAddr;
use crate::clock::Instant;
use crate::message::{
    self, BadMessage, End, Framing, Method, RequestHead, RequestRewrite, ResponseHead,
};
use crate::multiplex::{Http2Stream, StreamFailure};
use crate::proxy::body::BodyForm;
use crate::proxy::bound::{Bound, BoundOutcome};
use crate::proxy::context::Context;
use crate::proxy::post::Post;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::signing::{SignedHead, Signing};
use crate::ring::timer::Elapsed;
use crate::ring::{Chunk, Gather, SendError};
use crate::telemetry::{TlsOutcome, TlsSummary};
use crate::upstream::connection::ConnectionUse;
use crate::upstream::pool::Leased;
use crate::upstream::shared::Shared;

/// Frees what is kept for the next tries.
pub(super) fn drop_spares() {
    http2::drop_spares();
}

/// One try over one lease.
pub(crate) enum Outbound {
    /// Over a connection of its own.
    Http1(http1::Outbound),
    /// Over a stream of a connection.
    Http2(http2::Outbound),
}

/// The way of a request to its endpoint.
#[derive(Clone, Copy)]
pub(crate) enum SendRequest<'a> {
    /// The connection, in order.
    Http1(http1::SendRequest<'a>),
    /// A stream.
    Http2(http2::SendRequest<'a>),
}

/// A response, as it comes from its endpoint.
pub(crate) enum RecvResponse<'a> {
    /// Bytes of a connection, up to where the response ends.
    Http1(http1::RecvResponse<'a>),
    /// What comes on a stream.
    Http2(http2::RecvResponse<'a>),
}

/// What is needed to read a response.
pub(crate) struct Reading<'a> {
    /// Decides whether a response has a body.
    pub method: Method,
    /// The limits of heads.
    pub limits: &'a message::Limits,
    /// The head that was read last.
    pub head: &'a mut ResponseHead,
}

/// What has come of a body that nobody has been sent.
pub(crate) struct BodyBeginning {
    /// As it came.
    pub rest: Option<Chunk>,
    /// The same without its framing.
    pub content: Vec<u8>,
}

/// How much of a head has come.
pub(crate) enum Received {
    /// All of it, and what came along of the body.
    Whole(Chunk, Option<Chunk>),
    /// A part, so many bytes more than before.
    Part(usize),
}

impl Outbound {
    /// A try over `leased`.
    #[inline]
    pub(crate) fn over(leased: Leased) -> Self {
        match leased {
            Leased::Own(lease) => Self::Http1(http1::Outbound::over(lease)),
            Leased::Shared(lease) => Self::Http2(http2::Outbound::over(lease)),
        }
    }

    /// What its connection has been through.
    #[inline]
    pub(crate) fn past(&self) -> ConnectionUse {
        match self {
            Self::Http1(one) => one.past(),
            Self::Http2(one) => one.past(),
        }
    }

    /// The stream that it goes over; `None`: a connection of its own.
    #[inline]
    pub(crate) fn stream(&self) -> Option<&Http2Stream> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(one) => Some(one.stream()),
        }
    }

    /// Whether the certificate that its connection was opened with has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Http1(one) => one.has_ended(),
            Self::Http2(one) => one.has_ended(),
        }
    }

    /// How its endpoint has refused what it was shown when the connection was opened;
    /// `None`: it has not.
    pub(crate) fn refusal(&self) -> Option<TlsOutcome> {
        match self {
            Self::Http1(one) => one.refusal(),
            Self::Http2(one) => one.refusal(),
        }
    }

    /// What its connection is encrypted with; `None`: it is in clear.
    #[inline]
    pub(crate) fn tls(&self) -> Option<TlsSummary> {
        match self {
            Self::Http1(one) => one.tls(),
            Self::Http2(one) => one.tls(),
        }
    }

    /// Where it goes.
    #[inline]
    pub(crate) fn endpoint(&self) -> EndpointAddr {
        match self {
            Self::Http1(one) => one.endpoint(),
            Self::Http2(one) => one.endpoint(),
        }
    }

    /// A request with these facts is about to go.
    #[inline]
    pub(crate) fn begin(&mut self, context: &Context, shared: &Arc<Shared>, facts: RequestFacts) {
        match self {
            Self::Http1(one) => one.begin(context, shared, facts),
            // Its connection is nobody's own.
            Self::Http2(_) => {}
        }
    }

    /// The head of a request as it goes.
    #[inline]
    pub(crate) fn encode(
        &self,
        request: &RequestHead,
        head: &[u8],
        rewrite: &RequestRewrite<'_>,
    ) -> Chunk {
        match self {
            Self::Http1(one) => one.encode(request, head, rewrite),
            Self::Http2(one) => one.encode(request, head, rewrite),
        }
    }

    /// A head that [`Self::encode`] made, with the values that `value_of` gives for the
    /// name and value of a field; `None`: it gives none.
    pub(crate) fn substituted<V: AsRef<[u8]>, E>(
        &self,
        head: &[u8],
        value_of: impl FnMut(&[u8], &[u8]) -> Result<Option<V>, E>,
    ) -> Result<Option<Chunk>, E> {
        match self {
            Self::Http1(one) => one.substituted(head, value_of),
            Self::Http2(one) => one.substituted(head, value_of),
        }
    }

    /// A head that [`Self::encode`] made, signed.
    pub(crate) fn signed(&self, head: &[u8], signing: &Signing<'_>) -> SignedHead {
        match self {
            Self::Http1(one) => one.signed(head, signing),
            Self::Http2(one) => one.signed(head, signing),
        }
    }

    /// Its directions.
    #[inline]
    pub(crate) fn halves<'a>(
        &'a self,
        reading: Reading<'a>,
        body: BodyForm,
    ) -> (SendRequest<'a>, RecvResponse<'a>) {
        match self {
            Self::Http1(one) => one.halves(reading, body),
            Self::Http2(one) => one.halves(reading, body),
        }
    }

    /// Whether it can be asked to switch protocols like this, which its peer may have to
    /// say first.
    pub(crate) async fn takes_switch(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(one) => one.takes_switch().await,
        }
    }

    /// Whether a switch of protocols that its response announces is the one that was
    /// asked for.
    pub(crate) fn has_switched(&self, response: &ResponseHead, head: &[u8]) -> bool {
        match self {
            Self::Http1(one) => one.has_switched(response, head),
            // It can announce no other one.
            Self::Http2(_) => true,
        }
    }

    /// The head of its response has come, and says this of the connection.
    #[inline]
    pub(crate) fn is_answered(&mut self, shared: &Shared, response: &ResponseHead, head: &[u8]) {
        match self {
            Self::Http1(one) => one.is_answered(shared, response, head),
            Self::Http2(one) => one.is_answered(),
        }
    }

    /// The beginning of a body of which `rest` has come: all of it, or what is enough to
    /// tell an error by, or what comes by `until`.
    pub(crate) async fn begun(
        &self,
        response: &ResponseHead,
        rest: Option<Chunk>,
        until: Instant,
    ) -> BodyBeginning {
        match self {
            Self::Http1(one) => one.begun(response, rest, until).await,
            Self::Http2(one) => one.begun(rest, until).await,
        }
    }

    /// A list of the trailers, where nothing else is to come; only where the response
    /// may be one to a call.
    pub(crate) fn trailers_at_hand(&self) -> Option<Vec<u8>> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(one) => one.trailers_at_hand(),
        }
    }

    /// The exchange is complete. Gives the lease back, or closes its connection where
    /// it is not to be used again.
    #[inline]
    pub(crate) fn finish(self, reuse: Reuse, bound: &mut Bound) -> BoundOutcome {
        match self {
            Self::Http1(one) => one.finish(reuse, bound),
            Self::Http2(one) => {
                one.finish();
                BoundOutcome::Well
            }
        }
    }

    /// Nobody wants the rest of its response, of which `rest` has come. The lease is
    /// given back where all of it is here.
    pub(crate) fn give_up(self, response: &ResponseHead, rest: Option<Chunk>, bound: &mut Bound) {
        match self {
            Self::Http1(one) => one.give_up(response, rest, bound),
            // Its stream is reset where more was to come.
            Self::Http2(_) => {}
        }
    }

    /// What it goes over, where the protocol was switched.
    pub(crate) fn into_leased(self) -> Leased {
        match self {
            Self::Http1(one) => Leased::Own(one.into_lease()),
            Self::Http2(one) => Leased::Shared(one.into_lease()),
        }
    }

    /// How its stream has failed; `None`: it has not, or it has none.
    pub(crate) fn stream_failure(&self) -> Option<StreamFailure> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(one) => one.failure(),
        }
    }
}

/// Whether a connection may carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It may.
    May,
    /// It may not: its end said so, or the response had none of its own.
    MayNot,
}

impl<'a> SendRequest<'a> {
    /// Hands a request to the kernel: its head, and what of its body is here. Where that
    /// is all, the kernel need not have taken it when it resolves.
    #[inline]
    pub(crate) fn begin(self, head: Chunk, body: Option<Gather>, end: End<'_>) -> Post<'a> {
        match self {
            Self::Http1(one) => one.begin(head, body, end),
            Self::Http2(one) => one.begin(head, body, end),
        }
    }

    /// Sends more of the body.
    pub(crate) fn send(self, body: Gather, end: End<'_>) -> Post<'a> {
        match self {
            Self::Http1(one) => one.send(body, end),
            Self::Http2(one) => one.send(body, end),
        }
    }

    /// Bytes that the endpoint has taken, as far as the kernel can tell.
    pub(crate) fn taken(self) -> i64 {
        match self {
            Self::Http1(one) => one.taken(),
            Self::Http2(one) => one.taken(),
        }
    }

    /// Resolves when the endpoint takes no more of it, and says so without being sent
    /// more.
    pub(crate) async fn is_given_up(self) {
        match self {
            Self::Http1(one) => one.is_given_up().await,
            Self::Http2(one) => one.is_given_up().await,
        }
    }
}

impl<'a> RecvResponse<'a> {
    /// The head that was read last.
    #[inline]
    pub(crate) fn response(&self) -> &ResponseHead {
        match self {
            Self::Http1(one) => one.response(),
            Self::Http2(one) => one.response(),
        }
    }

    /// Whether bytes of another protocol follow that head.
    #[inline]
    pub(crate) fn is_switch(&self) -> bool {
        match self {
            Self::Http1(one) => one.is_switch(),
            Self::Http2(one) => one.is_switch(),
        }
    }

    /// Whether bytes of a head have come of which nothing was given out.
    pub(crate) fn has_begun_head(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(one) => one.has_begun_head(),
        }
    }

    /// Takes in more of a head.
    ///
    /// # Errors
    /// It is malformed.
    #[inline(always)]
    pub(crate) fn take_head(&mut self, more: Chunk) -> Result<Received, BadMessage> {
        match self {
            Self::Http1(one) => one.take_head(more),
            Self::Http2(one) => one.take_head(more),
        }
    }

    /// The head that was read last is that of the final response. Gives what of the
    /// body is here, with `rest` of what brought the head, as it goes on.
    ///
    /// # Errors
    /// It is malformed.
    #[inline]
    pub(crate) fn begin_body(
        &mut self,
        framing: Framing,
        rest: Option<Chunk>,
    ) -> Result<Option<Chunk>, BadMessage> {
        match self {
            Self::Http1(one) => one.begin_body(framing, rest),
            Self::Http2(one) => Ok(rest.or_else(|| one.try_recv())),
        }
    }

    /// Whether all of the body has come.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Http1(one) => one.is_whole(),
            Self::Http2(one) => one.is_whole(),
        }
    }

    /// Whether more follows of the body.
    #[inline]
    pub(crate) fn end(&self) -> End<'_> {
        match self {
            Self::Http1(one) => one.end(),
            Self::Http2(one) => one.end(),
        }
    }

    /// Takes in more of the body: what goes on of it.
    ///
    /// # Errors
    /// It is malformed.
    #[inline]
    pub(crate) fn take_body(&mut self, more: Chunk) -> Result<Chunk, BadMessage> {
        match self {
            Self::Http1(one) => one.take_body(more),
            Self::Http2(_) => Ok(more),
        }
    }

    /// Whether the end that has come is that of the body.
    pub(crate) fn ends_here(&self) -> bool {
        match self {
            Self::Http1(one) => one.ends_here(),
            Self::Http2(_) => false,
        }
    }

    /// Whether its connection may carry another request.
    #[inline]
    pub(crate) fn reuse(&self) -> Reuse {
        match self {
            Self::Http1(one) => one.reuse(),
            Self::Http2(one) => one.reuse(),
        }
    }

    /// More of the response that has come already.
    #[inline]
    pub(crate) fn try_recv(&self) -> Option<Chunk> {
        match self {
            Self::Http1(one) => one.try_recv(),
            Self::Http2(one) => one.try_recv(),
        }
    }

    /// More of the response; `None`: it ends.
    #[inline]
    pub(crate) fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> + use<'_, 'a> {
        poll_fn(|context| match self {
            Self::Http1(one) => one.poll_recv(context),
            Self::Http2(one) => one.poll_recv(context),
        })
    }

    /// The same, but not past `deadline`.
    #[inline]
    pub(crate) fn recv_by(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<io::Result<Option<Chunk>>, Elapsed>> + use<'_, 'a> {
        poll_fn(move |context| match self {
            Self::Http1(one) => one.poll_recv_by(deadline, context),
            Self::Http2(one) => one.poll_recv_by(deadline, context),
        })
    }

    /// How the request that was posted has failed, if it has; told once.
    #[inline]
    pub(crate) fn send_failure(&self) -> Option<SendError> {
        match self {
            Self::Http1(one) => one.send_failure(),
            // A stream tells it with what comes next.
            Self::Http2(_) => None,
        }
    }
}
