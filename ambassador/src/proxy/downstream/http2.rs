//! One request on a stream of an HTTP/2 connection.

use std::rc::Rc;

use crate::http2::{self, ErrorCode};
use crate::message::{
    BadMessage, End, FieldList, Framing, Length, LocalReply, RequestHead, ResponseHead, Version,
    field_list,
};
use crate::multiplex::{Http2Stream, Received, StreamFailure};
use crate::proxy::after::After;
use crate::proxy::answer::ExchangeError;
use crate::proxy::body::BodyForm;
use crate::proxy::bound::Bound;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::{ClientRef, REPLY_TIME_MAX};
use crate::proxy::clients::Membership;
use crate::proxy::downstream::{self, Begun, BodyPiece, Parts, ResponsePlan};
use crate::proxy::inner::{self, Outer};
use crate::proxy::post::Post;
use crate::proxy::server_connection::ServerConnection;
use crate::proxy::trailers::Trailers;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{Chunk, Gather, timer};
use crate::route::Tunnelled;
use crate::telemetry::ReasonLabel;

/// One request on a stream of an HTTP/2 connection.
pub(crate) struct Downstream<'a> {
    connection: &'a Rc<ServerConnection>,
    stream: &'a Http2Stream,
    /// Its place among those of the shard.
    pub(super) member: Membership,
    /// An HTTP/2 connection is authenticated for nobody (RFC 9113 section 8.1 has no
    /// place for NTLM): it stays empty.
    bound: Bound,
    /// How many bytes its head had.
    pub(super) head_bytes: u64,
    body: Body,
    /// A list of the trailers that go on.
    trailers: Vec<u8>,
    /// Received and not yet consumed, of what is a tunnel by now.
    ahead: Option<Chunk>,
}

/// What the content of the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// The body of the request, so long.
    Request(Length),
    /// The request has none: what comes is for whatever answers it, and a cut is told
    /// like this.
    Tunnel(ErrorCode),
}

/// The body of the request.
pub(crate) struct RecvRequest<'a> {
    /// `None`: nothing of it is to come.
    stream: Option<&'a Http2Stream>,
    length: Length,
    trailers: &'a mut Vec<u8>,
}

/// The way of the response.
#[derive(Clone, Copy)]
pub(crate) struct SendResponse<'a> {
    stream: &'a Http2Stream,
}

impl<'a> Downstream<'a> {
    pub(super) fn new(
        connection: &'a Rc<ServerConnection>,
        stream: &'a Http2Stream,
        member: Membership,
        request: &RequestHead,
        head_bytes: u64,
    ) -> Self {
        Self {
            connection,
            stream,
            member,
            bound: Bound::default(),
            head_bytes,
            body: match (request.is_connect(), request.is_upgrade()) {
                // RFC 9113 section 8.5.
                (true, _) => Body::Tunnel(ErrorCode::CONNECT_ERROR),
                // RFC 8441 section 5.
                (false, true) => Body::Tunnel(ErrorCode::CANCEL),
                (false, false) => Body::Request(request.length()),
            },
            trailers: Vec::new(),
            ahead: None,
        }
    }

    pub(super) fn client(&self) -> ClientRef<'_> {
        self.connection.client(&self.member, &self.bound)
    }

    pub(super) fn parts(&mut self) -> Parts<'_> {
        let trailers = &mut self.trailers;
        let recv = match self.body {
            Body::Request(length) => RecvRequest {
                stream: Some(self.stream),
                length,
                trailers,
            },
            Body::Tunnel(_) => RecvRequest::none(trailers, BodyForm::Content(Length::None)),
        };
        Parts {
            member: &self.member,
            bound: &mut self.bound,
            recv: downstream::RecvRequest::Http2(recv),
            send: downstream::SendResponse::Http2(SendResponse {
                stream: self.stream,
            }),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.stream.is_whole()
    }

    /// Other requests of its connection are not its own matter.
    pub(super) fn after(&self, told: After) -> After {
        match told {
            After::Reset => After::Reset,
            After::KeepAlive | After::Close | After::Linger => After::KeepAlive,
        }
    }

    pub(super) fn departure(&self) -> ReasonLabel {
        // Its connection was shed for all that it carries.
        match self.member.is_shed() || self.connection.member.is_shed() {
            true => ReasonLabel::Overloaded,
            false => ReasonLabel::ClientGone,
        }
    }

    /// What comes later of the rest is ignored when its stream is dropped.
    pub(super) fn discard(&mut self) -> u64 {
        let mut bytes = 0;
        while let Some(Received::Content(content)) = self.stream.try_recv() {
            bytes += content.len() as u64;
        }
        let trailers = match self.stream.is_whole() {
            true => self.stream.take_trailers(),
            false => Vec::new(),
        };
        bytes + field_list::line_bytes(&trailers)
    }

    pub(super) async fn reply(&mut self, reply: &LocalReply) -> Option<u64> {
        let (mut list, mut body) = (Vec::new(), Vec::new());
        body.append(&mut http2::write_reply(&mut list, reply));
        let length = field_list::line_bytes(&list) + body.len() as u64;
        let body = Gather::from(Chunk::from(body));
        let sent = self
            .stream
            .send(Some(Chunk::from(list)), body, End::Whole(b""));
        match timer::timeout(REPLY_TIME_MAX, sent).await {
            Ok(Ok(())) => Some(length),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    pub(super) async fn end_call(&mut self, reply: &LocalReply) -> Option<u64> {
        let mut trailers = Vec::new();
        http2::write_end_of_call(&mut trailers, reply);
        let end = End::Whole(&trailers);
        let sent = self.stream.send(None, Gather::default(), end);
        match timer::timeout(REPLY_TIME_MAX, sent).await {
            Ok(Ok(())) => Some(field_list::line_bytes(&trailers)),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    pub(super) fn caller_end(&mut self) -> CallerEnd<'_> {
        CallerEnd {
            context: &self.connection.context,
            origin: &self.connection.origin,
            member: &self.member,
            end: TunnelEnd::Shared(self.stream, self.body.cut()),
            ahead: &mut self.ahead,
        }
    }

    /// Says that there is a tunnel (RFC 9113 section 8.5).
    pub(super) async fn establish(&mut self) -> Option<u64> {
        let mut list = Vec::new();
        http2::write_established(&mut list);
        let length = field_list::line_bytes(&list);
        let head = Some(Chunk::from(list));
        let sent = self.stream.send(head, Gather::default(), End::More);
        match timer::timeout(REPLY_TIME_MAX, sent).await {
            Ok(Ok(())) => Some(length),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Serves the requests that come through it.
    pub(super) async fn go_on(&mut self, tunnel: Tunnelled) -> After {
        let connection = self.connection;
        let serving = inner::serve(Outer {
            caller: self.caller_end(),
            certificate: connection.certificate.clone(),
            tunnel,
            patience: connection.patience,
            serve: connection.serve_inner,
        });
        serving.await
    }

    /// Its caller is told that it is cut.
    pub(super) fn reset(&self) {
        self.stream.reset(self.body.cut());
    }
}

impl Body {
    /// What the caller is told of a cut.
    fn cut(self) -> ErrorCode {
        match self {
            Self::Request(_) => ErrorCode::INTERNAL_ERROR,
            Self::Tunnel(code) => code,
        }
    }
}

impl<'a> RecvRequest<'a> {
    /// All has come but these trailers, as the body had this form.
    pub(super) fn none(trailers: &'a mut Vec<u8>, form: BodyForm) -> Self {
        Self {
            stream: None,
            length: match form {
                BodyForm::Content(length) => length,
                BodyForm::Http1 => Length::None,
            },
            trailers,
        }
    }

    pub(super) fn reborrow(&mut self) -> RecvRequest<'_> {
        RecvRequest {
            stream: self.stream,
            length: self.length,
            trailers: self.trailers,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.stream.is_none_or(Http2Stream::is_whole)
    }

    pub(super) fn form(&self) -> BodyForm {
        BodyForm::Content(self.length)
    }

    pub(super) fn end(&self) -> End<'_> {
        End::of(self.is_whole(), self.trailers)
    }

    pub(super) async fn piece(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<BodyPiece, ExchangeError> {
        let Some(stream) = self.stream else {
            return Ok(self.with_trailers(Chunk::from(Vec::new()), trailers));
        };
        match stream.recv().await {
            Ok(Received::Content(content)) => Ok(self.with_trailers(content, trailers)),
            Ok(Received::Head(_)) | Err(_) => Err(ExchangeError::ClientGone),
        }
    }

    pub(super) fn try_piece(&mut self, trailers: Trailers<'_>) -> Option<BodyPiece> {
        match self.stream?.try_recv()? {
            Received::Content(content) => Some(self.with_trailers(content, trailers)),
            Received::Head(_) => None,
        }
    }

    /// A piece, and the trailers that have come with it.
    fn with_trailers(&mut self, chunk: Chunk, trailers: Trailers<'_>) -> BodyPiece {
        let came = chunk.len() as u64 + self.take_trailers(trailers);
        BodyPiece { chunk, came }
    }

    /// Keeps those of its trailers that go on, where they have come; says how many bytes
    /// all of them have.
    fn take_trailers(&mut self, trailers: Trailers<'_>) -> u64 {
        let came = match self.stream {
            Some(stream) if stream.is_whole() => stream.take_trailers(),
            _ => return 0,
        };
        let mut list = FieldList(self.trailers);
        for (secrecy, name, value) in field_list::lines(&came) {
            if trailers.passes(name) {
                list.push_as(secrecy, name, value);
            }
        }
        field_list::line_bytes(&came)
    }
}

impl<'a> SendResponse<'a> {
    pub(super) async fn caller_left(self) {
        match self.stream.failed().await {
            // Whatever it was, nobody reads the response.
            StreamFailure::Reset(_)
            | StreamFailure::Unprocessed
            | StreamFailure::Http1Required
            | StreamFailure::Error(_)
            | StreamFailure::GivenUp
            | StreamFailure::Oversized
            | StreamFailure::Slow
            | StreamFailure::Ended => {}
        }
    }

    pub(super) fn plan(self, response: &ResponseHead) -> Result<ResponsePlan, BadMessage> {
        if response.is_coded() {
            return Err(BadMessage::CodedForOldCaller);
        }
        let is_in_chunks = response.is_chunked() && response.version != Version::Http2;
        Ok(ResponsePlan {
            framing: match is_in_chunks {
                true => Framing::Removed,
                false => Framing::Kept,
            },
            after: After::KeepAlive,
        })
    }

    pub(super) fn respond(
        self,
        response: &ResponseHead,
        head: &[u8],
        body: Option<Chunk>,
        end: End<'_>,
    ) -> Begun<'a> {
        let list = Chunk::written(head.len() + 64, |list| {
            http2::write_response(list, head, response);
        });
        let body = body.map(Gather::from).unwrap_or_default();
        Begun {
            bytes: field_list::line_bytes(&list) + behind(&body, end),
            sending: Post::Http2(self.stream.send(Some(list), body, end)),
        }
    }

    pub(super) fn pass(self, body: Gather, end: End<'_>) -> Begun<'a> {
        Begun {
            bytes: behind(&body, end),
            sending: Post::Http2(self.stream.send(None, body, end)),
        }
    }

    pub(super) fn taken(self) -> i64 {
        self.stream.written().cast_signed()
    }

    pub(super) fn leaves_unread(self) -> bool {
        self.stream.is_blocked()
    }
}

/// How many bytes go behind a head.
#[inline]
fn behind(body: &Gather, end: End<'_>) -> u64 {
    body.bytes() as u64 + field_list::line_bytes(end.trailers())
}
