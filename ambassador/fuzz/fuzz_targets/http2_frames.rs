//! Frames and bytes to either end of an HTTP/2 connection, and what its user does
//! between them: no input panics, what is sent is whole frames and not much more
//! than what came, limits hold, an end says why, and a cut changes nothing.

#![no_main]

use ambassador::testing::http2::{ErrorCode, Role, StreamId};
use ambassador_fuzz::end::{End, LOCAL, hello};
use ambassador_fuzz::frame::{
    DATA, END_STREAM, Fields, Frame, GOAWAY, HEADERS, RST_STREAM, frames,
};
use ambassador_fuzz::script::{OF_CLIENT, OF_SERVER, frames_of};
use ambassador_fuzz::source::Source;
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;

const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);
const CANCEL: ErrorCode = ErrorCode(0x8);

/// What is sent for a received byte at most: a frame without payload is answered
/// with an RST_STREAM, and with a WINDOW_UPDATE where it has some.
const SENT_PER_BYTE: usize = 4;

/// The GOAWAY of a failure.
const SENT_AT_END: usize = 128;

/// Content that is sent at once.
static CONTENT: [u8; 70_000] = [7; 70_000];

fuzz_target!(|input: &[u8]| {
    let mut source = Source::new(input);
    let flags = source.byte();
    let role = match flags & 1 {
        0 => Role::Server,
        _ => Role::Client,
    };
    let size = 1 + usize::from(source.byte());
    let mut run = Run::new(role, size);
    if flags & 2 == 0 {
        run.feed(&hello(role));
    }
    while !source.is_empty() && run.whole.failure.is_none() {
        match source.byte() % 8 {
            0..=3 => {
                for frame in frames_of(&mut source, run.sections) {
                    run.feed(&frame.bytes());
                }
            }
            4 => {
                let length = usize::from(source.byte());
                run.feed(source.take(length));
            }
            _ => run.act(Act::read(&mut source)),
        }
    }
});

/// Two ends with the same fate, of which one receives every frame as a whole.
struct Run {
    whole: End,
    cut: End,
    /// The size of the pieces in which the other one receives.
    size: usize,
    role: Role,
    sections: &'static [Fields],
    /// Streams in which nothing more may be sent.
    finished: HashSet<u32>,
}

/// What a user of a connection does.
#[derive(Debug, Clone, Copy)]
struct Act {
    what: u8,
    stream: StreamId,
    end: bool,
    bytes: usize,
}

impl Act {
    fn read(source: &mut Source<'_>) -> Self {
        let what = source.byte();
        Self {
            what: what % 12,
            end: what & 0x80 != 0,
            stream: StreamId(u32::from(source.byte() % 8) * 2 + 1),
            bytes: source.one_of(&[0, 1, 5, 1_000, 16_385, 70_000]),
        }
    }

    fn on(self, end: &mut End, role: Role) {
        let Self { stream, bytes, .. } = self;
        let connection = &mut end.connection;
        match self.what {
            0 => end.open(OF_CLIENT[bytes % 4], self.end),
            1 if role == Role::Server => end.head(stream, OF_SERVER[0], self.end),
            2 | 3 => {
                connection.send_data(stream, &CONTENT[..bytes], self.end);
            }
            4 | 5 => connection.release(stream, bytes as u32),
            6 => connection.reset(stream, CANCEL),
            7 => connection.refuse(stream, PROTOCOL_ERROR),
            8 => {
                connection.forget(stream);
            }
            9 => connection.expect_length(stream, Some(bytes as u64)),
            10 => while connection.take_unprocessed().is_some() {},
            _ if self.end => connection.announce_end(),
            _ => connection.ping(),
        }
    }
}

impl Run {
    fn new(role: Role, size: usize) -> Self {
        let mut run = Self {
            whole: End::new(role),
            cut: End::new(role),
            size,
            role,
            sections: match role {
                Role::Server => OF_CLIENT,
                Role::Client => OF_SERVER,
            },
            finished: HashSet::new(),
        };
        run.check(usize::MAX);
        run
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.whole.failure.is_some() {
            self.whole.feed(bytes, bytes.len().max(1));
            assert!(self.whole.sent().is_empty(), "it goes on behind its end");
            return;
        }
        self.whole.feed(bytes, bytes.len().max(1));
        self.cut.feed(bytes, self.size);
        self.check(SENT_PER_BYTE * bytes.len() + SENT_AT_END);
    }

    fn act(&mut self, act: Act) {
        for end in [&mut self.whole, &mut self.cut] {
            act.on(end, self.role);
        }
        self.check(2 * CONTENT.len());
    }

    /// Compares the two, and checks what was sent, which is no more than that.
    fn check(&mut self, sent_max: usize) {
        let sent = self.whole.sent();
        assert_eq!(sent, self.cut.sent());
        assert_eq!(self.whole.failure, self.cut.failure);
        assert_eq!(self.whole.notes, self.cut.notes);
        self.whole.notes.clear();
        self.cut.notes.clear();
        assert!(sent.len() <= sent_max, "{} bytes are sent", sent.len());
        if self.role == Role::Server {
            let streams = self.whole.connection.streams();
            assert!(streams <= LOCAL.max_streams as usize);
        }
        let frames = frames(&sent);
        if let Some(failure) = self.whole.failure {
            let last = frames.last().map(|last| (last.kind, last.number_at(4)));
            assert_eq!(last, Some((GOAWAY, failure.code.0)));
        }
        for frame in &frames {
            self.check_order(frame);
        }
    }

    /// Nothing of a message follows the end of its stream (RFC 9113 section 5.1).
    fn check_order(&mut self, frame: &Frame) {
        let is_message = matches!(frame.kind, HEADERS | DATA);
        assert!(!is_message || !self.finished.contains(&frame.stream));
        if frame.kind == RST_STREAM || is_message && frame.has(END_STREAM) {
            self.finished.insert(frame.stream);
        }
    }
}
