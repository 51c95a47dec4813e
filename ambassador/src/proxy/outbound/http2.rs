//! One try over a stream of an HTTP/2 connection.

mod tunnel;

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::credential::aws_error::BODY_BYTES_MAX;
use crate::http1::{self, BodyReader};
use crate::http2::{self, FieldBlock};
use crate::message::{
    BadMessage, End, FieldList, Length, Method, RequestHead, RequestRewrite, ResponseHead, Secrecy,
    WrittenHead, field_list, may_trail,
};
use crate::multiplex::{Http2Stream, Received as Arrived, StreamFailure};
use crate::proxy::body::BodyForm;
use crate::proxy::outbound::{self, BodyBeginning, Reading, Received, Reuse};
use crate::proxy::post::Post;
use crate::proxy::signing::{SignatureLines, SignedHead, Signing};
use crate::ring::timer::{self, Elapsed, Sleep};
use crate::ring::{self, Chunk, Gather};
use crate::spares::Spares;
use crate::telemetry::{TlsOutcome, TlsSummary};
use crate::upstream::connection::ConnectionUse;
use crate::upstream::pool::StreamLease;
use tunnel::Tunnel;

/// How long the rest of a request may take behind its answer.
const REST_WITHIN: Duration = Duration::from_secs(30);

const HAS_LEASE: &str = "a try goes over a stream";

/// States of tries that are kept.
const KEPT_MAX: usize = 128;

thread_local! {
    static SPARES: Spares<Box<State>> = const { Spares::new(KEPT_MAX) };
}

/// Frees what is kept for the next tries.
pub(super) fn drop_spares() {
    SPARES.with(Spares::drop_all);
}

/// One try over a stream.
pub(crate) struct Outbound {
    /// Boxed, as every step of a request moves it.
    state: Box<State>,
}

/// How far a try is.
#[derive(Default)]
struct State {
    /// `None` only while no try has it.
    lease: Option<StreamLease>,
    unframed: RefCell<Unframed>,
    /// What it asks for, where that is to become a tunnel.
    tunnel: RefCell<Option<Tunnel>>,
    /// The head that has come and was not read.
    block: RefCell<Option<FieldBlock>>,
    /// Until when something is waited for.
    alarm: RefCell<Option<(Instant, Sleep)>>,
    /// A list of the trailers of the response.
    trailers: OnceCell<Vec<u8>>,
}

/// Takes the framing of HTTP/1 off a request's body, where it has that.
#[derive(Default)]
struct Unframed {
    /// `None`: it is content as it comes.
    reader: Option<BodyReader>,
    /// The trailer section.
    section: Vec<u8>,
}

/// The way of the request.
#[derive(Clone, Copy)]
pub(crate) struct SendRequest<'a> {
    outbound: &'a Outbound,
}

/// The response.
pub(crate) struct RecvResponse<'a> {
    outbound: &'a Outbound,
    reading: Reading<'a>,
}

impl Outbound {
    pub(super) fn over(lease: StreamLease) -> Self {
        let mut state = SPARES.with(Spares::take).unwrap_or_default();
        state.lease = Some(lease);
        Self { state }
    }

    #[inline]
    pub(super) fn stream(&self) -> &Http2Stream {
        &self.lease().stream
    }

    #[inline]
    fn lease(&self) -> &StreamLease {
        self.state.lease.as_ref().expect(HAS_LEASE)
    }

    pub(super) fn into_lease(self) -> StreamLease {
        self.state.lease.expect(HAS_LEASE)
    }

    /// Whether its peer allows extended CONNECT, which it may have to say first. Of a
    /// connection that has ended nothing is known.
    pub(super) async fn takes_switch(&self) -> bool {
        let connection = self.lease().stream.connection();
        connection.settled().await;
        connection.ended().is_some() || connection.takes_extended_connect()
    }

    pub(super) fn past(&self) -> ConnectionUse {
        self.lease().connection().past()
    }

    pub(super) fn tls(&self) -> Option<TlsSummary> {
        self.lease().stream.connection().transport().tls()
    }

    pub(super) fn refusal(&self) -> Option<TlsOutcome> {
        self.lease().stream.connection().transport().refusal()
    }

    /// Whether the certificate that its connection was opened with has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.lease().connection().lifetime().has_ended()
    }

    pub(super) fn endpoint(&self) -> EndpointAddr {
        self.lease().connection().key().endpoint
    }

    /// How its stream has failed; `None`: it has not.
    pub(super) fn failure(&self) -> Option<StreamFailure> {
        self.lease().stream.failure()
    }

    pub(super) fn encode(
        &self,
        request: &RequestHead,
        head: &[u8],
        rewrite: &RequestRewrite<'_>,
    ) -> Chunk {
        if request.length() == Length::Unknown {
            self.state.unframed.replace(Unframed {
                reader: Some(BodyReader::of_request(Length::Unknown)),
                section: Vec::new(),
            });
        }
        let scheme = match self.tls() {
            Some(_) => "https",
            None => "http",
        };
        if request.opens_tunnel() {
            return self.encode_tunnel(request, head, rewrite, scheme);
        }
        Chunk::written(head.len() + 256, |list| {
            http2::write_request(list, head, request, rewrite, scheme, None);
        })
    }

    /// The same of a request that is to become a tunnel.
    #[cold]
    fn encode_tunnel(
        &self,
        request: &RequestHead,
        head: &[u8],
        rewrite: &RequestRewrite<'_>,
        scheme: &str,
    ) -> Chunk {
        let takes_switch = self.lease().stream.connection().takes_extended_connect();
        let protocol = request.protocol(head).filter(|_| takes_switch);
        let tunnel = Tunnel::of(request, head, protocol);
        let rewrite = RequestRewrite {
            add: &[rewrite.add, tunnel::removed(protocol)].concat(),
            ..*rewrite
        };
        let list = Chunk::written(head.len() + 256, |list| {
            http2::write_request(list, head, request, &rewrite, scheme, protocol);
        });
        self.state.tunnel.replace(tunnel);
        list
    }

    pub(super) fn substituted<V: AsRef<[u8]>, E>(
        &self,
        head: &[u8],
        mut value_of: impl FnMut(&[u8], &[u8]) -> Result<Option<V>, E>,
    ) -> Result<Option<Chunk>, E> {
        let (mut new, mut is_changed) = (Vec::new(), false);
        let mut list = FieldList(&mut new);
        for (secrecy, name, value) in field_list::lines(head) {
            let is_pseudo = name.starts_with(b":");
            match is_pseudo
                .then_some(None)
                .map_or_else(|| value_of(name, value), Ok)?
            {
                Some(value) => {
                    is_changed = true;
                    list.push_as(Secrecy::Secret, name, value.as_ref());
                }
                None => list.push_as(secrecy, name, value),
            }
        }
        Ok(is_changed.then(|| Chunk::from(new)))
    }

    pub(super) fn signed(&self, head: &[u8], signing: &Signing<'_>) -> SignedHead {
        let now = clock::unix_ms() / 1_000;
        let SignatureLines { fields, chunks } = signing.lines(&written_head(head), now);
        let head = Chunk::written(head.len() + 512, |list| {
            list.extend_from_slice(head);
            let mut list = FieldList(list);
            for (name, value) in &fields {
                list.push(name.as_bytes(), value);
            }
        });
        SignedHead { head, chunks }
    }

    pub(super) fn halves<'a>(
        &'a self,
        reading: Reading<'a>,
        body: BodyForm,
    ) -> (outbound::SendRequest<'a>, outbound::RecvResponse<'a>) {
        if let BodyForm::Content(_) = body {
            self.state.unframed.borrow_mut().reader = None;
        }
        let recv = RecvResponse {
            outbound: self,
            reading,
        };
        (
            outbound::SendRequest::Http2(SendRequest { outbound: self }),
            outbound::RecvResponse::Http2(recv),
        )
    }

    pub(super) fn trailers_at_hand(&self) -> Option<Vec<u8>> {
        self.lease().stream.trailers_at_hand()
    }

    pub(super) fn is_answered(&self) {
        self.lease().connection().is_answered();
    }

    /// The response has gone to the caller. What the endpoint has yet to take of the
    /// request goes on without it: a whole answer does not say that it is of no use.
    pub(super) fn finish(self) {
        let Self { mut state } = self;
        let lease = state.lease.take();
        *state = State::default();
        SPARES.with(|spares| spares.keep(state));
        if let Some(lease) = lease
            && lease.stream.owes()
        {
            ring::spawn(async move {
                let flushed = lease.stream.flushed();
                // Then the stream is reset.
                let _ = timer::timeout(REST_WITHIN, flushed).await;
            });
        }
    }

    pub(super) async fn begun(&self, mut more: Option<Chunk>, until: Instant) -> BodyBeginning {
        let mut content = Vec::new();
        loop {
            if let Some(more) = more {
                content.extend_from_slice(&more);
            }
            if self.lease().stream.is_whole() || content.len() >= BODY_BYTES_MAX {
                break;
            }
            more = match timer::timeout_at(until, self.lease().stream.recv()).await {
                Ok(Ok(Arrived::Content(chunk))) => Some(chunk),
                _ => break,
            };
        }
        let rest = (!content.is_empty()).then(|| Chunk::from(content.clone()));
        BodyBeginning { rest, content }
    }
}

/// The parts of a head that [`Outbound::encode`] made, as HTTP/1 would have them.
fn written_head(list: &[u8]) -> WrittenHead<'_> {
    let mut head = WrittenHead {
        method: b"",
        target: b"",
        fields: Vec::new(),
    };
    for (name, value) in field_list::fields(list) {
        match name {
            b":method" => head.method = value,
            b":path" => head.target = value,
            b":authority" => head.fields.push((b"host", value)),
            [b':', ..] => {}
            name => head.fields.push((name, value)),
        }
    }
    head
}

impl Unframed {
    /// The content of what has come, and whether its trailers are all here. It is sound:
    /// the caller's side has followed it.
    fn take(&mut self, body: Gather) -> Gather {
        let Some(reader) = &mut self.reader else {
            return body;
        };
        let mut content = Vec::with_capacity(body.bytes());
        for chunk in body.chunks() {
            let Ok(progress) = reader.advance_into(chunk, &mut content) else {
                break;
            };
            let section = progress.consumed - progress.trailers..progress.consumed;
            self.section.extend_from_slice(&chunk[section]);
        }
        Gather::from(Chunk::from(content))
    }

    /// A list of the trailers.
    fn trailers(&self) -> Vec<u8> {
        let mut trailers = Vec::new();
        let mut list = FieldList(&mut trailers);
        for (name, value) in http1::read_trailers(&self.section) {
            list.push(name, value);
        }
        trailers
    }
}

impl<'a> SendRequest<'a> {
    /// Its windows may be closed, and the answer come all the same.
    pub(super) fn begin(self, head: Chunk, body: Option<Gather>, end: End<'_>) -> Post<'a> {
        self.write(Some(head), body.unwrap_or_default(), end)
    }

    pub(super) fn send(self, body: Gather, end: End<'_>) -> Post<'a> {
        self.write(None, body, end)
    }

    fn write(self, head: Option<Chunk>, body: Gather, end: End<'_>) -> Post<'a> {
        let stream = &self.outbound.lease().stream;
        let mut unframed = self.outbound.state.unframed.borrow_mut();
        let content = unframed.take(body);
        let trailers;
        let end = match end {
            // What follows is for whoever takes it up.
            End::Whole(_) if self.outbound.state.tunnel.borrow().is_some() => End::More,
            End::Whole(_) if unframed.reader.is_some() => {
                trailers = unframed.trailers();
                End::Whole(&trailers)
            }
            end => end,
        };
        Post::Http2(match head {
            Some(head) => stream.begin(head, content, end),
            None => stream.send(None, content, end),
        })
    }

    pub(super) fn taken(self) -> i64 {
        self.outbound.lease().stream.written().cast_signed()
    }

    pub(super) async fn is_given_up(self) {
        self.outbound.lease().stream.failed().await;
    }
}

impl RecvResponse<'_> {
    pub(super) fn response(&self) -> &ResponseHead {
        self.reading.head
    }

    pub(super) fn take_head(&mut self, bytes: Chunk) -> Result<Received, BadMessage> {
        let Some(block) = self.outbound.state.block.take() else {
            return Err(BadMessage::StreamError);
        };
        let trailers = self.stream().trailers_at_hand();
        // Trailers may have come with it: then it is they that have ended the stream.
        let ends = self.is_whole() && trailers.is_none_or(|trailers| trailers.is_empty());
        let Reading { head, method, .. } = &mut self.reading;
        if let Err(bad) = http2::read_response(head, &block, *method, ends) {
            self.stream().refuse();
            return Err(bad);
        }
        let bytes = match &*self.outbound.state.tunnel.borrow() {
            Some(tunnel) if (200..300).contains(&head.status()) => tunnel.established(head, bytes),
            Some(_) if head.status() >= 300 => {
                // There is none: nothing follows.
                self.outbound.lease().stream.end();
                bytes
            }
            _ => bytes,
        };
        Ok(Received::Whole(bytes, None))
    }

    /// What has come of a head is with the connection until it is whole.
    pub(super) fn has_begun_head(&self) -> bool {
        self.stream().has_begun_section()
    }

    pub(super) fn is_switch(&self) -> bool {
        let status = self.reading.head.status();
        status == 101 || self.reading.method == Method::Connect && (200..300).contains(&status)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.stream().is_whole()
    }

    pub(super) fn end(&self) -> End<'_> {
        let is_whole = self.is_whole();
        let trailers = match is_whole {
            true => self.outbound.state.trailers.get_or_init(|| self.trailers()),
            false => &[][..],
        };
        End::of(is_whole, trailers)
    }

    /// Those that may go on.
    fn trailers(&self) -> Vec<u8> {
        let mut trailers = Vec::new();
        let mut list = FieldList(&mut trailers);
        for (secrecy, name, value) in field_list::lines(&self.stream().take_trailers()) {
            if may_trail(name) {
                list.push_as(secrecy, name, value);
            }
        }
        trailers
    }

    pub(super) fn reuse(&self) -> Reuse {
        Reuse::May
    }

    pub(super) fn try_recv(&self) -> Option<Chunk> {
        let arrived = self.stream().try_recv()?;
        Some(self.bytes_of(arrived))
    }

    pub(super) fn poll_recv(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.stream()
            .poll_recv(context)
            .map(|received| match received {
                Ok(arrived) => Ok(Some(self.bytes_of(arrived))),
                Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
            })
    }

    pub(super) fn poll_recv_by(
        &self,
        deadline: Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<io::Result<Option<Chunk>>, Elapsed>> {
        if let Poll::Ready(received) = self.poll_recv(context) {
            return Poll::Ready(Ok(received));
        }
        let mut alarm = self.outbound.state.alarm.borrow_mut();
        alarm.take_if(|kept| kept.0 != deadline);
        let (_, sleep) = alarm.get_or_insert_with(|| (deadline, timer::sleep_until(deadline)));
        ready!(Pin::new(sleep).poll(context));
        *alarm = None;
        Poll::Ready(Err(Elapsed))
    }

    fn stream(&self) -> &Http2Stream {
        &self.outbound.lease().stream
    }

    /// A head is read later, from its lines and where its fields are in them.
    fn bytes_of(&self, arrived: Arrived) -> Chunk {
        match arrived {
            Arrived::Content(content) => content,
            Arrived::Head(block) => {
                let bytes = Chunk::written(block.bytes().len(), |lines| {
                    lines.extend_from_slice(block.bytes());
                });
                self.outbound.state.block.replace(Some(block));
                bytes
            }
        }
    }
}
