//! The h2 crate as either end, in memory and without a runtime.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::end::LOCAL;
use crate::record::{Ending, Record};

/// More than one input makes.
const MANY: usize = 1_000_000;

/// Longer than one input takes.
const LONG: Duration = Duration::from_secs(86_400);

/// What is sent: nothing is.
type Body = io::Cursor<Vec<u8>>;

/// What an end receives and sends.
#[derive(Debug, Clone, Default)]
struct Pipe(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

/// An end.
pub struct H2Peer {
    side: Side,
    pipe: Pipe,
    exchanges: BTreeMap<u32, Exchange>,
    habits: Habits,
    /// What it has seen of each stream.
    pub records: BTreeMap<u32, Record>,
    /// It takes nothing any more.
    pub has_ended: bool,
}

enum Side {
    Server(Box<server::Connection<Pipe, Body>>),
    Client {
        connection: Box<client::Connection<Pipe, Body>>,
        /// The connection ends without one.
        _requests: SendRequest<Body>,
    },
}

/// What its user does.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Requests are answered as they come, without content.
    pub answers: bool,
    /// Content is dealt with as it comes.
    pub releases: bool,
}

/// What is held of a stream: what is dropped is reset.
#[derive(Default)]
struct Exchange {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    _answer: Option<SendResponse<Body>>,
    _sending: Option<SendStream<Body>>,
    /// Nothing is sent any more.
    is_sent: bool,
}

impl H2Peer {
    /// A server that has received what a client sends first.
    ///
    /// # Panics
    /// It does not take that.
    pub fn server(hello: &[u8], habits: Habits) -> Self {
        let pipe = Pipe::default();
        pipe.0.borrow_mut().0.extend(hello);
        let handshake = server::Builder::new()
            .initial_window_size(LOCAL.window)
            .initial_connection_window_size(LOCAL.connection_window)
            .max_concurrent_streams(LOCAL.max_streams)
            .max_header_list_size(LOCAL.list_max as u32)
            .max_concurrent_reset_streams(MANY)
            .max_pending_accept_reset_streams(MANY)
            .max_local_error_reset_streams(None)
            .reset_stream_duration(LONG)
            .handshake(pipe.clone());
        let connection = finished(handshake).expect("a server");
        Self::new(Side::Server(Box::new(connection)), pipe, habits)
    }

    /// A client that has sent requests with these methods, of which those end with
    /// their head that are no POST.
    ///
    /// # Panics
    /// It cannot.
    pub fn client(methods: &[&str], habits: Habits) -> Self {
        let pipe = Pipe::default();
        let handshake = client::Builder::new()
            .initial_window_size(LOCAL.window)
            .initial_connection_window_size(LOCAL.connection_window)
            .enable_push(false)
            .max_header_list_size(LOCAL.list_max as u32)
            .max_concurrent_reset_streams(MANY)
            .max_local_error_reset_streams(None)
            .reset_stream_duration(LONG)
            .handshake(pipe.clone());
        let (mut requests, connection) = finished(handshake).expect("a client");
        let mut exchanges = BTreeMap::new();
        for method in methods {
            let ends = *method != "POST";
            let request = Request::builder()
                .method(*method)
                .uri("http://a.test/")
                .body(())
                .expect("a request");
            let sent = requests.send_request(request, ends);
            let (response, sending) = sent.expect("a stream is free");
            let exchange = Exchange {
                response: Some(response),
                _sending: Some(sending),
                is_sent: ends,
                ..Exchange::default()
            };
            exchanges.insert(exchanges.len() as u32 * 2 + 1, exchange);
        }
        let side = Side::Client {
            connection: Box::new(connection),
            _requests: requests,
        };
        let mut peer = Self::new(side, pipe, habits);
        peer.exchanges = exchanges;
        peer.feed(&[]);
        peer
    }

    fn new(side: Side, pipe: Pipe, habits: Habits) -> Self {
        Self {
            side,
            pipe,
            exchanges: BTreeMap::new(),
            habits,
            records: BTreeMap::new(),
            has_ended: false,
        }
    }

    /// Has bytes received, and everything done that follows from them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pipe.0.borrow_mut().0.extend(bytes);
        // What is released and dropped in one turn is sent in the next one.
        for _ in 0..3 {
            self.turn();
        }
    }

    /// Takes out what it has sent.
    pub fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.0.borrow_mut().1)
    }

    fn turn(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        match &mut self.side {
            Side::Server(connection) => loop {
                match connection.poll_accept(context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok((request, answer)))) => {
                        let id = answer.stream_id().as_u32();
                        let exchange = Exchange::accepted(request, answer, self.habits);
                        self.exchanges.insert(id, exchange);
                        self.records.insert(id, Record::begun());
                    }
                    Poll::Ready(Some(Err(_)) | None) => {
                        self.has_ended = true;
                        break;
                    }
                }
            },
            Side::Client { connection, .. } => {
                self.has_ended |= Pin::new(connection).poll(context).is_ready();
            }
        }
        let (records, releases) = (&mut self.records, self.habits.releases);
        self.exchanges.retain(|id, exchange| {
            let record = records.entry(*id).or_default();
            exchange.advance(context, record, releases);
            match record.ending {
                None => true,
                Some(Ending::Whole) => !exchange.is_sent,
                Some(_) => false,
            }
        });
    }
}

impl Exchange {
    fn accepted(
        request: Request<RecvStream>,
        mut answer: SendResponse<Body>,
        habits: Habits,
    ) -> Self {
        // A stream that is reset already takes no answer.
        let sent = habits
            .answers
            .then(|| answer.send_response(Response::new(()), true));
        Self {
            response: None,
            body: Some(request.into_body()),
            _answer: Some(answer),
            is_sent: sent.is_some(),
            _sending: sent.and_then(Result::ok),
        }
    }

    fn advance(&mut self, context: &mut Context<'_>, record: &mut Record, releases: bool) {
        if record.ending.is_some() {
            return;
        }
        if let Some(response) = &mut self.response {
            match Pin::new(response).poll(context) {
                Poll::Pending => return,
                Poll::Ready(Ok(response)) => {
                    *record = Record::begun();
                    self.body = Some(response.into_body());
                }
                Poll::Ready(Err(error)) => record.ending = Some(ending_of(&error)),
            }
            self.response = None;
        }
        let Some(body) = &mut self.body else {
            return;
        };
        loop {
            match body.poll_data(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(part))) => {
                    record.bytes += part.len();
                    if releases {
                        // Less than all is refused by a stream that has gone.
                        let _ = body.flow_control().release_capacity(part.len());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    record.ending = Some(ending_of(&error));
                    return;
                }
                Poll::Ready(None) => break,
            }
        }
        match body.poll_trailers(context) {
            Poll::Pending => {}
            Poll::Ready(Ok(trailers)) => {
                record.trailers = trailers.map(|trailers| trailers.len());
                record.ending = Some(Ending::Whole);
            }
            Poll::Ready(Err(error)) => record.ending = Some(ending_of(&error)),
        }
    }
}

fn ending_of(error: &h2::Error) -> Ending {
    match (error.is_remote(), error.is_go_away()) {
        (true, true) => Ending::Unprocessed,
        (true, false) => Ending::Reset,
        (false, _) => Ending::Failed,
    }
}

/// What a future comes to that needs nobody.
fn finished<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let input = &mut self.0.borrow_mut().0;
        if input.is_empty() {
            return Poll::Pending;
        }
        let length = buffer.remaining().min(input.len());
        let bytes: Vec<u8> = input.drain(..length).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
