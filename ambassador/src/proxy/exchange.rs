//! One request over one connection: head and body go up until the head of the
//! response is there, then the response comes down beside the rest of the body.

use crate::combinators::beside;
use crate::http1::BodyReader;
use crate::message;
use crate::proxy::answer::{ExchangeError, Held, Response};
use crate::proxy::deadlines::{Awaited, Deadlines};
use crate::proxy::download::Download;
use crate::proxy::drain::Drain;
use crate::proxy::heads::{Heads, Interims, hand_over};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::trailers::Trailers;
use crate::proxy::upload::Upload;
use crate::ring::{self, Chunk, Gather};
use crate::telemetry::{Cells, Direction};
use crate::transport::Transport;

/// One request over one connection.
pub(crate) struct Exchange<'a> {
    /// The client's socket.
    pub client: &'a Transport,
    /// Bytes of the client received before.
    pub ahead: &'a mut Option<Chunk>,
    /// The upstream's socket.
    pub upstream: &'a Transport,
    /// The request.
    pub facts: RequestFacts,
    /// Where its body is.
    pub body: &'a mut BodyReader,
    /// Scratch for the response.
    pub head: &'a mut message::ResponseHead,
    /// What of its trailers goes on.
    pub trailers: Trailers<'a>,
    /// What of the body is kept for another try.
    pub replay: &'a mut Replay,
    /// The limits of heads.
    pub limits: &'a message::Limits,
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

impl Exchange<'_> {
    /// Sends `gather` and what follows of the body, until the head of the final
    /// response has come.
    pub(crate) async fn ask(
        &mut self,
        gather: Gather,
        interims: Interims,
    ) -> Result<Held, ExchangeError> {
        // Where the answer comes next, it tells how the send went; a body must
        // not begin behind a head that was not sent.
        if self.body.is_done() {
            let deadlines = self.deadlines;
            let posted = self.upstream.post(gather);
            hand_over(posted, || {
                deadlines.of_head(Awaited::FirstByte, ring::now())
            })
            .await?;
            return self.download().head(interims).await;
        }
        let sent = self.upstream.send(gather);
        hand_over(sent, || self.deadlines.of_beginning(ring::now())).await?;
        let (cells, passage) = (self.cells, &self.progress.record.passage);
        let count = |bytes| cells.meter(passage, Direction::Sent, bytes);
        let (mut download, mut upload) = self.halves();
        beside(download.head(interims), upload.run(count)).await
    }

    /// Passes the response on whose head has come, and what is left of the body.
    pub(crate) async fn pass(&mut self, held: &mut Held) -> Result<Response, ExchangeError> {
        if self.body.is_done() {
            return self.download().pass(held).await;
        }
        let (cells, passage) = (self.cells, &self.progress.record.passage);
        let count = |bytes| cells.meter(passage, Direction::Sent, bytes);
        let (mut download, mut upload) = self.halves();
        let response = beside(download.pass(held), upload.go_on(count)).await?;
        if upload.body.is_done() {
            return Ok(response);
        }
        upload.finish(count).await;
        Ok(response.early())
    }

    /// The way down.
    fn download(&mut self) -> Download<'_> {
        self.halves().0
    }

    /// The way down and the way up.
    #[inline(always)]
    fn halves(&mut self) -> (Download<'_>, Upload<'_>) {
        let download = Download {
            client: self.client,
            heads: Heads {
                upstream: self.upstream,
                method: self.facts.method,
                head: self.head,
                limits: self.limits,
                deadlines: self.deadlines,
                uploading: !self.body.is_done(),
                progress: self.progress,
            },
            facts: self.facts,
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
