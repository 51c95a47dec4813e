//! What a connection tells its user.

use std::ops::Range;

use crate::http2::error::ErrorCode;
use crate::http2::stream::StreamId;

/// Something that happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A field section; it is in the connection's block.
    Headers {
        /// Where.
        stream: StreamId,
        /// What of the message it is.
        section: Section,
        /// The stream ends with it.
        end: bool,
    },
    /// Content.
    Data {
        /// Where.
        stream: StreamId,
        /// Where in the input it is; it may be empty where the stream ends.
        bytes: Range<usize>,
        /// The stream ends with it.
        end: bool,
    },
    /// The peer has reset a stream.
    Reset {
        /// Which.
        stream: StreamId,
        /// Why, as it says.
        code: ErrorCode,
    },
    /// The peer did something for which a stream was reset here.
    Failed {
        /// Which.
        stream: StreamId,
        /// What the peer is told.
        code: ErrorCode,
    },
    /// The peer ends the connection: it has not processed, and will not, streams
    /// above the last one.
    GoAway {
        /// The last stream that it processes.
        last: StreamId,
        /// Why, as it says.
        code: ErrorCode,
    },
    /// More may be sent where nothing could be: in a stream, or in all.
    Window {
        /// Which; `None`: all.
        stream: Option<StreamId>,
    },
    /// The peer has changed its settings, and with them perhaps the windows of all
    /// streams, and how many there may be.
    Settings,
    /// The PING that was sent is answered.
    Pong,
}

/// Which field section of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The head of a request, in a stream that has no user yet.
    Request,
    /// The head of a response, interim or final.
    Response,
    /// What follows the content.
    Trailers,
}
