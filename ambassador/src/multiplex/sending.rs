//! Writes to a stream, as far as its windows and the connection take it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::response_content::RequestKind;
use super::stream::StreamState;
use super::unsent::Unsent;
use super::{Http2Stream, Multiplexed, Oversized, State, StreamFailure};
use crate::http2::{ErrorCode, Indexing, StreamId};
use crate::message::{End, Secrecy, field_list};
use crate::ring::{self, Chunk, Gather, SendError};

/// Content that one stream writes before others that wait have a turn.
const TURN_BYTES: usize = 16 * 1024;

/// Room for what the streams of a connection write in one turn; more of them make it
/// grow.
const OUTPUT_BYTES: usize = 2 * 1024;

/// What is being written to a stream: a head, content, the end. Resolves when the
/// connection has all of it.
pub(crate) struct Sending<'a> {
    stream: &'a Http2Stream,
    /// The list of the fields of a head.
    head: Option<Chunk>,
    rest: Rest,
    until: SentUntil,
    is_done: bool,
}

/// When a send is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentUntil {
    /// The connection has all of it.
    Whole,
    /// It has the head; the rest is left to the stream.
    Head,
}

/// What a send has yet to write. It is left to the stream when the send is dropped.
#[derive(Default)]
struct Rest {
    unsent: Unsent,
    /// The stream, once the send waits to write more to it.
    waits_on: Option<(Rc<Multiplexed>, StreamId)>,
}

impl Http2Stream {
    /// Writes a head, content behind it, and the end. Once the head is written, all of
    /// it is, also where the future is dropped.
    pub(crate) fn send(&self, head: Option<Chunk>, content: Gather, end: End<'_>) -> Sending<'_> {
        self.sending(head, content, end, SentUntil::Whole)
    }

    /// The same, over when the head is written: its peer may answer that before it
    /// takes content.
    pub(crate) fn begin(&self, head: Chunk, content: Gather, end: End<'_>) -> Sending<'_> {
        self.sending(Some(head), content, end, SentUntil::Head)
    }

    fn sending(
        &self,
        head: Option<Chunk>,
        content: Gather,
        end: End<'_>,
        until: SentUntil,
    ) -> Sending<'_> {
        Sending {
            stream: self,
            head,
            rest: Rest {
                unsent: Unsent {
                    content,
                    end: match end {
                        End::More => None,
                        End::Whole(trailers) => Some(Chunk::from(trailers.to_vec())),
                    },
                },
                waits_on: None,
            },
            until,
            is_done: false,
        }
    }

    /// Whether sends have left something that is not written yet.
    pub(crate) fn owes(&self) -> bool {
        self.with(|stream| !stream.unsent.is_empty())
            .unwrap_or(false)
    }

    /// Resolves when nothing is left of them, or never will be written.
    pub(crate) fn flushed(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            let is_over = self.with(|stream| {
                let is_over = stream.unsent.is_empty() || stream.failure.is_some();
                if !is_over {
                    stream.sender = Some(context.waker().clone());
                }
                is_over
            });
            match is_over.unwrap_or(true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    /// Ends its direction, where nothing was to be sent for certain.
    pub(crate) fn end(&self) {
        if let Some(id) = self.id() {
            let mut state = self.connection.state.borrow_mut();
            state.codec.send_data(id, &[], true);
            state.wake_driver();
        }
    }

    /// Whether nothing of what is written is taken: the windows of the peer are used
    /// up, or the connection takes no more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.with(|stream| stream.is_blocked()).unwrap_or(false)
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
                None => Some(state.left_out()),
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
        let written = this.write_head(state).and_then(|id| {
            let is_written = state.write_left(id) && state.write(id, &mut this.rest.unsent)?;
            Ok((id, is_written))
        });
        state.wake_driver();
        let (id, is_written) = match written {
            Ok(written) => written,
            Err(failure) => return Poll::Ready(Err(this.failed(failure))),
        };
        if is_written {
            this.is_done = true;
            this.rest.waits_on = None;
            return Poll::Ready(Ok(()));
        }
        this.rest.unsent.content.detach();
        if this.until == SentUntil::Head
            && let Some(stream) = state.codec.user(id)
        {
            stream
                .unsent
                .push_back(std::mem::take(&mut this.rest.unsent));
            this.is_done = true;
            return Poll::Ready(Ok(()));
        }
        if let Some(stream) = state.codec.user(id) {
            stream.sender = Some(context.waker().clone());
        }
        let stream = || (Rc::clone(connection), id);
        this.rest.waits_on.get_or_insert_with(stream);
        Poll::Pending
    }
}

/// The fields of a list, as the codec takes them.
fn lines(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], Indexing)> {
    field_list::lines(list).map(|(secrecy, name, value)| {
        let indexing = match secrecy {
            Secrecy::Open => Indexing::Free,
            Secrecy::Secret => Indexing::Never,
        };
        (name, value, indexing)
    })
}

impl Sending<'_> {
    /// Writes the head, where there is one.
    ///
    /// # Errors
    /// The peer takes no more streams, or none with such a head. Whoever is lent a stream
    /// has a place for it, unless the peer has changed its mind.
    fn write_head(&mut self, state: &mut State) -> Result<StreamId, StreamFailure> {
        let Some(head) = &self.head else {
            return self.stream.id.get().ok_or(StreamFailure::Unprocessed);
        };
        if !state.codec.takes_section(lines(head)) {
            return Err(StreamFailure::Oversized);
        }
        let unsent = &mut self.rest.unsent;
        let ends = unsent.content.is_empty() && unsent.ends_without_trailers();
        let fields = lines(head);
        let id = match self.stream.id.get() {
            Some(id) => {
                state.codec.send_headers(id, fields, ends);
                id
            }
            None => {
                let mut fields_of = field_list::fields(head);
                let method = fields_of.find(|field| field.0 == b":method");
                let mut user = StreamState::new();
                if let Some((_, method)) = method {
                    user.kind = RequestKind::by(method);
                }
                let opened = state.codec.open(user, fields, ends);
                let id = opened.map_err(|_| state.left_out())?;
                self.stream.id.set(Some(id));
                id
            }
        };
        self.head = None;
        if ends {
            unsent.end = None;
        }
        Ok(id)
    }

    /// It is not written.
    fn failed(&self, failure: StreamFailure) -> SendError {
        let source = match (failure, &self.head) {
            (StreamFailure::Unprocessed, _) => io::ErrorKind::ConnectionRefused.into(),
            (StreamFailure::Oversized, Some(_)) => io::Error::other(Oversized::Head),
            (StreamFailure::Oversized, None) => io::Error::other(Oversized::Trailers),
            _ => io::ErrorKind::ConnectionReset.into(),
        };
        if self.stream.id().is_none() {
            self.stream.refusal.set(Some(match failure {
                StreamFailure::Ended => StreamFailure::Unprocessed,
                failure => failure,
            }));
        }
        SendError {
            source,
            sent: 0,
            unsent: None,
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some((connection, id)) = self.waits_on.take() else {
            return;
        };
        let mut state = connection.state.borrow_mut();
        if let Some(stream) = state.codec.user(id)
            && stream.failure.is_none()
        {
            stream.unsent.push_back(std::mem::take(&mut self.unsent));
        }
    }
}

impl State {
    /// Writes to a stream what was left of sends that were dropped, as far as that may
    /// be written now; whether nothing is left.
    pub(super) fn write_left(&mut self, id: StreamId) -> bool {
        while let Some(mut unsent) = self
            .codec
            .user(id)
            .and_then(|stream| stream.unsent.pop_front())
        {
            match self.write(id, &mut unsent) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(_) => return false,
            }
            if let Some(stream) = self.codec.user(id) {
                stream.unsent.push_front(unsent);
            }
            return false;
        }
        true
    }

    /// Writes to a stream what may be written now; whether that is all.
    ///
    /// # Errors
    /// The peer does not take its trailers. The stream is reset: without them its end
    /// would be another one.
    fn write(&mut self, id: StreamId, unsent: &mut Unsent) -> Result<bool, StreamFailure> {
        let (mut written, mut is_last) = (0, false);
        while written < TURN_BYTES || !self.others_wait(id) {
            let ends = unsent.ends_without_trailers();
            let taken = match unsent.content.chunks().next() {
                Some(chunk) => {
                    is_last = ends && chunk.len() == unsent.content.bytes();
                    self.codec.send_data(id, chunk, is_last)
                }
                None => 0,
            };
            if taken == 0 {
                break;
            }
            written += taken;
            unsent.content.advance(taken);
        }
        let codec = &mut self.codec;
        if let Some(stream) = codec.user(id)
            && written > 0
        {
            stream.written += written as u64;
            self.wrote_last = id;
        }
        if !unsent.content.is_empty() {
            return Ok(false);
        }
        match unsent.end.take() {
            Some(_) if is_last => {}
            Some(trailers) if trailers.is_empty() => {
                codec.send_data(id, &[], true);
            }
            Some(trailers) if codec.takes_section(lines(&trailers)) => {
                codec.send_headers(id, lines(&trailers), true);
            }
            Some(_) => {
                codec.reset(id, ErrorCode::INTERNAL_ERROR);
                if let Some(stream) = codec.user(id) {
                    stream.fail(StreamFailure::Oversized);
                }
                return Err(StreamFailure::Oversized);
            }
            None => {}
        }
        Ok(true)
    }
}
