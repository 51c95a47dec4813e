//! Reads the heads of the responses to one request.

use std::io;
use std::task::Poll;

use crate::clock::Instant;
use crate::combinators::{at_once, rarely};
use crate::proxy::answer::ExchangeError;
use crate::proxy::deadlines::{Awaited, Deadline, Deadlines, Limit, earliest};
use crate::proxy::outbound::{Received, RecvResponse};
use crate::proxy::post::Post;
use crate::proxy::progress::Progress;
use crate::proxy::shortage::is_shortage;
use crate::ring::{self, Chunk, timer};

/// Interim responses before the final one, at most.
pub(crate) const INTERIM_MAX: u32 = 64;

/// What becomes of interim responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interims {
    /// They go to the client.
    Pass,
    /// They are dropped: of two tries, the client could not tell whose they are.
    Drop,
}

/// Where they come from, and how long they may take.
pub(crate) struct Heads<'a> {
    /// The response.
    pub from: RecvResponse<'a>,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// The upload watches over the time, but for the caller's own limit.
    pub uploading: bool,
    /// What has happened so far.
    pub progress: &'a Progress<'a>,
}

impl Heads<'_> {
    /// The next head, whole and parsed, and what follows it; `ahead` is what
    /// came after the one before.
    pub(crate) async fn next(
        &mut self,
        ahead: Option<Chunk>,
    ) -> Result<(Chunk, Option<Chunk>), ExchangeError> {
        let chunk = match ahead {
            Some(chunk) => chunk,
            None => self.first_bytes().await?,
        };
        self.progress.any_byte.set(true);
        let received = self.from.take_head(chunk);
        match received.map_err(ExchangeError::Response)? {
            Received::Whole(head, rest) => Ok((head, rest)),
            Received::Part(bytes) => rarely(self.rest(bytes)).await,
        }
    }

    /// The rest of a head of which `bytes` have come.
    async fn rest(&mut self, mut bytes: usize) -> Result<(Chunk, Option<Chunk>), ExchangeError> {
        let whole_by = self.deadlines.of_rest(ring::now());
        loop {
            // What it comes to counts to the request until that is over.
            self.progress.keeps_more(bytes.cast_signed());
            let chunk = self.receive(Some(whole_by)).await?;
            let received = self.from.take_head(chunk);
            match received.map_err(ExchangeError::Response)? {
                Received::Whole(head, rest) => return Ok((head, rest)),
                Received::Part(more) => bytes = more,
            }
        }
    }

    /// The first bytes of a head, unless the request was never sent: then they
    /// are no answer to it. That is known of a request that was posted whole. The
    /// failure of a part of an upload is the upload's: what went before it has
    /// arrived.
    async fn first_bytes(&self) -> Result<Chunk, ExchangeError> {
        let received = self.receive(None).await;
        let failure = match self.uploading {
            true => None,
            false => self.from.send_failure(),
        };
        match failure {
            Some(failure) => Err(ExchangeError::of_send(failure)),
            None => received,
        }
    }

    /// More of a head, within the limits of the try, and by the time at which one
    /// that has begun must be whole.
    async fn receive(&self, whole_by: Option<Instant>) -> Result<Chunk, ExchangeError> {
        loop {
            let awaited = match self.progress.any_byte.get() {
                false => Awaited::FirstByte,
                true => Awaited::RestOfHead,
            };
            match self.receive_within(awaited, whole_by).await {
                // Its first byte has come.
                Err(ExchangeError::Expired(_)) if self.has_just_begun() => {}
                Err(error) => {
                    self.has_just_begun();
                    return Err(error);
                }
                received => return received,
            }
        }
    }

    /// Whether a head has begun of which nothing was given out, as was not known before.
    #[cold]
    fn has_just_begun(&self) -> bool {
        let is_new = !self.progress.any_byte.get() && self.from.has_begun_head();
        if is_new {
            self.progress.any_byte.set(true);
        }
        is_new
    }

    async fn receive_within(
        &self,
        awaited: Awaited,
        whole_by: Option<Instant>,
    ) -> Result<Chunk, ExchangeError> {
        let limit = match self.uploading {
            true => self.deadlines.of_upload(),
            false => Some(self.deadlines.of_head(awaited, ring::now())),
        };
        let whole_by = whole_by.map(|by| Limit::Try.at(by));
        let Some(Deadline { at, limit }) = earliest([limit, whole_by]) else {
            return ended_or(self.from.recv().await);
        };
        // Whoever waits beside this one may be told before.
        let silence = self.deadlines.of_silence();
        if let Some(due) = silence.filter(|due| awaited == Awaited::FirstByte && *due < at) {
            match self.from.recv_by(due).await {
                Ok(received) => return ended_or(received),
                Err(_) if self.from.has_begun_head() => return Err(ExchangeError::Expired(limit)),
                Err(_) => self.deadlines.silence_is_kept(),
            }
        }
        match self.from.recv_by(at).await {
            Ok(received) => ended_or(received),
            Err(_) => Err(ExchangeError::Expired(limit)),
        }
    }
}

/// Waits until the kernel has taken a request, or its beginning. What is taken at
/// once needs no limit, which is most of them.
pub(crate) async fn hand_over(
    sending: &mut Post<'_>,
    deadline: impl FnOnce() -> Deadline,
) -> Result<(), ExchangeError> {
    let sent = match at_once(&mut *sending).await {
        Poll::Ready(sent) => sent,
        Poll::Pending => {
            let Deadline { at, limit } = deadline();
            let sent = timer::timeout_at(at, sending).await;
            sent.map_err(|_| ExchangeError::Expired(limit))?
        }
    };
    sent.map_err(ExchangeError::of_send)
}

/// What was received, or that the connection has ended.
pub(crate) fn ended_or(received: io::Result<Option<Chunk>>) -> Result<Chunk, ExchangeError> {
    match received {
        Ok(Some(chunk)) => Ok(chunk),
        Err(error) if is_shortage(&error) => Err(ExchangeError::Shortage),
        Ok(None) | Err(_) => Err(ExchangeError::Ended),
    }
}
