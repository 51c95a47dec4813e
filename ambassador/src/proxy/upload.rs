//! The way up of one exchange: the rest of the request body.

use std::time::Duration;

use crate::combinators::first;
use crate::credential::signed_body::SignedBody;
use crate::message::BadMessage;
use crate::policy::pace::Part;
use crate::proxy::answer::ExchangeError;
use crate::proxy::deadlines::{Awaited, Deadline, Deadlines, Limit};
use crate::proxy::downstream::{BodyPiece, RecvRequest, SendResponse};
use crate::proxy::outbound::SendRequest;
use crate::proxy::paced::{Paced, PeerTimeout, within};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::shortage::is_shortage;
use crate::proxy::trailers::Trailers;
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::{Cells, Direction};

/// How long the rest of an upload may pause behind a whole response, which may
/// have been a refusal: the client then sends no more.
const FINISH_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The way up of one exchange: the rest of the request body.
pub(crate) struct Upload<'a> {
    /// The body, as it comes.
    pub recv: RecvRequest<'a>,
    /// Whether its caller reads the response.
    pub caller: SendResponse<'a>,
    /// Where it goes.
    pub to: SendRequest<'a>,
    /// What of its trailers goes on.
    pub trailers: Trailers<'a>,
    /// Its chunks, where they are signed.
    pub signed: Option<&'a mut SignedBody>,
    /// What of the body is kept for another try.
    pub replay: &'a mut Replay,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// Where bytes are counted.
    pub cells: &'a Cells,
    /// What has happened so far.
    pub progress: &'a Progress<'a>,
    /// How the client does.
    pub sends: Paced,
    /// How the upstream does.
    pub reads: Paced,
}

impl Upload<'_> {
    /// Passes the body on, then watches over the wait for the response, whose time begins only now.
    pub(super) async fn run(&mut self) -> Result<(), ExchangeError> {
        // Where it takes no more, the response decides what happens.
        self.pass(self.deadlines.idle()).await?;
        if self.recv.is_whole() {
            self.deadlines.request_is_whole(ring::now());
        }
        let Deadline { at, limit } = self.deadlines.of_head(Awaited::FirstByte, ring::now());
        timer::sleep_until(at).await;
        Err(ExchangeError::Expired(limit))
    }

    /// Passes the body on beside a response that has begun.
    pub(crate) async fn go_on(&mut self) -> Result<(), ExchangeError> {
        self.pass(self.deadlines.idle()).await
    }

    /// Passes the rest of the body on behind a whole response, as long as the
    /// upstream takes it and the client sends. However that ends, the client has its
    /// answer.
    pub(super) async fn finish(&mut self) {
        let to = self.to;
        first(self.pass(FINISH_SILENCE_MAX), to.is_given_up()).await;
    }

    /// Passes the body on as far as the upstream takes it, and as long as neither
    /// side falls silent.
    async fn pass(&mut self, silence: Duration) -> Result<(), ExchangeError> {
        while !self.recv.is_whole() {
            let gather = self.next(silence).await?;
            self.progress.body_read.set(self.recv.is_whole());
            let passage = &self.progress.record.passage;
            self.cells.meter(passage, Direction::Sent, 0);
            let patience = self.deadlines.patience(silence, Part::Reads);
            // It may not read because its response is not read.
            let (caller, to) = (self.caller, self.to);
            let taken = || (!caller.leaves_unread()).then(|| to.taken());
            let sending = to.send(gather, self.recv.end());
            match within(patience, &mut self.reads, sending, taken).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_shortage(&error.source) => {
                    return Err(ExchangeError::Shortage);
                }
                Ok(Err(_)) => break,
                Err(PeerTimeout::Silent) => return Err(ExchangeError::Expired(Limit::Idle)),
                Err(PeerTimeout::TooSlow) => return Err(ExchangeError::Expired(Limit::Rate)),
            }
        }
        Ok(())
    }

    /// The next bytes of the body that go on.
    async fn next(&mut self, silence: Duration) -> Result<Gather, ExchangeError> {
        let mut gather = Gather::default();
        // What is kept back of a trailer section or a chunk is nothing to send.
        while gather.bytes() == 0 && !self.recv.is_whole() {
            let patience = self.deadlines.patience(silence, Part::Sends);
            let sent = || self.progress.sent_of_body(self.trailers.incoming);
            let piece = self.recv.piece(self.trailers);
            let more = within(patience, &mut self.sends, piece, sent);
            match self.progress.withheld.wait(more, ring::now()).await {
                Ok(piece) => self.keep(piece?, &mut gather)?,
                Err(PeerTimeout::TooSlow) => {
                    return Err(ExchangeError::Request(BadMessage::BodyTooSlow));
                }
                Err(PeerTimeout::Silent) => return Err(ExchangeError::ClientGone),
            }
            // And what else is there already.
            while gather.has_room()
                && let more = self.recv.try_piece(self.trailers)
                && let Some(piece) = more.map_err(ExchangeError::Request)?
            {
                self.keep(piece, &mut gather)?;
            }
        }
        Ok(gather)
    }

    /// Keeps a piece as long as another try may need it.
    fn keep(&mut self, piece: BodyPiece, gather: &mut Gather) -> Result<(), ExchangeError> {
        let passage = &self.progress.record.passage;
        passage.count(Direction::Sent, piece.came);
        let piece = piece.chunk;
        self.progress.keeps_more(self.replay.add(&piece));
        let piece = match &mut self.signed {
            None => piece,
            Some(body) => {
                let before = body.held_bytes().cast_signed();
                let goes = body.take(&piece).map_err(ExchangeError::Request)?;
                if self.recv.is_whole() && !body.is_done() {
                    return Err(ExchangeError::Request(BadMessage::SignedChunk));
                }
                let held = body.held_bytes().cast_signed();
                self.progress.keeps_more(held - before);
                Chunk::from(goes)
            }
        };
        gather.push(piece);
        Ok(())
    }
}
