//! Error codes of HTTP/2, and why a connection ends (RFC 9113 sections 5.4 and 7).

use std::fmt;

/// An error code as it is sent; codes that nobody knows included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub(crate) const NO_ERROR: Self = Self(0x0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x1);
    pub(crate) const INTERNAL_ERROR: Self = Self(0x2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub(crate) const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub(crate) const STREAM_CLOSED: Self = Self(0x5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub(crate) const REFUSED_STREAM: Self = Self(0x7);
    pub(crate) const CANCEL: Self = Self(0x8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(0x9);
    pub(crate) const CONNECT_ERROR: Self = Self(0xa);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub(crate) const HTTP_1_1_REQUIRED: Self = Self(0xd);

    const NAMES: [&'static str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

/// Why a connection ends here; GOAWAY with this code is in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: ErrorCode,
    /// What it did.
    pub(crate) cause: Cause,
}

/// What a peer did to have its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something that the protocol forbids.
    Violation(&'static str),
    /// Too much of something that it allows.
    Flood(Flood),
    /// The rest of a frame or of a field section did not come in time.
    Slowness,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames of unknown kinds,
    /// frames on streams that are closed, streams above the limit.
    ControlFrames,
    /// Streams that the peer reset before their answer was complete.
    PeerResets,
    /// Streams that had to be reset here for what the peer did.
    StreamErrors,
    /// CONTINUATION frames of one field section.
    Continuations,
    /// Bytes of a field section.
    HeaderList,
    /// Parameters in one SETTINGS frame.
    Settings,
}

impl ConnectionError {
    /// Something that the protocol forbids.
    pub(super) const fn violation(code: ErrorCode, what: &'static str) -> Self {
        Self {
            code,
            cause: Cause::Violation(what),
        }
    }

    /// A violation that has no code of its own.
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::violation(ErrorCode::PROTOCOL_ERROR, what)
    }

    /// A window that is too large, or was overrun.
    pub(super) const fn flow_control(what: &'static str) -> Self {
        Self::violation(ErrorCode::FLOW_CONTROL_ERROR, what)
    }

    /// A frame of a length that its kind does not have.
    pub(super) const fn frame_size(what: &'static str) -> Self {
        Self::violation(ErrorCode::FRAME_SIZE_ERROR, what)
    }
}

impl Cause {
    /// What the peer did.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Violation(what) => what,
            Self::Flood(flood) => flood.text(),
            Self::Slowness => "a head that took longer than timeouts.head",
        }
    }
}

impl Flood {
    const fn text(self) -> &'static str {
        match self {
            Self::ControlFrames => "too many control frames",
            Self::PeerResets => "too many streams reset before their answer",
            Self::StreamErrors => "too many stream errors",
            Self::Continuations => "too many CONTINUATION frames",
            Self::HeaderList => "a field section far above the limit",
            Self::Settings => "too many parameters in SETTINGS",
        }
    }
}

impl From<Flood> for ConnectionError {
    fn from(flood: Flood) -> Self {
        Self {
            code: ErrorCode::ENHANCE_YOUR_CALM,
            cause: Cause::Flood(flood),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.cause.text())
    }
}

impl std::error::Error for ConnectionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_rfc() {
        for (code, name) in [
            (ErrorCode::NO_ERROR, "NO_ERROR"),
            (ErrorCode::PROTOCOL_ERROR, "PROTOCOL_ERROR"),
            (ErrorCode::INTERNAL_ERROR, "INTERNAL_ERROR"),
            (ErrorCode::FLOW_CONTROL_ERROR, "FLOW_CONTROL_ERROR"),
            (ErrorCode::SETTINGS_TIMEOUT, "SETTINGS_TIMEOUT"),
            (ErrorCode::STREAM_CLOSED, "STREAM_CLOSED"),
            (ErrorCode::FRAME_SIZE_ERROR, "FRAME_SIZE_ERROR"),
            (ErrorCode::REFUSED_STREAM, "REFUSED_STREAM"),
            (ErrorCode::CANCEL, "CANCEL"),
            (ErrorCode::COMPRESSION_ERROR, "COMPRESSION_ERROR"),
            (ErrorCode::ENHANCE_YOUR_CALM, "ENHANCE_YOUR_CALM"),
            (ErrorCode::HTTP_1_1_REQUIRED, "HTTP_1_1_REQUIRED"),
            (ErrorCode(0xe), "error code 14"),
        ] {
            assert_eq!(code.to_string(), name);
        }
    }

    #[test]
    fn a_flood_is_told_by_its_cause() {
        let error = ConnectionError::from(Flood::PeerResets);
        let text = "ENHANCE_YOUR_CALM: too many streams reset before their answer";
        assert_eq!(error.to_string(), text);
    }
}
