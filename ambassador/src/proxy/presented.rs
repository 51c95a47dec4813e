//! What a request has shown of its upstream's credential.

use crate::credential::signed_body::SignedBody;

/// What a request has shown of its upstream's credential.
#[derive(Default)]
pub(crate) struct Presented {
    /// Which one went with it last.
    pub number: u64,
    /// Whether it was sent once more with a fresh one.
    pub is_renewed: bool,
    /// The body of this try, where its chunks are signed.
    pub body: Option<SignedBody>,
}
