//! A client that makes requests and reads answers, whatever protocol carries them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::client::{Carried, Client, Response};
use crate::http2::Frame;
use crate::http2::client::Http2Client;
use crate::message::{Body, Call};
use crate::os;

/// One direction of a tunnel.
pub(crate) struct Outlet {
    stream: TcpStream,
    /// The number of its stream over HTTP/2.
    number: Option<u32>,
}

impl Outlet {
    /// Of a tunnel that has the connection to itself, or the stream of this number.
    pub(crate) fn new(stream: &TcpStream, number: Option<u32>) -> Outlet {
        let stream = stream.try_clone().expect("descriptors are left");
        Outlet { stream, number }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.number {
            Some(number) => self.stream.write_all(&Frame::data(number, bytes).bytes()),
            None => self.stream.write_all(bytes),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.number {
            Some(number) => self
                .stream
                .write_all(&Frame::data(number, "").ending().bytes()),
            None => self.stream.shutdown(Shutdown::Write),
        }
    }
}

/// One connection to the proxy, with one request at a time.
pub struct Caller {
    connection: Connection,
    /// The method of the request that is under way.
    method: String,
    /// Its body.
    body: Body,
    /// The head of an answer that is read in parts, and what was read of it.
    answered: Option<Response>,
    unread: Vec<u8>,
}

enum Connection {
    Http1(Box<Client>),
    Http2(Box<Http2Client>),
}

impl Caller {
    pub(crate) fn http1(client: Client) -> Caller {
        Caller::over(Connection::Http1(Box::new(client)))
    }

    pub(crate) fn http2(client: Client) -> Caller {
        Caller::over(Connection::Http2(Box::new(Http2Client::over(client))))
    }

    fn over(connection: Connection) -> Caller {
        Caller {
            connection,
            method: String::new(),
            body: Body::None,
            answered: None,
            unread: Vec::new(),
        }
    }

    /// Sends each byte on its own from now on.
    pub fn trickle(&mut self) {
        match &mut self.connection {
            Connection::Http1(client) => client.trickles = true,
            Connection::Http2(client) => client.trickle(),
        }
    }

    /// Sends a request, with its body where that is whole.
    #[track_caller]
    pub fn send(&mut self, call: &Call) {
        self.try_send(call).expect("the peer takes what is sent");
    }

    /// The same, and says if the peer went away.
    pub fn try_send(&mut self, call: &Call) -> io::Result<()> {
        self.method.clone_from(&call.method);
        self.body.clone_from(&call.body);
        match &mut self.connection {
            Connection::Http1(client) => client.try_send(call.http1()),
            Connection::Http2(client) => client.send(call),
        }
    }

    /// Begins a request without a body: its bytes, for [`Caller::put`].
    pub fn begin(&mut self, call: &Call) -> Vec<u8> {
        self.method.clone_from(&call.method);
        self.body = Body::None;
        match &mut self.connection {
            Connection::Http1(_) => call.http1(),
            Connection::Http2(client) => client.begin(call),
        }
    }

    /// Sends bytes of a head.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.connection {
            Connection::Http1(client) => client.try_send(bytes),
            Connection::Http2(client) => client.put(bytes),
        }
    }

    /// Sends more of the body.
    #[track_caller]
    pub fn piece(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_piece(bytes).expect("the peer takes what is sent");
    }

    /// The same, and says if the peer went away.
    pub fn try_piece(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.connection {
            Connection::Http1(client) => client.try_send(self.body.http1_piece(bytes.as_ref())),
            Connection::Http2(client) => {
                let ends = self.body.is_ended_by(bytes.as_ref().len());
                client.piece(bytes.as_ref(), ends)
            }
        }
    }

    /// Asks for a tunnel, which has to come about. What goes through it is sent with
    /// [`Caller::piece`], ended with [`Caller::end`], and read with [`Caller::content`].
    #[track_caller]
    pub fn open(&mut self, call: &Call) -> Response {
        self.send(call);
        let head = self.head();
        let wanted = match (&self.connection, &call.protocol) {
            (Connection::Http1(_), Some(_)) => 101,
            _ => 200,
        };
        assert_eq!(head.status, wanted, "{}", head.head);
        head
    }

    /// What goes through the tunnel that is open, as a connection of its own, on which
    /// little is said at a time.
    pub fn into_stream(mut self) -> TcpStream {
        let (near, far) = os::connected_pair().expect("ports are left");
        let mut out = match &mut self.connection {
            Connection::Http1(client) => Outlet::new(client.stream(), None),
            Connection::Http2(client) => client.outlet(),
        };
        let mut said = near.try_clone().expect("descriptors are left");
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = said.read(&mut buffer) {
                out.put(&buffer[..count])?;
            }
            out.end()
        });
        thread::spawn(move || -> io::Result<()> {
            let mut near = near;
            loop {
                match self.more() {
                    Ok(more) if more.is_empty() => return near.shutdown(Shutdown::Write),
                    Ok(more) => near.write_all(&more)?,
                    Err(_) => {
                        os::reset_on_close(&near)?;
                        return near.shutdown(Shutdown::Read);
                    }
                }
            }
        });
        far
    }

    /// Ends a body that came in pieces, or this direction of a tunnel.
    #[track_caller]
    pub fn end(&mut self, trailers: &[(&str, &str)]) {
        match &mut self.connection {
            Connection::Http1(client) => match &self.body {
                Body::Tunnel(_) => client.finish(),
                body => client.send(body.http1_end(trailers)),
            },
            Connection::Http2(client) => match &self.body {
                Body::Pieces | Body::Tunnel(_) => {
                    client.end(trailers).expect("the peer takes what is sent")
                }
                // Its length has told its end.
                Body::None | Body::Whole(_) | Body::Announced(_) | Body::Trailed(..) => {}
            },
        }
    }

    /// The next answer, interim ones included.
    #[track_caller]
    pub fn answer(&mut self) -> Response {
        match &mut self.connection {
            Connection::Http1(client) => client.response(&self.method),
            Connection::Http2(client) => match client.answer() {
                Ok(answer) => answer.expect("ended without an answer"),
                Err(error) => panic!("no answer: {error}"),
            },
        }
    }

    /// The next answer, or `None` where the request ended without one.
    pub fn try_answer(&mut self) -> Option<Response> {
        match &mut self.connection {
            Connection::Http1(client) => client.try_response(&self.method),
            Connection::Http2(client) => client.answer().ok().flatten(),
        }
    }

    /// The head of the next answer, whose content is read with [`Caller::content`].
    #[track_caller]
    pub fn head(&mut self) -> Response {
        let head = match &mut self.connection {
            Connection::Http1(client) => client.head(),
            Connection::Http2(client) => {
                let head = client.head().expect("a whole head");
                head.expect("ended without an answer")
            }
        };
        self.answered = Some(head.clone());
        head
    }

    /// The next bytes of the content, exactly so many.
    #[track_caller]
    pub fn content(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let more = self.more().expect("bytes come");
            assert!(!more.is_empty(), "ended after {}", self.unread.len());
            self.unread.extend(more);
        }
        self.unread.drain(..count).collect()
    }

    /// Whether the content has come to its end, and that came whole. Waits.
    #[track_caller]
    pub fn is_at_end(&mut self) -> bool {
        let more = self.more().expect("an end comes");
        self.unread.is_empty() && more.is_empty()
    }

    /// The next bytes of the content, as they come: none at its end, an error where it
    /// is cut.
    #[track_caller]
    pub fn more(&mut self) -> io::Result<Vec<u8>> {
        let response = self.answered.as_ref().expect("there was a head");
        match &mut self.connection {
            Connection::Http1(client) => client.content(response),
            Connection::Http2(client) => client.content(),
        }
    }

    /// What is left of the content as text, whole or cut. Waits for its end.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.unread);
        while let Ok(more) = self.more()
            && !more.is_empty()
        {
            rest.extend(more);
        }
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whether what comes of an answer, if anything, ends with a reset. Waits.
    pub fn is_reset(&mut self) -> bool {
        match &mut self.connection {
            Connection::Http1(client) => {
                let rest = client.rest();
                rest.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
            }
            Connection::Http2(client) => client.is_reset(),
        }
    }

    /// Whether something of an answer has come, or the end; does not wait.
    pub fn is_answered(&mut self) -> bool {
        match &mut self.connection {
            Connection::Http1(client) => client.has_unread(),
            Connection::Http2(client) => client.is_answered(),
        }
    }

    /// Whether the proxy ends the connection, and says nothing more before. Waits.
    pub fn is_ended(&mut self) -> bool {
        match &mut self.connection {
            Connection::Http1(client) => client.is_ended(),
            Connection::Http2(client) => client.is_ended(),
        }
    }

    /// Whether the proxy has told, by this answer or beside it, that it ends the connection.
    pub fn is_told_of_end(&self, answer: &Response) -> bool {
        match &self.connection {
            Connection::Http1(_) => answer.field("connection") == Some("close"),
            Connection::Http2(client) => client.is_told_of_end(),
        }
    }

    /// What the proxy says as it ends the connection amid the head of a request: the text
    /// of an answer, or of a frame. Waits.
    #[track_caller]
    pub fn last_word(&mut self) -> String {
        let answer = match &mut self.connection {
            Connection::Http1(client) => Some(client.response(&self.method).text()),
            Connection::Http2(_) => None,
        };
        assert!(self.is_ended(), "the connection goes on");
        match &self.connection {
            Connection::Http1(_) => answer.unwrap_or_default(),
            Connection::Http2(client) => client.goodbye().to_owned(),
        }
    }

    /// Makes a request and gives its answer.
    #[track_caller]
    pub fn call(&mut self, call: &Call) -> Response {
        self.send(call);
        self.answer()
    }

    /// Makes a GET for the upstream `web` by its name.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        let call = Call::get(path).to("client.test");
        self.call(&call.field("X-Upstream-Host", "web"))
    }

    /// How much has gone and come: bytes of HTTP/1.1; of HTTP/2, content, and fields as
    /// lines.
    pub fn carried(&self) -> Carried {
        match &self.connection {
            Connection::Http1(client) => client.carried,
            Connection::Http2(client) => client.carried,
        }
    }

    /// Ends the connection as a program does that closes it, or that has ended.
    pub fn close(self) {
        drop(self.connection);
    }

    /// Gives the request up: neither its rest nor an answer is of interest.
    pub fn leave(self) {
        match self.connection {
            Connection::Http1(client) => {
                os::reset_on_close(client.stream()).expect("it is a socket");
            }
            Connection::Http2(client) => client.leave(),
        }
    }
}
