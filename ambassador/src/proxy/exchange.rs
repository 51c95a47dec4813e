//! One try of one request over one connection: the head and body go up, the
//! response comes down, both at the same time.

use std::future::Future;
use std::task::Poll;

use crate::clock;
use crate::http::{
    self, BadMessage, BodyReader, Method, ResponseBody, ResponseHead, ResponseRewrite,
};
use crate::policy::pace::Part;
use crate::proxy::answer::{Answer, ExchangeError, Held, Response, Verdict};
use crate::proxy::asked::Asked;
use crate::proxy::deadlines::{Deadlines, Limit};
use crate::proxy::drain::Drain;
use crate::proxy::heads::{Heads, INTERIM_MAX, ended_or, hand_over};
use crate::proxy::paced::{Late, Paced, within};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::trailers::Trailers;
use crate::proxy::upload::Upload;
use crate::ring::{self, Chunk, Gather, SendError};
use crate::telemetry::{Cells, Direction};
use crate::together::{at_once, beside};
use crate::transport::Transport;

/// One try.
pub(crate) struct Exchange<'a> {
    /// The client's socket.
    pub client: &'a Transport,
    /// Bytes of the client received before.
    pub ahead: &'a mut Option<Chunk>,
    /// The upstream's socket.
    pub upstream: &'a Transport,
    /// The request.
    pub asked: Asked,
    /// Where its body is.
    pub body: &'a mut BodyReader,
    /// Scratch for the response.
    pub head: &'a mut ResponseHead,
    /// What of its trailers goes on.
    pub trailers: Trailers<'a>,
    /// What of the body is kept for another try.
    pub replay: &'a mut Replay,
    /// The limits of heads.
    pub limits: &'a http::Limits,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// Whether the shard drains by the time the response comes: it then says
    /// `connection: close`.
    pub drain: &'a Drain,
    /// Where bytes are counted.
    pub cells: &'a Cells,
    /// What has happened so far; readable however the exchange ends.
    pub progress: &'a Progress<'a>,
}

impl<'a> Exchange<'a> {
    /// Sends `gather` and what follows of the body, and passes the response
    /// back as it comes, unless `judge` has it held once the final status is
    /// known.
    pub(crate) async fn run(
        self,
        gather: Gather,
        judge: impl FnOnce(&ResponseHead, &[u8]) -> Verdict,
    ) -> Result<Answer, ExchangeError> {
        let (cells, record) = (self.cells, self.progress.record);
        let (download, mut upload) = self.halves();
        // Where the answer comes next, it tells how the send went; a body must
        // not begin behind a head that was not sent.
        if upload.body.is_done() {
            let posted = upload.upstream.post(gather);
            hand_over(posted, || upload.deadlines.of_head(false, ring::now())).await?;
            return download.run(judge).await;
        }
        let sent = upload.upstream.send(gather);
        hand_over(sent, || upload.deadlines.of_beginning(ring::now())).await?;
        let count = |bytes| {
            cells.meter(&record.passage, Direction::Sent, bytes);
        };
        let answer = beside(download.run(judge), upload.run(count)).await?;
        Ok(match answer {
            Answer::Passed(response) if !upload.body.is_done() => {
                upload.finish(count).await;
                Answer::Passed(response.early())
            }
            answer => answer,
        })
    }

    /// Passes a response on that was held back.
    pub(crate) async fn pass(self, held: Held) -> Result<Response, ExchangeError> {
        let (cells, record) = (self.cells, self.progress.record);
        let (download, mut upload) = self.halves();
        let response = download.pass_response(held.head, held.rest).await?;
        if upload.body.is_done() {
            return Ok(response);
        }
        let count = |bytes| {
            cells.meter(&record.passage, Direction::Sent, bytes);
        };
        upload.finish(count).await;
        Ok(response.early())
    }

    /// The way down and the way up.
    fn halves(self) -> (Download<'a>, Upload<'a>) {
        let download = Download {
            client: self.client,
            heads: Heads {
                upstream: self.upstream,
                method: self.asked.method,
                head: self.head,
                limits: self.limits,
                deadlines: self.deadlines,
                uploading: !self.body.is_done(),
                progress: self.progress,
            },
            asked: self.asked,
            drain: self.drain,
            cells: self.cells,
            sends: None,
            reads: None,
        };
        let upload = Upload {
            client: self.client,
            ahead: self.ahead,
            upstream: self.upstream,
            body: self.body,
            trailers: self.trailers,
            replay: self.replay,
            deadlines: self.deadlines,
            progress: self.progress,
            sends: None,
            reads: None,
        };
        (download, upload)
    }
}

/// The way down of one exchange.
struct Download<'a> {
    client: &'a Transport,
    heads: Heads<'a>,
    asked: Asked,
    drain: &'a Drain,
    cells: &'a Cells,
    /// How the upstream does.
    sends: Paced,
    /// How the client does.
    reads: Paced,
}

impl Download<'_> {
    async fn run(
        mut self,
        judge: impl FnOnce(&ResponseHead, &[u8]) -> Verdict,
    ) -> Result<Answer, ExchangeError> {
        let mut ahead = None;
        let mut interim = 0;
        loop {
            let (head, rest) = self.heads.next(ahead.take()).await?;
            if self.heads.head.status() == 101 {
                if !self.asked.upgrade {
                    return Err(ExchangeError::Response(BadMessage::UnexpectedUpgrade));
                }
                judge(self.heads.head, &head);
                return self.switch(&head, rest).await;
            }
            if self.heads.head.is_informational() {
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(ExchangeError::Response(BadMessage::TooManyInterim));
                }
                // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
                if !self.asked.http10 {
                    self.send_head(&head, None, false).await?;
                }
                ahead = rest;
                continue;
            }
            self.heads.progress.head_at.set(Some(ring::now()));
            match judge(self.heads.head, &head) {
                Verdict::Pass => {}
                Verdict::Hold => return Ok(Answer::Held(Held { head, rest })),
                Verdict::Replace => return Err(ExchangeError::Stale),
            }
            if self.asked.method == Method::Connect
                && (200..300).contains(&self.heads.head.status())
            {
                return self.switch(&head, rest).await;
            }
            return self.pass_response(head, rest).await.map(Answer::Passed);
        }
    }

    /// Passes on the head of a response behind which other bytes follow.
    async fn switch(&mut self, head: &[u8], rest: Option<Chunk>) -> Result<Answer, ExchangeError> {
        let status = self.heads.head.status();
        self.heads.progress.record.status.set(status);
        self.send_head(head, None, false).await?;
        Ok(Answer::Passed(Response::Switched(rest)))
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
        close: bool,
    ) -> Result<(), ExchangeError> {
        let rewrite = ResponseRewrite {
            close,
            http10: self.asked.http10,
            dechunk: self.asked.http10 && self.heads.head.body() == ResponseBody::Chunked,
        };
        let mut gather = Gather::from(Chunk::written(head.len() + 64, |out| {
            http::write_response(out, head, self.heads.head, &rewrite);
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
    async fn pass_response(
        mut self,
        head: Chunk,
        rest: Option<Chunk>,
    ) -> Result<Response, ExchangeError> {
        let length = self.heads.head.body();
        if self.asked.http10 && self.heads.head.is_coded() {
            return Err(ExchangeError::Response(BadMessage::CodedForHttp10));
        }
        let until_close = length == ResponseBody::UntilClose;
        // Chunks are taken apart for a client that does not know them.
        let dechunk = self.asked.http10 && length == ResponseBody::Chunked;
        let closing = self.drain.has_begun();
        // What it still sends of its body is no request.
        let early = !self.heads.progress.body_read.get();
        let close = !self.asked.keep_alive || until_close || dechunk || closing || early;
        let mut body = BodyReader::of_response(length);
        let mut reusable = self.heads.head.keep_alive() && !until_close;

        let mut first_part = None;
        if let Some(mut part) = rest {
            if body.is_done() {
                reusable = false;
            } else {
                reusable &= take_part(&mut body, &mut part, dechunk)
                    .map_err(ExchangeError::Response)?
                    == Leftover::None;
                first_part = Some(part);
            }
        }
        let status = self.heads.head.status();
        self.heads.progress.record.status.set(status);
        self.send_head(&head, first_part, close).await?;
        drop(head);
        let forwarded_at = clock::now();
        self.heads.progress.forwarded_at.set(Some(forwarded_at));
        let was_whole = body.is_done();

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
                Err(_) => return Err(ExchangeError::Cut),
            };
            let mut gather = Gather::default();
            let mut next = Some(chunk);
            while let Some(mut part) = next.take() {
                let taken = take_part(&mut body, &mut part, dechunk);
                let taken = taken.map_err(|bad| {
                    self.heads.progress.malformed.set(Some(bad));
                    ExchangeError::Cut
                });
                reusable &= taken? == Leftover::None;
                gather.push(part);
                if !body.is_done() && gather.has_room() {
                    next = self.heads.upstream.try_recv();
                }
            }
            self.send(gather).await?;
        }
        if close {
            let flushed = self.client.flush();
            self.until_read(flushed).await?;
        }
        Ok(Response::Complete {
            reusable,
            keep_alive: !close,
            ended: match was_whole {
                true => forwarded_at,
                false => clock::now(),
            },
        })
    }
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
    dechunk: bool,
) -> Result<Leftover, BadMessage> {
    let length = part.len();
    let consumed = if dechunk {
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
