//! An end of a connection that notes what it is told.

use ambassador::testing::clock::{Instant, now};
use ambassador::testing::http2::{
    Connection, ConnectionError, Event, FieldBlock, Indexing, LocalSettings, Role, Section,
    StreamId,
};

use crate::frame::{Fields, PREFACE};

/// Few streams and the windows that RFC 9113 section 6.9.2 begins with, so that
/// short inputs come to their limits.
pub const LOCAL: LocalSettings = LocalSettings {
    max_streams: 4,
    window: 65_535,
    connection_window: 65_535,
    list_max: 16_384,
    fields_max: 128,
    connect_protocol: false,
};

/// What an end was told, with the bytes that it was told of.
#[derive(Debug)]
pub enum Note {
    Fields {
        stream: StreamId,
        section: Section,
        end: bool,
        block: FieldBlock,
    },
    Content {
        stream: StreamId,
        bytes: Vec<u8>,
        end: bool,
    },
    Other(Event),
}

impl PartialEq for Note {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Fields {
                    stream,
                    section,
                    end,
                    block,
                },
                Self::Fields {
                    stream: other_stream,
                    section: other_section,
                    end: other_end,
                    block: other_block,
                },
            ) => {
                (stream, section, end) == (other_stream, other_section, other_end)
                    && block.bytes() == other_block.bytes()
            }
            (
                Self::Content { stream, bytes, end },
                Self::Content {
                    stream: other_stream,
                    bytes: other_bytes,
                    end: other_end,
                },
            ) => (stream, bytes, end) == (other_stream, other_bytes, other_end),
            (Self::Other(event), Self::Other(other)) => event == other,
            _ => false,
        }
    }
}

/// A connection, at a time that stands still.
#[derive(Debug)]
pub struct End {
    pub connection: Connection<()>,
    /// What it was told since the notes were taken.
    pub notes: Vec<Note>,
    /// Why it has ended.
    pub failure: Option<ConnectionError>,
    now: Instant,
}

impl End {
    pub fn new(role: Role) -> Self {
        Self {
            connection: Connection::new(role, LOCAL),
            notes: Vec::new(),
            failure: None,
            now: now(),
        }
    }

    /// Has bytes received, in pieces of a size.
    pub fn feed(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            self.feed_piece(piece);
        }
    }

    /// Opens a stream with a request.
    pub fn open(&mut self, fields: Fields, end: bool) {
        // More than the other end allows are not opened.
        let _ = self.connection.open((), lines(fields), end);
    }

    /// Sends a field section.
    pub fn head(&mut self, stream: StreamId, fields: Fields, end: bool) {
        self.connection.send_headers(stream, lines(fields), end);
    }

    /// Takes out what is to be sent.
    pub fn sent(&mut self) -> Vec<u8> {
        std::mem::take(self.connection.output())
    }

    fn feed_piece(&mut self, mut piece: &[u8]) {
        loop {
            let (used, event) = match self.connection.receive(piece, self.now) {
                Ok(step) => step,
                Err(error) => {
                    assert!(self.failure.is_none_or(|failure| failure == error));
                    self.failure = Some(error);
                    return;
                }
            };
            assert!(self.failure.is_none(), "it goes on behind its end");
            let Some(event) = event else {
                assert_eq!(used, piece.len(), "bytes were left");
                return;
            };
            self.note(event, &piece[..used]);
            piece = &piece[used..];
        }
    }

    /// The section that has come; another one takes its place.
    fn take_block(&mut self) -> FieldBlock {
        let next = FieldBlock::new(LOCAL.list_max, LOCAL.fields_max);
        std::mem::replace(self.connection.block(), next)
    }

    fn note(&mut self, event: Event, input: &[u8]) {
        let note = match event {
            Event::Headers {
                stream,
                section,
                end,
            } => Note::Fields {
                stream,
                section,
                end,
                block: self.take_block(),
            },
            Event::Data { stream, bytes, end } => Note::Content {
                stream,
                bytes: input[bytes].to_vec(),
                end,
            },
            other => Note::Other(other),
        };
        if !self.goes_on(&note) {
            self.notes.push(note);
        }
    }

    /// Adds content to the note of content before it: it comes in any pieces.
    fn goes_on(&mut self, note: &Note) -> bool {
        let Note::Content { stream, bytes, end } = note else {
            return false;
        };
        match self.notes.last_mut() {
            Some(Note::Content {
                stream: before,
                bytes: all,
                end: ended @ false,
            }) if before == stream => {
                all.extend_from_slice(bytes);
                *ended = *end;
                true
            }
            _ => false,
        }
    }
}

/// What the peer of an end with this role sends first.
pub fn hello(role: Role) -> Vec<u8> {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    match role {
        Role::Server => [PREFACE, SETTINGS].concat(),
        Role::Client => SETTINGS.to_vec(),
    }
}

fn lines(fields: Fields) -> impl Iterator<Item = (&'static [u8], &'static [u8], Indexing)> {
    let line =
        |(name, value): &'static (&str, &str)| (name.as_bytes(), value.as_bytes(), Indexing::Free);
    fields.iter().map(line)
}
