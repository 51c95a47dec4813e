//! What is yet to be written to a stream.

use crate::ring::{Chunk, Gather};

/// Content, and the end behind it.
#[derive(Default)]
pub(super) struct Unsent {
    pub(super) content: Gather,
    /// The list of trailer fields; `None`: more follows.
    pub(super) end: Option<Chunk>,
}

impl Unsent {
    pub(super) fn ends_without_trailers(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|trailers| trailers.is_empty())
    }
}
