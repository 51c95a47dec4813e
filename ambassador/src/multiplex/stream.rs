//! One stream of a connection, as its task has it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Multiplexed;
use super::inbox::Inbox;
use super::response_content::RequestKind;
use super::unsent::Unsent;
use crate::http2::{ErrorCode, StreamId};
use crate::message::Length;
use crate::ring::StreamActivity;
use crate::spares::Spares;

/// One stream of a connection. Dropped before both sides have ended it, it is reset.
pub(crate) struct Http2Stream {
    pub(super) connection: Rc<Multiplexed>,
    /// `None`: it is opened with the head of its request.
    pub(super) id: Cell<Option<StreamId>>,
    /// Why the connection has taken no such head.
    pub(super) refusal: Cell<Option<StreamFailure>>,
    /// All has come and was taken, as was seen.
    pub(super) is_done: Cell<bool>,
}

/// What the tasks of a connection and of a stream tell each other.
#[derive(Default)]
pub(super) struct StreamState {
    pub(super) inbox: Inbox,
    /// How it has failed, if it has.
    pub(super) failure: Option<StreamFailure>,
    /// Who waits until more may be sent.
    pub(super) sender: Option<Waker>,
    /// What sends have left that were dropped: it goes before all others.
    pub(super) unsent: VecDeque<Unsent>,
    /// Who waits for it to fail.
    pub(super) watcher: Option<Waker>,
    /// What its request asks for.
    pub(super) kind: RequestKind,
    /// Content that was written to the connection.
    pub(super) written: u64,
    /// Content that was read from it.
    pub(super) read: u64,
}

/// Why a stream does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamFailure {
    /// The peer has not processed it, and says so (RFC 9113 section 8.7).
    Unprocessed,
    /// The same, and that it takes this over HTTP/1.1 alone (HTTP_1_1_REQUIRED).
    Http1Required,
    /// The peer has reset it.
    Reset(ErrorCode),
    /// The peer broke a rule on it, and so it was reset here.
    Error(ErrorCode),
    /// It was given up here: what was not sent yet may still be answered.
    GivenUp,
    /// A field section of it is larger than the peer takes, and was not sent.
    Oversized,
    /// The connection has ended: the rest of a head, of this stream or of another one,
    /// did not come in time.
    Slow,
    /// The connection has ended.
    Ended,
}

/// Which field section is larger than the peer takes (RFC 9113 section 6.5.2), as the
/// source of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oversized {
    /// The head: nothing of the message was sent.
    Head,
    /// The trailers: its stream was reset.
    Trailers,
}

impl StreamFailure {
    /// What a reset with this code says.
    pub(super) fn by_reset(code: ErrorCode) -> Self {
        match code {
            ErrorCode::REFUSED_STREAM => Self::Unprocessed,
            ErrorCode::HTTP_1_1_REQUIRED => Self::Http1Required,
            code => Self::Reset(code),
        }
    }
}

impl Oversized {
    /// That of an error; `None`: it is another one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Oversized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field section is larger than the peer takes")
    }
}

impl std::error::Error for Oversized {}

/// States kept.
const KEPT_MAX: usize = 128;

thread_local! {
    static SPARES: Spares<Box<StreamState>> = const { Spares::new(KEPT_MAX) };
}

/// Frees the states that are kept for the next streams.
pub(crate) fn drop_spares() {
    SPARES.with(Spares::drop_all);
}

impl StreamState {
    /// That of a new stream, in the place of one that has gone.
    pub(super) fn new() -> Box<Self> {
        SPARES.with(Spares::take).unwrap_or_default()
    }

    /// Keeps the place of one that is not needed any more.
    fn give_back(mut self: Box<Self>) {
        *self = Self::default();
        // No thread-local is left when a thread ends.
        let _ = SPARES.try_with(|spares| spares.keep(self));
    }

    /// It does not go on. What has come of it can still be read.
    pub(super) fn fail(&mut self, failure: StreamFailure) {
        self.failure.get_or_insert(failure);
        self.unsent.clear();
        self.inbox.wake();
        for waiting in [&mut self.sender, &mut self.watcher] {
            if let Some(waiting) = waiting.take() {
                waiting.wake();
            }
        }
    }

    /// What it is doing.
    pub(super) fn activity(&self) -> StreamActivity {
        let leaves_unread = self.is_blocked();
        let held = self.inbox.unread() as usize;
        let owes_bytes = self.inbox.is_awaited();
        StreamActivity {
            moved: self.read.wrapping_add(self.written) as u32,
            held,
            owes_bytes,
            leaves_unread,
            is_backed_up: leaves_unread || held > 0 && !owes_bytes,
        }
    }

    /// Whether something waits until it may be written.
    pub(super) fn is_blocked(&self) -> bool {
        self.sender.is_some() || !self.unsent.is_empty()
    }

    /// More may be sent.
    pub(super) fn may_send(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}

impl Http2Stream {
    /// One that the peer has opened.
    pub(super) fn opened(connection: Rc<Multiplexed>, id: StreamId) -> Self {
        Self {
            connection,
            id: Cell::new(Some(id)),
            refusal: Cell::new(None),
            is_done: Cell::new(false),
        }
    }

    /// One for a request that is to be made over `connection`.
    pub(crate) fn on(connection: Rc<Multiplexed>) -> Self {
        Self {
            connection,
            id: Cell::new(None),
            refusal: Cell::new(None),
            is_done: Cell::new(false),
        }
    }

    /// What it is on.
    pub(crate) fn connection(&self) -> &Rc<Multiplexed> {
        &self.connection
    }

    /// Its number; `None`: it has none yet.
    pub(crate) fn id(&self) -> Option<StreamId> {
        self.id.get()
    }

    /// Resolves when it has failed: the peer has given it up, or the connection has
    /// ended.
    pub(crate) fn failed(&self) -> impl Future<Output = StreamFailure> + '_ {
        poll_fn(|context| {
            let failure = self.with(|stream| {
                let failure = stream.failure;
                if failure.is_none() {
                    stream.watcher = Some(context.waker().clone());
                }
                failure
            });
            match failure {
                Some(None) => Poll::Pending,
                Some(Some(failure)) => Poll::Ready(failure),
                None => Poll::Ready(self.connection.left_out()),
            }
        })
    }

    /// How it has failed; `None`: it has not.
    pub(crate) fn failure(&self) -> Option<StreamFailure> {
        let is_gone = || self.id.get().is_some().then(|| self.connection.left_out());
        // What the peer has not processed is taken out of the connection.
        let known = || self.with(|stream| stream.failure).unwrap_or_else(is_gone);
        self.refusal.get().or_else(known)
    }

    /// So much content is to come on it, as its head says.
    pub(crate) fn expect(&self, length: Length) {
        let Some(id) = self.id.get() else {
            return;
        };
        let bytes = match length {
            Length::Exact(bytes) => Some(bytes),
            Length::None => Some(0),
            Length::Unknown => None,
        };
        self.connection
            .state
            .borrow_mut()
            .codec
            .expect_length(id, bytes);
    }

    /// It carries the bytes of a tunnel, and nothing else may come on it.
    pub(crate) fn makes_tunnel(&self) {
        if let Some(id) = self.id.get() {
            self.connection.state.borrow_mut().codec.makes_tunnel(id);
        }
    }

    /// Content that was written so far.
    pub(crate) fn written(&self) -> u64 {
        self.with(|stream| stream.written).unwrap_or_default()
    }

    /// Gives it up, and tells the peer why.
    pub(crate) fn reset(&self, code: ErrorCode) {
        if let Some(id) = self.id.get() {
            let mut state = self.connection.state.borrow_mut();
            if let Some(stream) = state.codec.user(id) {
                stream.unsent.clear();
            }
            state.codec.reset(id, code);
            state.wake_driver();
        }
    }

    /// Gives it up for what the peer sent on it, also where that has ended it. One that has
    /// failed was reset before.
    pub(crate) fn refuse(&self) {
        let has_failed = self.with(|stream| stream.failure.is_some());
        if let (Some(id), Some(false)) = (self.id.get(), has_failed) {
            let mut state = self.connection.state.borrow_mut();
            state.codec.refuse(id, ErrorCode::PROTOCOL_ERROR);
            state.wake_driver();
        }
    }

    pub(super) fn with<R>(&self, use_it: impl FnOnce(&mut StreamState) -> R) -> Option<R> {
        let id = self.id.get()?;
        let mut state = self.connection.state.borrow_mut();
        state.codec.user(id).map(|stream| use_it(stream))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let Some(id) = self.id.get() else {
            return;
        };
        let mut state = self.connection.state.borrow_mut();
        let forgotten = state.codec.forget(id);
        if !state.codec.output().is_empty() || state.codec.streams() == 0 {
            state.wake_driver();
        }
        drop(state);
        // It may hold buffers.
        if let Some(forgotten) = forgotten {
            forgotten.give_back();
        }
    }
}
