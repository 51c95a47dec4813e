//! The life of an HTTP/2 connection: many requests beside each other.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;

use crate::clock::Instant;
use crate::combinators::{First, first, rarely};
use crate::http2::{self, ErrorCode, LocalSettings};
use crate::message::{BadMessage, Length, RequestHead};
use crate::multiplex::{
    self, Driven, Driver, Ended, Http2Stream, Multiplexed, NewStream, Received,
};
use crate::proxy::after::After;
use crate::proxy::bound::Bound;
use crate::proxy::client::{Client, Patience};
use crate::proxy::context::{Context, Scratch};
use crate::proxy::downstream::Downstream;
use crate::proxy::forward;
use crate::proxy::inner::Serve;
use crate::proxy::reply;
use crate::proxy::server_connection::ServerConnection;
use crate::proxy::slot::{self, Slot, Slots};
use crate::ring::{self, Chunk, timer};
use crate::telemetry::{Direction, RequestProtocol};

/// Slots of requests that are kept.
const SLOTS_KEPT_MAX: usize = 128;

/// A request that a client has made.
struct NextRequest {
    server: Rc<ServerConnection>,
    opened: NewStream,
}

thread_local! {
    static SLOTS: Slots<NextRequest, ()> = const { Slots::new(SLOTS_KEPT_MAX) };
}

/// Frees what is kept for the next requests.
pub(super) fn drop_spares() {
    SLOTS.with(Slots::drop_all);
    multiplex::drop_spares();
    http2::drop_spares();
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It takes requests.
    Open,
    /// Its peer was told to open no more streams, and has until then to hear of it.
    Announced(Instant),
    /// It serves what is there.
    Leaving,
}

/// Serves requests until the connection ends, and has `serve_inner` serve those that come
/// through a tunnel in it.
pub(crate) async fn serve(client: Box<Client>, patience: Patience, serve_inner: Serve) {
    let Client {
        context,
        stream,
        origin,
        ahead,
        tunnel,
        certificate,
        member,
        seat,
        ..
    } = *client;
    let server = Rc::new(ServerConnection {
        peer: member.peer(),
        connection: Multiplexed::server(stream, settings(&context)),
        patience,
        serve_inner,
        rests_since: Cell::new(ring::now()),
        context,
        origin,
        tunnel,
        certificate,
        member,
        seat,
    });
    let mut driver = Driver::of(&server.connection);
    driver.begin_with(ahead);
    let ended = server.drive(&mut driver, patience).await;
    if let Some(Ended::Error(error)) = ended {
        multiplex::explain(&error, &server.origin.peer, ring::now());
    }
    if ended != Some(Ended::Closed) {
        driver.finish(patience.idle()).await;
    }
}

/// What the peer of an accepted connection may do. Which upstreams its requests are for
/// is not known yet.
fn settings(context: &Context) -> LocalSettings {
    let generation = context.generation();
    let limits = generation.table.settings().adopted.http2;
    LocalSettings {
        max_streams: limits.max_streams,
        window: limits.window,
        connection_window: limits.connection_window,
        connect_protocol: true,
        ..LocalSettings::default()
    }
}

impl ServerConnection {
    /// Drives it to its end; `None`: it was ended here, in order.
    async fn drive(self: &Rc<Self>, driver: &mut Driver<'_>, patience: Patience) -> Option<Ended> {
        let mut stage = Stage::Open;
        let mut kept = 0;
        loop {
            let unfinished = self.connection.unfinished_bytes();
            if unfinished != kept {
                kept = unfinished;
                self.member.keeps(kept);
            }
            let rests = self.connection.streams() == 0;
            let due = match stage {
                Stage::Open => self.silence_ends(patience),
                Stage::Announced(until) => Some(until),
                Stage::Leaving if rests => return None,
                Stage::Leaving => self.silence_ends(patience),
            };
            let due = async {
                match due {
                    Some(due) => timer::sleep_until(due).await,
                    None => pending().await,
                }
            };
            let drains = async {
                match stage {
                    Stage::Open => self.context.drain.begun().await,
                    Stage::Announced(_) | Stage::Leaving => pending().await,
                }
            };
            match first(driver.next(), first(drains, due)).await {
                First::Left(Driven::Opened(opened)) => self.open(opened),
                First::Left(Driven::Changed) => {}
                First::Left(Driven::Rests) => self.rests_since.set(ring::now()),
                First::Left(Driven::Ended(ended)) => return Some(ended),
                First::Right(First::Left(())) => {
                    self.connection.announce_end();
                    stage = Stage::Announced(ring::now() + self.context.drain_grace() * 2);
                }
                // The rest of a head has taken too long.
                First::Right(First::Right(())) if self.connection.unfinished_since().is_some() => {
                    if self.connection.awaits_head() {
                        self.tell_of_slow_head();
                    }
                    self.connection.end_for_slowness();
                }
                First::Right(First::Right(())) => {
                    self.connection.go_away(ErrorCode::NO_ERROR);
                    stage = Stage::Leaving;
                }
            }
        }
    }

    /// Writes a request down of which the head has not come in time. It has no stream that
    /// could be answered on.
    fn tell_of_slow_head(&self) {
        let bound = Bound::default();
        let client = self.client(&self.member, &bound);
        let mut record = self.context.telemetry.begin(client.passage(ring::now()));
        record.protocol = RequestProtocol::Http2;
        record.describe_sender(client.peer_id());
        let bytes = self.connection.unfinished_bytes();
        record.passage.count(Direction::Sent, bytes as u64);
        record.explain(BadMessage::HeadTimeout.text());
        record.reason = Some(BadMessage::HeadTimeout.reason().into());
    }

    /// Until when the peer may be silent: amid a head, or where it has no request; `None`:
    /// one is served.
    fn silence_ends(&self, patience: Patience) -> Option<Instant> {
        if let Some(since) = self.connection.unfinished_since() {
            return Some(since + patience.head());
        }
        let rests = self.connection.streams() == 0;
        rests.then(|| self.rests_since.get() + patience.idle())
    }

    /// Serves a request in a task of its own.
    fn open(self: &Rc<Self>, opened: NewStream) {
        let mut request = SLOTS.with(Slots::take).unwrap_or_else(empty_slot);
        request.as_mut().begin(NextRequest {
            server: Rc::clone(self),
            opened,
        });
        ring::spawn(async move {
            request.as_mut().await;
            SLOTS.with(|slots| slots.keep(request));
        });
    }

    /// Waits for the end of a request that says to have no content. `Some`: it has some,
    /// and so it is malformed and is not passed on (RFC 9113 section 8.1.1), or the end
    /// does not come.
    async fn owed_end(&self, stream: &Http2Stream) -> Option<BadMessage> {
        match timer::timeout(self.patience.head(), stream.recv()).await {
            Ok(Ok(Received::Content(_) | Received::Head(_))) => None,
            Ok(Err(_)) => Some(BadMessage::StreamError),
            Err(_) => Some(BadMessage::HeadTimeout),
        }
    }

    async fn one(self: &Rc<Self>, stream: &Http2Stream, scratch: &mut Scratch, head: ReadHead) {
        let (request, bytes) = (&scratch.request, head.bytes);
        let mut downstream = Downstream::http2(self, stream, self.join(stream), request, bytes);
        let after = forward::forward(&mut downstream, scratch, head.lines).await;
        if after == After::Reset {
            downstream.reset();
        }
    }

    /// Refuses a request. One that breaks a rule of the protocol is a stream error
    /// (RFC 9113 section 8.1.1).
    async fn refuse(
        self: &Rc<Self>,
        stream: &Http2Stream,
        scratch: &Scratch,
        refused: RefusedHead,
    ) {
        let RefusedHead { bad, bytes } = refused;
        let request = &scratch.request;
        let mut downstream = Downstream::http2(self, stream, self.join(stream), request, bytes);
        let client = downstream.client();
        let mut record = self.context.telemetry.begin(client.passage(ring::now()));
        record.protocol = RequestProtocol::Http2;
        record.describe_sender(client.peer_id());
        record.passage.count(Direction::Sent, bytes);
        let field = scratch.request.fields().blamed();
        if matches!(bad, BadMessage::HeadTooLarge | BadMessage::HeadTimeout) {
            reply::refuse(&mut downstream, record, bad, field).await;
            return;
        }
        record.explain(&bad.about(field));
        record.reason = Some(bad.reason().into());
        record.passage.count(Direction::Sent, downstream.discard());
        stream.refuse();
    }
}

fn empty_slot() -> Slot<NextRequest, ()> {
    slot::empty(|next: NextRequest, mut scratch| {
        let server = next.server;
        // At once: what comes next on the stream is judged by it.
        let (stream, read) = read_head(next.opened, &mut scratch.request);
        async move {
            let owed = match &read {
                Ok(head) if head.owes_end => rarely(server.owed_end(&stream)).await,
                _ => None,
            };
            let refused = match (read, owed) {
                (Ok(head), None) => {
                    server.one(&stream, &mut scratch, head).await;
                    return ((), scratch);
                }
                (Ok(ReadHead { bytes, .. }), Some(bad)) => RefusedHead { bad, bytes },
                (Err(refused), _) => refused,
            };
            rarely(server.refuse(&stream, &scratch, refused)).await;
            ((), scratch)
        }
    })
}

/// The head of a request, as far as it is not read.
struct ReadHead {
    /// Its lines.
    lines: Chunk,
    /// How many bytes of them came.
    bytes: u64,
    /// It says to have no content, and its stream has not ended.
    owes_end: bool,
}

/// The head of a request that is not passed on.
struct RefusedHead {
    /// Why.
    bad: BadMessage,
    /// How many bytes it had.
    bytes: u64,
}

/// Reads the head that has opened a stream into `request`.
fn read_head(
    opened: NewStream,
    request: &mut RequestHead,
) -> (Http2Stream, Result<ReadHead, RefusedHead>) {
    let NewStream {
        stream,
        mut block,
        ends,
    } = opened;
    let read = http2::read_request(request, &mut block, ends);
    let bytes = block.line_bytes();
    let read = read.map_err(|bad| RefusedHead { bad, bytes });
    let read = read.map(|()| {
        let (length, is_tunnel) = (request.length(), request.opens_tunnel());
        match is_tunnel {
            true => stream.makes_tunnel(),
            false => stream.expect(length),
        }
        let lines = block.bytes();
        ReadHead {
            lines: Chunk::written(lines.len(), |copy| copy.extend_from_slice(lines)),
            bytes,
            owes_end: length == Length::None && !is_tunnel && !ends,
        }
    });
    (stream, read)
}
