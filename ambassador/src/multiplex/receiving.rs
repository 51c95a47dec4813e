//! Takes what has come on a stream.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use super::inbox::Received;
use super::stream::{Http2Stream, StreamFailure};

impl Http2Stream {
    /// The next thing that comes.
    ///
    /// # Errors
    /// Nothing more comes, and it did not end.
    pub(crate) fn recv(&self) -> impl Future<Output = Result<Received, StreamFailure>> + '_ {
        poll_fn(|context| self.poll_recv(context))
    }

    pub(crate) fn poll_recv(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Received, StreamFailure>> {
        let received = self.with(|stream| match (stream.inbox.next(), stream.failure) {
            (Some(next), _) => Poll::Ready(Ok(next)),
            (None, Some(failure)) => Poll::Ready(Err(failure)),
            (None, None) => {
                stream.inbox.reader = Some(context.waker().clone());
                Poll::Pending
            }
        });
        let received = received.unwrap_or_else(|| Poll::Ready(Err(self.connection.left_out())));
        if let Poll::Ready(Ok(Received::Content(content))) = &received {
            self.may_send_more(content.len() as u32);
        }
        received
    }

    /// Resolves when something has come, be it the end or a failure; takes nothing.
    pub(crate) fn readable(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            let is_readable = self.with(|stream| {
                let is_readable = stream.inbox.has_more() || stream.failure.is_some();
                if !is_readable {
                    stream.inbox.reader = Some(context.waker().clone());
                }
                is_readable
            });
            match is_readable {
                Some(false) => Poll::Pending,
                Some(true) | None => Poll::Ready(()),
            }
        })
    }

    /// What has come already.
    pub(crate) fn try_recv(&self) -> Option<Received> {
        let received = self.with(|stream| match stream.inbox.is_empty() {
            true => None,
            false => stream.inbox.next(),
        });
        let received = received.flatten();
        if let Some(Received::Content(content)) = &received {
            self.may_send_more(content.len() as u32);
        }
        received
    }

    /// Whether all has come and was taken.
    pub(crate) fn is_whole(&self) -> bool {
        if self.is_done.get() {
            return true;
        }
        let is_done = self.with(|stream| stream.inbox.is_done());
        self.is_done.set(is_done == Some(true));
        is_done.unwrap_or(true)
    }

    /// Whether a field section has begun to come that is not whole.
    pub(crate) fn has_begun_section(&self) -> bool {
        let state = self.connection.state.borrow();
        self.id().is_some() && self.id() == state.codec.section_under_way()
    }

    /// Whether the peer has ended its direction.
    pub(crate) fn is_ended(&self) -> bool {
        self.with(|stream| stream.inbox.is_ended()).unwrap_or(true)
    }

    /// The list of its trailer fields, where they have come.
    pub(crate) fn take_trailers(&self) -> Vec<u8> {
        let taken = self.with(|stream| stream.inbox.take_trailers());
        taken.unwrap_or_default()
    }

    /// Its trailers, to be taken later; `None`: something else comes first.
    pub(crate) fn trailers_at_hand(&self) -> Option<Vec<u8>> {
        let at_hand = self.with(|stream| {
            let inbox = &stream.inbox;
            inbox.is_empty().then(|| inbox.trailers())
        });
        at_hand.flatten()
    }

    /// The peer may send so much more: whoever takes content passes it on before it
    /// takes more.
    fn may_send_more(&self, bytes: u32) {
        let (Some(id), true) = (self.id(), bytes > 0) else {
            return;
        };
        let mut state = self.connection.state.borrow_mut();
        if let Some(stream) = state.codec.user(id) {
            stream.read += u64::from(bytes);
        }
        state.codec.release(id, bytes);
        if !state.codec.output().is_empty() {
            state.wake_driver();
        }
    }
}
