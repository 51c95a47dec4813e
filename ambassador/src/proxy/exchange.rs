//! One request over one connection: head and body go up until the head of the
//! response is there, then the response comes down beside the rest of the body.

use crate::combinators::beside;
use crate::message::End;
use crate::proxy::answer::{ExchangeError, HeldResponse, Response};
use crate::proxy::deadlines::Awaited;
use crate::proxy::download::Download;
use crate::proxy::heads::{Interims, hand_over};
use crate::proxy::outbound::SendRequest;
use crate::proxy::post::Post;
use crate::proxy::upload::Upload;
use crate::ring::{self, Chunk, Gather};

/// One request over one connection.
pub(crate) struct Exchange<'a> {
    /// The way of the request.
    pub to: SendRequest<'a>,
    /// The way up for the rest of the body; `None`: all of it has come.
    pub upload: Option<Upload<'a>>,
    /// Whether more follows of the body than is here.
    pub end: End<'a>,
    /// The way down.
    pub download: Download<'a>,
}

impl<'a> Exchange<'a> {
    /// Begins to send the request: its head, and what of its body is here.
    #[inline(always)]
    pub(crate) fn begin(&self, head: Chunk, body: Option<Gather>) -> Post<'a> {
        self.to.begin(head, body, self.end)
    }

    /// Goes on with what has begun, and sends what follows of the body, until the head
    /// of the final response has come.
    pub(crate) async fn ask(
        &mut self,
        begun: &mut Post<'_>,
        interims: Interims,
    ) -> Result<HeldResponse, ExchangeError> {
        let download = &mut self.download;
        let deadlines = download.heads.deadlines;
        let Some(upload) = &mut self.upload else {
            let deadline = || deadlines.of_head(Awaited::FirstByte, ring::now());
            hand_over(begun, deadline).await?;
            return download.head(interims).await;
        };
        hand_over(begun, || deadlines.of_beginning(ring::now())).await?;
        // Boxed, as most requests have come whole.
        beside(download.head(interims), Box::pin(upload.run())).await
    }

    /// Passes the response on whose head has come, and what is left of the body.
    pub(crate) async fn pass(
        &mut self,
        held: &mut HeldResponse,
    ) -> Result<Response, ExchangeError> {
        let Some(upload) = &mut self.upload else {
            return self.download.pass(held).await;
        };
        let response = beside(self.download.pass(held), Box::pin(upload.go_on())).await?;
        if upload.recv.is_whole() {
            return Ok(response);
        }
        Box::pin(upload.finish()).await;
        Ok(response.early())
    }
}
