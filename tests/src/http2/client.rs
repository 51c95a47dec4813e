//! A client that makes requests over HTTP/2, one at a time.

use std::collections::VecDeque;
use std::io;

use super::frame::PAYLOAD_MAX;
use super::{Frame, PREFACE, Peer, Windows, code, kind};
use crate::caller::Outlet;
use crate::client::{Carried, Client, Response};
use crate::message::{Body, Call};

/// What the windows have room for, whatever went before.
const LITTLE: usize = 1_000;

/// One connection, and the request that is under way.
pub struct Http2Client {
    peer: Peer<Client>,
    windows: Windows,
    /// The stream of the request.
    stream: u32,
    /// What has come of the answer, and was not looked at.
    events: VecDeque<Event>,
    /// The server's SETTINGS have come.
    is_settled: bool,
    /// What the server has said of why it ends the connection, once it has.
    goodbye: Option<String>,
    /// Fields as lines, and content.
    pub(crate) carried: Carried,
}

/// A part of an answer.
enum Event {
    Head(Response),
    /// Content, and how much of the windows it takes.
    Content(Vec<u8>, usize),
    Trailers(Vec<(String, String)>),
    End,
    /// The server has reset the stream.
    Reset,
    /// No more comes, and it is not whole.
    Gone,
}

impl Http2Client {
    pub(crate) fn over(client: Client) -> Http2Client {
        let mut peer = Peer::over(client);
        // Where the server has gone, that is found with the first request.
        let _ = peer.put(&[PREFACE, &Frame::settings(&[]).bytes()].concat());
        Http2Client {
            peer,
            windows: Windows::default(),
            stream: 0,
            events: VecDeque::new(),
            is_settled: false,
            goodbye: None,
            carried: Carried::default(),
        }
    }

    /// Sends each byte on its own from now on.
    pub(crate) fn trickle(&mut self) {
        self.peer.wire().trickles = true;
    }

    /// Begins a request whose head is sent with [`Http2Client::put`]: its bytes, half of
    /// them or more in CONTINUATIONs. What the server's SETTINGS are owed goes before, as nothing
    /// may go amid a frame.
    pub(crate) fn begin(&mut self, call: &Call) -> Vec<u8> {
        while !self.is_settled && self.pump().is_ok() {}
        let head = self.open(call);
        let half = head.payload.len().div_ceil(2);
        let frames = head.in_parts_of(half.min(PAYLOAD_MAX));
        frames.iter().flat_map(Frame::bytes).collect()
    }

    /// Sends bytes of a head.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.peer.put(bytes)
    }

    /// The head of a request on a stream of its own.
    fn open(&mut self, call: &Call) -> Frame {
        self.stream = match self.stream {
            0 => 1,
            last => last + 2,
        };
        self.events.clear();
        self.windows.open(self.stream);
        self.section(&fields_of(call), call.body.is_empty())
    }

    /// Sends a request, with its body where that is whole.
    pub(crate) fn send(&mut self, call: &Call) -> io::Result<()> {
        let head = self.open(call);
        let ends = call.body.is_empty();
        match &call.body {
            // All in one where it is little, as over HTTP/1.
            Body::Whole(bytes) if !ends && bytes.len() <= LITTLE => {
                let content = self.content_frame(bytes).ending();
                self.peer.put(&[head.in_frames(), content.bytes()].concat())
            }
            Body::Whole(bytes) if !ends => {
                self.peer.put(&head.in_frames())?;
                self.data(bytes, true)
            }
            Body::Tunnel(bytes) if !bytes.is_empty() => {
                let content = self.content_frame(bytes);
                self.peer.put(&[head.in_frames(), content.bytes()].concat())
            }
            // All in one, so that who has the head has the rest.
            Body::Trailed(bytes, trailers) => {
                let content = self.content_frame(bytes);
                let trailers = self.section(&super::lower(trailers), true);
                let frames = [head, content, trailers];
                self.peer
                    .put(&frames.map(|frame| frame.in_frames()).concat())
            }
            _ => self.peer.put(&head.in_frames()),
        }
    }

    /// Sends more of the body; it may be the last of it.
    pub(crate) fn piece(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        self.data(bytes, ends)
    }

    /// Ends a body that came in pieces.
    pub(crate) fn end(&mut self, trailers: &[(&str, &str)]) -> io::Result<()> {
        match trailers {
            [] => self.data(&[], true),
            trailers => {
                let section = self.section(&super::lower(trailers), true);
                self.peer.send(&section)
            }
        }
    }

    /// The next answer, interim ones included; `None` where the request ended without one.
    pub(crate) fn answer(&mut self) -> io::Result<Option<Response>> {
        let Some(mut response) = self.head()? else {
            return Ok(None);
        };
        if response.status < 200 {
            return Ok(Some(response));
        }
        loop {
            match self.event()? {
                Event::Content(content, _) => response.body.extend(content),
                Event::Trailers(trailers) => response.trailers = trailers,
                Event::End => return Ok(Some(response)),
                Event::Head(_) | Event::Reset | Event::Gone => return Ok(None),
            }
        }
    }

    /// The head of the next answer.
    pub(crate) fn head(&mut self) -> io::Result<Option<Response>> {
        match self.event()? {
            Event::Head(response) => Ok(Some(response)),
            _ => Ok(None),
        }
    }

    /// The next bytes of the content; none at its end.
    pub(crate) fn content(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.event()? {
                Event::Content(content, _) if content.is_empty() => {}
                Event::Content(content, _) => return Ok(content),
                Event::Trailers(_) => {}
                Event::End => return Ok(Vec::new()),
                Event::Head(_) | Event::Reset | Event::Gone => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }

    /// Whether the stream ends with a reset, whatever came before.
    pub(crate) fn is_reset(&mut self) -> bool {
        loop {
            match self.event() {
                Ok(Event::Head(_) | Event::Content(..) | Event::Trailers(_)) => {}
                Ok(Event::Reset) => return true,
                Ok(Event::End | Event::Gone) | Err(_) => return false,
            }
        }
    }

    /// Whether something of an answer has come, or the end; does not wait.
    pub(crate) fn is_answered(&mut self) -> bool {
        while self.events.is_empty() && self.peer.wire().has_unread() {
            if self.pump().is_err() {
                return true;
            }
        }
        !self.events.is_empty()
    }

    /// Whether the server ends the connection, and says nothing more of the request. Waits.
    pub(crate) fn is_ended(&mut self) -> bool {
        let is_silent = |events: &VecDeque<Event>| {
            let mut events = events.iter();
            events.all(|event| matches!(event, Event::Reset | Event::Gone))
        };
        while is_silent(&self.events) {
            match self.peer.receive_whole() {
                Ok(None) => return true,
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
                // It may have gone, which is found then.
                Ok(Some(frame)) => drop(self.take(&frame)),
            }
        }
        false
    }

    /// Whether the server has said that it ends the connection.
    pub(crate) fn is_told_of_end(&self) -> bool {
        self.goodbye.is_some()
    }

    /// The text of that.
    pub(crate) fn goodbye(&self) -> &str {
        self.goodbye.as_deref().unwrap_or_default()
    }

    /// What sends through a tunnel, beside whoever reads of it.
    pub(crate) fn outlet(&mut self) -> Outlet {
        Outlet::new(self.peer.wire().stream(), Some(self.stream))
    }

    /// Gives the request up. The connection goes on, until the server has no more to say.
    pub(crate) fn leave(mut self) {
        let _ = self.peer.send(&Frame::reset(self.stream, code::CANCEL));
        std::thread::spawn(move || while self.pump().is_ok() {});
    }

    fn section(&mut self, fields: &[(String, String)], ends: bool) -> Frame {
        self.carried.sent += line_bytes(fields);
        headers(self.stream, fields, ends)
    }

    /// Content for which there is room.
    fn content_frame(&mut self, bytes: &[u8]) -> Frame {
        self.windows.take(self.stream, bytes.len());
        self.carried.sent += bytes.len() as u64;
        Frame::data(self.stream, bytes)
    }

    /// Sends content, and waits for room for it.
    fn data(&mut self, mut bytes: &[u8], ends: bool) -> io::Result<()> {
        loop {
            let room = self.windows.room(self.stream).min(bytes.len());
            if room == 0 && !bytes.is_empty() {
                match self.refuses_rest() {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(io::ErrorKind::BrokenPipe.into()),
                    None => self.pump()?,
                }
                continue;
            }
            let (part, rest) = bytes.split_at(room);
            let frame = self.content_frame(part);
            let is_last = ends && rest.is_empty();
            self.peer
                .send(&if is_last { frame.ending() } else { frame })?;
            bytes = rest;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether the server has ended the request before its body: by a whole answer
    /// (section 8.1), or without. `None`: it has not.
    fn refuses_rest(&self) -> Option<bool> {
        let is_over = matches!(self.events.back(), Some(Event::Reset | Event::Gone));
        let mut events = self.events.iter();
        is_over.then(|| events.any(|event| matches!(event, Event::End)))
    }

    /// The next part of the answer. What is taken makes room for more.
    fn event(&mut self) -> io::Result<Event> {
        while self.events.is_empty() {
            self.pump()?;
        }
        let event = self.events.pop_front().unwrap_or(Event::Gone);
        if let Event::Content(_, length) = event {
            self.credit(0, length);
            self.credit(self.stream, length);
        }
        Ok(event)
    }

    fn credit(&mut self, stream: u32, length: usize) {
        let length = u32::try_from(length).unwrap_or_default();
        if length > 0 {
            let _ = self.peer.send(&Frame::window_update(stream, length));
        }
    }

    /// Takes the next frame in.
    fn pump(&mut self) -> io::Result<()> {
        let Some(frame) = self.peer.receive_whole()? else {
            match self.events.is_empty() {
                true => self.events.push_back(Event::Gone),
                false => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            return Ok(());
        };
        self.take(&frame)
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        self.is_settled |= frame.kind == kind::SETTINGS;
        if let Some(answer) = self.windows.learn(frame) {
            return self.peer.send(&answer);
        }
        let is_of_request = frame.stream == self.stream;
        match frame.kind {
            kind::HEADERS if is_of_request => {
                let fields = self.peer.fields().to_vec();
                self.carried.received += line_bytes(&fields);
                self.events.push_back(match response(&fields) {
                    Some(response) => Event::Head(response),
                    None => Event::Trailers(fields),
                });
            }
            kind::DATA if is_of_request => {
                let content = frame.content().to_vec();
                self.carried.received += content.len() as u64;
                self.events
                    .push_back(Event::Content(content, frame.payload.len()));
            }
            kind::DATA => self.credit(0, frame.payload.len()),
            kind::RST_STREAM if is_of_request => self.events.push_back(Event::Reset),
            kind::GOAWAY => {
                let text = frame.payload.get(8..).unwrap_or_default();
                self.goodbye = Some(String::from_utf8_lossy(text).into_owned());
                if frame.number(0).unwrap_or_default() < self.stream {
                    self.events.push_back(Event::Gone);
                }
            }
            _ => {}
        }
        if is_of_request && frame.is_last() && frame.kind != kind::RST_STREAM {
            self.events.push_back(Event::End);
        }
        Ok(())
    }
}

/// How many bytes these fields have as lines.
fn line_bytes(fields: &[(String, String)]) -> u64 {
    let lines = fields.iter();
    let lines = lines.map(|(name, value)| name.len() + value.len() + ": \r\n".len());
    lines.sum::<usize>() as u64
}

/// The HEADERS of a request on this stream.
pub(crate) fn head_of(stream: u32, call: &Call) -> Frame {
    headers(stream, &fields_of(call), call.body.is_empty())
}

fn headers(stream: u32, fields: &[(String, String)], ends: bool) -> Frame {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (&**name, &**value));
    let frame = Frame::fields(stream, &fields.collect::<Vec<_>>());
    if ends { frame.ending() } else { frame }
}

fn fields_of(call: &Call) -> Vec<(String, String)> {
    let mut fields = pseudo_fields(call);
    fields.extend(call.body.length());
    fields.extend(super::lower(&call.fields));
    fields
}

/// What a request begins with: CONNECT has no path, and one for another protocol names
/// that (RFC 8441, section 4).
fn pseudo_fields(call: &Call) -> Vec<(String, String)> {
    let (path, authority) = ((":path", &*call.path), (":authority", &*call.authority));
    let scheme = (":scheme", "http");
    let fields = match &call.protocol {
        Some(protocol) => vec![
            (":method", "CONNECT"),
            (":protocol", protocol),
            scheme,
            path,
            authority,
        ],
        None if call.method == "CONNECT" => vec![(":method", "CONNECT"), authority],
        None => vec![(":method", &*call.method), scheme, path, authority],
    };
    super::lower(&fields)
}

/// The head of an answer, if that is what these are.
fn response(fields: &[(String, String)]) -> Option<Response> {
    let ((name, status), fields) = fields.split_first()?;
    let status = (name == ":status").then_some(status)?;
    let lines = fields
        .iter()
        .map(|(name, value)| format!("\r\n{name}: {value}"));
    Some(Response {
        status: status.parse().ok()?,
        head: format!("HTTP/2 {status}{}", lines.collect::<String>()),
        fields: fields.to_vec(),
        body: Vec::new(),
        trailers: Vec::new(),
    })
}
