//! The way up of one exchange: the rest of the request body.

use std::time::Duration;

use crate::http1::BodyReader;
use crate::message::BadMessage;
use crate::policy::pace::Part;
use crate::proxy::answer::ExchangeError;
use crate::proxy::deadlines::{Awaited, Deadline, Deadlines, Limit};
use crate::proxy::paced::{Late, Paced, within};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::shortage::is_shortage;
use crate::proxy::trailers::Trailers;
use crate::ring::{self, Chunk, Gather, timer};
use crate::transport::Transport;

/// How long the rest of an upload may pause behind a whole response, which may
/// have been a refusal: the client then sends no more.
const FINISH_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The way up of one exchange: the rest of the request body.
pub(super) struct Upload<'a> {
    /// The client's socket.
    pub client: &'a Transport,
    /// Bytes of the client received before.
    pub ahead: &'a mut Option<Chunk>,
    /// The upstream's socket.
    pub upstream: &'a Transport,
    /// Where the body is.
    pub body: &'a mut BodyReader,
    /// What of its trailers goes on.
    pub trailers: Trailers<'a>,
    /// What of the body is kept for another try.
    pub replay: &'a mut Replay,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// What has happened so far.
    pub progress: &'a Progress<'a>,
    /// How the client does.
    pub sends: Paced,
    /// How the upstream does.
    pub reads: Paced,
}

impl Upload<'_> {
    /// Passes the body on, and tells `count` how much at a time; then watches
    /// over the wait for the response, whose time begins only now.
    pub(super) async fn run(&mut self, count: impl Fn(u64)) -> Result<(), ExchangeError> {
        // Where it takes no more, the response decides what happens.
        self.pass(self.deadlines.idle(), count).await?;
        if self.body.is_done() {
            self.deadlines.request_is_whole(ring::now());
        }
        let Deadline { at, limit } = self.deadlines.of_head(Awaited::FirstByte, ring::now());
        timer::sleep_until(at).await;
        Err(ExchangeError::Expired(limit))
    }

    /// Passes the body on beside a response that has begun.
    pub(crate) async fn go_on(&mut self, count: impl Fn(u64)) -> Result<(), ExchangeError> {
        self.pass(self.deadlines.idle(), count).await
    }

    /// Passes the rest of the body on behind a whole response, as long as the
    /// upstream reads and the client sends. However that ends, the client has its
    /// answer.
    pub(super) async fn finish(&mut self, count: impl Fn(u64)) {
        let _ = self.pass(FINISH_SILENCE_MAX, count).await;
    }

    /// Passes the body on as far as the upstream takes it, and as long as neither
    /// side falls silent.
    async fn pass(&mut self, silence: Duration, count: impl Fn(u64)) -> Result<(), ExchangeError> {
        while !self.body.is_done() {
            let (gather, bytes) = self.next(silence).await?;
            self.progress.body_read.set(self.body.is_done());
            count(bytes);
            let patience = self.deadlines.patience(silence, Part::Reads);
            // It may not read because its response is not read.
            let (client, upstream) = (self.client, self.upstream);
            let taken = || (!client.leaves_unread()).then(|| upstream.taken());
            match within(patience, &mut self.reads, upstream.send(gather), taken).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_shortage(&error.source) => {
                    return Err(ExchangeError::Shortage);
                }
                Ok(Err(_)) => break,
                Err(Late::Silent) => return Err(ExchangeError::Expired(Limit::Idle)),
                Err(Late::TooSlow) => return Err(ExchangeError::Expired(Limit::Rate)),
            }
        }
        Ok(())
    }

    /// The next bytes of the body that go on, and how many.
    async fn next(&mut self, silence: Duration) -> Result<(Gather, u64), ExchangeError> {
        let mut gather = Gather::default();
        // What is kept back of a trailer section is nothing to send.
        while gather.bytes() == 0 && !self.body.is_done() {
            let chunk = match self.ahead.take() {
                Some(chunk) => chunk,
                None => {
                    let patience = self.deadlines.patience(silence, Part::Sends);
                    let sent = || self.progress.sent_of_body(self.trailers.incoming);
                    let more = within(patience, &mut self.sends, self.client.recv(), sent);
                    match self.progress.withheld.wait(more, ring::now()).await {
                        Ok(Ok(Some(chunk))) => chunk,
                        Err(Late::TooSlow) => {
                            return Err(ExchangeError::Request(BadMessage::BodyTooSlow));
                        }
                        Ok(Err(error)) => return Err(ExchangeError::of_client(&error)),
                        Ok(Ok(None)) | Err(Late::Silent) => {
                            return Err(ExchangeError::ClientGone);
                        }
                    }
                }
            };
            self.take(chunk, &mut gather)?;
        }
        let bytes = gather.bytes() as u64;
        Ok((gather, bytes))
    }

    /// Takes a chunk and what else is there already.
    fn take(&mut self, chunk: Chunk, gather: &mut Gather) -> Result<(), ExchangeError> {
        let mut next = Some(chunk);
        while let Some(chunk) = next.take() {
            let taken = self.trailers.take(self.body, chunk);
            let (mine, rest) = taken.map_err(ExchangeError::Request)?;
            *self.ahead = rest;
            self.progress.keeps_more(self.replay.add(&mine));
            gather.push(mine);
            if !self.body.is_done() && gather.has_room() {
                next = self.client.try_recv();
            }
        }
        Ok(())
    }
}
