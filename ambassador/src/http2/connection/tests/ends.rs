//! The ends that tests speak with: a connection that notes what it is told, and
//! frames made by hand.

use std::time::Duration;

use crate::clock::Instant;
use crate::http2::block::Indexing;
use crate::http2::connection::Connection;
use crate::http2::connection::send::FieldLine;
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::event::{Event, Section};
use crate::http2::frame::{FrameHeader, PREFACE};
use crate::http2::role::Role;
pub(super) use crate::http2::settings::LocalSettings;
use crate::http2::stream::StreamId;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;

pub(super) const LOCAL: LocalSettings = LocalSettings {
    max_streams: 100,
    window: 65_535,
    connection_window: 1 << 20,
    list_max: 64 * 1024,
    fields_max: 128,
    connect_protocol: true,
};

pub(super) const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a.test"),
    (":path", "/"),
];

pub(super) const OK: &[(&str, &str)] = &[(":status", "200")];

/// What an end was told, with the bytes that it was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    Headers(u32, Section, bool, String),
    Data(u32, Vec<u8>, bool),
    Other(Event),
}

/// A connection, its time, and what it was told.
pub(super) struct End {
    pub(super) connection: Connection<u32>,
    pub(super) now: Instant,
    pub(super) notes: Vec<Note>,
}

/// A frame that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl End {
    pub(super) fn new(role: Role, local: LocalSettings) -> Self {
        Self {
            connection: Connection::new(role, local),
            now: Instant::now(),
            notes: Vec::new(),
        }
    }

    /// A server to which a client has said hello; what it answered is gone.
    pub(super) fn server() -> Self {
        Self::server_with(LOCAL)
    }

    pub(super) fn server_with(local: LocalSettings) -> Self {
        let mut end = Self::new(Role::Server, local);
        end.feed(PREFACE).unwrap();
        end.after_settings()
    }

    /// The same of a client.
    pub(super) fn client() -> Self {
        Self::new(Role::Client, LOCAL).after_settings()
    }

    fn after_settings(mut self) -> Self {
        let settings = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, ACK, 0, b"")];
        self.feed(&settings.concat()).unwrap();
        assert_eq!(self.notes, [Note::Other(Event::Settings)]);
        self.notes.clear();
        self.connection.output().clear();
        self
    }

    /// Has bytes received, all of them.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Result<(), ConnectionError> {
        loop {
            let (used, event) = self.connection.receive(input, self.now)?;
            let Some(event) = event else {
                assert_eq!(used, input.len(), "bytes were left");
                return Ok(());
            };
            self.note(event, &input[..used]);
            input = &input[used..];
        }
    }

    fn note(&mut self, event: Event, input: &[u8]) {
        let note = match event {
            Event::Headers {
                stream,
                section,
                end,
            } => {
                let lines = String::from_utf8_lossy(self.connection.block().bytes());
                let lines = lines.replace("\r\n", ";");
                if section == Section::Request {
                    self.connection.set_user(stream, stream.0);
                }
                Note::Headers(stream.0, section, end, lines)
            }
            Event::Data { stream, bytes, end } => Note::Data(stream.0, input[bytes].to_vec(), end),
            other => Note::Other(other),
        };
        // Content comes in any pieces.
        if let (Note::Data(stream, bytes, end), Some(Note::Data(before, all, ended))) =
            (&note, self.notes.last_mut())
            && stream == before
            && !*ended
        {
            all.extend_from_slice(bytes);
            *ended = *end;
            return;
        }
        self.notes.push(note);
    }

    /// What it was told since the last time.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// What it has to send.
    pub(super) fn sent(&mut self) -> Vec<Frame> {
        let output = std::mem::take(self.connection.output());
        frames(&output)
    }

    /// Has bytes received for which the connection ends, by GOAWAY with that code.
    pub(super) fn dies_of(&mut self, input: &[u8], code: ErrorCode) -> ConnectionError {
        self.connection.output().clear();
        let failure = self.feed(input).expect_err("the connection goes on");
        assert_eq!(failure.code, code, "{failure}");
        let last = self.sent().pop().expect("GOAWAY is sent");
        assert_eq!(last.kind, GOAWAY);
        assert_eq!(last.payload[4..8], code.0.to_be_bytes());
        let again = self.connection.receive(b"", self.now);
        assert_eq!(again, Err(failure), "it stays ended");
        failure
    }

    /// Has bytes received for which a stream is reset, and nothing else.
    pub(super) fn resets(&mut self, input: &[u8], stream: u32, code: ErrorCode) {
        self.connection.output().clear();
        self.feed(input).expect("the connection goes on");
        let resets: Vec<Frame> = self.sent();
        let reset = Frame {
            kind: RST_STREAM,
            flags: 0,
            stream,
            payload: code.0.to_be_bytes().to_vec(),
        };
        let resets: Vec<&Frame> = resets
            .iter()
            .filter(|frame| frame.kind == RST_STREAM)
            .collect();
        assert_eq!(resets, [&reset]);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let id = StreamId(stream);
        self.connection.send_headers(id, lines(fields), end);
    }

    pub(super) fn open(&mut self, fields: &[(&str, &str)], end: bool) -> StreamId {
        let opened = self.connection.open(0, lines(fields), end);
        opened.expect("a stream is free")
    }

    pub(super) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) -> usize {
        self.connection.send_data(StreamId(stream), bytes, end)
    }
}

fn lines<'a>(fields: &'a [(&str, &str)]) -> impl Iterator<Item = FieldLine<'a>> {
    let line =
        |(name, value): &'a (&str, &str)| (name.as_bytes(), value.as_bytes(), Indexing::Free);
    fields.iter().map(line)
}

/// Passes on what both have to send, until neither has anything.
pub(super) fn exchange(one: &mut End, other: &mut End) {
    loop {
        let there = std::mem::take(one.connection.output());
        let back = std::mem::take(other.connection.output());
        if there.is_empty() && back.is_empty() {
            return;
        }
        other.feed(&there).unwrap();
        one.feed(&back).unwrap();
    }
}

/// A client and a server that have said hello.
pub(super) fn pair() -> (End, End) {
    let mut client = End::new(Role::Client, LOCAL);
    let mut server = End::new(Role::Server, LOCAL);
    exchange(&mut client, &mut server);
    assert_eq!(client.notes(), [Note::Other(Event::Settings)]);
    assert_eq!(server.notes(), [Note::Other(Event::Settings)]);
    (client, server)
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field section without any table: literals that are never indexed.
pub(super) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            match text.len() {
                short @ ..127 => bytes.push(short as u8),
                long => {
                    let mut rest = long - 127;
                    bytes.push(127);
                    while rest >= 128 {
                        bytes.push((rest % 128) as u8 | 0x80);
                        rest /= 128;
                    }
                    bytes.push(rest as u8);
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// HEADERS with a whole field section.
pub(super) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &section(fields))
}

/// The frames in what was sent.
pub(super) fn frames(mut output: &[u8]) -> Vec<Frame> {
    output = output.strip_prefix(PREFACE).unwrap_or(output);
    let mut frames = Vec::new();
    while let Some(header) = FrameHeader::read(output) {
        let (whole, rest) = output.split_at(9 + header.length);
        frames.push(Frame {
            kind: whole[3],
            flags: whole[4],
            stream: header.stream.0,
            payload: whole[9..].to_vec(),
        });
        output = rest;
    }
    assert!(output.is_empty(), "part of a frame was sent");
    frames
}
