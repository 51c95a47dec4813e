//! What a request asks for, and what that and the head of its response tell of the
//! content.

use crate::http2::FieldBlock;
use crate::message::fields::part;
use crate::message::grammar::number;

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
    /// Nothing is known, or another head follows.
    Open,
}

impl ResponseContent {
    /// Those of some kinds have none, whatever they say (RFC 9110 sections 6.4.1 and 8.6).
    pub(super) fn of(block: &FieldBlock, kind: RequestKind) -> Self {
        let value = |name: &[u8]| {
            let mut fields = block.fields().iter();
            let field = fields.find(|field| part(block.bytes(), field.name) == name)?;
            Some(part(block.bytes(), field.value))
        };
        let status = value(b":status").unwrap_or_default();
        if kind == RequestKind::Tunnel && status.starts_with(b"2") {
            return Self::Tunnel;
        }
        if status.starts_with(b"1") {
            return Self::Open;
        }
        if kind == RequestKind::Head || matches!(status, b"204" | b"304") {
            return Self::Length(0);
        }
        let length = value(b"content-length").and_then(number);
        length.map_or(Self::Open, Self::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::sample;

    /// What is known of the content of such a response; `Err`: it is a tunnel's.
    fn length(kind: RequestKind, lines: &str) -> Result<Option<u64>, ()> {
        match ResponseContent::of(&sample::block(lines), kind) {
            ResponseContent::Length(length) => Ok(Some(length)),
            ResponseContent::Open => Ok(None),
            ResponseContent::Tunnel => Err(()),
        }
    }

    /// RFC 9110 section 6.4.1, RFC 9113 section 8.1.1.
    #[test]
    fn some_responses_have_no_content_whatever_they_say() {
        use RequestKind::{Head, Other, Tunnel};
        for (kind, lines, expected) in [
            (Other, ":status: 200", Ok(None)),
            (Other, ":status: 200\ncontent-length: 5", Ok(Some(5))),
            (Head, ":status: 200\ncontent-length: 5", Ok(Some(0))),
            (Head, ":status: 404", Ok(Some(0))),
            (Other, ":status: 204", Ok(Some(0))),
            (Other, ":status: 304\ncontent-length: 5", Ok(Some(0))),
            (Tunnel, ":status: 204\ncontent-length: 5", Err(())),
            (Tunnel, ":status: 304", Ok(Some(0))),
            // Another head follows.
            (Head, ":status: 103", Ok(None)),
            (Other, ":status: 103\ncontent-length: 5", Ok(None)),
        ] {
            assert_eq!(length(kind, lines), expected, "{kind:?} {lines}");
        }
    }
}
