//! TLS of the generator: one session for each connection, each a full handshake.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::failure::Failure;

/// What every session begins with.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A session over a socket that does not block.
pub struct Session(ClientConnection);

/// The socket as rustls reads and writes it.
struct Wire<'a>(&'a OwnedFd);

impl Tls {
    /// Sessions with a server of this name, whose certificate comes from an
    /// authority in this file. They offer X25519 alone, which every proxy knows,
    /// and resume nothing.
    pub fn new(authorities: &Path, name: &str) -> Result<Self, Failure> {
        let refused = |said: String| Failure::Other {
            program: authorities.display().to_string(),
            said,
        };
        let mut roots = RootCertStore::empty();
        let read = CertificateDer::pem_file_iter(authorities);
        for certificate in read.map_err(|error| refused(error.to_string()))? {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("has no certificate".to_owned()));
        }
        let provider = rustls::crypto::CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| refused(error.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(name.to_owned());
        Ok(Self {
            config: Arc::new(config),
            name: name.map_err(|error| refused(error.to_string()))?,
        })
    }

    /// A session that begins with the first bytes that are sent.
    pub fn session(&self) -> Result<Session, Errno> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        session.map(Session).map_err(|_| Errno::INVAL)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS with {:?}", self.name)
    }
}

impl Session {
    /// Takes a whole request; [`Session::flush`] sends it.
    pub fn queue(&mut self, request: &[u8]) -> Result<(), Errno> {
        let queued = self.0.writer().write_all(request);
        queued.map_err(|_| Errno::NOBUFS)
    }

    /// Sends what the kernel takes of what the session has to say.
    pub fn flush(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }

    /// The next bytes of an answer, 0 at its end. What the handshake needs
    /// meanwhile is sent.
    pub fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match self.0.reader().read(buffer) {
                Ok(received) => return Ok(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(errno(&error)),
            }
            match self.0.read_tls(&mut Wire(socket)) {
                Ok(0) => return Ok(0),
                Ok(_) => {}
                Err(error) => return Err(errno(&error)),
            }
            self.0.process_new_packets().map_err(|_| Errno::PROTO)?;
            self.flush(socket)?;
        }
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0, buffer, RecvFlags::empty()).map(|(received, _)| received)?)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
