//! One end of a connection to the proxy, client or server: what it says.

use std::io;
use std::net::{SocketAddr, TcpListener};

use ambassador_tests::Client;
use ambassador_tests::http2::hpack::Field;
use ambassador_tests::http2::{Frame, PREFACE, Peer, block, flag, frame, kind, setting};

use super::accept::{accept, patient};
use super::case::{Asked, Begins, Reply};

/// The stream of the exchange: the first one of its connection.
pub const STREAM: u32 = 1;
/// A stream of the client that nobody has used.
pub const OTHER: u32 = 3;
/// A stream that only a server may open, by a promise.
pub const PROMISED: u32 = 2;

/// What is asked for and answered, where it is more than nothing.
pub const TEXT: &str = "0123456789";

/// What an end is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// One end of a connection.
pub struct End {
    pub role: Role,
    pub(super) peer: Peer<Client>,
    /// Whoever asks the proxy for what this server answers.
    pub(super) caller: Option<Client>,
    pub(super) asked: Asked,
    /// Where the next connection of the proxy comes to, and its callers' go.
    pub(super) places: Option<(TcpListener, SocketAddr)>,
    /// What has come.
    pub(super) seen: Vec<Frame>,
    /// The status that came.
    pub(super) status: String,
    /// What went wrong first.
    pub(super) failed: Option<String>,
    /// The content of its message.
    pub(super) content: Vec<u8>,
    /// Its message has ended.
    pub(super) is_whole: bool,
    /// A field of its message that has to arrive.
    pub(super) carried: Option<Field<'static>>,
    /// The proxy was given all of the request that this server answers.
    pub(super) is_asked: bool,
}

impl End {
    fn over(role: Role, client: Client, asked: Asked) -> End {
        End {
            role,
            peer: Peer::over(client),
            caller: None,
            asked,
            places: None,
            seen: Vec::new(),
            status: String::new(),
            failed: None,
            content: Vec::new(),
            is_whole: false,
            carried: None,
            is_asked: false,
        }
    }

    /// A client of the proxy.
    pub fn client(client: Client, begins: Begins) -> Result<End, String> {
        let mut end = End::over(Role::Client, patient(client), Asked::Get);
        if begins == Begins::Greeted {
            end.put(&[PREFACE, &Frame::settings(&[]).bytes()].concat());
            end.agrees(|_| true)?;
        }
        Ok(end)
    }

    /// A server that the proxy asks: somebody has called it at `proxy`.
    pub fn server(
        listener: &TcpListener,
        proxy: SocketAddr,
        asked: Asked,
        begins: Begins,
    ) -> Result<End, String> {
        let mut caller = Client::connect(proxy);
        let request = request(asked);
        caller.try_send(request).map_err(|it| it.to_string())?;
        let mut client = patient(accept(listener)?);
        let preface = client.at_most(PREFACE.len());
        if preface.map_err(|it| it.to_string())? != PREFACE {
            return Err("no preface of a client".to_owned());
        }
        let mut end = End::over(Role::Server, client, asked);
        end.caller = Some(caller);
        let listener = listener.try_clone().map_err(|it| it.to_string())?;
        end.places = Some((listener, proxy));
        if begins == Begins::Greeted {
            end.send(Frame::settings(&[]));
            let is_request = |it: &Frame| it.kind == kind::HEADERS && it.stream == STREAM;
            end.agrees(|seen| seen.iter().any(is_request))?;
        }
        Ok(end)
    }

    /// Waits for the settings of the proxy, the acknowledgement of its own, and more.
    fn agrees(&mut self, and: impl Fn(&[Frame]) -> bool) -> Result<(), String> {
        let has = |seen: &[Frame], flags| {
            let mut seen = seen.iter();
            seen.any(|it| it.kind == kind::SETTINGS && it.flags == flags)
        };
        while !(has(&self.seen, 0) && has(&self.seen, flag::ACK) && and(&self.seen)) {
            self.next()?.ok_or("closed instead of a greeting")?;
        }
        Ok(())
    }

    /// Sends octets. Whether they arrive is seen by what comes.
    fn put(&mut self, bytes: &[u8]) {
        let _: io::Result<()> = self.peer.put(bytes);
    }

    /// Sends octets.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut End {
        self.put(bytes);
        self
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) -> &mut End {
        if frame.stream == STREAM && !self.is_whole {
            if frame.kind == kind::DATA {
                self.content.extend(frame.content());
            }
            self.is_whole = frame.is_last() && frame.kind != kind::RST_STREAM;
        }
        self.put(&frame.bytes());
        self
    }

    /// The fields of a sound message of this end.
    fn fields(&self, method: &'static str) -> Vec<Field<'static>> {
        match self.role {
            Role::Client => frame::request(method, "/").to_vec(),
            Role::Server => vec![(":status", "200")],
        }
    }

    /// HEADERS with a sound head, and no end of the message.
    pub fn head(&mut self) -> &mut End {
        self.head_with(&[])
    }

    /// The same with more fields.
    pub fn head_with(&mut self, more: &[Field<'static>]) -> &mut End {
        let fields = [&self.fields("POST"), more].concat();
        self.send(Frame::fields(STREAM, &fields))
    }

    /// HEADERS with a sound head, which is all of the message.
    pub fn whole(&mut self) -> &mut End {
        self.whole_with(&[])
    }

    /// The same with more fields.
    pub fn whole_with(&mut self, more: &[Field<'static>]) -> &mut End {
        let fields = [&self.fields("GET"), more].concat();
        self.send(Frame::fields(STREAM, &fields).ending())
    }

    /// HEADERS that `change` makes of those that are all of a message.
    pub fn whole_as(&mut self, change: fn(Frame) -> Frame) -> &mut End {
        let fields = self.fields("GET");
        self.send(change(Frame::fields(STREAM, &fields).ending()))
    }

    /// A whole message whose field block ends with these octets.
    pub fn suffixed(&mut self, octets: &[u8]) -> &mut End {
        let block = [&block(&self.fields("GET")), octets].concat();
        self.send(Frame::headers(STREAM, block).ending())
    }

    /// A whole message whose field block begins with these octets.
    pub fn prefixed(&mut self, octets: &[u8]) -> &mut End {
        let block = [octets, &block(&self.fields("GET"))].concat();
        self.send(Frame::headers(STREAM, block).ending())
    }

    /// A field of the message that has to arrive.
    pub fn carries(&mut self, name: &'static str, value: &'static str) -> &mut End {
        self.carried = Some((name, value));
        self
    }

    /// A field block with a sound head, and its CONTINUATIONs, cut at these places.
    pub fn cut_at(&mut self, places: &[usize]) -> &mut End {
        let block = block(&self.fields("GET"));
        let starts = [&[0], places].concat();
        let ends = [places, &[block.len()]].concat();
        for (number, (start, end)) in starts.into_iter().zip(ends).enumerate() {
            let part = &block[start..end];
            let frame = match number {
                0 => Frame::headers(STREAM, part).ending(),
                _ => Frame::continuation(STREAM, part),
            };
            let is_last = end == block.len();
            self.send(if is_last { frame } else { frame.unfinished() });
        }
        self
    }

    /// HEADERS that more of the field block has to follow.
    pub fn part(&mut self) -> &mut End {
        let fields = self.fields("POST");
        self.send(Frame::fields(STREAM, &fields).unfinished())
    }

    /// The same, with which the message ends.
    pub fn part_of_whole(&mut self) -> &mut End {
        self.whole_as(Frame::unfinished)
    }

    /// CONTINUATION with a field, and more to follow.
    pub fn more(&mut self) -> &mut End {
        let field = block(&[("x-dummy", "dummy")]);
        self.send(Frame::continuation(STREAM, field).unfinished())
    }

    /// CONTINUATION with a field, which is the last of its block.
    pub fn rest(&mut self) -> &mut End {
        self.rest_on(STREAM)
    }

    /// The same on another stream.
    pub fn rest_on(&mut self, stream: u32) -> &mut End {
        let field = block(&[("x-dummy", "dummy")]);
        self.send(Frame::continuation(stream, field))
    }

    /// A whole message on another stream.
    pub fn whole_on(&mut self, stream: u32) -> &mut End {
        let fields = self.fields("GET");
        self.send(Frame::fields(stream, &fields).ending())
    }

    /// A message with these fields alone. A request ends with them; a response does not,
    /// so that there is a stream left to reset.
    pub fn fields_alone(&mut self, fields: &[Field<'_>]) -> &mut End {
        let frame = Frame::fields(STREAM, fields);
        self.send(match self.role {
            Role::Client => frame.ending(),
            Role::Server => frame,
        })
    }

    /// The fields of a sound head that `change` has changed.
    pub fn fields_as(&mut self, change: fn(&mut Vec<Field<'static>>)) -> &mut End {
        let mut fields = self.fields("GET");
        change(&mut fields);
        self.fields_alone(&fields)
    }

    pub fn data(&mut self, text: &str) -> &mut End {
        self.send(Frame::data(STREAM, text))
    }

    /// DATA that ends the message.
    pub fn last(&mut self, text: &str) -> &mut End {
        self.send(Frame::data(STREAM, text).ending())
    }

    /// HEADERS with the trailers of the message.
    pub fn trailers(&mut self, fields: &[Field<'_>]) -> &mut End {
        self.send(Frame::fields(STREAM, fields).ending())
    }

    /// The request is for a head alone.
    pub fn asked_head(&mut self) -> &mut End {
        self.asked = Asked::Head;
        self
    }

    pub fn reset(&mut self, code: u32) -> &mut End {
        self.send(Frame::reset(STREAM, code))
    }

    /// The proxy may not close the stream: the message of this end is whole, that of
    /// the proxy is not.
    pub fn half_closed(&mut self) -> &mut End {
        match self.role {
            Role::Client => self.send(Frame::get(STREAM, "/held")),
            Role::Server => self.whole(),
        }
    }

    /// Both messages are whole.
    pub fn closed(&mut self) -> &mut End {
        self.whole();
        if self.role == Role::Client {
            self.wait("the end of the answer", |it| {
                it.stream == STREAM && it.is_last()
            });
        }
        self
    }

    /// SETTINGS, and the proxy has taken them.
    pub fn settings(&mut self, values: &[(u16, u32)]) -> &mut End {
        self.send(Frame::settings(values));
        let wanted = Frame::settings(&[]).ack();
        self.wait("the acknowledgement of SETTINGS", |it| *it == wanted)
    }

    /// How much the proxy may send.
    pub fn window(&mut self, size: u32) -> &mut End {
        self.settings(&[(setting::INITIAL_WINDOW_SIZE, size)])
    }

    /// The proxy may send the rest.
    pub fn opens(&mut self) -> &mut End {
        self.send(Frame::window_update(STREAM, 1 << 16))
    }

    /// The proxy gets what it can send as the content of its message.
    pub fn asks(&mut self) -> &mut End {
        match &mut self.caller {
            None => self.whole(),
            Some(caller) => {
                let _ = caller.try_send(TEXT);
                self.is_asked = true;
                self
            }
        }
    }
}

impl End {
    /// Somebody else asks, and the proxy, which may open no more streams here, connects
    /// anew for them.
    pub fn answers_another_elsewhere(&mut self) -> &mut End {
        let Some((listener, proxy)) = &self.places else {
            return self;
        };
        match End::server(listener, *proxy, Asked::Get, Begins::Greeted) {
            Ok(mut another) => {
                another.head().last("ok");
                let verdict = another.expect_reply(Reply::Whole);
                let verdict = verdict.and_then(|()| another.leave());
                self.failed = self.failed.take().or(verdict.err());
            }
            Err(why) => self.failed = Some(format!("another stream elsewhere: {why}")),
        }
        let is_kept_to = self.seen.iter().all(|it| it.stream <= STREAM);
        self.has_to_be("no other stream here", is_kept_to)
    }
}

/// A request for the upstream.
fn request(asked: Asked) -> String {
    let (method, more) = match asked {
        Asked::Get => ("GET", String::new()),
        Asked::Head => ("HEAD", String::new()),
        Asked::Post => ("POST", format!("Content-Length: {}\r\n", TEXT.len())),
    };
    format!("{method} / HTTP/1.1\r\nHost: web.test\r\n{more}\r\n")
}
