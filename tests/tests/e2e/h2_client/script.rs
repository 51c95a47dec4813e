//! A server that does one wrong thing, and what the proxy in front of it makes of that.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::http2::{Frame, Peer, flag, kind};
use ambassador_tests::{Client, Connection, Server, ports};

/// What a server does wrong, and what has to come of it.
pub struct Case {
    rfc: &'static str,
    section: &'static str,
    what: &'static str,
    /// The method of that request.
    method: &'static str,
    /// Sent to the first request for `/wrong`; its stream has the number 1 here.
    sends: Vec<Frame>,
    outcome: Outcome,
    answer: Answer,
}

/// What the proxy tells the server.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// Nothing: there is no error, or one that is the server's own.
    Nothing,
    /// RST_STREAM with one of these codes.
    StreamError(&'static [u32]),
    /// The same, or nothing.
    StreamErrorOrNothing(&'static [u32]),
    /// GOAWAY with one of these codes, and the end of the connection.
    ConnectionError(&'static [u32]),
}

/// What the caller gets.
#[derive(Clone, Copy)]
pub enum Answer {
    /// 200 with the text `ok`.
    Ok,
    /// 200 without content.
    Empty,
    /// 103 before it.
    Interim,
    /// 502 with this reason.
    Refused(&'static str),
    /// A part of an answer, or 502 where the proxy had not begun to pass it on.
    Cut,
    /// A head with this status and the end of the connection behind it, or 502.
    Bare(u16),
}

/// The server said what it must not.
pub const WRONG: Answer = Answer::Refused("protocol-error");
/// The server gave the request up.
pub const RESET: Answer = Answer::Refused("upstream-reset");

/// What a server does wrong.
pub fn case(section: &'static str, what: &'static str) -> Case {
    Case {
        rfc: "RFC 9113",
        section,
        what,
        method: "GET",
        sends: Vec::new(),
        outcome: Outcome::Nothing,
        answer: Answer::Ok,
    }
}

impl Case {
    /// A case of another RFC.
    pub fn of(mut self, rfc: &'static str) -> Case {
        self.rfc = rfc;
        self
    }

    /// A case of a request with another method.
    pub fn asks(mut self, method: &'static str) -> Case {
        self.method = method;
        self
    }

    pub fn sends(mut self, frame: Frame) -> Case {
        self.sends.push(frame);
        self
    }

    pub fn expects(mut self, outcome: Outcome, answer: Answer) -> Case {
        (self.outcome, self.answer) = (outcome, answer);
        self
    }
}

/// What a scripted server was told, and what it is to do.
#[derive(Default)]
struct Script {
    /// Sent to the next request for `/wrong`.
    sends: Mutex<Vec<Frame>>,
    /// Each RST_STREAM and GOAWAY that came.
    told: Mutex<Vec<Frame>>,
    /// How many requests for `/held` came.
    held: AtomicUsize,
}

/// Such a server, and where a proxy listens in front of it.
pub struct Stage {
    script: Arc<Script>,
    pub server: Server,
    pub listen: SocketAddr,
}

impl Stage {
    /// The proxy is started by whoever wants one.
    #[track_caller]
    pub fn new() -> Stage {
        let script = Arc::new(Script::default());
        let played = Arc::clone(&script);
        Stage {
            script,
            server: Server::start(move |connection| played.serve(connection)),
            listen: SocketAddr::from(([127, 0, 0, 1], ports::free())),
        }
    }

    /// Plays all of them and tells of those that fail.
    pub fn play(&self, cases: &[Case]) -> Vec<String> {
        let verdicts = cases.iter().map(|case| {
            let Case {
                rfc, section, what, ..
            } = case;
            let verdict = self.play_one(case);
            verdict.map_err(|why| format!("{rfc} {section}: {what}\n    {why}"))
        });
        verdicts.filter_map(Result::err).collect()
    }

    fn play_one(&self, case: &Case) -> Result<(), String> {
        self.script
            .sends
            .lock()
            .expect("no panic")
            .clone_from(&case.sends);
        self.script.told.lock().expect("no panic").clear();
        let before = self.server.connections();
        // It is under way over the same connection.
        let mut beside = Client::connect(self.listen);
        let held = || self.script.held.load(Ordering::SeqCst);
        let held_before = held();
        beside.send(get("/held"));
        if !soon(|| held() > held_before) {
            return Err("no request reaches the server".to_owned());
        }
        let mut caller = Client::connect(self.listen);
        caller.send(ask(case.method, "/wrong"));
        let mut answer = caller.try_response(case.method);
        if let (Answer::Interim, Some(103)) = (case.answer, answer.as_ref().map(|it| it.status)) {
            answer = caller.try_response(case.method);
        }
        let found = answer
            .as_ref()
            .map(|answer| (answer.status, answer.reason(), answer.text()));
        let is_right = match (case.answer, &found) {
            (Answer::Ok | Answer::Interim, Some((200, "", text))) => text == "ok",
            (Answer::Empty, Some((200, "", text))) => text.is_empty(),
            (Answer::Refused(reason), Some((502, found, _))) => reason == *found,
            (Answer::Cut, None) => true,
            (Answer::Cut | Answer::Bare(_), Some((502, found, _))) => !found.is_empty(),
            (Answer::Bare(status), Some((found, "", text))) => status == *found && text.is_empty(),
            _ => false,
        };
        let has_reply = matches!(found, Some((_, reason, _)) if !reason.is_empty());
        let is_cut = matches!(case.answer, Answer::Cut | Answer::Bare(_)) && !has_reply;
        if !is_right || is_cut && !caller.is_ended() {
            return Err(format!("the caller gets {found:?}"));
        }
        let spared = !matches!(case.outcome, Outcome::ConnectionError(_));
        let mut after = Client::connect(self.listen);
        after.send(get("/fine"));
        let after = after.try_response("GET").map(|answer| answer.status);
        if after != Some(200) {
            return Err(format!("the request after it gets {after:?}"));
        }
        let beside = beside.try_response("GET").map(|answer| answer.status);
        if spared && beside != Some(200) {
            return Err(format!("the request beside it gets {beside:?}"));
        }
        if spared && self.server.connections() > before.max(1) {
            return Err("the connection was given up".to_owned());
        }
        self.told(case.outcome)
    }

    /// What the server was told is what it should have been.
    fn told(&self, outcome: Outcome) -> Result<(), String> {
        let told = || self.script.told.lock().expect("no panic").clone();
        let (kind, codes) = match outcome {
            Outcome::Nothing => (0, &[][..]),
            Outcome::StreamError(codes) | Outcome::StreamErrorOrNothing(codes) => {
                (kind::RST_STREAM, codes)
            }
            Outcome::ConnectionError(codes) => (kind::GOAWAY, codes),
        };
        // Of streams it was told before `/fine` came.
        let _ = kind != kind::GOAWAY || soon(|| !told().is_empty());
        let found = told()
            .iter()
            .map(|it| (it.kind, it.code()))
            .collect::<Vec<_>>();
        let is_right = match &found[..] {
            [] => matches!(outcome, Outcome::Nothing | Outcome::StreamErrorOrNothing(_)),
            [(found, Some(code)), ..] => *found == kind && codes.contains(code),
            _ => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(format!(
                "types and codes {found:?} come, not {kind} with {codes:?}"
            )),
        }
    }
}

impl Script {
    /// Answers `/fine`, and `/held` with it; to `/wrong` it does what it is told.
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let mut peer = Peer::welcome(connection, &[])?;
        let mut held = Vec::new();
        while let Some(frame) = peer.receive()? {
            match frame.kind {
                kind::HEADERS => match peer.field(":path") {
                    "/wrong" => self.play(&mut peer, frame.stream)?,
                    "/held" => {
                        held.push(frame.stream);
                        self.held.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => {
                        held.push(frame.stream);
                        for stream in held.drain(..) {
                            peer.put(&ok(stream))?;
                        }
                    }
                },
                kind::RST_STREAM | kind::GOAWAY => {
                    self.told.lock().expect("no panic").push(frame);
                }
                kind::SETTINGS if !frame.has(flag::ACK) => {
                    peer.send(&Frame::settings(&[]).ack())?;
                }
                kind::PING if !frame.has(flag::ACK) => peer.send(&frame.ack())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Each frame, with the number of the request's stream in place of 1.
    fn play<W: ambassador_tests::http2::peer::Wire>(
        &self,
        peer: &mut Peer<W>,
        stream: u32,
    ) -> io::Result<()> {
        let sends = self.sends.lock().expect("no panic").clone();
        for mut frame in sends {
            if frame.stream == 1 {
                frame.stream = stream;
            }
            peer.send(&frame)?;
        }
        Ok(())
    }
}

/// 200 with the text `ok`.
fn ok(stream: u32) -> Vec<u8> {
    let head = Frame::fields(stream, &[(":status", "200")]).bytes();
    [head, Frame::data(stream, "ok").ending().bytes()].concat()
}

/// Whether this comes about.
fn soon(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    condition()
}

fn get(path: &str) -> String {
    ask("GET", path)
}

fn ask(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: web.test\r\n\r\n")
}
