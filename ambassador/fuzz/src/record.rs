//! What an end has seen of a stream, in a form that two ends can be compared by.

/// What it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// There is a request, or a response that is not interim.
    pub has_head: bool,
    /// Bytes of content.
    pub bytes: usize,
    /// How many fields the trailers have.
    pub trailers: Option<usize>,
    /// How it has ended.
    pub ending: Option<Ending>,
}

/// How the receiving half of a stream has ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The message is whole.
    Whole,
    /// The other end has reset it.
    Reset,
    /// It was reset for what the other end did.
    Failed,
    /// The other end says that it does not process it.
    Unprocessed,
}

impl Record {
    /// There is a head.
    pub fn begun() -> Self {
        Self {
            has_head: true,
            ..Self::default()
        }
    }
}
