//! Reads the heads of the responses to one request.

use std::io;
use std::task::Poll;

use memchr::memchr;

use crate::clock::Instant;
use crate::combinators::at_once;
use crate::message::{Method, ResponseHead};
use crate::proxy::answer::ExchangeError;
use crate::proxy::deadlines::{Awaited, Deadline, Deadlines, Limit, earliest};
use crate::proxy::progress::Progress;
use crate::proxy::shortage::is_shortage;
use crate::ring::{self, Chunk, timer};
use crate::transport::{Sending, Transport};
use crate::{http1, message};

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

/// Where they come from, and what they answer.
pub(crate) struct Heads<'a> {
    /// The upstream's socket.
    pub upstream: &'a Transport,
    /// Decides whether a response has a body.
    pub method: Method,
    /// The head that was read last.
    pub head: &'a mut ResponseHead,
    /// The limits of heads.
    pub limits: &'a message::Limits,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// The upload watches over the time, but for the caller's own limit.
    pub uploading: bool,
    /// What has happened so far.
    pub progress: &'a Progress<'a>,
}

impl Heads<'_> {
    /// Whether bytes of another protocol follow the head that was read last.
    pub(crate) fn is_switch(&self) -> bool {
        let status = self.head.status();
        status == 101 || self.method == Method::Connect && (200..300).contains(&status)
    }

    /// The next head, whole and parsed, and what follows it; `ahead` is what
    /// came after the one before.
    pub(crate) async fn next(
        &mut self,
        ahead: Option<Chunk>,
    ) -> Result<(Chunk, Option<Chunk>), ExchangeError> {
        let mut chunk = match ahead {
            Some(chunk) => chunk,
            None => self.first_bytes().await?,
        };
        let mut whole_by = None;
        let mut collected = Vec::new();
        loop {
            self.progress.any_byte.set(true);
            let parsed = http1::parse_response(self.head, &chunk, self.method, self.limits);
            let parsed = parsed.map_err(ExchangeError::Response)?;
            if let Some(length) = parsed {
                let rest = chunk.split_off(length);
                return Ok((chunk, (!rest.is_empty()).then_some(rest)));
            }
            // Rare: the head came in pieces. A piece without a line end cannot
            // complete it, so it is not parsed again for one. What it comes to
            // counts to the request until that is over.
            collected.extend_from_slice(&chunk);
            drop(chunk);
            let whole_by = *whole_by.get_or_insert_with(|| self.deadlines.of_rest(ring::now()));
            loop {
                let more = self.receive(Some(whole_by)).await?;
                collected.extend_from_slice(&more);
                self.progress.keeps_more(more.len().cast_signed());
                if memchr(b'\n', &more).is_some() || collected.len() > self.limits.head_bytes_max {
                    break;
                }
            }
            chunk = Chunk::from(std::mem::take(&mut collected));
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
            false => self.upstream.send_failure(),
        };
        match failure {
            Some(failure) => Err(ExchangeError::of_send(failure)),
            None => received,
        }
    }

    /// More of a head, within the limits of the try, and by the time at which one
    /// that has begun must be whole.
    async fn receive(&self, whole_by: Option<Instant>) -> Result<Chunk, ExchangeError> {
        if let Some(chunk) = self.upstream.try_recv() {
            return Ok(chunk);
        }
        let awaited = match self.progress.any_byte.get() {
            false => Awaited::FirstByte,
            true => Awaited::RestOfHead,
        };
        let limit = match self.uploading {
            true => self.deadlines.of_upload(),
            false => Some(self.deadlines.of_head(awaited, ring::now())),
        };
        let whole_by = whole_by.map(|by| Limit::Try.at(by));
        let Some(Deadline { at, limit }) = earliest([limit, whole_by]) else {
            return ended_or(self.upstream.recv().await);
        };
        // Whoever waits beside this one may be told before.
        let silence = self.deadlines.of_silence();
        if let Some(due) = silence.filter(|due| awaited == Awaited::FirstByte && *due < at) {
            match self.upstream.recv_by(due).await {
                Ok(received) => return ended_or(received),
                Err(_) => self.deadlines.silence_is_kept(),
            }
        }
        match self.upstream.recv_by(at).await {
            Ok(received) => ended_or(received),
            Err(_) => Err(ExchangeError::Expired(limit)),
        }
    }
}

/// Waits until the kernel has taken a request, or its beginning. What is taken at
/// once needs no limit, which is most of them.
pub(crate) async fn hand_over(
    mut sending: Sending<'_>,
    deadline: impl FnOnce() -> Deadline,
) -> Result<(), ExchangeError> {
    let sent = match at_once(&mut sending).await {
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
