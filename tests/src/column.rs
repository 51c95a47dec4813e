//! The matrix: what speaks to the proxy, what the proxy speaks to, and over which
//! backend. A test that is about the way of a request runs in each column.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::caller::Caller;
use crate::client::Client;
use crate::exchange::{Exchange, serve_http1, serve_http2};
use crate::http2::client::head_of;
use crate::http2::{Frame, PREFACE};
use crate::message::{Answer, Call};
use crate::proxy::{Backend, Proxy};
use crate::server::{Request, Server};

/// What requests are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in clear, without being asked (RFC 9113, section 3.3).
    Http2,
}

/// What one run of a test of the matrix is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// What clients speak.
    pub client: Protocol,
    /// What upstreams speak.
    pub upstream: Protocol,
    /// What the proxy runs on.
    pub backend: Backend,
}

/// A test that no protocol of requests matters to, or that is about HTTP/1.
impl From<Backend> for Column {
    fn from(backend: Backend) -> Column {
        Column {
            client: Protocol::Http1,
            upstream: Protocol::Http1,
            backend,
        }
    }
}

impl Protocol {
    /// Each of them.
    pub const ALL: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

    /// What log and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        }
    }

    /// How much of a body a sender has leave to send before any of it goes on: what the
    /// proxy gives for `http2.window` unless a file says else.
    pub fn window(self) -> u64 {
        match self {
            Protocol::Http1 => 0,
            Protocol::Http2 => 1 << 20,
        }
    }

    /// A client that speaks it; panics where nothing listens.
    #[track_caller]
    pub fn connect(self, address: SocketAddr) -> Caller {
        self.speak(Client::connect(address))
    }

    /// The same, if something listens.
    pub fn try_connect(self, address: SocketAddr) -> Option<Caller> {
        Client::try_connect(address).map(|client| self.speak(client))
    }

    /// The same over a connection that the test made.
    pub fn over(self, stream: TcpStream) -> Caller {
        self.speak(Client::over(stream))
    }

    /// The bytes that a connection begins with which makes this request first.
    pub fn beginning(self, call: &Call) -> Vec<u8> {
        match self {
            Protocol::Http1 => call.http1(),
            Protocol::Http2 => {
                let frames = [Frame::settings(&[]), head_of(1, call)];
                let frames = frames.iter().flat_map(Frame::bytes);
                PREFACE.iter().copied().chain(frames).collect()
            }
        }
    }

    fn speak(self, client: Client) -> Caller {
        match self {
            Protocol::Http1 => Caller::http1(client),
            Protocol::Http2 => Caller::http2(client),
        }
    }

    /// A server that answers every request as `respond` says.
    pub fn server(self, respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        self.script(move |exchange| {
            let request = exchange.request()?;
            exchange.send(&respond(&request))
        })
    }

    /// A server that does with every request what `script` does, from its head on.
    /// An error ends the request without an answer.
    pub fn script(
        self,
        script: impl Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        match self {
            Protocol::Http1 => Server::start(move |connection| serve_http1(connection, &script)),
            Protocol::Http2 => Server::start(move |connection| serve_http2(connection, &script)),
        }
    }

    /// What the file says, so that the proxy speaks it to upstreams.
    pub(crate) fn configure(self, config: &str) -> String {
        match self {
            // As long as it says nothing else.
            Protocol::Http1 => config.to_owned(),
            Protocol::Http2 => match config.split_once("defaults: {") {
                Some((before, after)) => {
                    format!("{before}defaults: {{ protocol: http2,{after}")
                }
                None => format!("defaults: {{ protocol: http2 }}\n{config}"),
            },
        }
    }
}

impl Column {
    /// A client of this column; panics where nothing listens.
    #[track_caller]
    pub fn connect(self, address: SocketAddr) -> Caller {
        self.client.connect(address)
    }

    /// The same, if something listens.
    pub fn try_connect(self, address: SocketAddr) -> Option<Caller> {
        self.client.try_connect(address)
    }

    /// The same over a connection that the test made.
    pub fn over(self, stream: TcpStream) -> Caller {
        self.client.over(stream)
    }

    /// An upstream of this column that answers every request as `respond` says.
    pub fn server(self, respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        self.upstream.server(respond)
    }

    /// An upstream of this column that does with every request what `script` does,
    /// from its head on.
    pub fn script(
        self,
        script: impl Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        self.upstream.script(script)
    }

    /// An upstream that answers 200 with the text `ok` to everything.
    pub fn ok(self) -> Server {
        self.server(|_| Answer::ok("ok"))
    }

    /// An upstream that reads requests and never answers.
    pub fn silent(self) -> Server {
        self.script(|exchange| exchange.request().map(drop))
    }

    /// A proxy in front of one upstream, `web`, and the address it listens on.
    /// `more` is further YAML of the upstream, one key a line.
    #[track_caller]
    pub fn in_front_of(self, server: &Server, more: &str) -> (Proxy, SocketAddr) {
        Proxy::in_front_of_with(self, server.address(), more)
    }
}

/// Declares each test once for every column of the matrix. The body is a function
/// that takes the [`Column`]; the test is `name::http1_http1::io_uring`, and so on.
#[macro_export]
macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            $crate::column!($name, http1_http1: Http1, Http1);
            $crate::column!($name, http1_http2: Http1, Http2);
            $crate::column!($name, http2_http1: Http2, Http1);
            $crate::column!($name, http2_http2: Http2, Http2);
        })+
    };
}

/// One column of [`matrix!`]: its name, what clients speak, what upstreams do.
#[macro_export]
macro_rules! column {
    ($name:ident, $column:ident: $client:ident, $upstream:ident) => {
        mod $column {
            use $crate::{Backend, Column, Protocol};

            fn run(backend: Backend) {
                super::super::$name(Column {
                    client: Protocol::$client,
                    upstream: Protocol::$upstream,
                    backend,
                });
            }
            #[test]
            fn io_uring() {
                run(Backend::Ring);
            }
            #[test]
            fn epoll() {
                run(Backend::Epoll);
            }
        }
    };
}
