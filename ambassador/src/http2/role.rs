//! Which end of a connection this is.

/// The end that opens streams, or the one that serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}
