//! Which end of a connection this is.

/// The end that opens streams, or the one that serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opens streams.
    Client,
    /// It serves them.
    Server,
}
