//! What a request asks for, and what that and the head of its response tell of the
//! content.

use crate::http2::FieldBlock;
use crate::message::fields::part;

/// What a request asks for, as far as it tells what its response has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A response without content, whatever that says.
    Head,
    /// A tunnel, where the response is a success (RFC 9113 section 8.5).
    Tunnel,
    /// Anything else.
    #[default]
    Other,
}

impl RequestKind {
    /// What a request with this method asks for.
    pub(super) fn by(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Tunnel,
            _ => Self::Other,
        }
    }
}

/// What is known of the content of a response from its head.
pub(super) enum ResponseContent {
    /// It is so long.
    Length(u64),
    /// It is what comes through a tunnel, whatever the head says (RFC 9110 section 9.3.6).
    Tunnel,
    /// Nothing is known, or it has none.
    Open,
}

impl ResponseContent {
    /// Interim responses and those of some kinds have none, whatever they say (RFC 9110
    /// section 8.6).
    pub(super) fn of(block: &FieldBlock, kind: RequestKind) -> Self {
        let value = |name: &[u8]| {
            let mut fields = block.fields().iter();
            let field = fields.find(|field| part(block.bytes(), field.name) == name)?;
            str::from_utf8(part(block.bytes(), field.value)).ok()
        };
        let status = value(b":status").unwrap_or_default();
        if kind == RequestKind::Tunnel && status.starts_with('2') {
            return Self::Tunnel;
        }
        if kind == RequestKind::Head || status.starts_with('1') || matches!(status, "204" | "304") {
            return Self::Open;
        }
        let length = value(b"content-length").and_then(|length| length.parse().ok());
        length.map_or(Self::Open, Self::Length)
    }
}
