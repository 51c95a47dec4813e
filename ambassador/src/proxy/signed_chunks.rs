//! The body of a try in chunks that are signed: the program's signatures in it are
//! replaced by those of the credential that goes with the try.

use crate::credential::signed_body::SignedBody;
use crate::message::BadMessage;
use crate::proxy::sending::Sending;
use crate::proxy::signing;
use crate::ring::{Chunk, Gather};

impl Sending<'_> {
    /// A try begins whose body this is, where its chunks are signed; what has come of
    /// it is signed.
    ///
    /// # Errors
    /// It is not in such chunks.
    pub(crate) fn sign_chunks(&mut self, body: Option<SignedBody>) -> Result<(), BadMessage> {
        let held_before = self.held_bytes();
        let presented = self.presented.get_or_insert_default();
        presented.body = body;
        if let (Some(body), Some(came)) = (&mut presented.body, &self.outgoing) {
            self.outgoing = Some(signing::replaced(body, came)?);
            if self.recv.is_whole() && !body.is_done() {
                return Err(BadMessage::SignedChunk);
            }
        }
        self.progress.keeps_more(self.held_bytes() - held_before);
        Ok(())
    }

    /// What was not sent of the body, with what was held back of it.
    pub(crate) fn with_held(&mut self, mut unsent: Gather) -> Gather {
        let presented = self.presented.as_mut();
        if let Some(body) = presented.and_then(|it| it.body.take()) {
            self.progress.keeps_more(-body.held_bytes().cast_signed());
            unsent.push(Chunk::from(body.into_held()));
        }
        unsent
    }

    fn held_bytes(&self) -> isize {
        let body = self.presented.as_ref().and_then(|it| it.body.as_ref());
        body.map_or(0, SignedBody::held_bytes).cast_signed()
    }
}
