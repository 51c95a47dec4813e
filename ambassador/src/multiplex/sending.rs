//! Writes to a stream, as far as its windows and the connection take it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::stream::StreamState;
use super::{Http2Stream, State, StreamFailure};
use crate::http2::{Indexing, StreamId};
use crate::message::{End, field_list};
use crate::ring::{self, Chunk, Gather, SendError};

/// Content that one stream writes before others that wait have a turn.
const TURN_BYTES: usize = 16 * 1024;

/// Room for what most streams write in one turn.
const OUTPUT_BYTES: usize = 512;

/// What is being written to a stream: a head, content, the end. Resolves when the
/// connection has all of it.
pub(crate) struct Sending<'a> {
    stream: &'a Http2Stream,
    /// The list of the fields of a head.
    head: Option<Chunk>,
    content: Gather,
    /// The list of trailer fields; `None`: more follows.
    end: Option<Chunk>,
    is_done: bool,
}

impl Http2Stream {
    /// Writes a head, content behind it, and the end.
    pub(crate) fn send(&self, head: Option<Chunk>, content: Gather, end: End<'_>) -> Sending<'_> {
        Sending {
            stream: self,
            head,
            content,
            end: match end {
                End::More => None,
                End::Whole(trailers) => Some(Chunk::from(trailers.to_vec())),
            },
            is_done: false,
        }
    }

    /// Whether nothing of what is written is taken: the windows of the peer are used
    /// up, or the connection takes no more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.with(|stream| stream.sender.is_some()).unwrap_or(false)
    }
}

impl Future for Sending<'_> {
    type Output = Result<(), SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.is_done {
            return Poll::Ready(Ok(()));
        }
        let connection = &this.stream.connection;
        let mut state = connection.state.borrow_mut();
        let state = &mut *state;
        if state.ended.is_some() {
            return Poll::Ready(Err(this.failed(StreamFailure::Ended)));
        }
        if let Some(id) = this.stream.id.get() {
            let failure = match state.codec.user(id) {
                None => Some(StreamFailure::Unprocessed),
                // It may still be told that it was.
                Some(stream) => stream.failure.filter(|it| *it != StreamFailure::GivenUp),
            };
            if let Some(failure) = failure {
                return Poll::Ready(Err(this.failed(failure)));
            }
        }
        let output = state.codec.output();
        if output.capacity() == 0 {
            *output = ring::spare_buffer(OUTPUT_BYTES);
        }
        // Whoever is lent a stream has a place for it, unless the peer has changed its
        // mind.
        let Some(id) = this.write_head(state) else {
            return Poll::Ready(Err(this.failed(StreamFailure::Unprocessed)));
        };
        let is_written = this.write_rest(state, id);
        state.wake_driver();
        if is_written {
            this.is_done = true;
            return Poll::Ready(Ok(()));
        }
        if let Some(stream) = state.codec.user(id) {
            stream.sender = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The fields of a list, as the codec takes them.
fn lines(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], Indexing)> {
    field_list::fields(list).map(|(name, value)| (name, value, Indexing::Free))
}

impl Sending<'_> {
    /// Writes the head, where there is one. `None`: the peer takes no more streams.
    fn write_head(&mut self, state: &mut State) -> Option<StreamId> {
        let Some(head) = &self.head else {
            return self.stream.id.get();
        };
        let ends = self.content.is_empty() && self.ends_without_trailers();
        let fields = lines(head);
        let id = match self.stream.id.get() {
            Some(id) => {
                state.codec.send_headers(id, fields, ends);
                id
            }
            None => {
                let is_head = |field: (&[u8], &[u8])| field == (b":method", b"HEAD");
                let user = StreamState {
                    has_content: !field_list::fields(head).any(is_head),
                    ..StreamState::default()
                };
                let id = state.codec.open(user, fields, ends).ok()?;
                self.stream.id.set(Some(id));
                id
            }
        };
        self.head = None;
        if ends {
            self.end = None;
        }
        Some(id)
    }

    fn ends_without_trailers(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|trailers| trailers.is_empty())
    }

    /// Writes what may be written behind it; whether that is all.
    fn write_rest(&mut self, state: &mut State, id: StreamId) -> bool {
        let (mut written, mut is_last) = (0, false);
        while written < TURN_BYTES || !state.others_wait(id) {
            let ends = self.ends_without_trailers();
            let taken = match self.content.chunks().next() {
                Some(chunk) => {
                    is_last = ends && chunk.len() == self.content.bytes();
                    state.codec.send_data(id, chunk, is_last)
                }
                None => 0,
            };
            if taken == 0 {
                break;
            }
            written += taken;
            self.content.advance(taken);
        }
        let codec = &mut state.codec;
        if let Some(stream) = codec.user(id)
            && written > 0
        {
            stream.written += written as u64;
            state.wrote_last = id;
        }
        if !self.content.is_empty() {
            self.content.detach();
            return false;
        }
        match self.end.take() {
            Some(_) if is_last => {}
            Some(trailers) if trailers.is_empty() => {
                codec.send_data(id, &[], true);
            }
            Some(trailers) => codec.send_headers(id, lines(&trailers), true),
            None => {}
        }
        true
    }

    /// It is not written.
    fn failed(&self, failure: StreamFailure) -> SendError {
        let kind = match failure {
            StreamFailure::Unprocessed => io::ErrorKind::ConnectionRefused,
            StreamFailure::Reset(_)
            | StreamFailure::Error(_)
            | StreamFailure::GivenUp
            | StreamFailure::Ended => io::ErrorKind::ConnectionReset,
        };
        if self.stream.id().is_none() {
            self.stream.is_refused.set(true);
        }
        SendError {
            source: kind.into(),
            sent: 0,
            unsent: None,
        }
    }
}
