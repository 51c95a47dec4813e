//! One request over one connection: head and body go up until the head of the
//! response is there, then the response comes down beside the rest of the body.

use crate::combinators::beside;
use crate::proxy::answer::{ExchangeError, HeldResponse, Response};
use crate::proxy::deadlines::{Awaited, Deadlines};
use crate::proxy::download::Download;
use crate::proxy::heads::{Interims, hand_over};
use crate::proxy::outbound::SendRequest;
use crate::proxy::upload::Upload;
use crate::ring::{self, Gather};

/// One request over one connection.
pub(crate) struct Exchange<'a> {
    /// The way of the request.
    pub to: SendRequest<'a>,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// The way up for the rest of the body; `None`: all of it has come.
    pub upload: Option<Upload<'a>>,
    /// The way down.
    pub download: Download<'a>,
}

impl Exchange<'_> {
    /// Sends `gather` and what follows of the body, until the head of the final
    /// response has come.
    pub(crate) async fn ask(
        &mut self,
        gather: Gather,
        interims: Interims,
    ) -> Result<HeldResponse, ExchangeError> {
        let (download, deadlines) = (&mut self.download, self.deadlines);
        let Some(upload) = &mut self.upload else {
            // The answer comes next and tells how the send went.
            let posted = self.to.post(gather);
            let deadline = || deadlines.of_head(Awaited::FirstByte, ring::now());
            hand_over(posted, deadline).await?;
            return download.head(interims).await;
        };
        // A body must not begin behind a head that was not sent.
        let sent = self.to.send(gather);
        hand_over(sent, || deadlines.of_beginning(ring::now())).await?;
        beside(download.head(interims), upload.run()).await
    }

    /// Passes the response on whose head has come, and what is left of the body.
    pub(crate) async fn pass(
        &mut self,
        held: &mut HeldResponse,
    ) -> Result<Response, ExchangeError> {
        let Some(upload) = &mut self.upload else {
            return self.download.pass(held).await;
        };
        let response = beside(self.download.pass(held), upload.go_on()).await?;
        if upload.recv.is_whole() {
            return Ok(response);
        }
        upload.finish().await;
        Ok(response.early())
    }
}
