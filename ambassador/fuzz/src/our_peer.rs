//! Our end, used as the proxy uses it: sections are read, and streams that are
//! malformed are reset.

use std::collections::{BTreeMap, BTreeSet};

use ambassador::testing::http2::{
    ErrorCode, Event, FieldBlock, Role, Section, StreamId, read_request, read_response,
    read_trailers,
};
use ambassador::testing::message::{Length, Method, RequestHead, ResponseHead};

use crate::end::{End, Note};
use crate::frame::Fields;
use crate::h2_peer::Habits;
use crate::record::{Ending, Record};

const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);

/// An end.
#[derive(Debug)]
pub struct OurPeer {
    end: End,
    habits: Habits,
    /// The methods of the requests that a client has sent.
    methods: Vec<&'static str>,
    /// What it has seen of each stream.
    pub records: BTreeMap<u32, Record>,
    /// Streams with a response whose status leaves it without content, whatever it says.
    pub without_content: BTreeSet<u32>,
}

impl OurPeer {
    /// A server that has received what a client sends first.
    pub fn server(hello: &[u8], habits: Habits) -> Self {
        let mut peer = Self {
            end: End::new(Role::Server),
            habits,
            methods: Vec::new(),
            records: BTreeMap::new(),
            without_content: BTreeSet::new(),
        };
        peer.feed(hello);
        peer
    }

    /// A client that has sent requests with these methods, of which those end with
    /// their head that are no POST.
    pub fn client(methods: &[&'static str], habits: Habits) -> Self {
        const REST: Fields = &[
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/"),
        ];
        let mut end = End::new(Role::Client);
        let mut records = BTreeMap::new();
        for method in methods {
            let fields = [&[(":method", *method)], REST].concat();
            end.open(fields.leak(), *method != "POST");
            records.insert(records.len() as u32 * 2 + 1, Record::default());
        }
        Self {
            end,
            habits,
            methods: methods.to_vec(),
            records,
            without_content: BTreeSet::new(),
        }
    }

    /// Has bytes received, and everything done that follows from them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.end.feed(bytes, bytes.len().max(1));
        for note in std::mem::take(&mut self.end.notes) {
            self.take(note);
        }
    }

    /// Takes out what it has sent.
    pub fn sent(&mut self) -> Vec<u8> {
        self.end.sent()
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Fields {
                stream,
                section,
                end,
                block,
            } => self.take_section(stream, section, block, end),
            Note::Content { stream, bytes, end } => {
                self.records.entry(stream.0).or_default().bytes += bytes.len();
                if self.habits.releases {
                    self.end.connection.release(stream, bytes.len() as u32);
                }
                if end {
                    self.ended(stream, Ending::Whole);
                }
            }
            Note::Other(Event::Reset { stream, .. }) => self.ended(stream, Ending::Reset),
            Note::Other(Event::Failed { stream, .. }) => self.ended(stream, Ending::Failed),
            Note::Other(Event::GoAway { .. }) if !self.methods.is_empty() => {
                while let Some((stream, _)) = self.end.connection.take_unprocessed() {
                    self.ended(stream, Ending::Unprocessed);
                }
            }
            Note::Other(_) => {}
        }
    }

    fn take_section(&mut self, stream: StreamId, section: Section, block: FieldBlock, end: bool) {
        let connection = &mut self.end.connection;
        let mut block = block;
        let mut trailers = None;
        let is_sound = match section {
            Section::Request => {
                let mut head = RequestHead::default();
                let read = read_request(&mut head, &mut block, end);
                if head.method() != Method::Connect {
                    connection.expect_length(stream, said(head.length()));
                }
                if read.is_err() {
                    // The other end does not show it.
                    connection.refuse(stream, PROTOCOL_ERROR);
                    connection.forget(stream);
                    return;
                }
                self.records.insert(stream.0, Record::begun());
                true
            }
            Section::Response => {
                let mut head = ResponseHead::default();
                let method = self.methods[stream.0 as usize / 2];
                let method = Method::parse(method.as_bytes());
                let read = read_response(&mut head, &block, method, end);
                if read.is_ok() && head.status() >= 200 {
                    if matches!(head.status(), 204 | 304) {
                        self.without_content.insert(stream.0);
                    }
                    connection.expect_length(stream, said(head.length()));
                    self.records.insert(stream.0, Record::begun());
                }
                read.is_ok()
            }
            Section::Trailers => {
                trailers = Some(block.fields().len());
                read_trailers(&block).is_ok()
            }
        };
        if !is_sound {
            connection.refuse(stream, PROTOCOL_ERROR);
            self.ended(stream, Ending::Failed);
            return;
        }
        if section == Section::Request && self.habits.answers {
            self.end.head(stream, &[(":status", "200")], true);
        }
        self.records.entry(stream.0).or_default().trailers = trailers;
        if end {
            self.ended(stream, Ending::Whole);
        }
    }

    /// A stream has ended: it is forgotten where nothing is to be sent either.
    fn ended(&mut self, stream: StreamId, ending: Ending) {
        let record = self.records.entry(stream.0).or_default();
        record.ending.get_or_insert(ending);
        let is_sent = match self.methods.get(stream.0 as usize / 2) {
            Some(method) => *method != "POST",
            None => self.habits.answers,
        };
        if is_sent || ending != Ending::Whole {
            self.end.connection.forget(stream);
        }
    }
}

/// How long the content is, where that is known.
fn said(length: Length) -> Option<u64> {
    match length {
        Length::Exact(bytes) => Some(bytes),
        Length::None => Some(0),
        Length::Unknown => None,
    }
}
