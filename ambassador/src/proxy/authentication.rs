//! The head of a request with the credentials of its upstream.

use crate::credential::Credential;
use crate::proxy::answer::ExchangeError;
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::outbound::Outbound;
use crate::proxy::sending::Sending;
use crate::proxy::signing::Signing;
use crate::ring::Chunk;
use crate::upstream::credential::ValidCredential;

impl Sending<'_> {
    /// The head for the endpoint, with the credentials of the upstream. Out of the way, as
    /// most have none.
    ///
    /// # Errors
    /// The credential may have expired while a connection was waited for, and the body
    /// may not be in the signed chunks that its head tells of.
    #[cold]
    pub(crate) fn authenticated(&mut self, outbound: &Outbound) -> Result<Chunk, Failure> {
        let issued = match self.target().credential() {
            None => None,
            Some(credential) => {
                let issued = self.presentable(credential);
                let issued = issued.ok_or(Failure::Unanswered(Unanswered::WITHOUT_CREDENTIAL))?;
                self.presented.get_or_insert_default().number = issued.number();
                Some(issued)
            }
        };
        let own = issued.as_ref().and_then(ValidCredential::credential);
        let head = self.head(outbound, own);
        let head = self.substituted(outbound, head, own)?;
        let Some(Credential::Signatures(signer)) = own else {
            return Ok(head);
        };
        let request = self.incoming.request;
        let signing = Signing::of(signer, request, &self.incoming.head, self.known_body());
        let signed = outbound.signed(&head, &signing);
        let body = signing.body(request, self.recv.form(), signed.chunks);
        match self.sign_chunks(body) {
            Ok(()) => Ok(signed.head),
            Err(bad) => Err(self.fail(ExchangeError::Request(bad))),
        }
    }
}
