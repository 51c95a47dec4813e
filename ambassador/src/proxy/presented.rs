//! What a request has shown of its upstream's credentials.

use crate::credential::signed_body::SignedBody;

/// What a request has shown of its upstream's credentials.
#[derive(Default)]
pub(crate) struct Presented {
    /// Which one went with it last.
    pub number: u64,
    /// The number of the secrets that stood in for placeholders in it; 0: none has.
    pub secrets: u64,
    /// Whether it was sent once more with a fresh one.
    pub is_renewed: bool,
    /// The body of this try, where its chunks are signed.
    pub body: Option<SignedBody>,
}
