//! B3, the headers of Zipkin: one field `b3`, or several whose names begin with
//! `x-b3-`.

use super::TraceParent;
use crate::message::RequestHead;
use crate::message::fields::Kind;
use crate::message::identity::hex;

pub(super) const SINGLE: &str = "b3";
pub(super) const TRACE_ID: &str = "x-b3-traceid";
pub(super) const SPAN_ID: &str = "x-b3-spanid";
pub(super) const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
pub(super) const SAMPLED: &str = "x-b3-sampled";
pub(super) const FLAGS: &str = "x-b3-flags";

/// `TRACE-SPAN-STATE-PARENT`; the values of the several fields are shorter together.
pub(super) const SINGLE_BYTES_MAX: usize = 32 + 1 + 16 + 1 + 1 + 1 + 16;

/// What the caller says about recording the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Drop,
    Sample,
    /// It is recorded whatever anybody's settings are.
    Debug,
}

/// In which of its two forms it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    #[default]
    Single,
    Multi,
}

/// What a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct B3 {
    /// `None`: it may say all the same whether the trace that begins with it is
    /// to be recorded.
    pub(super) trace: Option<TraceParent>,
    pub(super) decision: Option<Decision>,
    pub(super) form: Form,
}

impl B3 {
    /// Reads the single field, else the others. What is malformed or repeated
    /// says nothing.
    pub(super) fn of(request: &RequestHead, head: &[u8]) -> Self {
        if !request.fields().has(Kind::B3) {
            return Self::default();
        }
        let only = |name| super::only(request, head, Kind::B3, name);
        if let Some(single) = only(SINGLE).and_then(Self::single) {
            return single;
        }
        let is_multi = request.field(head, SINGLE).is_none();
        let trace = only(TRACE_ID).and_then(trace_id);
        let trace = trace.zip(only(SPAN_ID).and_then(span_id));
        let decision = match (only(FLAGS), only(SAMPLED)) {
            (Some(b"1"), _) => Some(Decision::Debug),
            (_, Some(b"1" | b"true")) => Some(Decision::Sample),
            (_, Some(b"0" | b"false")) => Some(Decision::Drop),
            _ => None,
        };
        Self {
            trace: trace.map(|(trace, span)| TraceParent::of(trace, span)),
            decision,
            form: match is_multi {
                true => Form::Multi,
                false => Form::Single,
            },
        }
    }

    /// `TRACE-SPAN`, `TRACE-SPAN-STATE`, `TRACE-SPAN-STATE-PARENT` or `STATE`.
    fn single(text: &[u8]) -> Option<Self> {
        let form = Form::Single;
        if let Some(decision) = state(text) {
            return Some(Self {
                trace: None,
                decision: Some(decision),
                form,
            });
        }
        let mut parts = text.split(|byte| *byte == b'-');
        let (trace, span) = (trace_id(parts.next()?)?, span_id(parts.next()?)?);
        let decision = match parts.next() {
            None => None,
            Some(text) => Some(state(text)?),
        };
        if let Some(parent) = parts.next() {
            span_id(parent)?;
        }
        parts.next().is_none().then_some(Self {
            trace: Some(TraceParent::of(trace, span)),
            decision,
            form,
        })
    }
}

impl Decision {
    pub(super) fn letter(self) -> &'static [u8] {
        match self {
            Self::Drop => b"0",
            Self::Sample => b"1",
            Self::Debug => b"d",
        }
    }
}

fn state(text: &[u8]) -> Option<Decision> {
    match text {
        b"0" => Some(Decision::Drop),
        b"1" => Some(Decision::Sample),
        b"d" => Some(Decision::Debug),
        _ => None,
    }
}

/// 16 digits, or 32.
fn trace_id(text: &[u8]) -> Option<u128> {
    let id = matches!(text.len(), 16 | 32).then(|| hex(text)).flatten();
    id.filter(|id| *id != 0)
}

fn span_id(text: &[u8]) -> Option<u64> {
    let id = (text.len() == 16).then(|| hex(text)).flatten();
    id.filter(|id| *id != 0).map(|id| id as u64)
}
