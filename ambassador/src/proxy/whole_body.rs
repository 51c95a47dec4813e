//! The body of a request whose head is signed together with it: it has to be whole
//! before the head goes.

use std::time::Duration;

use crate::credential::Credential;
use crate::message::{BadMessage, Reason};
use crate::proxy::answer::ExchangeError;
use crate::proxy::refusal::Refusal;
use crate::proxy::routing::Incoming;
use crate::proxy::sending::Sending;
use crate::proxy::signing::{self, KnownBody};
use crate::proxy::trailers::Trailers;
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::Direction;
use crate::upstream::credential::{UpstreamCredential, ValidCredential};

/// How long a body may take that has to be whole before its head is sent.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

impl Sending<'_> {
    /// A credential as it is now, if it can be shown with this try.
    pub(crate) fn presentable(&self, credential: &UpstreamCredential) -> Option<ValidCredential> {
        let valid = credential.valid(ring::now())?;
        let Incoming { request, head, .. } = self.incoming;
        let can_be = match valid.credential()? {
            Credential::Header { .. } | Credential::Substitute(_) => true,
            Credential::Signatures(signer) => {
                signing::content(signer, request, head, self.known_body()).is_some()
            }
        };
        can_be.then_some(valid)
    }

    /// What is known of the body that goes with the next head.
    pub(crate) fn known_body(&self) -> KnownBody<'_> {
        let whole = self.outgoing.as_ref().filter(|_| self.recv.is_whole());
        whole.map_or(KnownBody::Part, KnownBody::Whole)
    }

    /// Takes all of the body. `Some`: it does not come, or is too long.
    pub(crate) async fn complete_body(&mut self) -> Option<Refusal> {
        match self.take_whole().await {
            Some(Ok(())) => None,
            Some(Err(bad)) => Some(Refusal::Malformed(bad)),
            None => Some(Reason::AuthUnavailable.into()),
        }
    }

    /// Whether its head is signed together with its body, of which more is to come.
    #[inline]
    pub(crate) fn signs_whole_body(&self) -> bool {
        let Some(credential) = self.target().credential() else {
            return false;
        };
        if self.recv.is_whole() {
            return false;
        }
        let Incoming { request, head, .. } = self.incoming;
        let valid = credential.valid(ring::now());
        match valid.as_ref().and_then(|valid| valid.credential()) {
            Some(Credential::Signatures(signer)) => signing::waits_for_body(signer, request, head),
            _ => false,
        }
    }

    /// Takes all of the body, where a signature of its head tells of it. `None`: it
    /// is too long, or takes too long.
    async fn take_whole(&mut self) -> Option<Result<(), BadMessage>> {
        let policies = &self.target().upstream.policies;
        let mut room = policies.retry.body_limit;
        let until = ring::now() + WHOLE_WITHIN;
        let (route, incoming) = (self.route, self.incoming);
        let mut body = Vec::new();
        for chunk in self.outgoing.iter().flat_map(Gather::chunks) {
            body.extend_from_slice(chunk);
        }
        room = room.checked_sub(body.len() as u64)?;
        while !self.recv.is_whole() {
            let piece = self.recv.piece(Trailers { route, incoming });
            let piece = match timer::timeout_at(until, piece).await.ok()? {
                Ok(piece) => piece,
                Err(ExchangeError::Request(bad)) => return Some(Err(bad)),
                Err(_) => return None,
            };
            let passage = &self.record.passage;
            passage.count(Direction::Sent, piece.came);
            let piece = piece.chunk;
            room = room.checked_sub(piece.len() as u64)?;
            self.progress.keeps_more(self.replay.add(&piece));
            body.extend_from_slice(&piece);
        }
        let body = Chunk::written(body.len(), |out| out.extend_from_slice(&body));
        self.outgoing = Some(Gather::from(body));
        self.progress.body_read.set(true);
        self.deadlines.request_is_whole(ring::now());
        Some(Ok(()))
    }
}
