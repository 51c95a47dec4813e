//! Why a request is refused before anything of it was sent.

use crate::message::{BadMessage, LocalReply, Reason};

/// Why a request is refused before anything of it was sent.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is answered here.
    Reply(LocalReply),
    /// It is malformed, so where the next one would begin is not known.
    Malformed(BadMessage),
    /// Its connection is reset.
    Reset(Reason),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Reply(LocalReply::new(reason))
    }
}

impl From<LocalReply> for Refusal {
    fn from(reply: LocalReply) -> Self {
        Self::Reply(reply)
    }
}
