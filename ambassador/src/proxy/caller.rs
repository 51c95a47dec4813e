//! For whom a connection is made, and to whom it leads.

use crate::addr::Peer;
use crate::upstream::dial::Namespace;
use crate::upstream::key::Protocol;
use crate::upstream::server::Server;

/// For whom a connection is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Where it is.
    pub namespace: Namespace,
    /// Who it is.
    pub peer: Peer,
    /// Whom the connection is to lead to; `None`: it is in clear.
    pub server: Option<&'a Server>,
    /// What is spoken over it.
    pub protocol: Protocol,
}
