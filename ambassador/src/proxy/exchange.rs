//! One request over one connection: head and body go up until the head of the
//! response is there, then the response comes down beside the rest of the body.

use crate::combinators::beside;
use crate::proxy::answer::{ExchangeError, Held, Response};
use crate::proxy::deadlines::Awaited;
use crate::proxy::download::Download;
use crate::proxy::heads::{Interims, hand_over};
use crate::proxy::upload::Upload;
use crate::ring::{self, Gather};

/// One request over one connection.
pub(crate) struct Exchange<'a> {
    /// The way up.
    pub upload: Upload<'a>,
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
    ) -> Result<Held, ExchangeError> {
        let Self { upload, download } = self;
        let deadlines = upload.deadlines;
        // Where the answer comes next, it tells how the send went; a body must
        // not begin behind a head that was not sent.
        if upload.recv.is_whole() {
            let posted = upload.to.post(gather);
            hand_over(posted, || {
                deadlines.of_head(Awaited::FirstByte, ring::now())
            })
            .await?;
            return download.head(interims).await;
        }
        let sent = upload.to.send(gather);
        hand_over(sent, || deadlines.of_beginning(ring::now())).await?;
        beside(download.head(interims), upload.run()).await
    }

    /// Passes the response on whose head has come, and what is left of the body.
    pub(crate) async fn pass(&mut self, held: &mut Held) -> Result<Response, ExchangeError> {
        let Self { upload, download } = self;
        if upload.recv.is_whole() {
            return download.pass(held).await;
        }
        let response = beside(download.pass(held), upload.go_on()).await?;
        if upload.recv.is_whole() {
            return Ok(response);
        }
        upload.finish().await;
        Ok(response.early())
    }
}
