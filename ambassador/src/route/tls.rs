//! What the configuration says of TLS, towards an upstream and on a listener.

use std::path::PathBuf;

use crate::credential::spiffe_id::IdMatch;

/// How connections to an upstream are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the certificate of the server.
    pub ca: Ca,
    /// The client certificate.
    pub cert: Option<CertificateSource>,
    /// Its key; PEM.
    pub key: Option<PathBuf>,
    /// The name that is asked for, and that the certificate must have.
    pub sni: Sni,
    /// What is verified.
    pub verify: Verify,
    /// The application protocols that are offered.
    pub alpn: Alpn,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Lists of revoked certificates; PEM.
    pub crl: Option<PathBuf>,
}

/// How connections to a listener are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// The certificate. There is one.
    pub cert: Option<CertificateSource>,
    /// Its key; PEM. There is one where the certificate is that of a file.
    pub key: Option<PathBuf>,
    /// Who may have signed the certificates of clients.
    pub client_ca: Option<CertificateSource>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// Which SPIFFE IDs clients may have; `None`: any, or none.
    pub clients: Option<Vec<IdMatch>>,
    /// Lists of revoked certificates; PEM.
    pub crl: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// What requests tell of the certificate of their client.
    pub forward_client_cert: ForwardClientCert,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may. One that is not good ends the handshake.
    Optional,
    /// They must.
    Required,
}

/// What requests tell of the certificate of their client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Nothing. What they say themselves passes.
    #[default]
    Off,
    /// Its hash and names, in place of what they say themselves.
    SanitizeSet,
}

/// Certificate authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ca {
    /// Those that the system trusts.
    #[default]
    System,
    /// Those of a file; PEM.
    File(PathBuf),
    /// Those that came with the proxy's own identity.
    Identity,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// A file. An own certificate has those between it and a root behind it; PEM.
    File(PathBuf),
    /// The proxy's own identity.
    Identity,
}

/// A server's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sni {
    /// That of the request's authority; for connections without requests that of the
    /// upstream.
    #[default]
    Auto,
    /// This one.
    Name(String),
}

/// What must be right with the certificate of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verify {
    /// The authority, and the name.
    #[default]
    Full,
    /// The authority.
    Ca,
    /// The authority, and the SPIFFE ID.
    Spiffe(IdMatch),
    /// Nothing: whoever can take the place of the server is believed.
    Off,
}

/// Application protocols (RFC 7301).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alpn {
    /// Those of the upstream's protocol.
    #[default]
    Auto,
    /// None.
    Off,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.2.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

impl ListenerTls {
    /// Whether it needs the proxy's own identity.
    pub fn needs_identity(&self) -> bool {
        let identity = Some(CertificateSource::Identity);
        self.cert == identity || self.client_ca == identity
    }
}

impl Tls {
    /// Whether whoever answers is known to be the one that was asked for.
    pub fn is_verified(&self) -> bool {
        matches!(self.verify, Verify::Full | Verify::Spiffe(_))
    }

    /// Whether it needs the proxy's own identity.
    pub fn needs_identity(&self) -> bool {
        self.cert == Some(CertificateSource::Identity) || self.ca == Ca::Identity
    }
}
