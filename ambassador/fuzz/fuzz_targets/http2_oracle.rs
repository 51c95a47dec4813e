//! Frames to our end of an HTTP/2 connection and to that of the h2 crate: both find
//! the same fault or none, and see the same streams.
//!
//! Field sections are sound, if not always where they are, so that it is frames
//! that the two differ about. Codes of errors are not compared.

#![no_main]

use ambassador::testing::http2::Role;
use ambassador_fuzz::end::hello;
use ambassador_fuzz::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, Fields, Frame, GOAWAY, HEADERS, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, frames,
};
use ambassador_fuzz::h2_peer::{H2Peer, Habits};
use ambassador_fuzz::our_peer::OurPeer;
use ambassador_fuzz::script::{OF_CLIENT, OF_SERVER, frames_of};
use ambassador_fuzz::source::Source;
use libfuzzer_sys::fuzz_target;

/// Requests that a client has open.
const METHODS: &[&str] = &["GET", "POST", "HEAD"];

/// What an end finds in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Sound,
    /// It resets a stream.
    StreamError,
    /// It ends the connection.
    ConnectionError,
}

fuzz_target!(|input: &[u8]| {
    let mut source = Source::new(input);
    let flags = source.byte();
    let habits = Habits {
        answers: flags & 2 != 0,
        releases: flags & 4 != 0,
    };
    let mut run = Run::new(flags & 1 != 0, habits);
    while !source.is_empty() {
        for frame in frames_of(&mut source, run.sections) {
            if !run.agrees(&frame) {
                return;
            }
        }
    }
});

/// The two ends.
struct Run {
    ours: OurPeer,
    theirs: H2Peer,
    sections: &'static [Fields],
    /// The highest stream that was used.
    highest: u32,
    /// Bytes of DATA frames so far, with their padding.
    data: usize,
}

/// The window of a connection at its start (RFC 9113 section 6.9.2).
const WINDOW: usize = 65_535;

impl Run {
    fn new(is_client: bool, habits: Habits) -> Self {
        let mut run = match is_client {
            true => Self {
                ours: OurPeer::client(METHODS, habits),
                theirs: H2Peer::client(METHODS, habits),
                sections: OF_SERVER,
                highest: METHODS.len() as u32 * 2 - 1,
                data: 0,
            },
            false => {
                let hello = hello(Role::Server);
                Self {
                    ours: OurPeer::server(&hello, habits),
                    theirs: H2Peer::server(&hello, habits),
                    sections: OF_CLIENT,
                    highest: 0,
                    data: 0,
                }
            }
        };
        if is_client {
            run.ours.feed(&hello(Role::Client));
            run.theirs.feed(&hello(Role::Client));
        }
        run.ours.sent();
        run.theirs.sent();
        run
    }

    /// Gives a frame to both. Whether there is more to compare.
    fn agrees(&mut self, frame: &Frame) -> bool {
        let id = frame.stream & 0x7fff_ffff;
        let before = self.ours.records.clone();
        let is_open = before
            .get(&id)
            .is_some_and(|record| record.ending.is_none());
        let is_closed = id % 2 == 1 && id <= self.highest && !is_open;
        if frame.kind == HEADERS && id % 2 == 1 {
            self.highest = self.highest.max(id);
        }
        if frame.kind == DATA {
            self.data += frame.payload.len();
        }
        let bytes = frame.bytes();
        self.ours.feed(&bytes);
        self.theirs.feed(&bytes);
        let ours = verdict(&self.ours.sent());
        let theirs = verdict(&self.theirs.sent());
        let is_same = ours == theirs && self.ours.records == self.theirs.records;
        if ours == Verdict::ConnectionError && theirs == ours {
            return false;
        }
        if is_same {
            // It ends when nothing is left to do behind a GOAWAY (6.8).
            return !self.theirs.has_ended;
        }
        let start = &frame.payload[..frame.payload.len().min(24)];
        let shown = (
            frame.kind,
            frame.flags,
            frame.stream,
            frame.payload.len(),
            start,
        );
        assert!(
            self.choice(frame, is_closed, (ours, theirs)).is_some(),
            "{shown:?}: {ours:?}, the crate {theirs:?}\nbefore {before:?}\nours {:?}\ntheirs {:?}",
            self.ours.records,
            self.theirs.records,
        );
        false
    }

    /// Why the two may differ about a frame, by sections of RFC 9113.
    fn choice(
        &self,
        frame: &Frame,
        is_closed: bool,
        verdicts: (Verdict, Verdict),
    ) -> Option<&'static str> {
        let id = frame.stream & 0x7fff_ffff;
        use Verdict::{ConnectionError, Sound, StreamError};
        let has_same_end = self.ours.records == self.theirs.records;
        Some(match (frame.kind, verdicts.0, verdicts.1) {
            (_, StreamError, ConnectionError) => {
                "5.4.1: a stream error may be treated as one of the connection"
            }
            (_, StreamError, Sound) if has_same_end => {
                "5.4.2: a stream that is closed already need not be reset"
            }
            (HEADERS, Sound, StreamError) if !frame.has(END_HEADERS) => {
                "5.4.2: the crate tells at the first fragment that a stream depends on itself"
            }
            (HEADERS, ConnectionError, StreamError) if frame.has(WITH_PRIORITY) => {
                "5.4.1: the crate looks first whether a stream depends on itself"
            }
            (HEADERS | CONTINUATION, ConnectionError, StreamError) if id.is_multiple_of(2) => {
                "5.1.1: the crate looks at the fields before the id, which no client may use"
            }
            (HEADERS | CONTINUATION, ConnectionError, _) if is_closed => {
                "5.1: a frame on a closed stream may be an error of the connection"
            }
            (HEADERS | CONTINUATION, Sound, Sound) if self.ours.without_content.contains(&id) => {
                "8.1.1: the crate counts the length of a response without content"
            }
            (HEADERS | CONTINUATION, Sound, _) if is_closed => {
                "5.1: what comes for a stream that was reset is to be ignored for a while"
            }
            (DATA, StreamError, Sound) | (DATA, Sound, StreamError) if is_closed => {
                "5.1: what comes for a stream that was reset may be answered"
            }
            (HEADERS | CONTINUATION, StreamError, Sound) if !is_closed => {
                "8.1: trailers have no pseudo fields, which the crate leaves out"
            }
            (CONTINUATION, Sound, ConnectionError) => {
                "10.5.1: limits of fragments differ, and the crate gives up a section early"
            }
            (PRIORITY, ConnectionError, _) => {
                "5.3.2: what depended on itself was an error before priority was given up"
            }
            (SETTINGS, Sound, ConnectionError) if frame.has(ACK) => {
                "6.5.3: nothing is said of an acknowledgement too many"
            }
            (WINDOW_UPDATE, Sound, ConnectionError) if is_closed => {
                "5.1: WINDOW_UPDATE on a closed stream is ignored"
            }
            (WINDOW_UPDATE, StreamError, Sound) => {
                "6.9.1: the crate does not count what is not used any more"
            }
            (SETTINGS, ConnectionError, Sound) => {
                "6.5.2: the crate lets servers say that they would take pushes"
            }
            (DATA | HEADERS | CONTINUATION, Sound, StreamError)
                if self.ours.without_content.contains(&id) =>
            {
                "8.1.1: the length of a response without content is not that of its content"
            }
            (DATA, ConnectionError, Sound | StreamError) | (DATA, StreamError, Sound)
                if self.data > WINDOW =>
            {
                "6.9.1: a window is overrun; the crate counts padding as given back at once"
            }
            (DATA, StreamError, Sound) if self.ours.without_content.contains(&id) => {
                "8.1.1: the crate lets 204 and 304 have content"
            }
            (PUSH_PROMISE, ConnectionError, Sound | StreamError) => {
                "8.4: the crate ignores a promise on a stream that was reset"
            }
            _ => return None,
        })
    }
}

fn verdict(sent: &[u8]) -> Verdict {
    let mut verdict = Verdict::Sound;
    for frame in frames(sent) {
        match frame.kind {
            GOAWAY if frame.number_at(4) != 0 => return Verdict::ConnectionError,
            RST_STREAM => verdict = Verdict::StreamError,
            _ => {}
        }
    }
    verdict
}
