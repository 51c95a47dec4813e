//! Whom a connection over TLS is to lead to.

use rustls_pki_types::ServerName;

use crate::tls::Client;
use crate::upstream::key::Identity;

/// A server that has to prove who it is. Boxed where a request keeps it: most have
/// none.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Tells its connections from others'.
    pub identity: Identity,
    /// Its name; `None`: the one that the settings fix, else the address.
    pub name: Option<ServerName<'static>>,
}

impl Server {
    /// The server that `host` names, where the settings leave that open; else the one
    /// that they name.
    pub(crate) fn named(client: &Client, host: &str) -> Self {
        let name = match client.fixed_name() {
            Some(_) => None,
            // What is no name cannot be in a certificate: the address is as good.
            None => ServerName::try_from(host.to_owned()).ok(),
        };
        Self {
            identity: identity(client, name.as_ref()),
            name,
        }
    }

    /// The server of connections that name none.
    pub(crate) fn default_of(client: &Client) -> Self {
        let name = match client.fixed_name() {
            Some(_) => None,
            None => client.default_name().cloned(),
        };
        Self {
            identity: identity(client, name.as_ref()),
            name,
        }
    }
}

/// As whom connections to a server of this name are opened.
pub(super) fn identity(client: &Client, name: Option<&ServerName<'static>>) -> Identity {
    Identity::tls(client.id(), name)
}
