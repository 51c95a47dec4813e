//! One try over one HTTP/1 connection.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::task::{self, Poll};

use memchr::memchr;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::credential::aws_error::BODY_BYTES_MAX;
use crate::http1::{self, BodyReader};
use crate::message::{
    BadMessage, End, FieldList, Framing, Length, Method, RequestHead, RequestRewrite, ResponseHead,
    challenge, may_trail,
};
use crate::proxy::body::{BodyForm, in_chunks};
use crate::proxy::bound::{Bound, BoundOutcome};
use crate::proxy::context::Context;
use crate::proxy::outbound::{self, BodyBeginning, Reading, Received, Reuse};
use crate::proxy::post::Post;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::signing::{SignatureLines, SignedHead, Signing};
use crate::proxy::websocket;
use crate::ring::timer::Elapsed;
use crate::ring::{Chunk, Gather, SendError};
use crate::telemetry::{TlsOutcome, TlsSummary};
use crate::transport::Transport;
use crate::upstream::connection::{ConnectionAuth, ConnectionUse};
use crate::upstream::pool::Lease;
use crate::upstream::shared::Shared;

/// One try over one HTTP/1 connection.
pub(crate) struct Outbound {
    lease: Lease,
    /// How the handshake of a WebSocket is answered that is made here; `None`: none is.
    accept: Cell<Option<Box<str>>>,
}

/// The way of the request.
#[derive(Clone, Copy)]
pub(crate) struct SendRequest<'a> {
    stream: &'a Transport,
    /// What becomes of the framing of its body.
    framing: Framing,
}

/// The response.
pub(crate) struct RecvResponse<'a> {
    stream: &'a Transport,
    reading: Reading<'a>,
    /// What has come of a head that is not whole. Behind it, where only the content passes:
    /// the trailer section, and when that is whole a list of its fields.
    part: Vec<u8>,
    /// Where its body is.
    body: BodyReader,
    framing: Framing,
    /// Whether bytes followed the end of the response that nobody asked for.
    leftover: Leftover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    None,
    Some,
}

impl Outbound {
    #[inline]
    pub(super) fn over(lease: Lease) -> Self {
        Self {
            lease,
            accept: Cell::new(None),
        }
    }

    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }

    #[inline]
    pub(super) fn past(&self) -> ConnectionUse {
        self.lease.past
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lease.has_ended()
    }

    pub(super) fn refusal(&self) -> Option<TlsOutcome> {
        self.lease.stream.refusal()
    }

    #[inline]
    pub(super) fn tls(&self) -> Option<TlsSummary> {
        self.lease.stream.tls()
    }

    #[inline]
    pub(super) fn endpoint(&self) -> EndpointAddr {
        self.lease.endpoint()
    }

    #[inline]
    pub(super) fn begin(&mut self, context: &Context, shared: &Arc<Shared>, facts: RequestFacts) {
        context.pools.watch(shared, &self.lease);
        self.lease.tie = self.lease.tie.presented(facts.presents);
    }

    #[inline]
    pub(super) fn encode(
        &self,
        request: &RequestHead,
        head: &[u8],
        rewrite: &RequestRewrite<'_>,
    ) -> Chunk {
        if request.is_extended_connect() {
            return self.encode_upgrade(request, head, rewrite);
        }
        Chunk::written(head.len() + 192, |out| {
            http1::write_request(out, head, request, rewrite);
        })
    }

    /// An extended CONNECT as HTTP/1.1 has it.
    #[cold]
    fn encode_upgrade(
        &self,
        request: &RequestHead,
        head: &[u8],
        rewrite: &RequestRewrite<'_>,
    ) -> Chunk {
        let protocol = request.protocol(head).unwrap_or_default();
        let key = match websocket::is_it(protocol) {
            true => websocket::key(),
            false => String::new(),
        };
        self.accept.set(match key.as_bytes() {
            [] => None,
            key => Some(websocket::accept(key).into()),
        });
        let asked = [("Upgrade", protocol), (websocket::KEY, key.as_bytes())];
        let rewrite = RequestRewrite {
            add: &[rewrite.add, &asked].concat(),
            ..*rewrite
        };
        Chunk::written(head.len() + 256, |out| {
            http1::write_request(out, head, request, &rewrite);
        })
    }

    /// Whether a switch that its response announces is the one that was asked for.
    pub(super) fn has_switched(&self, response: &ResponseHead, head: &[u8]) -> bool {
        let accept = self.accept.take();
        let accepted = || response.fields().value(head, websocket::ACCEPT);
        response.status() != 101
            || accept.is_none_or(|accept| accepted() == Some(accept.as_bytes()))
    }

    /// A head that [`Self::encode`] made, with the values that `value_of` gives for the
    /// name and value of a field; `None`: it gives none.
    pub(super) fn substituted<V: AsRef<[u8]>, E>(
        &self,
        head: &[u8],
        value_of: impl FnMut(&[u8], &[u8]) -> Result<Option<V>, E>,
    ) -> Result<Option<Chunk>, E> {
        let values = http1::with_values(head, value_of)?;
        Ok(values.map(|values| {
            Chunk::written(values.bytes_max(head.len()), |out| values.write(out, head))
        }))
    }

    /// A head that [`Self::encode`] made, signed.
    pub(super) fn signed(&self, head: &[u8], signing: &Signing<'_>) -> SignedHead {
        let written = http1::written_head(head);
        let now = clock::unix_ms() / 1_000;
        let SignatureLines { fields, chunks } = signing.lines(&written, now);
        let mut bytes = head.len();
        for (name, value) in &fields {
            bytes += name.len() + value.len() + 4;
        }
        let head = Chunk::written(bytes, |out| {
            http1::with_fields(out, head, &fields);
        });
        SignedHead { head, chunks }
    }

    #[inline]
    pub(super) fn halves<'a>(
        &'a self,
        reading: Reading<'a>,
        body: BodyForm,
    ) -> (outbound::SendRequest<'a>, outbound::RecvResponse<'a>) {
        let stream = &self.lease.stream;
        let framing = match body {
            BodyForm::Http1 | BodyForm::Content(Length::None | Length::Exact(_)) => Framing::Kept,
            BodyForm::Content(Length::Unknown) => Framing::Added,
        };
        let recv = RecvResponse {
            stream,
            reading,
            part: Vec::new(),
            body: BodyReader::of_response(Length::None),
            framing: Framing::Kept,
            leftover: Leftover::None,
        };
        (
            outbound::SendRequest::Http1(SendRequest { stream, framing }),
            outbound::RecvResponse::Http1(recv),
        )
    }

    #[inline]
    pub(super) fn is_answered(&mut self, shared: &Shared, response: &ResponseHead, head: &[u8]) {
        self.lease.is_answered(shared);
        self.lease.set_idle_limit(response.idle_limit());
        self.lease.tie = self.lease.tie.offered(challenge::offered(response, head));
    }

    pub(super) async fn begun(
        &self,
        response: &ResponseHead,
        mut more: Option<Chunk>,
        until: Instant,
    ) -> BodyBeginning {
        let mut body = BodyReader::behind(response);
        let (mut bytes, mut content) = (Vec::new(), Vec::new());
        loop {
            let is_sound = more.is_none_or(|more| {
                bytes.extend_from_slice(&more);
                body.advance_into(&more, &mut content).is_ok()
            });
            if !is_sound || body.is_done() || bytes.len() >= BODY_BYTES_MAX {
                break;
            }
            // Its end is seen again by whoever goes on.
            more = match self.lease.stream.recv_by(until).await {
                Ok(Ok(Some(chunk))) => Some(chunk),
                _ => break,
            };
        }
        let rest = (!bytes.is_empty()).then(|| Chunk::from(bytes));
        BodyBeginning { rest, content }
    }

    /// Keeps the connection for the caller alone whose own it has become, else for
    /// all.
    #[inline(always)]
    pub(super) fn finish(mut self, reuse: Reuse, bound: &mut Bound) -> BoundOutcome {
        match (reuse, self.lease.tie) {
            (Reuse::May, ConnectionAuth::Free) => {
                self.lease.complete();
                BoundOutcome::Well
            }
            (Reuse::May, ConnectionAuth::Offered(_) | ConnectionAuth::Begun(_)) => {
                bound.keep(self.lease)
            }
            (Reuse::MayNot, ConnectionAuth::Begun(_)) => BoundOutcome::Lost,
            (Reuse::MayNot, ConnectionAuth::Free | ConnectionAuth::Offered(_)) => {
                BoundOutcome::Well
            }
        }
    }

    pub(super) fn give_up(
        self,
        response: &ResponseHead,
        mut rest: Option<Chunk>,
        bound: &mut Bound,
    ) {
        let mut body = BodyReader::behind(response);
        while !body.is_done()
            && let Some(chunk) = rest.take().or_else(|| self.lease.stream.try_recv())
        {
            let progress = body.advance(&chunk);
            if !progress.is_ok_and(|progress| progress.consumed == chunk.len()) {
                return;
            }
        }
        if body.is_done() && rest.is_none() && response.keep_alive() {
            self.finish(Reuse::May, bound);
        }
    }
}

impl<'a> SendRequest<'a> {
    #[inline(always)]
    pub(super) fn begin(self, head: Chunk, body: Option<Gather>, end: End<'_>) -> Post<'a> {
        let gather = match body {
            None if self.framing != Framing::Added => Gather::from(head),
            body => self.with_body(head, body.unwrap_or_default(), end),
        };
        Post::Http1(match end {
            // The answer comes next and tells how the send went.
            End::Whole(_) => self.stream.post(gather),
            // A body must not begin behind a head that was not sent.
            End::More => self.stream.send(gather),
        })
    }

    #[inline(never)]
    fn with_body(self, head: Chunk, body: Gather, end: End<'_>) -> Gather {
        let mut gather = match self.framing {
            Framing::Added => Gather::from(in_chunks(&body, end)),
            Framing::Kept | Framing::Removed => body,
        };
        gather.push_front(head);
        gather
    }

    pub(super) fn send(self, body: Gather, end: End<'_>) -> Post<'a> {
        Post::Http1(self.stream.send(match self.framing {
            Framing::Added => Gather::from(in_chunks(&body, end)),
            Framing::Kept | Framing::Removed => body,
        }))
    }

    pub(super) fn taken(self) -> i64 {
        self.stream.taken()
    }

    /// A FIN alone says nothing: servers that close in order read on behind it.
    pub(super) async fn is_given_up(self) {
        self.stream.failed().await;
    }
}

impl<'a> RecvResponse<'a> {
    #[inline]
    pub(super) fn response(&self) -> &ResponseHead {
        self.reading.head
    }

    #[inline]
    pub(super) fn is_switch(&self) -> bool {
        let status = self.reading.head.status();
        status == 101 || self.reading.method == Method::Connect && (200..300).contains(&status)
    }

    #[inline(always)]
    pub(super) fn take_head(&mut self, mut chunk: Chunk) -> Result<Received, BadMessage> {
        let more = chunk.len();
        if !self.part.is_empty() {
            match self.complete(&chunk) {
                Some(collected) => chunk = collected,
                None => return Ok(Received::Part(more)),
            }
        }
        let Reading {
            method,
            limits,
            head,
        } = &mut self.reading;
        match http1::parse_response(head, &chunk, *method, limits)? {
            Some(length) => {
                let rest = chunk.split_rest(length);
                Ok(Received::Whole(chunk, rest))
            }
            None => {
                self.part.extend_from_slice(&chunk);
                Ok(Received::Part(more))
            }
        }
    }

    /// More of a head that came in pieces, which is rare. A piece without a line end
    /// cannot complete it, so it is not parsed again for one.
    #[cold]
    fn complete(&mut self, more: &[u8]) -> Option<Chunk> {
        self.part.extend_from_slice(more);
        let is_long = self.part.len() > self.reading.limits.head_bytes_max;
        (is_long || memchr(b'\n', more).is_some())
            .then(|| Chunk::from(std::mem::take(&mut self.part)))
    }

    #[inline]
    pub(super) fn begin_body(
        &mut self,
        framing: Framing,
        rest: Option<Chunk>,
    ) -> Result<Option<Chunk>, BadMessage> {
        self.body = BodyReader::behind(self.reading.head);
        self.framing = framing;
        match rest {
            Some(_) if self.body.is_done() => {
                self.leftover = Leftover::Some;
                Ok(None)
            }
            rest => rest.map(|rest| self.take_body(rest)).transpose(),
        }
    }

    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_done()
    }

    #[inline(always)]
    pub(super) fn take_body(&mut self, mut chunk: Chunk) -> Result<Chunk, BadMessage> {
        let length = chunk.len();
        let consumed = match self.framing {
            Framing::Kept | Framing::Added => {
                let progress = self.body.advance(&chunk)?;
                chunk.truncate(progress.consumed);
                progress.consumed
            }
            Framing::Removed => {
                let mut data = Vec::with_capacity(length);
                let progress = self.body.advance_into(&chunk, &mut data)?;
                let section = progress.consumed - progress.trailers..progress.consumed;
                self.part.extend_from_slice(&chunk[section]);
                if progress.done {
                    self.read_trailers();
                }
                chunk = Chunk::from(data);
                progress.consumed
            }
        };
        if consumed < length {
            self.leftover = Leftover::Some;
        }
        Ok(chunk)
    }

    #[inline]
    pub(super) fn end(&self) -> End<'_> {
        End::of(self.is_whole(), &self.part)
    }

    /// What the section says that may pass. It is sound: it has gone through a body
    /// reader.
    #[cold]
    fn read_trailers(&mut self) {
        let section = std::mem::take(&mut self.part);
        let mut list = FieldList(&mut self.part);
        for (name, value) in http1::read_trailers(&section) {
            if may_trail(name) {
                list.push(name, value);
            }
        }
    }

    /// The end of the connection is the end of a body without another; a reset
    /// cannot be told from one that arrived whole.
    pub(super) fn ends_here(&self) -> bool {
        self.reading.head.ends_with_connection() && self.stream.ended_with_fin()
    }

    #[inline]
    pub(super) fn reuse(&self) -> Reuse {
        let head = &self.reading.head;
        let is_clean = self.leftover == Leftover::None && !head.ends_with_connection();
        match is_clean && head.keep_alive() {
            true => Reuse::May,
            false => Reuse::MayNot,
        }
    }

    #[inline]
    pub(super) fn try_recv(&self) -> Option<Chunk> {
        self.stream.try_recv()
    }

    #[inline(always)]
    pub(super) fn poll_recv(
        &self,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        self.stream.poll_recv(context)
    }

    #[inline(always)]
    pub(super) fn poll_recv_by(
        &self,
        deadline: Instant,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<io::Result<Option<Chunk>>, Elapsed>> {
        self.stream.poll_recv_by(deadline, context)
    }

    #[inline]
    pub(super) fn send_failure(&self) -> Option<SendError> {
        self.stream.send_failure()
    }
}
