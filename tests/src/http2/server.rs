//! Serves the requests of a connection of HTTP/2, each on a thread of its own.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Frame, PREFACE, Peer, Windows, code, kind, lower, setting};
use crate::os;
use crate::server::{Connection, Recorder, Request};

/// No test keeps a server waiting longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The room for content of all requests, so that one that waits holds up no other.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// One request and its answer.
pub struct Stream<'a> {
    shared: &'a Shared,
    id: u32,
    /// What the server tells of.
    pub(crate) recorder: Recorder,
}

/// A connection that all its streams use.
struct Shared {
    out: Mutex<TcpStream>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    windows: Windows,
    streams: HashMap<u32, Incoming>,
    is_over: bool,
}

/// What has come of a request, and was not looked at.
#[derive(Default)]
struct Incoming {
    parts: VecDeque<Part>,
    /// The peer has given it up.
    is_gone: bool,
}

/// A part of a request behind its head.
enum Part {
    /// Content, and how much of the window it takes.
    Content(Vec<u8>, usize),
    Trailers(Vec<(String, String)>),
    End,
}

/// Serves them until the peer is done.
pub(crate) fn serve(
    connection: &mut Connection,
    script: &(impl Fn(Stream<'_>, Request) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let shared = Shared {
        out: Mutex::new(connection.stream().try_clone()?),
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    let recorder = connection.recorder();
    if connection.at_most(PREFACE.len())? != PREFACE {
        return Err(io::Error::other("no preface of HTTP/2"));
    }
    shared.send(&Frame::settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 1)]))?;
    shared.send(&Frame::window_update(0, CONNECTION_WINDOW))?;
    std::thread::scope(|scope| {
        let mut peer = Peer::over(connection);
        let mut read = || -> io::Result<()> {
            while let Some(frame) = peer.receive_whole()? {
                let fields = match frame.kind {
                    kind::HEADERS => peer.fields(),
                    _ => &[],
                };
                let Some(request) = shared.take(&frame, fields)? else {
                    continue;
                };
                let (stream, recorder) = (frame.stream, recorder.clone());
                let shared = &shared;
                let start = std::thread::Builder::new().stack_size(512 * 1024);
                start.spawn_scoped(scope, move || {
                    let id = stream;
                    let stream = Stream {
                        shared,
                        id,
                        recorder,
                    };
                    if script(stream, request).is_err() {
                        shared.reset(id);
                    }
                    shared.done(id);
                })?;
            }
            Ok(())
        };
        let ended = read();
        // Who still waits for more of a request, or for room, need not.
        shared.state().is_over = true;
        shared.changed.notify_all();
        ended
    })
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        self.put(&frame.bytes())
    }

    fn put(&self, octets: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().expect("no thread panics with it");
        out.write_all(octets)
    }

    /// Takes a frame in, and gives the request that it begins.
    fn take(&self, frame: &Frame, fields: &[(String, String)]) -> io::Result<Option<Request>> {
        let mut state = self.state();
        let answer = state.windows.learn(frame);
        let is_new = !state.streams.contains_key(&frame.stream);
        let mut begun = None;
        match frame.kind {
            kind::HEADERS if is_new && !fields.is_empty() && fields[0].0.starts_with(':') => {
                state.windows.open(frame.stream);
                state.streams.insert(frame.stream, Incoming::default());
                begun = Some(request(fields));
            }
            kind::HEADERS => state.push(frame.stream, Part::Trailers(fields.to_vec())),
            kind::DATA => {
                let part = Part::Content(frame.content().to_vec(), frame.payload.len());
                state.push(frame.stream, part);
            }
            kind::RST_STREAM => {
                if let Some(incoming) = state.streams.get_mut(&frame.stream) {
                    incoming.is_gone = true;
                }
            }
            _ => {}
        }
        if frame.is_last() && frame.kind != kind::RST_STREAM {
            state.push(frame.stream, Part::End);
        }
        drop(state);
        self.changed.notify_all();
        if let Some(answer) = answer {
            self.send(&answer)?;
        }
        Ok(begun)
    }

    /// Gives a request up, on a connection that goes on.
    fn reset(&self, id: u32) {
        if self.state().is_over {
            return;
        }
        let _ = self.send(&Frame::reset(id, code::INTERNAL_ERROR));
    }

    /// A request is of no more interest.
    fn done(&self, id: u32) {
        let mut state = self.state();
        state.streams.remove(&id);
        state.windows.close(id);
    }

    /// Waits until `look` finds something; an error where it does not, in time.
    fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("no thread panics with it").0;
        }
    }
}

impl State {
    fn push(&mut self, stream: u32, part: Part) {
        if let Some(incoming) = self.streams.get_mut(&stream) {
            incoming.parts.push_back(part);
        }
    }

    fn is_gone(&self, stream: u32) -> bool {
        self.is_over || self.streams.get(&stream).is_none_or(|it| it.is_gone)
    }
}

impl Stream<'_> {
    /// Reads the rest of a request.
    pub(crate) fn body(&self, request: &mut Request) -> io::Result<()> {
        loop {
            match self.part()? {
                Part::Content(content, _) => request.body.extend(content),
                Part::Trailers(trailers) => request.trailers = trailers,
                Part::End => return Ok(()),
            }
        }
    }

    /// The next bytes of its content; none at its end.
    pub(crate) fn content(&self) -> io::Result<Vec<u8>> {
        loop {
            match self.part()? {
                Part::Content(content, _) if !content.is_empty() => return Ok(content),
                Part::Content(..) | Part::Trailers(_) => {}
                Part::End => return Ok(Vec::new()),
            }
        }
    }

    /// The next part of it. What is taken makes room for more.
    fn part(&self) -> io::Result<Part> {
        let part = self.shared.wait(|state| {
            let part = state.streams.get_mut(&self.id)?.parts.pop_front();
            match part {
                Some(part) => Some(Ok(part)),
                None if state.is_gone(self.id) => Some(Err(io::ErrorKind::UnexpectedEof)),
                None => None,
            }
        })??;
        if let Part::Content(_, length) = part {
            let length = u32::try_from(length).unwrap_or_default();
            if length > 0 {
                self.shared.send(&Frame::window_update(self.id, length))?;
                self.shared.send(&Frame::window_update(0, length))?;
            }
        }
        Ok(part)
    }

    /// Sends a field block.
    pub(crate) fn headers(&self, fields: &[(String, String)], ends: bool) -> io::Result<()> {
        let frame = self.section(fields);
        let frame = if ends { frame.ending() } else { frame };
        self.shared.put(&frame.in_frames())
    }

    /// The octets of a head, and those of the content behind it, which is the last.
    pub(crate) fn octets(&self, head: &[(String, String)], content: &[u8]) -> [Vec<u8>; 2] {
        let frames = [self.section(head), Frame::data(self.id, content).ending()];
        frames.map(|frame| frame.bytes())
    }

    fn section(&self, fields: &[(String, String)]) -> Frame {
        let fields = lower(fields);
        let fields = fields.iter().map(|(name, value)| (&**name, &**value));
        Frame::fields(self.id, &fields.collect::<Vec<_>>())
    }

    /// Sends octets as they are.
    pub(crate) fn put(&self, octets: &[u8]) -> io::Result<()> {
        self.shared.put(octets)
    }

    /// Ends the connection with a reset, once no request is served any more.
    pub(crate) fn break_off(&self) -> io::Result<()> {
        self.shared.state().is_over = true;
        let out = self.shared.out.lock().expect("no thread panics with it");
        os::reset_on_close(&out)?;
        out.shutdown(Shutdown::Read)
    }

    /// Ends the connection behind what was sent.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.shared.state().is_over = true;
        let out = self.shared.out.lock().expect("no thread panics with it");
        out.shutdown(Shutdown::Both)
    }

    /// Sends content, and waits for room for it.
    pub(crate) fn data(&self, mut bytes: &[u8], ends: bool) -> io::Result<()> {
        loop {
            let room = self.shared.wait(|state| {
                if state.is_gone(self.id) {
                    return Some(Err(io::ErrorKind::BrokenPipe));
                }
                let room = state.windows.room(self.id).min(bytes.len());
                if room == 0 && !bytes.is_empty() {
                    return None;
                }
                state.windows.take(self.id, room);
                Some(Ok(room))
            })?;
            let (part, rest) = bytes.split_at(room?);
            let frame = Frame::data(self.id, part);
            let is_last = ends && rest.is_empty();
            self.shared
                .send(&if is_last { frame.ending() } else { frame })?;
            bytes = rest;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits until the peer has given the request up.
    pub(crate) fn until_left(&self) -> io::Result<()> {
        self.shared
            .wait(|state| state.is_gone(self.id).then_some(()))
    }
}

/// The head of a request.
fn request(fields: &[(String, String)]) -> Request {
    let pseudo = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let (mut method, target) = (pseudo(":method"), pseudo(":path"));
    let mut known = vec![("host".to_owned(), pseudo(":authority"))];
    // It asks for what an upgrade asks for in HTTP/1.
    let protocol = pseudo(":protocol");
    if !protocol.is_empty() {
        "GET".clone_into(&mut method);
        known.push(("upgrade".to_owned(), protocol));
    }
    let regular = fields.iter().filter(|(name, _)| !name.starts_with(':'));
    let fields: Vec<_> = known.into_iter().chain(regular.cloned()).collect();
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    Request {
        head: format!(
            "{method} {target} HTTP/2\r\n{}\r\n",
            lines.collect::<String>()
        ),
        method,
        target,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
    }
}
