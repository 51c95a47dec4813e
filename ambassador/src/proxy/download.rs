//! The way down of one exchange: the heads of the responses, and the body of the
//! last one.

use std::future::Future;
use std::task::Poll;

use crate::clock;
use crate::combinators::at_once;
use crate::http1;
use crate::http1::{BodyReader, ResponseRewrite};
use crate::message::BadMessage;
use crate::policy::pace::Part;
use crate::proxy::after::After;
use crate::proxy::answer::{ExchangeError, Held, Response};
use crate::proxy::deadlines::Limit;
use crate::proxy::drain::Drain;
use crate::proxy::heads::{Heads, INTERIM_MAX, Interims, ended_or};
use crate::proxy::paced::{Late, Paced, within};
use crate::proxy::request_facts::RequestFacts;
use crate::ring::{self, Chunk, Gather, SendError};
use crate::telemetry::{Cells, Direction};
use crate::transport::Transport;

/// The way down of one exchange.
pub(super) struct Download<'a> {
    pub client: &'a Transport,
    pub heads: Heads<'a>,
    pub facts: RequestFacts,
    pub drain: &'a Drain,
    pub cells: &'a Cells,
    /// How the upstream does.
    pub sends: Paced,
    /// How the client does.
    pub reads: Paced,
}

impl Download<'_> {
    /// The head of the final response. Interim ones before it are passed on, or
    /// dropped.
    pub(super) async fn head(&mut self, interims: Interims) -> Result<Held, ExchangeError> {
        let mut ahead = None;
        for _ in 0..=INTERIM_MAX {
            let (head, rest) = self.heads.next(ahead.take()).await?;
            if self.heads.head.status() == 101 && !self.facts.upgrade {
                return Err(ExchangeError::Response(BadMessage::UnexpectedUpgrade));
            }
            if !self.heads.head.is_informational() {
                self.heads.progress.head_at.set(Some(ring::now()));
                return Ok(Held { head, rest });
            }
            // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
            if interims == Interims::Pass && !self.facts.http10 {
                self.send_head(&head, None, After::KeepAlive).await?;
            }
            ahead = rest;
        }
        Err(ExchangeError::Response(BadMessage::TooManyInterim))
    }

    /// Passes the response on whose head has come.
    pub(super) async fn pass(&mut self, held: &mut Held) -> Result<Response, ExchangeError> {
        match self.heads.is_switch() {
            true => self.switch(held).await,
            false => self.pass_response(held).await,
        }
    }

    /// Passes on the head of a response behind which other bytes follow.
    async fn switch(&mut self, held: &mut Held) -> Result<Response, ExchangeError> {
        let status = self.heads.head.status();
        self.heads.progress.record.status.set(status);
        self.send_head(&held.head, None, After::KeepAlive).await?;
        Ok(Response::Switched(held.rest.take()))
    }

    /// More of a body: only silence ends it, and slowness where that is no matter
    /// of what the client has yet to send.
    async fn receive_body(&mut self) -> Result<Chunk, ExchangeError> {
        if let Some(chunk) = self.heads.upstream.try_recv() {
            return Ok(chunk);
        }
        let Heads {
            deadlines,
            progress,
            upstream,
            ..
        } = self.heads;
        let patience = deadlines.patience(deadlines.idle(), Part::Sends);
        let sent = || {
            let bytes = progress.record.passage.bytes_out.get() as i64;
            progress.body_read.get().then_some(bytes)
        };
        match within(patience, &mut self.sends, upstream.recv(), sent).await {
            Ok(received) => ended_or(received),
            Err(Late::Silent) => Err(ExchangeError::Expired(Limit::Idle)),
            Err(Late::TooSlow) => Err(ExchangeError::SlowResponse),
        }
    }

    /// Writes the head for the client, with the part of the body that came
    /// along.
    async fn send_head(
        &mut self,
        head: &[u8],
        body: Option<Chunk>,
        after: After,
    ) -> Result<(), ExchangeError> {
        let rewrite = ResponseRewrite {
            close: after == After::Close,
            http10: self.facts.http10,
            dechunk: self.facts.http10 && self.heads.head.is_chunked(),
        };
        let mut gather = Gather::from(Chunk::written(head.len() + 64, |out| {
            http1::write_response(out, head, self.heads.head, &rewrite);
        }));
        if let Some(body) = body {
            gather.push(body);
        }
        self.send(gather).await?;
        Ok(())
    }

    async fn send(&mut self, gather: Gather) -> Result<(), ExchangeError> {
        let bytes = gather.bytes() as u64;
        let mut sending = self.client.post(gather);
        match at_once(&mut sending).await {
            Poll::Ready(sent) => sent.map_err(|error| ExchangeError::of_client(&error.source))?,
            Poll::Pending => self.until_read(sending).await?,
        }
        let passage = &self.heads.progress.record.passage;
        self.cells.meter(passage, Direction::Received, bytes);
        Ok(())
    }

    /// Waits for what is over when the client has read enough.
    async fn until_read(
        &mut self,
        sent: impl Future<Output = Result<(), SendError>>,
    ) -> Result<(), ExchangeError> {
        let (client, deadlines) = (self.client, self.heads.deadlines);
        let patience = deadlines.patience(deadlines.idle(), Part::Reads);
        let taken = || Some(client.taken());
        match within(patience, &mut self.reads, sent, taken).await {
            Ok(Ok(())) => Ok(()),
            Err(Late::TooSlow) => Err(ExchangeError::SlowReader),
            Ok(Err(error)) => Err(ExchangeError::of_client(&error.source)),
            Err(Late::Silent) => Err(ExchangeError::ClientGone),
        }
    }

    /// Passes a final response on, head and body.
    async fn pass_response(&mut self, held: &mut Held) -> Result<Response, ExchangeError> {
        if self.facts.http10 && self.heads.head.is_coded() {
            return Err(ExchangeError::Response(BadMessage::CodedForHttp10));
        }
        let until_close = self.heads.head.ends_with_connection();
        // Chunks are taken apart for a client that does not know them.
        let framing = match self.facts.http10 && self.heads.head.is_chunked() {
            true => Framing::Removed,
            false => Framing::Kept,
        };
        let closing = self.drain.has_begun();
        // What it still sends of its body is no request.
        let early = !self.heads.progress.body_read.get();
        let is_last = framing == Framing::Removed || closing || early;
        let after = match !self.facts.keep_alive || until_close || is_last {
            true => After::Close,
            false => After::KeepAlive,
        };
        let mut body = BodyReader::behind(self.heads.head);
        let mut reusable = self.heads.head.keep_alive() && !until_close;

        let mut first_part = None;
        if let Some(mut part) = held.rest.take() {
            if body.is_done() {
                reusable = false;
            } else {
                reusable &= take_part(&mut body, &mut part, framing)
                    .map_err(ExchangeError::Response)?
                    == Leftover::None;
                first_part = Some(part);
            }
        }
        let status = self.heads.head.status();
        self.heads.progress.record.status.set(status);
        self.send_head(&held.head, first_part, after).await?;
        // The shared buffer that it is in is free again.
        held.head = Chunk::from(Vec::new());
        let forwarded_at = clock::now();
        self.heads.progress.forwarded_at.set(Some(forwarded_at));
        let was_whole = body.is_done();

        reusable &= self.pass_body(&mut body, framing).await? == Leftover::None;
        if after == After::Close {
            let flushed = self.client.flush();
            self.until_read(flushed).await?;
        }
        Ok(Response::Complete {
            reusable,
            keep_alive: after == After::KeepAlive,
            ended: match was_whole {
                true => forwarded_at,
                false => clock::now(),
            },
        })
    }

    /// Passes on what is still to come of a body.
    async fn pass_body(
        &mut self,
        body: &mut BodyReader,
        framing: Framing,
    ) -> Result<Leftover, ExchangeError> {
        let until_close = self.heads.head.ends_with_connection();
        let mut leftover = Leftover::None;
        while !body.is_done() {
            let chunk = match self.receive_body().await {
                Ok(chunk) => chunk,
                // The end of the connection is the end of such a body; a reset
                // cannot be told from one that arrived whole, so it cuts.
                Err(ExchangeError::Ended)
                    if until_close && self.heads.upstream.ended_with_fin() =>
                {
                    break;
                }
                Err(error @ (ExchangeError::SlowResponse | ExchangeError::Shortage)) => {
                    return Err(error);
                }
                Err(_) => return Err(ExchangeError::Cut(None)),
            };
            let mut gather = Gather::default();
            let mut next = Some(chunk);
            while let Some(mut part) = next.take() {
                let taken = take_part(body, &mut part, framing);
                let taken = taken.map_err(|bad| ExchangeError::Cut(Some(bad)));
                if taken? == Leftover::Some {
                    leftover = Leftover::Some;
                }
                gather.push(part);
                if !body.is_done() && gather.has_room() {
                    next = self.heads.upstream.try_recv();
                }
            }
            self.send(gather).await?;
        }
        Ok(leftover)
    }
}

/// What becomes of the chunks of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// They pass as they come.
    Kept,
    /// They are taken apart.
    Removed,
}

/// Whether bytes followed the end of a response that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    None,
    Some,
}

/// Reduces `part` to what of it belongs to the body, without chunk framing
/// where that is to go.
fn take_part(
    body: &mut BodyReader,
    part: &mut Chunk,
    framing: Framing,
) -> Result<Leftover, BadMessage> {
    let length = part.len();
    let consumed = if framing == Framing::Removed {
        let mut data = Vec::with_capacity(length);
        let progress = body.advance_into(part, &mut data)?;
        *part = Chunk::from(data);
        progress.consumed
    } else {
        let progress = body.advance(part)?;
        part.truncate(progress.consumed);
        progress.consumed
    };
    Ok(match consumed == length {
        true => Leftover::None,
        false => Leftover::Some,
    })
}
