//! One request on an HTTP/1 connection.

use std::future::Future;

use crate::http1::{self, BodyReader, Progress, ResponseRewrite};
use crate::message::{
    self, BadMessage, End, Framing, Length, LocalReply, RequestHead, ResponseHead,
};
use crate::proxy::after::After;
use crate::proxy::answer::ExchangeError;
use crate::proxy::body::{BodyForm, in_chunks};
use crate::proxy::client::{Client, Origin};
use crate::proxy::context::Context;
use crate::proxy::departure::caller_left;
use crate::proxy::downstream::{self, Begun, BodyPiece, NextRequest, Parts, ResponsePlan};
use crate::proxy::post::Post;
use crate::proxy::trailers::Trailers;
use crate::ring::{Chunk, Gather, SendError};
use crate::transport::Transport;

/// The answer to a CONNECT that has made a tunnel.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// A section without fields.
const NO_TRAILERS: &[u8] = b"\r\n";

/// One request on an HTTP/1 connection.
pub(crate) struct Downstream<'a> {
    pub(super) client: &'a mut Client,
    /// Where its body is.
    body: BodyReader,
    /// What is kept back of its trailer section, which has a limit.
    section: Vec<u8>,
    version: Version,
    persistence: Persistence,
}

/// What the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// HTTP/1.0: no chunks, no interim responses.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Whether the caller would send another request on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Persistence {
    KeepAlive,
    Close,
}

/// The body of the request: bytes of the connection, up to where it ends.
pub(crate) struct RecvRequest<'a> {
    stream: &'a Transport,
    /// What was received before.
    ahead: &'a mut Option<Chunk>,
    body: &'a mut BodyReader,
    section: &'a mut Vec<u8>,
}

/// What a request needs of which nothing more comes.
pub(crate) struct NoBody {
    ahead: Option<Chunk>,
    body: BodyReader,
    section: Vec<u8>,
}

/// The way of the response.
#[derive(Clone, Copy)]
pub(crate) struct SendResponse<'a> {
    stream: &'a Transport,
    origin: &'a Origin,
    version: Version,
    persistence: Persistence,
}

impl<'a> Downstream<'a> {
    #[inline]
    pub(super) fn new(client: &'a mut Client, request: &RequestHead) -> Self {
        Self {
            client,
            body: BodyReader::of_request(request.length()),
            section: Vec::new(),
            version: match request.is_http10() {
                true => Version::Http10,
                false => Version::Http11,
            },
            persistence: match request.keep_alive() {
                true => Persistence::KeepAlive,
                false => Persistence::Close,
            },
        }
    }

    pub(super) fn headless(client: &'a mut Client) -> Self {
        Self {
            client,
            body: BodyReader::of_request(Length::Unknown),
            section: Vec::new(),
            version: Version::Http11,
            persistence: Persistence::Close,
        }
    }

    #[inline]
    pub(super) fn parts(&mut self) -> Parts<'_> {
        let Client {
            stream,
            origin,
            member,
            bound,
            ahead,
            ..
        } = &mut *self.client;
        let stream = &*stream;
        Parts {
            member,
            bound,
            recv: downstream::RecvRequest::Http1(RecvRequest {
                stream,
                ahead,
                body: &mut self.body,
                section: &mut self.section,
            }),
            send: downstream::SendResponse::Http1(SendResponse {
                stream,
                origin,
                version: self.version,
                persistence: self.persistence,
            }),
        }
    }

    pub(super) fn close_after(&mut self) {
        self.persistence = Persistence::Close;
    }

    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_done()
    }

    pub(super) fn keeps_alive(&self) -> bool {
        self.persistence == Persistence::KeepAlive
            && self.is_whole()
            && !self.client.context.drain.has_begun()
    }

    #[inline]
    pub(super) fn after(&self, told: After) -> After {
        match self.is_whole() {
            true => told,
            // Where its next message would begin is not known.
            false => After::Linger,
        }
    }

    /// Nothing else is among it: the connection ends.
    pub(super) fn discard(&mut self) -> u64 {
        let mut bytes = 0;
        let mut next = self.client.ahead.take();
        while let Some(chunk) = next.or_else(|| self.client.stream.try_recv()) {
            bytes += chunk.len() as u64;
            next = None;
        }
        bytes
    }

    pub(super) async fn reply(&mut self, reply: &LocalReply) -> Option<u64> {
        self.answer(http1::encode_reply(reply)).await
    }

    pub(super) async fn establish(&mut self) -> Option<u64> {
        self.answer(ESTABLISHED.to_vec()).await
    }

    async fn answer(&mut self, bytes: Vec<u8>) -> Option<u64> {
        let length = bytes.len() as u64;
        self.client.reply(bytes).await.then_some(length)
    }
}

impl Default for NoBody {
    fn default() -> Self {
        Self {
            ahead: None,
            body: BodyReader::of_request(Length::None),
            section: Vec::new(),
        }
    }
}

impl NoBody {
    /// What came before it had these trailers, as a list.
    pub(crate) fn behind(trailers: &[u8]) -> Self {
        Self {
            section: trailers.to_vec(),
            ..Self::default()
        }
    }

    /// A list of the trailers of what came before.
    pub(super) fn trailers(&mut self) -> &mut Vec<u8> {
        &mut self.section
    }
}

impl<'a> RecvRequest<'a> {
    pub(super) fn none(no_body: &'a mut NoBody, send: SendResponse<'a>) -> Self {
        Self {
            stream: send.stream,
            ahead: &mut no_body.ahead,
            body: &mut no_body.body,
            section: &mut no_body.section,
        }
    }

    #[inline]
    pub(super) fn reborrow(&mut self) -> RecvRequest<'_> {
        RecvRequest {
            stream: self.stream,
            ahead: self.ahead,
            body: self.body,
            section: self.section,
        }
    }

    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_done()
    }

    #[inline]
    pub(super) fn form(&self) -> BodyForm {
        BodyForm::Http1
    }

    #[inline]
    pub(super) fn piece_at_hand(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<Option<BodyPiece>, BadMessage> {
        let along = match self.is_whole() {
            true => None,
            false => self.ahead.take(),
        };
        let along = along.map(|chunk| self.take(chunk, trailers)).transpose()?;
        self.detach();
        Ok(along)
    }

    #[inline]
    pub(super) fn detach(&mut self) {
        if let Some(ahead) = self.ahead {
            ahead.detach();
        }
    }

    pub(super) async fn piece(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<BodyPiece, ExchangeError> {
        let chunk = match self.ahead.take() {
            Some(chunk) => chunk,
            None => match self.stream.recv().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Err(ExchangeError::ClientGone),
                Err(error) => return Err(ExchangeError::of_client(&error)),
            },
        };
        self.take(chunk, trailers).map_err(ExchangeError::Request)
    }

    pub(super) fn try_piece(
        &mut self,
        trailers: Trailers<'_>,
    ) -> Result<Option<BodyPiece>, BadMessage> {
        let more = match self.is_whole() {
            true => None,
            false => self.stream.try_recv(),
        };
        more.map(|chunk| self.take(chunk, trailers)).transpose()
    }

    /// Splits what goes on of the body off what follows it, which stays ahead. The
    /// part of a trailer section that has come is kept back until all of it has.
    #[inline]
    fn take(&mut self, mut chunk: Chunk, trailers: Trailers<'_>) -> Result<BodyPiece, BadMessage> {
        let progress = match self.body.advance(&chunk) {
            Ok(progress) => progress,
            Err(bad) => {
                // It came all the same.
                *self.ahead = Some(chunk);
                return Err(bad);
            }
        };
        *self.ahead = chunk.split_rest(progress.consumed);
        self.detach();
        let came = chunk.len() as u64;
        if progress.trailers > 0 {
            chunk = self.filter(chunk, progress, trailers);
        }
        Ok(BodyPiece { chunk, came })
    }

    /// The same without what is kept back of its trailers.
    fn filter(&mut self, mut chunk: Chunk, progress: Progress, trailers: Trailers<'_>) -> Chunk {
        let section_at = progress.consumed - progress.trailers;
        let is_plain =
            progress.done && self.section.is_empty() && chunk[section_at..] == *NO_TRAILERS;
        if is_plain || trailers.pass_as_they_are() {
            return chunk;
        }
        let section = chunk.split_off(section_at);
        self.section.extend_from_slice(&section);
        if progress.done {
            let section = std::mem::take(self.section);
            chunk = Chunk::written(chunk.len() + section.len(), |out| {
                out.extend_from_slice(&chunk);
                http1::write_trailers(out, &section, |name| trailers.passes(name));
            });
        }
        chunk
    }
}

impl<'a> SendResponse<'a> {
    #[inline]
    pub(super) fn caller_left(self, context: &'a Context) -> impl Future<Output = ()> + use<'a> {
        caller_left(context, self.stream, self.origin)
    }

    /// HTTP/1.0 knows none (RFC 9110 section 15.2).
    pub(super) fn takes_interim(self) -> bool {
        self.version == Version::Http11
    }

    #[inline]
    pub(super) fn plan(
        self,
        response: &ResponseHead,
        next: NextRequest,
    ) -> Result<ResponsePlan, BadMessage> {
        let is_old = self.version == Version::Http10;
        if is_old && response.is_coded() {
            return Err(BadMessage::CodedForOldCaller);
        }
        let is_chunked = response.is_chunked();
        let framing = match is_chunked {
            true => self.framing_of_chunks(response),
            false => Framing::Kept,
        };
        let ends = is_chunked && is_old || response.ends_with_connection();
        let after = match self.persistence {
            Persistence::KeepAlive if next == NextRequest::Allowed && !ends => After::KeepAlive,
            Persistence::KeepAlive | Persistence::Close => After::Close,
        };
        Ok(ResponsePlan { framing, after })
    }

    /// What becomes of the framing of a body whose length is not known. Chunks are taken
    /// apart for a caller that does not know them.
    fn framing_of_chunks(self, response: &ResponseHead) -> Framing {
        let is_old = self.version == Version::Http10;
        match response.version {
            message::Version::Http2 if is_old => Framing::Kept,
            message::Version::Http2 => Framing::Added,
            _ if is_old => Framing::Removed,
            _ => Framing::Kept,
        }
    }

    #[inline(always)]
    pub(super) fn respond(
        self,
        response: &ResponseHead,
        head: &[u8],
        plan: ResponsePlan,
        body: Option<Chunk>,
        end: End<'_>,
    ) -> Begun<'a> {
        let rewrite = ResponseRewrite {
            close: plan.after == After::Close,
            http10: self.version == Version::Http10,
            framing: plan.framing,
        };
        let mut gather = Gather::from(Chunk::written(head.len() + 64, |out| {
            http1::write_response(out, head, response, &rewrite);
        }));
        if plan.framing == Framing::Added {
            gather.push(in_chunks(&body.map(Gather::from).unwrap_or_default(), end));
        } else if let Some(body) = body {
            gather.push(body);
        }
        self.begin(gather)
    }

    #[inline(always)]
    pub(super) fn pass(self, body: Gather, framing: Framing, end: End<'_>) -> Begun<'a> {
        self.begin(match framing {
            Framing::Kept | Framing::Removed => body,
            Framing::Added => Gather::from(in_chunks(&body, end)),
        })
    }

    #[inline(always)]
    fn begin(self, gather: Gather) -> Begun<'a> {
        Begun {
            bytes: gather.bytes() as u64,
            sending: Post::Http1(self.stream.post(gather)),
        }
    }

    pub(super) async fn flush(self) -> Result<(), SendError> {
        self.stream.flush().await
    }

    pub(super) fn taken(self) -> i64 {
        self.stream.taken()
    }

    pub(super) fn leaves_unread(self) -> bool {
        self.stream.leaves_unread()
    }
}
