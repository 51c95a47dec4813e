//! Against the h2 crate, as its server and as its client: it checks what it is
//! sent by the same RFC.

use std::collections::VecDeque;
use std::io::Cursor;

use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::http2::event::{Event, Section};
use crate::http2::role::Role;
use crate::http2::stream::StreamId;

const EXCHANGES: usize = 60;
const BODY_BYTES: usize = 150_000;
const PIPE_BYTES: usize = 10_000;

type Body = Cursor<Vec<u8>>;

/// What an end has still to send in a stream, and what it is told of it.
#[derive(Default)]
struct Exchange {
    pending: VecDeque<u8>,
    /// All of it is there.
    complete: bool,
    received: Vec<u8>,
    trailers: Option<String>,
}

/// An end of ours on a pipe.
struct Piped {
    end: End,
    pipe: DuplexStream,
    exchanges: Vec<Exchange>,
}

fn body(seed: u32) -> Vec<u8> {
    (0..BODY_BYTES as u32)
        .map(|at| (at.wrapping_mul(seed) >> 8) as u8)
        .collect()
}

fn index(stream: u32) -> usize {
    stream as usize / 2
}

impl Piped {
    /// Has the pipe's next bytes received; whether there were any.
    async fn turn(&mut self) -> bool {
        let output = std::mem::take(self.end.connection.output());
        let mut input = [0; 4_096];
        if self.pipe.write_all(&output).await.is_err() {
            return false;
        }
        let length = self.pipe.read(&mut input).await.unwrap_or(0);
        self.end.feed(&input[..length]).unwrap();
        length > 0
    }

    /// Takes note of content, and releases it.
    fn take(&mut self, note: Note) {
        match note {
            Note::Headers(stream, Section::Request, end, _) => {
                self.exchanges.push(Exchange::default());
                self.exchanges[index(stream)].complete = end;
                self.end.headers(stream, OK, false);
            }
            Note::Headers(stream, Section::Trailers, _, lines) => {
                let exchange = &mut self.exchanges[index(stream)];
                exchange.trailers = Some(lines);
                exchange.complete = true;
            }
            Note::Data(stream, bytes, _) => {
                let id = StreamId(stream);
                self.end.connection.release(id, bytes.len() as u32);
                self.exchanges[index(stream)].received.extend(bytes);
            }
            Note::Headers(_, Section::Response, ..) | Note::Other(_) => {}
        }
    }

    /// Sends what may go of what is pending, and trailers behind the last.
    fn send(&mut self) {
        for (at, exchange) in self.exchanges.iter_mut().enumerate() {
            let stream = 2 * at as u32 + 1;
            let sent = self
                .end
                .data(stream, exchange.pending.make_contiguous(), false);
            exchange.pending.drain(..sent);
            if exchange.complete && exchange.pending.is_empty() {
                self.end.headers(stream, &[("x-sum", "1")], true);
            }
        }
    }
}

/// Sends a body and trailers.
fn send(mut stream: SendStream<Body>, bytes: Vec<u8>) {
    stream.send_data(Cursor::new(bytes), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// Receives a body and trailers.
async fn receive(mut stream: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part.unwrap();
        stream.flow_control().release_capacity(part.len()).unwrap();
        bytes.extend_from_slice(&part);
    }
    let trailers = stream.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "1");
    bytes
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn its_client_gets_back_what_it_sends() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let mut piped = Piped {
            end: End::new(Role::Server, LOCAL),
            pipe: ours,
            exchanges: Vec::new(),
        };
        tokio::task::spawn_local(async move {
            while piped.turn().await {
                for note in piped.end.notes() {
                    piped.take(note);
                }
                for exchange in &mut piped.exchanges {
                    exchange.pending.extend(exchange.received.drain(..));
                }
                piped.send();
            }
        });
        let handshake = h2::client::Builder::new().handshake::<_, Body>(theirs);
        let (requests, connection) = handshake.await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut tasks = Vec::new();
        for seed in 0..EXCHANGES as u32 {
            let mut requests = requests.clone().ready().await.unwrap();
            let request = Request::post("http://a.test/").body(()).unwrap();
            let (response, stream) = requests.send_request(request, false).unwrap();
            send(stream, body(seed));
            tasks.push(tokio::task::spawn_local(async move {
                let response = response.await.unwrap();
                assert!(receive(response.into_body()).await == body(seed));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        drop(requests);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn its_server_answers_what_it_gets() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        tokio::task::spawn_local(async move {
            let handshake = h2::server::Builder::new().handshake::<_, Body>(theirs);
            let mut connection = handshake.await.unwrap();
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request.unwrap();
                tokio::task::spawn_local(async move {
                    let bytes = receive(request.into_body()).await;
                    let stream = respond.send_response(Response::new(()), false).unwrap();
                    send(stream, bytes);
                });
            }
        });
        let mut piped = Piped {
            end: End::new(Role::Client, LOCAL),
            pipe: ours,
            exchanges: Vec::new(),
        };
        for seed in 0..EXCHANGES as u32 {
            piped.end.open(GET, false);
            piped.exchanges.push(Exchange {
                pending: body(seed).into(),
                complete: true,
                ..Exchange::default()
            });
        }
        while piped.end.connection.streams() > 0 {
            piped.send();
            assert!(piped.turn().await, "the server has gone");
            for note in piped.end.notes() {
                assert!(!matches!(note, Note::Other(Event::Reset { .. })));
                piped.take(note);
            }
        }
        for (seed, exchange) in piped.exchanges.iter().enumerate() {
            assert!(exchange.received == body(seed as u32));
            assert_eq!(exchange.trailers.as_deref(), Some("x-sum: 1;"));
        }
    });
}
