//! A caller that sends and reads what its script says.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::HOST;
use super::message::{self, Field, Length, Wire};
use crate::addr::{OriginalDst, Peer};
use crate::proxy::accepted;
use crate::proxy::bound::Bound;
use crate::proxy::client::{Client, Origin, Turn};
use crate::proxy::context::Context;
use crate::proxy::listener::Entry;
use crate::proxy::room::Room;
use crate::ring;
use crate::telemetry::ListenerIndex;
use crate::transport::Transport;
use crate::upstream::dial::Namespace;

/// One connection of a caller. Dropped, the caller has left.
pub(crate) struct Caller {
    /// The connection.
    pub(crate) wire: Wire,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its fields.
    pub(crate) fields: Vec<Field>,
    /// Its body; `None`: it was cut.
    pub(crate) body: Option<Vec<u8>>,
}

/// What a caller's connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// A pair of unix sockets.
    Unix,
    /// TCP, of which each side sees whether the other one closes or resets it.
    Tcp,
}

/// An accepted connection, captured where it was going to an `original`
/// destination, and its other end.
pub(crate) fn accepted_client(
    context: &Rc<Context>,
    original: Option<OriginalDst>,
) -> (Client, UnixStream) {
    let (near, far) = UnixStream::pair().expect("descriptors are left");
    (accepted(context, original, near.into()), far)
}

fn accepted(context: &Rc<Context>, original: Option<OriginalDst>, near: OwnedFd) -> Client {
    let stream = Transport::from_connected(near).expect("a socket");
    Client {
        context: Rc::clone(context),
        member: context.clients.join(&stream, Peer::Local),
        stream,
        origin: Origin {
            listener: ListenerIndex::CAPTURE,
            original,
            namespace: Namespace::default(),
            peer: None,
        },
        ahead: None,
        bound: Bound::default(),
        turn: Turn::First,
        tunnel: None,
        certificate: None,
        seat: Room::new(None).enter(),
    }
}

impl Link {
    /// Both ends.
    pub(super) fn pair(self) -> (OwnedFd, OwnedFd) {
        match self {
            Self::Unix => {
                let (near, far) = UnixStream::pair().expect("descriptors are left");
                (near.into(), far.into())
            }
            Self::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port is left");
                let address = listener.local_addr().expect("it is bound");
                let far = TcpStream::connect(address).expect("it listens");
                let (near, _) = listener.accept().expect("it was connected to");
                // Time does not wait for what the kernel holds back.
                for end in [&near, &far] {
                    end.set_nodelay(true).expect("it is TCP");
                }
                (near.into(), far.into())
            }
        }
    }
}

impl Caller {
    /// Connects to a listener of the shard.
    pub(crate) fn new(
        context: &Rc<Context>,
        link: Link,
        entry: Entry,
        original: Option<OriginalDst>,
    ) -> Self {
        let (near, far) = link.pair();
        let client = accepted(context, original, near);
        ring::spawn(accepted::serve(Box::new(client), entry));
        let far = Transport::from_connected(far).expect("a socket");
        Self {
            wire: Wire::new(far),
        }
    }

    /// Sends bytes.
    pub(crate) async fn send(&self, bytes: impl Into<Vec<u8>>) -> bool {
        self.wire.send(bytes).await
    }

    /// Sends a request without a body.
    pub(crate) async fn ask(&self, method: &str) -> bool {
        let head = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        self.send(head).await
    }

    /// Sends a request with a body.
    pub(crate) async fn post(&self, fields: &str, body: &[u8]) -> bool {
        let length = body.len();
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n{fields}\r\n");
        self.send([head.as_bytes(), body].concat()).await
    }

    /// Bytes that it was sent.
    pub(crate) fn received(&self) -> u64 {
        self.wire.received
    }

    /// Asks `GET /`, and waits for the answer.
    pub(crate) async fn get(&mut self) -> Option<Answer> {
        self.ask("GET").await;
        self.answer().await
    }

    /// The next answer, interim ones included; `None`: the connection ends before
    /// its head is whole.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head = self.wire.head().await?;
        let mut place = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut place);
        response.parse(&head).expect("the proxy writes HTTP");
        let status = response.code.expect("it was parsed");
        let fields = message::fields(response.headers);
        let length = match status {
            100..=199 | 204 | 304 => Length::Exact(0),
            _ => message::length(&fields).unwrap_or(Length::UntilClose),
        };
        let body = self.wire.body(length).await;
        Some(Answer {
            status,
            fields,
            body,
        })
    }
}

impl Answer {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        message::field(&self.fields, name)
    }

    /// Why the proxy answered in the upstream's stead.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.field("x-ambassador-reason")
    }
}
