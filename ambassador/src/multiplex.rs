//! An HTTP/2 connection over a transport, and the streams on it.
//!
//! One task drives a connection ([`Driver`]): it reads, and sends what the tasks of the
//! streams have written since its last turn in one go. These have a [`Http2Stream`] each. All
//! of them share the codec, which is borrowed for one step and never across a wait.

mod acknowledgement;
mod driver;
mod floods;
mod inbox;
mod receiving;
mod response_content;
mod sending;
mod settled;
mod stream;
mod unsent;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

pub(crate) use self::driver::{Driven, Driver, NewStream};
pub(crate) use self::floods::{explain, floods};
pub(crate) use self::inbox::Received;
pub(crate) use self::sending::Sending;
use self::stream::StreamState;
pub(crate) use self::stream::{Http2Stream, Oversized, StreamFailure, drop_spares};
use crate::clock::Instant;
use crate::http2::{Cause, Connection, ConnectionError, ErrorCode, LocalSettings, Role, StreamId};
use crate::ring::{self, StreamActivity, timer};
use crate::transport::Transport;

/// What is read and thrown away before a connection is closed that has ended for an
/// error, and how long that may take.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// An HTTP/2 connection.
pub(crate) struct Multiplexed {
    transport: Transport,
    state: RefCell<State>,
    /// When something came last.
    heard_at: Cell<Instant>,
    /// Since when the rest of a frame or a head is awaited.
    unfinished_since: Cell<Option<Instant>>,
}

/// What the tasks of a connection share.
struct State {
    role: Role,
    codec: Connection<Box<StreamState>>,
    /// The stream that content was written to last.
    wrote_last: StreamId,
    /// The task that drives it.
    driver: Option<Waker>,
    /// Why the peer has said that it ends the connection, once it has.
    go_away: Option<ErrorCode>,
    /// Who waits for what the peer allows.
    unsettled: Slab<Waker>,
    /// How it has ended, if it has.
    ended: Option<Ended>,
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer has closed it, or it has failed.
    Closed,
    /// The peer broke a rule: this one.
    Error(ConnectionError),
}

impl Multiplexed {
    /// The end of the connection that answers requests.
    pub(crate) fn server(transport: Transport, settings: LocalSettings) -> Rc<Self> {
        Self::new(transport, Role::Server, settings)
    }

    /// The end of the connection that makes them.
    pub(crate) fn client(transport: Transport, settings: LocalSettings) -> Rc<Self> {
        Self::new(transport, Role::Client, settings)
    }

    fn new(transport: Transport, role: Role, settings: LocalSettings) -> Rc<Self> {
        Rc::new(Self {
            transport,
            heard_at: Cell::new(ring::now()),
            unfinished_since: Cell::new(None),
            state: RefCell::new(State {
                role,
                codec: Connection::new(role, settings),
                wrote_last: StreamId::CONNECTION,
                driver: None,
                go_away: None,
                unsettled: Slab::new(),
                ended: None,
            }),
        })
    }

    /// What carries it.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Since when the rest of a frame or of a head is awaited; `None`: all is whole.
    pub(crate) fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished_since.get()
    }

    /// Bytes that are kept until the rest of a frame or of a head comes.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.state.borrow().codec.unfinished_bytes()
    }

    /// How it has ended; `None`: it has not.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.state.borrow().ended
    }

    /// Why the peer has said that it ends the connection; `None`: it has not.
    pub(crate) fn go_away_of_peer(&self) -> Option<ErrorCode> {
        self.state.borrow().go_away
    }

    /// How streams have failed that the peer has not processed.
    fn left_out(&self) -> StreamFailure {
        self.state.borrow().left_out()
    }

    /// Whether the peer allows extended CONNECT (RFC 8441 section 3).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.state.borrow().codec.takes_extended_connect()
    }

    /// Streams that are not closed.
    pub(crate) fn streams(&self) -> usize {
        self.state.borrow().codec.streams()
    }

    /// How many streams it may have at once; none where it takes no more.
    pub(crate) fn streams_max(&self) -> usize {
        let state = self.state.borrow();
        match state.ended.is_some() || state.codec.is_draining() {
            true => 0,
            false => state.codec.streams() + state.codec.free_streams(),
        }
    }

    /// When something came of the peer last.
    pub(crate) fn heard_at(&self) -> Instant {
        self.heard_at.get()
    }

    /// Whether it takes no more streams, whatever ends.
    pub(crate) fn is_draining(&self) -> bool {
        let state = self.state.borrow();
        state.ended.is_some() || state.codec.is_draining()
    }

    /// Tells the peer that the connection is about to end: it opens no more streams when
    /// it has heard (RFC 9113 section 6.8).
    pub(crate) fn announce_end(&self) {
        let mut state = self.state.borrow_mut();
        state.codec.announce_end();
        state.wake_driver();
    }

    /// Tells the peer that streams opened from now on are ignored.
    pub(crate) fn go_away(&self, code: ErrorCode) {
        let mut state = self.state.borrow_mut();
        state.codec.go_away(code);
        state.wake_driver();
    }

    /// What a stream is doing; `None`: it has gone.
    pub(crate) fn activity(&self, id: StreamId) -> Option<StreamActivity> {
        let mut state = self.state.borrow_mut();
        state.codec.user(id).map(|stream| stream.activity())
    }

    /// Gives a stream up: whoever waits on it finds it failed.
    pub(crate) fn give_up(&self, id: StreamId) {
        let mut state = self.state.borrow_mut();
        if let Some(stream) = state.codec.user(id) {
            stream.fail(StreamFailure::GivenUp);
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&self) {
        let mut state = self.state.borrow_mut();
        state.codec.ping();
        state.wake_driver();
    }

    /// Waits until the kernel has what the peer is to get last, which it can do without.
    pub(crate) async fn part(&self) {
        let _ = timer::timeout(LINGER_TIME_MAX, self.transport.flush()).await;
    }

    /// Waits until the peer has what it was sent, and reads on for a while, so that the
    /// close does not destroy it.
    async fn linger(&self) {
        let lingered = async {
            if self.transport.flush().await.is_err() {
                return;
            }
            self.transport.shutdown_write();
            let mut bytes = 0;
            while bytes < LINGER_BYTES_MAX
                && let Ok(Some(chunk)) = self.transport.recv().await
            {
                bytes += chunk.len();
            }
        };
        // Either way the connection is closed; the time only limits the wait.
        let _ = timer::timeout(LINGER_TIME_MAX, lingered).await;
    }

    /// Whether it is a head that has begun and is not whole, of which no stream is known.
    pub(crate) fn awaits_head(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let stream = state.codec.section_under_way();
        stream.is_some_and(|id| state.codec.user(id).is_none())
    }

    /// Ends it, as the rest of a frame or of a head has not come in time.
    pub(crate) fn end_for_slowness(&self) {
        let mut state = self.state.borrow_mut();
        let error = state.codec.rest_timeout();
        state.end(Ended::Error(error));
    }

    /// Ends it: its streams fail.
    pub(crate) fn end(&self, ended: Ended) {
        self.state.borrow_mut().end(ended);
    }
}

impl State {
    /// How streams have failed that the peer has not processed.
    fn left_out(&self) -> StreamFailure {
        match self.go_away {
            Some(ErrorCode::HTTP_1_1_REQUIRED) => StreamFailure::Http1Required,
            _ => StreamFailure::Unprocessed,
        }
    }

    /// The driver has something to send.
    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Those who wait for what the peer allows look again.
    fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.unsettled);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The connection has ended, and every stream with it.
    fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ended);
        let failure = match ended {
            Ended::Closed => StreamFailure::Ended,
            Ended::Error(error) if error.cause == Cause::Slowness => StreamFailure::Slow,
            Ended::Error(error) => StreamFailure::Error(error.code),
        };
        for (_, stream) in self.codec.users() {
            stream.fail(failure);
        }
        self.settle();
        self.wake_driver();
    }
}

#[cfg(test)]
mod tests;
