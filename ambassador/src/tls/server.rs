//! What the connections of a listener are encrypted with: its certificate, and what is
//! asked of clients, as they are in force.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::client::{provider, svid_verifier, versions};
use super::client_verifier::{ClientVerifier, Vouchers};
use super::files::{FileError, Files, authorities, revoked, wrong};
use super::in_force::{Ending, InForce};
use super::{certificate, next_id, own_certificate, server_sessions};
use crate::route::tls::{CertificateSource, ClientAuth, ListenerTls};
use crate::telemetry::Handshakes;

/// What one listener's connections are encrypted with.
#[derive(Debug)]
pub struct Server {
    id: u32,
    settings: Arc<ListenerTls>,
    protocols: Vec<Vec<u8>>,
    /// Nothing while the proxy's own identity is needed and not there.
    in_force: InForce<ServerContext>,
    /// How its handshakes went.
    pub(crate) handshakes: Handshakes,
}

/// A server certificate, and how clients are verified.
#[derive(Debug)]
pub(crate) struct ServerContext {
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
            in_force: InForce::new(ServerContext::find(settings, files, &protocols)?),
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
        let before = self.in_force().and_then(|before| before.fingerprint);
        if before.is_some() && before == files.fingerprint() {
            return Ok(());
        }
        let context = ServerContext::find(&self.settings, files, &self.protocols)?;
        self.in_force.put(context);
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

    /// What new connections take; `None`: the proxy's own identity is missing.
    pub(crate) fn in_force(&self) -> Option<Arc<ServerContext>> {
        self.in_force.newest()
    }

    /// The same for a handshake that is about to begin: waits a little, and at most
    /// `within`, where the
    /// certificate has come to its end, or the identity is gone.
    pub(crate) async fn lasting(&self, within: Duration) -> Option<Arc<ServerContext>> {
        self.in_force.lasting(within).await
    }
}

impl ServerContext {
    /// `None`: it needs the proxy's own identity, which is not there.
    fn find(
        settings: &Arc<ListenerTls>,
        files: &Files,
        protocols: &[Vec<u8>],
    ) -> Result<Option<Arc<Self>>, FileError> {
        if settings.needs_identity() && files.identity.is_none() {
            files.check("client_ca")?;
            return Ok(None);
        }
        let context = Self::new(settings, files, protocols)?;
        Ok(Some(Arc::new(context)))
    }

    fn new(
        settings: &Arc<ListenerTls>,
        files: &Files,
        protocols: &[Vec<u8>],
    ) -> Result<Self, FileError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| wrong("min_version", error))?;
        let builder = match client_verifier(settings, files)? {
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
            None => builder.with_no_client_auth(),
        };
        let own = files.identity.as_ref();
        let own = own.filter(|_| settings.cert == Some(CertificateSource::Identity));
        let (mut config, uri, not_after) = match own {
            Some(own) => {
                let key = SingleCertAndKey::from(Arc::clone(&own.certified_key));
                let config = builder.with_cert_resolver(Arc::new(key));
                (config, Some(own.id.to_string()), Some(own.not_after))
            }
            None => {
                let missing = |key| wrong(key, "must name a file");
                let cert = files.cert.as_ref().ok_or_else(|| missing("cert"))?;
                let key = files.key.as_ref().ok_or_else(|| missing("key"))?;
                let shown = own_certificate::read(cert, key, builder.crypto_provider())?;
                let leaf = shown.cert.first().map(AsRef::as_ref).unwrap_or_default();
                let uri = certificate::uris(leaf).into_iter().next();
                let not_after = certificate::not_after(leaf);
                let shown = Arc::new(SingleCertAndKey::from(shown));
                (builder.with_cert_resolver(shown), uri, not_after)
            }
        };
        config.alpn_protocols = protocols.to_vec();
        server_sessions::allow(&mut config, not_after).map_err(|error| wrong("key", error))?;
        Ok(Self {
            config: Arc::new(config),
            uri,
            not_after,
            fingerprint: files.fingerprint(),
        })
    }
}

impl Ending for ServerContext {
    fn not_after(&self) -> Option<u64> {
        self.not_after
    }
}

/// What decides which clients may come in; `None`: they are not asked who they are.
fn client_verifier(
    settings: &Arc<ListenerTls>,
    files: &Files,
) -> Result<Option<ClientVerifier>, FileError> {
    let own = files.identity.as_ref();
    let vouchers = match (settings.client_auth, &settings.client_ca, own) {
        (ClientAuth::Off, ..) | (_, None, _) => return Ok(None),
        (_, Some(CertificateSource::Identity), Some(own)) => {
            Vouchers::Bundles(svid_verifier(own, files)?)
        }
        (_, Some(_), _) => Vouchers::Authorities(chain_verifier(files)?),
    };
    Ok(Some(ClientVerifier {
        vouchers,
        settings: Arc::clone(settings),
        algorithms: provider().signature_verification_algorithms,
    }))
}

fn chain_verifier(files: &Files) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let missing = || wrong("client_ca", "must name a file");
    let ca = files.ca.as_ref().ok_or_else(missing)?;
    let roots = authorities("client_ca", ca)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = &files.crl {
        builder = builder
            .with_crls(revoked(crl)?)
            .enforce_revocation_expiration();
    }
    builder.build().map_err(|error| wrong("client_ca", error))
}
