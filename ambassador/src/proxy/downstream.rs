//! The caller's side of one request, whatever its connection speaks.
//!
//! Two directions go on beside each other: the body of the request comes
//! ([`RecvRequest`]), the response goes ([`SendResponse`]). What one protocol alone
//! knows, such as keep-alive and HTTP/1.0, stays in its variant.

mod http1;
mod http2;

pub(crate) use http1::NoBody;

use std::rc::Rc;

use crate::message::{BadMessage, End, Framing, LocalReply, RequestHead, ResponseHead};
use crate::multiplex::Http2Stream;
use crate::proxy::after::After;
use crate::proxy::answer::ExchangeError;
use crate::proxy::body::BodyForm;
use crate::proxy::bound::Bound;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::{Client, ClientRef, Turn};
use crate::proxy::clients::Membership;
use crate::proxy::context::Context;
use crate::proxy::post::Post;
use crate::proxy::server_connection::ServerConnection;
use crate::proxy::trailers::Trailers;
use crate::ring::{Chunk, Gather, SendError};
use crate::route::Tunnelled;
use crate::telemetry::ReasonLabel;

/// One request of a caller.
pub(crate) enum Downstream<'a> {
    /// The one request that its connection carries at a time.
    Http1(http1::Downstream<'a>),
    /// One of many.
    Http2(http2::Downstream<'a>),
}

/// What serves a request has of its caller while it is tried.
pub(crate) struct Parts<'a> {
    /// Its connection's place among those of the shard.
    pub member: &'a Membership,
    /// The upstream connection that belongs to its connection.
    pub bound: &'a mut Bound,
    /// The body of the request.
    pub recv: RecvRequest<'a>,
    /// The response.
    pub send: SendResponse<'a>,
}

/// The body of a request, as it comes.
pub(crate) enum RecvRequest<'a> {
    /// Bytes of a connection, up to where the body ends.
    Http1(http1::RecvRequest<'a>),
    /// Content of a stream.
    Http2(http2::RecvRequest<'a>),
}

/// A part of a request's body.
pub(crate) struct BodyPiece {
    /// What goes on of it.
    pub chunk: Chunk,
    /// How many bytes have come, of what is kept back too.
    pub came: u64,
}

/// The way of a response to its caller.
#[derive(Clone, Copy)]
pub(crate) enum SendResponse<'a> {
    /// The connection, in order.
    Http1(http1::SendResponse<'a>),
    /// A stream.
    Http2(http2::SendResponse<'a>),
}

/// How a response goes to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponsePlan {
    /// What becomes of the framing of its body.
    pub framing: Framing,
    /// What becomes of the caller's connection.
    pub after: After,
}

/// Whether another request may follow on the caller's connection, as far as this
/// proxy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextRequest {
    /// It may.
    Allowed,
    /// The shard drains, or the body of this one has not all come.
    Refused,
}

/// A part of a response that has begun to go to the caller.
pub(crate) struct Begun<'a> {
    /// Resolves when it was handed over.
    pub sending: Post<'a>,
    /// How many bytes it has.
    pub bytes: u64,
}

impl ResponsePlan {
    /// A head behind which more of a response, or another protocol, follows.
    pub(crate) const INTERIM: Self = Self {
        framing: Framing::Kept,
        after: After::KeepAlive,
    };
}

impl<'a> Downstream<'a> {
    /// The request whose head was read from `client`.
    #[inline]
    pub(crate) fn http1(client: &'a mut Client, request: &RequestHead) -> Self {
        Self::Http1(http1::Downstream::new(client, request))
    }

    /// A request of which the head is not known.
    pub(crate) fn headless(client: &'a mut Client) -> Self {
        Self::Http1(http1::Downstream::headless(client))
    }

    /// The request on `stream`.
    pub(crate) fn http2(
        connection: &'a Rc<ServerConnection>,
        stream: &'a Http2Stream,
        member: Membership,
        request: &RequestHead,
        head_bytes: u64,
    ) -> Self {
        Self::Http2(http2::Downstream::new(
            connection, stream, member, request, head_bytes,
        ))
    }

    /// How many bytes came for the head of the request, which is `head` here.
    #[inline]
    pub(crate) fn head_bytes(&self, head: &[u8]) -> u64 {
        match self {
            Self::Http1(_) => head.len() as u64,
            Self::Http2(one) => one.head_bytes,
        }
    }

    /// What is known of whoever makes it.
    #[inline]
    pub(crate) fn client(&self) -> ClientRef<'_> {
        match self {
            Self::Http1(one) => one.client.known(),
            Self::Http2(one) => one.client(),
        }
    }

    /// Its caller's end of what it becomes when the protocol is switched.
    pub(crate) fn caller_end(&mut self) -> CallerEnd<'_> {
        match self {
            Self::Http1(one) => CallerEnd::of(one.client),
            Self::Http2(one) => one.caller_end(),
        }
    }

    /// Says that there is a tunnel; in how many bytes. `None`: its caller is gone.
    pub(crate) async fn establish(&mut self) -> Option<u64> {
        match self {
            Self::Http1(one) => one.establish().await,
            Self::Http2(one) => one.establish().await,
        }
    }

    /// Goes on with the requests that come through the tunnel that it has become.
    pub(crate) async fn go_on(&mut self, tunnel: Tunnelled) -> After {
        match self {
            Self::Http1(one) => {
                one.client.tunnel = Some(Box::new(tunnel));
                // Whatever comes is what the tunnel was made for.
                one.client.turn = Turn::First;
                After::KeepAlive
            }
            Self::Http2(one) => one.go_on(tunnel).await,
        }
    }

    /// The reason of a request whose caller has left, or was made to.
    pub(crate) fn departure(&self) -> ReasonLabel {
        match self {
            Self::Http1(one) => one.client.departure(),
            Self::Http2(one) => one.departure(),
        }
    }

    /// Ends it without a whole response.
    pub(crate) fn reset(&self) {
        match self {
            // Its connection ends.
            Self::Http1(_) => {}
            Self::Http2(one) => one.reset(),
        }
    }

    /// Its directions, and what of its connection is needed beside them.
    #[inline]
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        match self {
            Self::Http1(one) => one.parts(),
            Self::Http2(one) => one.parts(),
        }
    }

    /// No other request follows on its connection.
    pub(crate) fn close_after(&mut self) {
        match self {
            Self::Http1(one) => one.close_after(),
            Self::Http2(_) => {}
        }
    }

    /// Whether its connection may carry another request after a reply made here.
    pub(crate) fn keeps_alive(&self) -> bool {
        match self {
            Self::Http1(one) => one.keeps_alive(),
            Self::Http2(_) => true,
        }
    }

    /// What becomes of its connection after the response that [`ResponsePlan::after`]
    /// has told it of.
    #[inline]
    pub(crate) fn after(&self, told: After) -> After {
        match self {
            Self::Http1(one) => one.after(told),
            Self::Http2(one) => one.after(told),
        }
    }

    /// Whether all of its body has come.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Http1(one) => one.is_whole(),
            Self::Http2(one) => one.is_whole(),
        }
    }

    /// Throws away what has come of the rest of the request; says how many bytes.
    pub(crate) fn discard(&mut self) -> u64 {
        match self {
            Self::Http1(one) => one.discard(),
            Self::Http2(one) => one.discard(),
        }
    }

    /// Sends a reply made here; says how many bytes. `None`: its caller is gone, or
    /// does not read.
    pub(crate) async fn reply(&mut self, reply: &LocalReply) -> Option<u64> {
        match self {
            Self::Http1(one) => one.reply(reply).await,
            Self::Http2(one) => one.reply(reply).await,
        }
    }
}

impl Downstream<'_> {
    /// Ends a call of which a part of the response has gone out; says how many bytes.
    /// `None`: its caller is gone, or does not read.
    pub(crate) async fn end_call(&mut self, reply: &LocalReply) -> Option<u64> {
        match self {
            // No call comes over it.
            Self::Http1(_) => None,
            Self::Http2(one) => one.end_call(reply).await,
        }
    }
}

impl<'a> RecvRequest<'a> {
    /// Of a request whose body has come, in this form: nothing more but its trailers.
    pub(crate) fn none(no_body: &'a mut NoBody, form: BodyForm, send: SendResponse<'a>) -> Self {
        match send {
            SendResponse::Http1(send) => Self::Http1(http1::RecvRequest::none(no_body, send)),
            SendResponse::Http2(_) => {
                Self::Http2(http2::RecvRequest::none(no_body.trailers(), form))
            }
        }
    }

    /// The same for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> RecvRequest<'_> {
        match self {
            Self::Http1(one) => RecvRequest::Http1(one.reborrow()),
            Self::Http2(one) => RecvRequest::Http2(one.reborrow()),
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

    /// In what form its bytes come.
    #[inline]
    pub(crate) fn form(&self) -> BodyForm {
        match self {
            Self::Http1(one) => one.form(),
            Self::Http2(one) => one.form(),
        }
    }

    /// Whether more follows of the body.
    #[inline]
    pub(crate) fn end(&self) -> End<'_> {
        match self {
            Self::Http1(one) => End::of(one.is_whole(), b""),
            Self::Http2(one) => one.end(),
        }
    }

    /// Lets go of shared buffers.
    #[inline]
    pub(crate) fn detach(&mut self) {
        match self {
            Self::Http1(one) => one.detach(),
            // Its connection does by itself.
            Self::Http2(_) => {}
        }
    }

    /// What of the body has come along with the head.
    ///
    /// # Errors
    /// It is malformed.
    #[inline]
    pub(crate) fn piece_at_hand(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<Option<BodyPiece>, BadMessage> {
        match self {
            Self::Http1(one) => one.piece_at_hand(trailers),
            Self::Http2(one) => Ok(one.try_piece(trailers)),
        }
    }

    /// The next piece of a body that is not whole, as it goes on: what is kept back
    /// of its trailers is not in it.
    ///
    /// # Errors
    /// It is malformed, or its caller is gone.
    pub(crate) async fn piece(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<BodyPiece, ExchangeError> {
        match self {
            Self::Http1(one) => one.piece(trailers).await,
            Self::Http2(one) => one.piece(trailers).await,
        }
    }

    /// A piece that has come already.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn try_piece(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<Option<BodyPiece>, BadMessage> {
        match self {
            Self::Http1(one) => one.try_piece(trailers),
            Self::Http2(one) => Ok(one.try_piece(trailers)),
        }
    }
}

impl<'a> SendResponse<'a> {
    /// Resolves when the caller has left.
    #[inline]
    pub(crate) async fn caller_left(self, context: &'a Context) {
        match self {
            Self::Http1(one) => one.caller_left(context).await,
            Self::Http2(one) => one.caller_left().await,
        }
    }

    /// With what status the caller is told of a switch that its upstream announces with
    /// this one.
    pub(crate) fn status_of_switch(self, status: u16) -> u16 {
        match self {
            Self::Http2(_) if status == 101 => 200,
            Self::Http1(_) | Self::Http2(_) => status,
        }
    }

    /// Whether the caller knows interim responses.
    pub(crate) fn takes_interim(self) -> bool {
        match self {
            Self::Http1(one) => one.takes_interim(),
            Self::Http2(_) => true,
        }
    }

    /// How `response` goes to the caller.
    ///
    /// # Errors
    /// It cannot be said in the protocol that the caller speaks.
    #[inline]
    pub(crate) fn plan(
        self,
        response: &ResponseHead,
        next: NextRequest,
    ) -> Result<ResponsePlan, BadMessage> {
        match self {
            Self::Http1(one) => one.plan(response, next),
            Self::Http2(one) => one.plan(response),
        }
    }

    /// Hands the head of a response to the kernel, and what came along of its body; they
    /// need not have been taken when it resolves.
    #[inline(always)]
    pub(crate) fn respond(
        self,
        response: &ResponseHead,
        head: &[u8],
        plan: ResponsePlan,
        body: Option<Chunk>,
        end: End<'_>,
    ) -> Begun<'a> {
        match self {
            Self::Http1(one) => one.respond(response, head, plan, body, end),
            Self::Http2(one) => one.respond(response, head, body, end),
        }
    }

    /// Hands more of the body to the kernel.
    #[inline]
    pub(crate) fn pass(self, body: Gather, framing: Framing, end: End<'_>) -> Begun<'a> {
        match self {
            Self::Http1(one) => one.pass(body, framing, end),
            Self::Http2(one) => one.pass(body, end),
        }
    }

    /// Says that a body has ended of which only the end of its connection told. `None`:
    /// the caller is told so, too.
    pub(crate) fn end(self) -> Option<Begun<'a>> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(one) => Some(one.pass(Gather::default(), End::Whole(b""))),
        }
    }

    /// Waits until the kernel has taken what was posted.
    pub(crate) async fn flush(self) -> Result<(), SendError> {
        match self {
            Self::Http1(one) => one.flush().await,
            // It is in the hands of the connection.
            Self::Http2(_) => Ok(()),
        }
    }

    /// Bytes that the caller has taken, as far as the kernel can tell.
    pub(crate) fn taken(self) -> i64 {
        match self {
            Self::Http1(one) => one.taken(),
            Self::Http2(one) => one.taken(),
        }
    }

    /// Whether the caller leaves unread what it is sent.
    pub(crate) fn leaves_unread(self) -> bool {
        match self {
            Self::Http1(one) => one.leaves_unread(),
            Self::Http2(one) => one.leaves_unread(),
        }
    }
}
