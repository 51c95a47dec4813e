//! Certificates of the exchanges with TLS, and sessions that resume nothing.

use std::io;
use std::sync::Arc;

use ambassador_tests::Authority;
use ambassador_tests::proxy::Scratch;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Who clients and upstreams ask for.
const NAME: &str = "web.test";

/// What both sides of the proxy need.
#[derive(Clone)]
pub struct Certificates {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Certificates {
    /// Makes them, and writes those of the proxy: `ca.pem`, `server` and `client`.
    pub fn new(scratch: &Scratch) -> Self {
        let authority = Authority::new("counted");
        let leaf = authority.issue(&[NAME]);
        let mut client = authority.client_of(&[&TLS13], None);
        client.resumption = Resumption::disabled();
        let mut server = leaf.server_of(&[&TLS13], Some(&authority));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        scratch.file("ca.pem", &authority.pem);
        leaf.write(scratch, "server");
        authority.issue(&["client.test"]).write(scratch, "client");
        Self {
            client: Arc::new(client),
            server: Arc::new(server),
        }
    }

    /// A session of a client of the proxy.
    pub fn client(&self) -> io::Result<ClientConnection> {
        let name = NAME.try_into().map_err(io::Error::other)?;
        ClientConnection::new(Arc::clone(&self.client), name).map_err(io::Error::other)
    }

    /// A session of its upstream.
    pub fn server(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)
    }
}
