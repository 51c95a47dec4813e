//! Drives a connection: reads what the peer sends, and sends what was written.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::acknowledgement::Acknowledgement;
use super::floods;
use super::inbox::Progress;
use super::response_content::ResponseContent;
use super::stream::StreamState;
use super::{Ended, Http2Stream, Multiplexed, State, StreamFailure};
use crate::http2::{
    ErrorCode, Event, FieldBlock, Indexing, LocalSettings, Role, Section, StreamId, read_trailers,
};
use crate::message::fields::part;
use crate::message::{FieldList, Secrecy};
use crate::ring::{self, Chunk, Gather, timer};
use crate::transport;

/// Drives a connection, by one task.
pub(crate) struct Driver<'a> {
    connection: &'a Rc<Multiplexed>,
    sending: Option<transport::Sending<'a>>,
    /// What has come and waits until more may be written.
    unread: Option<Chunk>,
    /// How the connection was when that was told last.
    was: Condition,
    acknowledgement: Acknowledgement,
}

/// A stream that the peer has opened.
pub(crate) struct NewStream {
    /// The stream.
    pub stream: Http2Stream,
    /// Its head.
    pub block: FieldBlock,
    /// Whether nothing follows.
    pub ends: bool,
}

/// How a connection is as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Condition {
    /// It has streams.
    is_active: bool,
    /// It takes no more of them.
    is_draining: bool,
    /// The rest of a frame or of a head is awaited, of this one.
    unfinished: Option<u64>,
    /// What is kept until it comes.
    unfinished_bytes: usize,
}

/// What a driver has to tell.
pub(crate) enum Driven {
    /// The peer has opened a stream.
    Opened(NewStream),
    /// The last of its streams has closed.
    Rests,
    /// Something else has changed: it has streams, its peer takes no more, or a head has
    /// begun or grown.
    Changed,
    /// The connection has ended.
    Ended(Ended),
}

impl<'a> Driver<'a> {
    /// The driver of a connection; it has one.
    pub(crate) fn of(connection: &'a Rc<Multiplexed>) -> Self {
        Self {
            connection,
            sending: None,
            unread: None,
            was: Condition::default(),
            acknowledgement: Acknowledgement::awaited(),
        }
    }

    /// Begins with what was received before.
    pub(crate) fn begin_with(&mut self, ahead: Option<Chunk>) {
        self.unread = ahead;
    }

    /// Drives it until there is something to tell.
    pub(crate) fn next(&mut self) -> impl Future<Output = Driven> + use<'_, 'a> {
        poll_fn(|context| self.poll_next(context))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Driven> {
        loop {
            if let Some(driven) = self.read_unread() {
                return Poll::Ready(driven);
            }
            // Answers to what was read go along.
            let wrote = self.poll_write(context);
            if let Some(ended) = self.connection.ended() {
                return Poll::Ready(Driven::Ended(ended));
            }
            if let Some(change) = self.change() {
                return Poll::Ready(change);
            }
            let read = self.unread.is_none() && self.poll_read(context);
            if !wrote && !read {
                let mut state = self.connection.state.borrow_mut();
                if self.acknowledgement.is_late(&mut state, context) {
                    continue;
                }
                state.driver = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
    }

    /// What is to be told of the connection as a whole.
    fn change(&mut self) -> Option<Driven> {
        let now = self.connection.condition();
        let before = std::mem::replace(&mut self.was, now);
        if before.unfinished != now.unfinished {
            let since = now.unfinished.map(|_| ring::now());
            self.connection.unfinished_since.set(since);
        }
        match before {
            _ if before == now => None,
            Condition {
                is_active: true, ..
            } if !now.is_active => Some(Driven::Rests),
            _ => Some(Driven::Changed),
        }
    }

    /// Sends what ends the connection, so that it arrives where the peer reads `within`
    /// that time.
    pub(crate) async fn finish(&mut self, within: Duration) {
        let _ = timer::timeout(within, self.flush()).await;
        self.connection.linger().await;
    }

    /// Sends what was written, and nothing more.
    fn flush(&mut self) -> impl Future<Output = ()> + use<'_, 'a> {
        poll_fn(|context| {
            while self.poll_write(context) {}
            match self.sending {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            }
        })
    }

    /// Sends what was written. Whether a send has ended or begun.
    fn poll_write(&mut self, context: &mut Context<'_>) -> bool {
        let connection = self.connection;
        if let Some(sending) = &mut self.sending {
            match Pin::new(sending).poll(context) {
                Poll::Pending => return false,
                Poll::Ready(sent) => {
                    self.sending = None;
                    let mut state = connection.state.borrow_mut();
                    if sent.is_err() {
                        state.end(Ended::Closed);
                        return false;
                    }
                    state.may_send();
                }
            }
        }
        let output = std::mem::take(connection.state.borrow_mut().codec.output());
        if output.is_empty() {
            return false;
        }
        let sending = connection.transport.post(Gather::from(Chunk::from(output)));
        self.sending = Some(sending);
        self.poll_write(context);
        true
    }

    /// Receives more. Whether something has come.
    fn poll_read(&mut self, context: &mut Context<'_>) -> bool {
        let connection = self.connection;
        if connection.state.borrow_mut().codec.is_full() {
            return false;
        }
        match connection.transport.poll_recv(context) {
            Poll::Pending => false,
            Poll::Ready(Ok(Some(chunk))) => {
                connection.heard_at.set(ring::now());
                self.unread = Some(chunk);
                true
            }
            Poll::Ready(Ok(None) | Err(_)) => {
                connection.end(Ended::Closed);
                true
            }
        }
    }

    /// Takes in what has come, up to a stream that the peer opens.
    fn read_unread(&mut self) -> Option<Driven> {
        let mut state = self.connection.state.borrow_mut();
        let now = ring::now();
        while let Some(mut chunk) = self.unread.take() {
            if state.codec.is_full() {
                chunk.detach();
                self.unread = Some(chunk);
                return None;
            }
            let (used, event) = match state.codec.receive(&chunk, now) {
                Ok(received) => received,
                Err(error) => {
                    floods::count(state.role, &error);
                    state.end(Ended::Error(error));
                    return None;
                }
            };
            let opened = event.and_then(|event| state.take(event, &chunk));
            chunk.advance(used);
            if !chunk.is_empty() {
                self.unread = Some(chunk);
            }
            if let Some((id, block, ends)) = opened {
                let stream = Http2Stream::opened(Rc::clone(self.connection), id);
                return Some(Driven::Opened(NewStream {
                    stream,
                    block,
                    ends,
                }));
            }
        }
        None
    }
}

impl Multiplexed {
    fn condition(&self) -> Condition {
        let state = self.state.borrow();
        Condition {
            is_active: state.codec.streams() > 0,
            is_draining: state.codec.is_draining(),
            unfinished: state.codec.awaits_rest(),
            unfinished_bytes: state.codec.unfinished_bytes(),
        }
    }
}

impl State {
    /// Tells the streams of what has happened. Gives a stream that the peer has opened.
    fn take(&mut self, event: Event, input: &Chunk) -> Option<(StreamId, FieldBlock, bool)> {
        match event {
            Event::Headers {
                stream,
                section,
                end,
            } => return self.take_headers(stream, section, end),
            Event::Data { stream, bytes, end } => {
                let content = input.part(bytes);
                let progress = match end {
                    true => Progress::Whole,
                    false if self.codec.has_all_content(stream) => Progress::AllButEnd,
                    false => Progress::Part,
                };
                if let Some(user) = self.codec.user(stream) {
                    user.inbox.add_content(content, progress);
                }
            }
            Event::Reset { stream, code } => {
                self.fail(stream, StreamFailure::by_reset(code));
            }
            Event::Failed { stream, code } => self.fail(stream, StreamFailure::Error(code)),
            // Of a client it is about streams that servers open, and none does.
            Event::GoAway { code, .. } if self.role == Role::Client => {
                self.go_away = Some(code);
                while let Some((_, user)) = self.codec.take_unprocessed() {
                    if let Some(mut user) = user {
                        user.fail(self.left_out());
                    }
                }
            }
            Event::Window { stream: Some(id) } => self.stream_may_send(id),
            Event::Window { stream: None } => self.may_send(),
            Event::Settings => {
                // They may open the window of every stream.
                self.may_send();
                self.settle();
            }
            Event::GoAway { .. } | Event::Pong => {}
        }
        None
    }

    fn take_headers(
        &mut self,
        id: StreamId,
        section: Section,
        end: bool,
    ) -> Option<(StreamId, FieldBlock, bool)> {
        match section {
            Section::Request => {
                let mut user = StreamState::new();
                if end {
                    user.inbox.end();
                }
                self.codec.set_user(id, user);
                return Some((id, self.take_block(), end));
            }
            Section::Response => {
                let kind = self.codec.user(id).map(|user| user.kind);
                let kind = kind.unwrap_or_default();
                match ResponseContent::of(self.codec.block(), kind) {
                    ResponseContent::Length(length) => self.codec.expect_length(id, Some(length)),
                    ResponseContent::Tunnel => self.codec.makes_tunnel(id),
                    ResponseContent::Open => {}
                }
                let block = self.take_block();
                let is_kept = self
                    .codec
                    .user(id)
                    .is_none_or(|user| user.inbox.add_head(block, end));
                if !is_kept {
                    self.give_up(id, ErrorCode::ENHANCE_YOUR_CALM);
                }
            }
            Section::Trailers => {
                let block = self.codec.block();
                let mut trailers = Vec::new();
                let is_sound = read_trailers(block).is_ok();
                let mut list = FieldList(&mut trailers);
                for field in block.fields() {
                    let secrecy = match field.indexing {
                        Indexing::Free => Secrecy::Open,
                        Indexing::Never => Secrecy::Secret,
                    };
                    list.push_as(
                        secrecy,
                        part(block.bytes(), field.name),
                        part(block.bytes(), field.value),
                    );
                }
                match self.codec.user(id) {
                    Some(user) if is_sound => user.inbox.add_trailers(trailers),
                    Some(_) => self.give_up(id, ErrorCode::PROTOCOL_ERROR),
                    None => {}
                }
            }
        }
        None
    }

    /// The section that has come; another one takes its place.
    fn take_block(&mut self) -> FieldBlock {
        let limits = LocalSettings::default();
        let next = FieldBlock::new(limits.list_max, limits.fields_max);
        std::mem::replace(self.codec.block(), next)
    }

    /// The peer broke a rule on a stream.
    fn give_up(&mut self, id: StreamId, code: ErrorCode) {
        self.codec.refuse(id, code);
        self.fail(id, StreamFailure::Error(code));
    }

    /// Those who wait until more may be sent look again, after the one that wrote last
    /// first.
    fn may_send(&mut self) {
        let last = self.wrote_last;
        let mut left = Vec::new();
        for after in [true, false] {
            for (id, user) in self.codec.users() {
                if (id > last) != after {
                    continue;
                }
                match user.unsent.is_empty() {
                    true => user.may_send(),
                    false => left.push(id),
                }
            }
        }
        for id in left {
            self.stream_may_send(id);
        }
    }

    /// More may be sent to a stream: first what is left of sends that were dropped.
    fn stream_may_send(&mut self, id: StreamId) {
        if self.write_left(id)
            && let Some(user) = self.codec.user(id)
        {
            user.may_send();
        }
    }

    /// Whether another stream waits until it may write.
    pub(super) fn others_wait(&mut self, id: StreamId) -> bool {
        let mut others = self.codec.users().filter(|(other, _)| *other != id);
        others.any(|(_, user)| user.is_blocked())
    }

    fn fail(&mut self, id: StreamId, failure: StreamFailure) {
        if let Some(user) = self.codec.user(id) {
            user.fail(failure);
        }
    }
}
