//! Why a message is refused. Every rule has a variant of its own, so that a
//! log line names the rule.

use std::fmt;

use crate::message::Reason;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadMessage {
    StartLine,
    Version,
    Target,
    FieldName,
    FieldValue,
    BareLf,
    BareCr,
    FoldedLine,
    LeadingLines,
    HeadTooLarge,
    TooManyFields,
    HeadTimeout,
    BodyTooSlow,
    MissingHost,
    RepeatedHost,
    Host,
    LengthWithEncoding,
    RepeatedLength,
    Length,
    TransferEncoding,
    TransferCoding,
    CodedForOldCaller,
    TooLargeForCaller,
    TooLargeForUpstream,
    StreamError,
    EncodingBeforeHttp11,
    ConnectWithBody,
    InterimWithBody,
    ChunkSize,
    ChunkExtension,
    ChunkEnd,
    Trailer,
    TrailerName,
    TrailerTooLarge,
    UnexpectedUpgrade,
    TooManyInterim,
    PseudoField,
    MissingPseudoField,
    PseudoValue,
    ConnectionField,
    Te,
    OtherHost,
    LengthWithoutBody,
    InterimEnd,
    NoExtendedConnect,
    NotSwitched,
    Http1Required,
    SignedChunk,
    SignedChunkTooLarge,
}

impl BadMessage {
    /// The reason of the reply to such a request.
    pub fn reason(self) -> Reason {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => Reason::HeadersTooLarge,
            _ => Reason::BadRequest,
        }
    }

    /// The status of the reply to such a request.
    pub fn status(self) -> u16 {
        match self {
            // Sound, but nothing that is done here (RFC 9112 section 6.1).
            Self::TransferCoding => 501,
            Self::HeadTimeout | Self::BodyTooSlow => 408,
            // Sound, but more than is held here.
            Self::SignedChunkTooLarge => 413,
            _ => self.reason().status(),
        }
    }

    /// What is wrong, and with which field; `name` may be empty.
    pub fn about(self, name: &[u8]) -> String {
        match name {
            [] => self.text().to_owned(),
            name => format!("{}: {}", self.text(), name.escape_ascii()),
        }
    }

    /// What is wrong.
    pub fn text(self) -> &'static str {
        match self {
            Self::StartLine => "malformed start line",
            Self::Version => "not HTTP/1.0 or HTTP/1.1",
            Self::Target => "malformed request target",
            Self::FieldName => "malformed field name",
            Self::FieldValue => "malformed field value",
            Self::BareLf => "a line ends without CR",
            Self::BareCr => "a CR without LF",
            Self::FoldedLine => "a folded field line",
            Self::LeadingLines => "more than two empty lines before the start line",
            Self::HeadTooLarge => "the head is too large",
            Self::TooManyFields => "too many fields",
            Self::HeadTimeout => "the head did not come within timeouts.head",
            Self::BodyTooSlow => "the body came more slowly than timeouts.min_rate",
            Self::MissingHost => "HTTP/1.1 without Host",
            Self::RepeatedHost => "more than one Host",
            Self::Host => "malformed Host",
            Self::LengthWithEncoding => "Content-Length beside Transfer-Encoding",
            Self::RepeatedLength => "more than one Content-Length",
            Self::Length => "malformed Content-Length",
            Self::TransferEncoding => "a Transfer-Encoding that does not tell where the body ends",
            Self::TransferCoding => "a Transfer-Encoding besides chunked, in a request",
            Self::StreamError => "what came on its stream breaks a rule of HTTP/2",
            Self::CodedForOldCaller => "a Transfer-Encoding, which HTTP/1.0 and HTTP/2 do not know",
            Self::TooLargeForCaller => {
                "a head or trailers larger than the caller takes (MAX_HEADER_LIST_SIZE)"
            }
            Self::TooLargeForUpstream => {
                "a head or trailers larger than the upstream takes (MAX_HEADER_LIST_SIZE)"
            }
            Self::EncodingBeforeHttp11 => "Transfer-Encoding in HTTP/1.0",
            Self::ConnectWithBody => "CONNECT with a body",
            Self::InterimWithBody => "an interim response with a body",
            Self::ChunkSize => "malformed chunk size",
            Self::ChunkExtension => "malformed or oversized chunk extension",
            Self::ChunkEnd => "chunk data without CRLF after it",
            Self::Trailer => "malformed trailer field",
            Self::TrailerName => "a trailer field that only a head may have",
            Self::TrailerTooLarge => "the trailer section is too large",
            Self::TooManyInterim => "too many interim responses",
            Self::PseudoField => "a pseudo field that is unknown, repeated or out of place",
            Self::MissingPseudoField => "a pseudo field is missing",
            Self::PseudoValue => "malformed value of a pseudo field",
            Self::ConnectionField => "a field of the connection, which HTTP/2 has not",
            Self::Te => "TE with anything but trailers",
            Self::OtherHost => "Host differs from :authority",
            Self::LengthWithoutBody => "Content-Length without a body",
            Self::InterimEnd => "an interim response ends the stream",
            Self::NoExtendedConnect => {
                "a switch of protocols, for which the upstream takes no extended CONNECT"
            }
            Self::NotSwitched => "another answer than the switch of protocols that was asked for",
            Self::Http1Required => {
                "over HTTP/2, which the upstream does not take this request over (HTTP_1_1_REQUIRED)"
            }
            Self::SignedChunk => "the body is not in chunks with signatures of AWS",
            Self::SignedChunkTooLarge => "a chunk with a signature of AWS has more than 1 MiB",
            Self::UnexpectedUpgrade => "a switch of protocols that was not asked for",
        }
    }
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for BadMessage {}
