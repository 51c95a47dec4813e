//! What the connections of a listener are encrypted with: its certificate, and what is
//! asked of clients, as they are in force.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};

use super::client::{FileError, certificates, provider, revoked, roots, versions, wrong};
use super::{Files, certificate, next_id};
use crate::route::tls::{ClientAuth, ListenerTls};
use crate::telemetry::Handshakes;

/// What one listener's connections are encrypted with.
#[derive(Debug)]
pub struct Server {
    id: u32,
    settings: Arc<ListenerTls>,
    protocols: Vec<Vec<u8>>,
    in_force: ArcSwap<ServerIdentity>,
    /// How its handshakes went.
    pub(crate) handshakes: Handshakes,
}

/// A server certificate, and how clients are verified.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    /// What sessions are agreed upon with.
    pub config: Arc<ServerConfig>,
    /// The first URI in the certificate.
    pub uri: Option<String>,
    /// Until when the certificate is valid, in seconds since 1970.
    pub not_after: Option<u64>,
    /// That of the files.
    fingerprint: Option<u64>,
}

impl Server {
    /// For a listener and the files that its settings name. `protocols` are those that
    /// it speaks (RFC 7301).
    ///
    /// # Errors
    /// Where a file has no such thing in it, or a certificate is not that of the key.
    pub(crate) fn new(
        settings: &Arc<ListenerTls>,
        files: &Files,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Self, FileError> {
        Ok(Self {
            in_force: ArcSwap::from_pointee(ServerIdentity::new(settings, files, &protocols)?),
            id: next_id(),
            settings: Arc::clone(settings),
            protocols,
            handshakes: Handshakes::default(),
        })
    }

    /// Has new connections take what the files say now. Where they say the same as
    /// before, sessions that can be resumed stay.
    ///
    /// # Errors
    /// As those of [`Server::new`]; then all stays as it was.
    pub(crate) fn renew(&self, files: &Files) -> Result<(), FileError> {
        let before = self.in_force().fingerprint;
        if before.is_some() && before == files.fingerprint() {
            return Ok(());
        }
        let identity = ServerIdentity::new(&self.settings, files, &self.protocols)?;
        self.in_force.store(Arc::new(identity));
        Ok(())
    }

    /// Distinguishes it from all others.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// What it was made for.
    pub(crate) fn settings(&self) -> &Arc<ListenerTls> {
        &self.settings
    }

    /// Whether it is what would be made for these.
    pub(crate) fn serves(&self, settings: &Arc<ListenerTls>, protocols: &[Vec<u8>]) -> bool {
        self.settings == *settings && self.protocols == protocols
    }

    /// What new connections take.
    pub(crate) fn in_force(&self) -> Arc<ServerIdentity> {
        self.in_force.load_full()
    }
}

impl ServerIdentity {
    fn new(
        settings: &ListenerTls,
        files: &Files,
        protocols: &[Vec<u8>],
    ) -> Result<Self, FileError> {
        let missing = |key| wrong(key, "must name a file");
        let cert = files.cert.as_ref().ok_or_else(|| missing("cert"))?;
        let key = files.key.as_ref().ok_or_else(|| missing("key"))?;
        let chain = certificates("cert", cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("key", error))?;
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let uri = certificate::uris(leaf).into_iter().next();
        let not_after = certificate::not_after(leaf);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| wrong("min_version", error))?;
        let builder = match client_verifier(settings, files)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| wrong("cert", error))?;
        config.alpn_protocols = protocols.to_vec();
        // Its key is made anew here: what was agreed upon with an earlier certificate, or
        // before a list of revoked ones, is not resumed.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| wrong("key", error))?;
        Ok(Self {
            config: Arc::new(config),
            uri,
            not_after,
            fingerprint: files.fingerprint(),
        })
    }
}

fn client_verifier(
    settings: &ListenerTls,
    files: &Files,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, FileError> {
    let Some(ca) = files
        .ca
        .as_ref()
        .filter(|_| settings.client_auth != ClientAuth::Off)
    else {
        return Ok(None);
    };
    let roots = roots(certificates("client_ca", ca)?);
    if roots.is_empty() {
        return Err(wrong("client_ca", "has no certificate of an authority"));
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = &files.crl {
        builder = builder
            .with_crls(revoked(crl)?)
            .enforce_revocation_expiration();
    }
    if settings.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map(Some)
        .map_err(|error| wrong("client_ca", error))
}
