//! One call of gRPC over a connection of its own: a request, and the messages that
//! answer it.

use std::fmt;

use h2::RecvStream;
use h2::client;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper::{Request, Response, StatusCode};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use zeroize::Zeroizing;

use crate::printable::OneLine;

/// As long as a message may be where nothing else is said; the limit of gRPC.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Fields of a head or of the trailers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What the server may send ahead.
const WINDOW_BYTES: u32 = 256 << 10;
/// Of the server's own words.
const WORDS_CHARS_MAX: usize = 200;

/// What a call goes over.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// What is asked.
pub(super) struct Question<'a> {
    /// Of whom, and which method, as `http://localhost/SpiffeWorkloadAPI/FetchX509SVID`.
    pub uri: String,
    /// Fields beside those of every call.
    pub fields: &'a [(&'a str, &'a str)],
    /// A longer message is refused.
    pub message_bytes_max: usize,
    /// A message that has begun goes on within this time, again and again.
    pub piece_within: Duration,
}

/// The messages of an answer. Dropping it cuts the connection.
#[derive(Debug)]
pub(super) struct Answer {
    body: RecvStream,
    frames: Frames,
    /// What came and was not yet looked at.
    piece: Bytes,
    piece_within: Duration,
    driver: Driver,
}

/// Moves the bytes of the connection; ends with its handle.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

/// Why there is no message, or no further one.
#[derive(Debug)]
pub(crate) enum GrpcError {
    /// Whom it is for cannot be said in a head.
    Address,
    /// The connection is broken, or no HTTP/2.
    Http2(h2::Error),
    /// Not an answer of gRPC but of HTTP.
    Http(StatusCode),
    /// The server says that the call has failed.
    Status {
        /// Which code of gRPC; 0 is none.
        code: Code,
        /// Its words.
        words: String,
    },
    /// The answer ended without a status, or within a message.
    Cut,
    /// A message is compressed, which was not offered.
    Compressed,
    /// A message is longer than it may be.
    Length {
        /// As it says.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A message stopped in its midst.
    Stalled,
}

/// A status of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub u32);

impl Code {
    pub(super) const INVALID_ARGUMENT: Self = Self(3);
    pub(super) const NOT_FOUND: Self = Self(5);
    pub(super) const PERMISSION_DENIED: Self = Self(7);
    pub(super) const UNIMPLEMENTED: Self = Self(12);
}

/// Makes a call.
///
/// # Errors
/// See [`GrpcError`].
pub(super) async fn call(
    connection: Box<dyn Connection>,
    question: Question<'_>,
    request: &impl Message,
) -> Result<Answer, GrpcError> {
    let most = question.message_bytes_max + HEAD_BYTES;
    let window = u32::try_from(most).map_or(WINDOW_BYTES, |most| most.min(WINDOW_BYTES));
    let (sender, connection) = client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .enable_push(false)
        .handshake::<_, Bytes>(connection)
        .await?;
    // An error of the connection is also one of the stream.
    let driver = Driver(tokio::spawn(async { drop(connection.await) }));
    let head = Request::post(question.uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers");
    let fields = question.fields.iter();
    let head = fields.fold(head, |head, (name, value)| head.header(*name, *value));
    let head = head.body(()).map_err(|_| GrpcError::Address)?;
    let (response, mut sending) = sender.ready().await?.send_request(head, false)?;
    sending.send_data(framed(request), true)?;
    let response = response.await?;
    let (head, body) = Response::into_parts(response);
    if head.status != StatusCode::OK {
        return Err(GrpcError::Http(head.status));
    }
    // A call that failed at once has its status here, and nothing behind it.
    if head.headers.contains_key(STATUS) {
        status(&head.headers)?;
    }
    Ok(Answer {
        body,
        frames: Frames::of(question.message_bytes_max),
        piece: Bytes::new(),
        piece_within: question.piece_within,
        driver,
    })
}

fn framed(message: &impl Message) -> Bytes {
    let content = message.encode_to_vec();
    let length = u32::try_from(content.len()).expect("of an id and an audience");
    [&[0][..], &length.to_be_bytes(), &content].concat().into()
}

impl Answer {
    /// The next message; `None`: the call has ended well.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, GrpcError> {
        loop {
            if let Some(message) = self.frames.take(&mut self.piece)? {
                return Ok(Some(message));
            }
            let piece = match self.frames.is_between() {
                true => self.body.data().await,
                false => timeout(self.piece_within, self.body.data())
                    .await
                    .map_err(|_| GrpcError::Stalled)?,
            };
            match piece {
                Some(piece) => {
                    self.piece = piece?;
                    let length = self.piece.len();
                    self.body.flow_control().release_capacity(length)?;
                }
                None if self.frames.is_between() => {
                    let trailers = self.body.trailers().await?;
                    status(&trailers.ok_or(GrpcError::Cut)?)?;
                    return Ok(None);
                }
                None => return Err(GrpcError::Cut),
            }
        }
    }

    /// Says goodbye, and closes the connection.
    pub(super) async fn close(self) {
        let Self {
            body, mut driver, ..
        } = self;
        // With the last stream the connection ends.
        drop(body);
        // It has nobody left to tell that it panicked.
        let _ended = (&mut driver.0).await;
    }
}

const STATUS: &str = "grpc-status";

/// `Ok` for a call that went well.
fn status(fields: &HeaderMap) -> Result<(), GrpcError> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let code = text(STATUS).and_then(|code| code.parse().ok());
    match code.ok_or(GrpcError::Cut)? {
        0 => Ok(()),
        code => {
            let words = text("grpc-message").unwrap_or_default();
            Err(GrpcError::Status {
                code: Code(code),
                words: words.chars().take(WORDS_CHARS_MAX).collect(),
            })
        }
    }
}

/// Puts messages together: a byte that says whether it is compressed, four of its
/// length, and the message.
#[derive(Debug)]
pub(super) struct Frames {
    message_bytes_max: usize,
    head: Vec<u8>,
    /// Zeroed when it is dropped, as there are keys in it; it never grows, so that
    /// no copy stays behind. `None` until its length is known.
    message: Option<Zeroizing<Vec<u8>>>,
    length: usize,
}

const HEAD_BYTES: usize = 5;

impl Frames {
    /// Puts together messages that are no longer than this.
    pub(super) fn of(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            head: Vec::new(),
            message: None,
            length: 0,
        }
    }

    /// Whether no message has begun.
    fn is_between(&self) -> bool {
        self.head.is_empty()
    }

    /// Takes what belongs to the next message, and the message when it is whole.
    pub(super) fn take(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, GrpcError> {
        let missing = HEAD_BYTES - self.head.len();
        self.head
            .extend_from_slice(&piece.split_to(missing.min(piece.len())));
        if self.message.is_none() {
            match *self.head {
                [0, a, b, c, d] => self.length = u32::from_be_bytes([a, b, c, d]) as usize,
                [_, _, _, _, _] => return Err(GrpcError::Compressed),
                _ => return Ok(None),
            }
            if self.length > self.message_bytes_max {
                return Err(GrpcError::Length {
                    bytes: self.length,
                    most: self.message_bytes_max,
                });
            }
        }
        let length = self.length;
        let message = self
            .message
            .get_or_insert_with(|| Zeroizing::new(Vec::with_capacity(length)));
        let missing = length - message.len();
        message.extend_from_slice(&piece.split_to(missing.min(piece.len())));
        if message.len() < length {
            return Ok(None);
        }
        self.head.clear();
        Ok(self.message.take().map(Bytes::from_owner))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl From<h2::Error> for GrpcError {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("its name is none of HTTP"),
            Self::Http2(error) => write!(f, "the connection failed: {error}"),
            Self::Http(status) => write!(f, "it answered {status}, which is not gRPC"),
            Self::Status { code, words } => write!(f, "it answered {code}: {}", OneLine(words)),
            Self::Cut => f.write_str("its answer ended without a status"),
            Self::Compressed => f.write_str("it sent a compressed message"),
            Self::Length { bytes, most } => {
                write!(f, "it sent a message of {bytes} bytes, more than {most}")
            }
            Self::Stalled => f.write_str("it stopped in the midst of a message"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "Cancelled",
            3 => "InvalidArgument",
            4 => "DeadlineExceeded",
            5 => "NotFound",
            7 => "PermissionDenied",
            8 => "ResourceExhausted",
            12 => "Unimplemented",
            13 => "Internal",
            14 => "Unavailable",
            other => return write!(f, "status {other}"),
        };
        f.write_str(name)
    }
}

impl std::error::Error for GrpcError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flag: u8, length: u32, content: &[u8]) -> Vec<u8> {
        [&[flag][..], &length.to_be_bytes(), content].concat()
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let bytes = [frame(0, 3, b"abc"), frame(0, 0, b""), frame(0, 2, b"de")].concat();
        for size in 1..=bytes.len() {
            let (mut frames, mut messages) = (Frames::of(3), Vec::new());
            for piece in bytes.chunks(size) {
                let mut piece = Bytes::copy_from_slice(piece);
                while let Some(message) = frames.take(&mut piece).unwrap() {
                    messages.push(message);
                }
                assert!(piece.is_empty());
            }
            assert!(frames.is_between());
            assert_eq!(messages, [&b"abc"[..], b"", b"de"], "{size}");
        }
    }

    #[test]
    fn a_head_is_refused_before_anything_is_kept_for_it() {
        let take = |bytes: Vec<u8>| Frames::of(3).take(&mut bytes.into());
        let error = take(frame(1, 1, b"a")).unwrap_err();
        assert!(matches!(error, GrpcError::Compressed), "{error}");
        for length in [4, u32::MAX] {
            let error = take(frame(0, length, b"")).unwrap_err();
            assert!(matches!(error, GrpcError::Length { .. }), "{error}");
        }
        assert!(take(frame(0, 3, b"")).unwrap().is_none());
    }
}
