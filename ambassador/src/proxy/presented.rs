//! What a request has shown of its upstream's credential.

/// What a request has shown of its upstream's credential.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Presented {
    /// Which one went with it last; 0: none has yet.
    pub number: u64,
    /// Whether it was sent once more with a fresh one.
    pub is_renewed: bool,
}
