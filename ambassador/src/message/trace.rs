//! The trace that a request is part of: read from its head, written into the head
//! of each of its tries (W3C Trace Context level 2, B3).
//!
//! Nothing here reads randomness; spans and traces are made of what the caller
//! brings.

mod b3;
mod baggage;
mod parent;
mod state;

use b3::{B3, Decision, Form};
use state::TraceState;

use crate::message::RequestHead;
use crate::message::fields::Kind;

pub(crate) use baggage::BaggageRoom;
pub use parent::TraceParent;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// How the traces of requests are carried on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The share of traces sampled about which the caller has not decided.
    pub sample: f64,
    /// In which headers.
    pub formats: Formats,
}

/// Headers that carry a trace. Those that are not named here pass as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats {
    /// `traceparent` and `tracestate`.
    pub tracecontext: bool,
    /// `b3`, or those that begin with `x-b3-`.
    pub b3: bool,
    /// `baggage`: passes too, within its limits.
    pub baggage: bool,
}

/// The trace of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    parent: TraceParent,
    formats: Formats,
    origin: Origin,
    form: Form,
    debug: bool,
}

/// Where the trace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The caller's `traceparent`, to which its `tracestate` belongs.
    TraceParent,
    /// The caller's B3.
    B3,
    /// It begins here. A `tracestate` that came belongs to nothing (section 3.3).
    Here,
}

/// Fields at most that a trace is written in: `traceparent`, `tracestate` and four
/// of B3.
pub(crate) const FIELDS_MAX: usize = 6;

/// `traceparent`, `tracestate`, then the longer form of B3.
const TEXT_BYTES_MAX: usize = TraceParent::LEN + state::BYTES_MAX + b3::SINGLE_BYTES_MAX;

/// The fields of one try.
#[derive(Debug)]
pub struct TraceFields {
    text: [u8; TEXT_BYTES_MAX],
    bytes: usize,
    /// Names, and where their values end.
    ends: [(&'static str, usize); FIELDS_MAX],
    count: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sample: 0.01,
            formats: Formats {
                tracecontext: true,
                b3: false,
                baggage: true,
            },
        }
    }
}

impl Formats {
    /// Nothing is read or written.
    pub const OFF: Self = Self {
        tracecontext: false,
        b3: false,
        baggage: false,
    };
}

impl TraceContext {
    /// The trace of a request: the one that it came with, else one that begins
    /// here with the id `random`. `None`: no format carries one.
    pub fn of(
        request: &RequestHead,
        head: &[u8],
        settings: &Settings,
        random: u128,
    ) -> Option<Self> {
        let formats = settings.formats;
        if !formats.tracecontext && !formats.b3 {
            return None;
        }
        let b3 = match formats.b3 {
            true => B3::of(request, head),
            false => B3::default(),
        };
        let context = |origin, parent| Self {
            parent,
            formats,
            origin,
            form: b3.form,
            debug: b3.decision == Some(Decision::Debug),
        };
        if formats.tracecontext
            && let Some(text) = only(request, head, Kind::TraceContext, TRACEPARENT)
            && let Some(parent) = TraceParent::parse(text)
        {
            return Some(context(Origin::TraceParent, parent));
        }
        let (origin, parent) = match b3.trace {
            Some(parent) => (Origin::B3, parent),
            None => (Origin::Here, TraceParent::start(random, 1)),
        };
        let parent = match b3.decision {
            None => parent.sampled_by(settings.sample),
            Some(Decision::Drop) => parent,
            Some(Decision::Sample | Decision::Debug) => parent.sampled(),
        };
        Some(context(origin, parent))
    }

    /// What is written for a try, which is the span `span`.
    pub fn fields(&self, request: &RequestHead, head: &[u8], span: u64) -> TraceFields {
        let parent = self.parent.child(span);
        let mut fields = TraceFields {
            text: [0; TEXT_BYTES_MAX],
            bytes: 0,
            ends: [("", 0); FIELDS_MAX],
            count: 0,
        };
        if self.formats.tracecontext {
            fields.write(TRACEPARENT, &parent.encode());
            if self.origin == Origin::TraceParent {
                fields.write_state(request, head);
            }
        }
        if self.formats.b3 {
            self.write_b3(parent, &mut fields);
        }
        fields
    }

    fn write_b3(&self, parent: TraceParent, fields: &mut TraceFields) {
        let (trace, span) = (parent.trace_digits(), parent.span_digits());
        // As it came: some know ids of 64 bits alone.
        let trace = match parent.is_short() {
            true => &trace[16..],
            false => &trace[..],
        };
        let decision = match (parent.is_sampled(), self.debug) {
            (true, true) => Decision::Debug,
            (true, false) => Decision::Sample,
            (false, _) => Decision::Drop,
        };
        // A server may make the span of a request its own, and then says of it
        // what the request says: without its parent the tree would end here.
        let caller = match self.origin {
            Origin::TraceParent | Origin::B3 => Some(self.parent.span_digits()),
            Origin::Here => None,
        };
        match self.form {
            Form::Single => {
                let parts: [&[u8]; 5] = [trace, b"-", &span, b"-", decision.letter()];
                parts.iter().for_each(|part| fields.put(part));
                if let Some(caller) = &caller {
                    fields.put(b"-");
                    fields.put(caller);
                }
                fields.end(b3::SINGLE);
            }
            Form::Multi => {
                fields.write(b3::TRACE_ID, trace);
                fields.write(b3::SPAN_ID, &span);
                if let Some(caller) = &caller {
                    fields.write(b3::PARENT_SPAN_ID, caller);
                }
                match decision {
                    Decision::Debug => fields.write(b3::FLAGS, b"1"),
                    decision => fields.write(b3::SAMPLED, decision.letter()),
                }
            }
        }
    }
}

impl TraceFields {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let mut start = 0;
        self.ends[..self.count].iter().map(move |(name, end)| {
            let value = &self.text[start..*end];
            start = *end;
            (*name, value)
        })
    }

    fn write_state(&mut self, request: &RequestHead, head: &[u8]) {
        let fields = request.fields().iter();
        let fields = fields.filter(|field| {
            field.kind == Kind::TraceContext
                && field.name(head).eq_ignore_ascii_case(TRACESTATE.as_bytes())
        });
        let Some(state) = TraceState::read(fields.map(|field| field.value(head))) else {
            return;
        };
        for (number, member) in state.bounded().members().enumerate() {
            if number > 0 {
                self.put(b",");
            }
            self.put(member);
        }
        self.end(TRACESTATE);
    }

    fn write(&mut self, name: &'static str, value: &[u8]) {
        self.put(value);
        self.end(name);
    }

    fn put(&mut self, part: &[u8]) {
        self.text[self.bytes..][..part.len()].copy_from_slice(part);
        self.bytes += part.len();
    }

    fn end(&mut self, name: &'static str) {
        self.ends[self.count] = (name, self.bytes);
        self.count += 1;
    }
}

/// The value of the one field of this name; `None`: there is none, or more.
fn only<'a>(request: &RequestHead, head: &'a [u8], kind: Kind, name: &str) -> Option<&'a [u8]> {
    if !request.fields().has(kind) {
        return None;
    }
    let mut values = request.fields().iter().filter(|field| {
        field.kind == kind && field.name(head).eq_ignore_ascii_case(name.as_bytes())
    });
    let value = values.next()?.value(head);
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests;
