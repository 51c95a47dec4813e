//! A case: what a client sends, and what a server has to make of it.

use std::net::SocketAddr;

use ambassador_tests::Client;
use ambassador_tests::http2::{Frame, Peer, code, kind};

/// What no case uses for a PING of its own.
const PROBE: [u8; 8] = *b"probe\0\0\0";

/// What a client sends, and what a server has to make of it.
pub struct Case {
    rfc: &'static str,
    section: &'static str,
    pub what: &'static str,
    settings: Vec<(u16, u32)>,
    steps: Vec<Step>,
    expects: Expect,
}

enum Step {
    Send(Vec<u8>),
    /// Until the server has ended this stream.
    Await(u32),
    /// Until the server has taken what was sent.
    Ping,
}

/// What a server has to make of it.
pub enum Expect {
    /// It goes on, and answers a PING.
    Alive,
    /// 200 on this stream, whole.
    Answer(u32),
    /// RST_STREAM with one of these codes on this stream; the connection goes on.
    StreamError(u32, &'static [u32]),
    /// GOAWAY with one of these codes, and the end of the connection.
    ConnectionError(&'static [u32]),
    /// Either of the two: the RFC lets the server choose, or says both.
    Either(u32, &'static [u32]),
    /// The end of the connection.
    Closed,
    /// What this finds.
    Check(fn(&mut Talk) -> Verdict),
}

/// What is wrong, if something is.
pub type Verdict = Result<(), String>;

/// A client in the middle of a case.
pub struct Talk {
    pub peer: Peer<Client>,
    /// What has come since.
    seen: Vec<Frame>,
}

/// A case of RFC 9113.
pub fn case(section: &'static str, what: &'static str) -> Case {
    Case {
        rfc: "RFC 9113",
        section,
        what,
        settings: Vec::new(),
        steps: Vec::new(),
        expects: Expect::Alive,
    }
}

impl Case {
    /// A case of another RFC.
    pub fn of(mut self, rfc: &'static str) -> Case {
        self.rfc = rfc;
        self
    }

    /// A case where the client has settings.
    pub fn with(mut self, name: u16, value: u32) -> Case {
        self.settings.push((name, value));
        self
    }

    pub fn sends(self, frame: Frame) -> Case {
        self.sends_bytes(frame.bytes())
    }

    pub fn sends_all(self, frames: impl IntoIterator<Item = Frame>) -> Case {
        frames.into_iter().fold(self, Case::sends)
    }

    pub fn sends_bytes(mut self, bytes: Vec<u8>) -> Case {
        self.steps.push(Step::Send(bytes));
        self
    }

    /// What follows is sent when the server has ended this stream.
    pub fn awaits(mut self, stream: u32) -> Case {
        self.steps.push(Step::Await(stream));
        self
    }

    /// What follows is sent when the server has taken what came before.
    pub fn later(mut self) -> Case {
        self.steps.push(Step::Ping);
        self
    }

    pub fn expects(mut self, expects: Expect) -> Case {
        self.expects = expects;
        self
    }

    /// What it is about.
    pub fn name(&self) -> String {
        format!("{} {}: {}", self.rfc, self.section, self.what)
    }

    /// Plays it against a server.
    pub fn play(&self, server: SocketAddr) -> Verdict {
        let mut peer = Peer::connect(server);
        let greeted = peer.greet(&self.settings);
        greeted.map_err(|error| format!("no greeting: {error}"))?;
        let mut talk = Talk {
            peer,
            seen: Vec::new(),
        };
        let verdict = talk.play(&self.steps, &self.expects);
        verdict.map_err(|why| format!("{}\n    {why}, after {}", self.name(), talk.story()))
    }
}

impl Talk {
    fn play(&mut self, steps: &[Step], expects: &Expect) -> Verdict {
        for step in steps {
            match step {
                Step::Send(bytes) => self.put(bytes),
                Step::Ping => self.alive()?,
                Step::Await(stream) => {
                    self.until("the end of a stream", |frame| {
                        frame.stream == *stream && frame.is_last()
                    })?;
                }
            }
        }
        self.expect(expects)
    }

    /// What this says has to come.
    pub fn expect(&mut self, expects: &Expect) -> Verdict {
        match expects {
            Expect::Alive => self.alive(),
            Expect::Answer(stream) => self.answer(*stream, "200").and_then(|_| self.alive()),
            Expect::StreamError(stream, codes) => {
                self.ends(Some(*stream), codes)?;
                self.alive()
            }
            Expect::ConnectionError(codes) => {
                self.ends(None, codes)?;
                self.closed()
            }
            Expect::Either(stream, codes) => match self.ended(codes)? {
                frame if frame.kind == kind::GOAWAY => self.closed(),
                frame if frame.stream == *stream => self.alive(),
                frame => Err(format!("another stream ends: {frame:?}")),
            },
            Expect::Closed => self.closed(),
            Expect::Check(check) => check(self),
        }
    }

    /// Sends a frame. What comes of it is looked at later.
    pub fn send(&mut self, frame: &Frame) {
        self.put(&frame.bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        // A server that has closed the connection is found by what comes.
        let _ = self.peer.put(bytes);
    }

    /// The next frame; `None`: the end of the connection, by a reset as well.
    pub fn next(&mut self) -> Result<Option<Frame>, String> {
        match self.peer.receive() {
            Ok(Some(frame)) => {
                self.seen.push(frame.clone());
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(format!("nothing more comes: {error}")),
        }
    }

    /// The first frame that is `wanted`. Neither a GOAWAY nor an end may come before.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame, String> {
        loop {
            match self.next().map_err(|why| format!("{what} wanted: {why}"))? {
                Some(frame) if wanted(&frame) => return Ok(frame),
                Some(frame) if frame.kind == kind::GOAWAY => {
                    return Err(format!("{what} wanted, not GOAWAY"));
                }
                Some(_) => {}
                None => return Err(format!("{what} wanted, not the end of the connection")),
            }
        }
    }

    /// The connection goes on. What comes before the answer to a PING is no error.
    pub fn alive(&mut self) -> Verdict {
        self.send(&Frame::ping(&PROBE));
        let pong = self.until("a PING's answer", |frame| {
            frame.kind == kind::RST_STREAM || frame.kind == kind::PING && frame.payload == PROBE
        })?;
        match pong.kind {
            kind::PING => Ok(()),
            _ => Err("a PING's answer wanted, not RST_STREAM".to_owned()),
        }
    }

    /// An answer with this status, whole, and its content.
    pub fn answer(&mut self, stream: u32, status: &str) -> Result<Vec<u8>, String> {
        let head = self.until("HEADERS", |frame| {
            frame.stream == stream && matches!(frame.kind, kind::HEADERS | kind::RST_STREAM)
        })?;
        if head.kind == kind::RST_STREAM {
            return Err("HEADERS wanted, not RST_STREAM".to_owned());
        }
        let found = self.peer.field(":status").to_owned();
        if found != status {
            return Err(format!("status {status} wanted, not {found}"));
        }
        let mut content = Vec::new();
        let mut last = head;
        while !last.is_last() {
            last = self.until("the end of an answer", |frame| frame.stream == stream)?;
            if last.kind == kind::DATA {
                content.extend(last.content());
            }
        }
        match last.kind {
            kind::RST_STREAM => Err("an answer wanted, not a part of it".to_owned()),
            _ => Ok(content),
        }
    }

    /// The end of this stream, or of the connection, by one of these codes.
    fn ends(&mut self, stream: Option<u32>, codes: &[u32]) -> Verdict {
        let frame = self.ended(codes)?;
        match stream {
            Some(stream) if (frame.kind, frame.stream) == (kind::RST_STREAM, stream) => Ok(()),
            None if frame.kind == kind::GOAWAY => Ok(()),
            Some(stream) => Err(format!("the end of stream {stream} wanted")),
            None => Err("the end of the connection wanted".to_owned()),
        }
    }

    /// The RST_STREAM or GOAWAY that tells of an error.
    fn ended(&mut self, codes: &[u32]) -> Result<Frame, String> {
        loop {
            let frame = self.next()?.ok_or("closed without a word of the error")?;
            match frame.code() {
                Some(code) if codes.contains(&code) => return Ok(frame),
                Some(code) => return Err(format!("code {codes:?} wanted, not {code}")),
                None => {}
            }
        }
    }

    /// The end of the connection, whatever comes before.
    fn closed(&mut self) -> Verdict {
        let why = |why| format!("the end of the connection wanted: {why}");
        while self.next().map_err(why)?.is_some() {}
        Ok(())
    }

    /// The length of the next DATA of a stream.
    pub fn data(&mut self, stream: u32) -> Result<usize, String> {
        let data = self.until("DATA", |frame| {
            frame.stream == stream && frame.kind == kind::DATA
        })?;
        Ok(data.payload.len())
    }

    /// What came, in short.
    fn story(&self) -> String {
        let frames = self.seen.iter().map(Frame::summary);
        let frames: Vec<String> = frames.collect();
        match frames.is_empty() {
            true => "nothing".to_owned(),
            false => frames.join(" "),
        }
    }
}

/// The codes of errors, as the cases name them.
pub const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
pub const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
pub const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
pub const STREAM_CLOSED: &[u32] = &[code::STREAM_CLOSED];
pub const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];

/// Whether the other end closes the connection, in whatever way and whatever it says
/// before.
pub fn is_ended(peer: &mut Peer<Client>) -> bool {
    loop {
        match peer.receive() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}
