//! One end of a connection to the proxy, client or server: what it has to see.

use std::io::ErrorKind;

use ambassador_tests::Response;
use ambassador_tests::http2::{Frame, code, flag, kind};

use super::case::{Asked, Expect, Reply};
use super::end::{End, Role, STREAM, TEXT};

/// What is wrong, if something is.
pub type Verdict = Result<(), String>;

/// What no case uses for a PING of its own.
const PROBE: &[u8; 8] = b"probe\0\0\0";

impl End {
    /// The next frame. What it asks for is given.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        let received = self.peer.receive().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => "nothing comes".to_owned(),
            _ => error.to_string(),
        });
        let Some(frame) = received? else {
            return Ok(None);
        };
        match frame.kind {
            kind::SETTINGS | kind::PING if !frame.has(flag::ACK) => {
                let mut answer = frame.clone().ack();
                if frame.kind == kind::SETTINGS {
                    answer.payload.clear();
                }
                self.send(answer);
            }
            kind::HEADERS if frame.stream == STREAM && self.status.is_empty() => {
                self.status = self.peer.field(":status").to_owned();
            }
            _ => {}
        }
        self.seen.push(frame.clone());
        Ok(Some(frame))
    }

    /// The next frame that is `wanted`.
    fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Result<Frame, String> {
        loop {
            match self.next() {
                Ok(Some(frame)) if wanted(&frame) => return Ok(frame),
                Ok(Some(_)) => {}
                Ok(None) => return Err(format!("{what} wanted, and the connection is closed")),
                Err(why) => return Err(format!("{what} wanted: {why}")),
            }
        }
    }

    /// Waits for a frame within an act.
    pub fn wait(&mut self, what: &str, wanted: impl FnMut(&Frame) -> bool) -> &mut End {
        if self.failed.is_none() {
            self.failed = self.until(what, wanted).err();
        }
        self
    }

    /// Something has to be so within an act.
    pub fn has_to_be(&mut self, what: &str, is_so: bool) -> &mut End {
        if self.failed.is_none() && !is_so {
            self.failed = Some(format!("not so: {what}"));
        }
        self
    }

    /// The first frame of the proxy was the preface of its side.
    pub fn was_greeted_first(&mut self) -> &mut End {
        let is_preface = |it: &Frame| it.kind == kind::SETTINGS && it.flags == 0 && it.stream == 0;
        let is_so = self.seen.first().is_some_and(is_preface);
        self.has_to_be("its first frame is SETTINGS", is_so)
    }

    /// What the proxy has said of itself.
    pub fn setting(&self, name: u16) -> Option<u32> {
        let is_settings = |it: &&Frame| it.kind == kind::SETTINGS && it.flags == 0;
        let settings = self.seen.iter().filter(is_settings);
        let mut pairs = settings.flat_map(|it| it.payload.chunks_exact(6));
        let pair = pairs.find(|pair| pair[..2] == name.to_be_bytes())?;
        Some(u32::from_be_bytes(pair[2..].try_into().ok()?))
    }

    /// A PING is answered within an act: what went before was taken.
    pub fn pings(&mut self, opaque: &[u8; 8]) -> &mut End {
        self.send(Frame::ping(opaque));
        self.wait_for_pong(opaque)
    }

    /// The answer to a PING comes within an act.
    pub fn wait_for_pong(&mut self, opaque: &[u8; 8]) -> &mut End {
        self.wait("the answer to a PING", |it| is_pong(it, opaque))
    }

    /// So many octets come as the next DATA of the exchange, and then none without a
    /// larger window.
    pub fn expects_data(&mut self, length: usize) -> &mut End {
        let before = self.octets();
        self.wait("DATA", |it| it.kind == kind::DATA && it.stream == STREAM);
        self.pings(b"no more?");
        let found = self.octets() - before;
        self.has_to_be(&format!("DATA of {length}, not {found}"), found == length)
    }

    /// No DATA has come, and none is on its way.
    pub fn expects_no_data(&mut self) -> &mut End {
        self.pings(b"no data?");
        let is_so = self.seen.iter().all(|it| it.kind != kind::DATA);
        self.has_to_be("no DATA without a window", is_so)
    }

    /// How much DATA has come.
    fn octets(&self) -> usize {
        let data = self.seen.iter().filter(|it| it.kind == kind::DATA);
        data.map(|it| it.payload.len()).sum()
    }

    /// An acknowledgement of a PING is not one to answer.
    pub fn expects_no_pong(&mut self, opaque: &[u8; 8]) -> &mut End {
        let is_so = self.seen.iter().all(|it| !is_pong(it, opaque));
        self.has_to_be("no answer to an answer", is_so)
    }

    /// What has to come of its act.
    pub fn expect(&mut self, expects: Expect) -> Verdict {
        self.failed.take().map_or(Ok(()), Err)?;
        match expects {
            Expect::Fine => {
                self.completes()?;
                self.alive()?;
                self.unharmed()
            }
            Expect::Alive => {
                self.alive()?;
                self.unharmed()
            }
            Expect::StreamError(codes) => self.stream_error(STREAM, codes),
            Expect::StreamErrorOn(stream, codes) => self.stream_error(stream, codes),
            Expect::ConnectionError(codes) => {
                let found = self.last_word()?;
                expect_code(&found, kind::GOAWAY, 0, codes)?;
                self.ended()
            }
            Expect::Leaves => {
                self.ended()?;
                let mut words = self.seen.iter().filter_map(Frame::code);
                match words.find(|word| *word != code::NO_ERROR) {
                    Some(word) => Err(format!("it ends with code {word}")),
                    None => Ok(()),
                }
            }
        }
    }

    /// Completes the exchange, as far as the act has not.
    fn completes(&mut self) -> Verdict {
        match self.role {
            Role::Client => {
                if !self.is_whole {
                    self.whole();
                }
                let wanted = match self.content.is_empty() {
                    _ if self.asked == Asked::Head => Vec::new(),
                    true => TEXT.into(),
                    false => self.content.clone(),
                };
                self.is_sent(&wanted)?;
                match &*self.status {
                    "200" => Ok(()),
                    status => Err(format!("the answer is {status}")),
                }
            }
            Role::Server => {
                if self.is_asked {
                    self.is_sent(TEXT.as_bytes())?;
                }
                if !self.is_whole {
                    self.head().last("ok");
                }
                Ok(())
            }
        }
    }

    /// The message of the proxy ends, and has this content.
    fn is_sent(&mut self, wanted: &[u8]) -> Verdict {
        let is_end = |it: &Frame| it.stream == STREAM && it.is_last();
        if !self.seen.iter().any(is_end) {
            self.until("the end of its message", is_end)?;
        }
        let data = self.seen.iter().filter(|it| it.kind == kind::DATA);
        let content: Vec<u8> = data.flat_map(Frame::content).copied().collect();
        match content == wanted {
            true => Ok(()),
            false => Err(format!("the proxy sends {} octets", content.len())),
        }
    }

    fn stream_error(&mut self, stream: u32, codes: &[u32]) -> Verdict {
        let found = self.last_word()?;
        expect_code(&found, kind::RST_STREAM, stream, codes)?;
        self.alive()?;
        match self.seen.iter().any(|it| it.kind == kind::GOAWAY) {
            true => Err("GOAWAY comes too".to_owned()),
            false => Ok(()),
        }
    }

    /// The first RST_STREAM or GOAWAY.
    fn last_word(&mut self) -> Result<Frame, String> {
        match self.seen.iter().find(|it| it.code().is_some()) {
            Some(frame) => Ok(frame.clone()),
            None => self.until("RST_STREAM or GOAWAY", |it| it.code().is_some()),
        }
    }

    /// The proxy answers a PING.
    fn alive(&mut self) -> Verdict {
        self.send(Frame::ping(PROBE));
        self.until("the answer to a PING", |it| is_pong(it, PROBE))?;
        Ok(())
    }

    /// The proxy has neither reset a stream nor said that it will leave.
    fn unharmed(&self) -> Verdict {
        match self.seen.iter().find(|it| it.code().is_some()) {
            Some(frame) => Err(format!("it sends {}", frame.summary())),
            None => Ok(()),
        }
    }

    /// The end of the connection, whatever comes before.
    fn ended(&mut self) -> Verdict {
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(why) => return Err(format!("the end of the connection wanted: {why}")),
            }
        }
    }

    /// What the caller of this server gets.
    pub fn expect_reply(&mut self, wanted: Reply) -> Verdict {
        let Some(caller) = &mut self.caller else {
            return Ok(());
        };
        let method = match self.asked {
            Asked::Get => "GET",
            Asked::Head => "HEAD",
            Asked::Post => "POST",
        };
        let found = caller.try_response(method);
        let refused = |reason: &str| {
            let found = found.as_ref();
            found.is_some_and(|it| it.status == 502 && it.reason() == reason)
        };
        let is_right = match wanted {
            Reply::Whole => found.as_ref().is_some_and(|it| self.is_passed_on(it)),
            Reply::Refused(reason) => refused(reason),
            Reply::Cut(reason) => found.is_none() || refused(reason),
        };
        match (is_right, found) {
            (true, _) => Ok(()),
            (false, None) => Err("the caller gets no whole answer".to_owned()),
            (false, Some(it)) => Err(format!(
                "the caller gets {} {:?}",
                it.head,
                String::from_utf8_lossy(&it.body)
            )),
        }
    }

    /// Whether an answer is the one of this server.
    fn is_passed_on(&self, found: &Response) -> bool {
        let carried = self.carried.is_none_or(|(name, value)| {
            let mut all = found.fields.iter().chain(&found.trailers);
            all.any(|field| field.0.eq_ignore_ascii_case(name) && field.1 == value)
        });
        found.status == 200 && found.reason().is_empty() && found.body == self.content && carried
    }

    /// Ends the connection, and waits until the proxy has given it up.
    pub fn leave(&mut self) -> Verdict {
        self.peer.wire().finish();
        // Where the proxy has closed it already, that may be seen as a reset.
        loop {
            match self.peer.receive() {
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err("the proxy keeps the connection".to_owned());
                }
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    /// What came, in short.
    pub fn story(&self) -> String {
        let frames: Vec<String> = self.seen.iter().map(Frame::summary).collect();
        frames.join(" ")
    }
}

fn is_pong(frame: &Frame, opaque: &[u8; 8]) -> bool {
    *frame == Frame::ping(opaque).ack()
}

fn expect_code(found: &Frame, wanted: u8, stream: u32, codes: &[u32]) -> Verdict {
    let is_right = found.kind == wanted && found.stream == stream;
    match is_right && found.code().is_some_and(|code| codes.contains(&code)) {
        true => Ok(()),
        false => Err(format!(
            "{} comes, not type {wanted} on stream {stream} with a code of {codes:?}",
            found.summary()
        )),
    }
}
