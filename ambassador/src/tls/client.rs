//! What connections to an upstream are encrypted with: trust, client certificate and
//! what else its configuration says, as they are in force.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::{self, ClientConfig, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateRevocationListDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, SupportedCipherSuite, SupportedProtocolVersion, version};
use webpki::OwnedCertRevocationList;

use super::alpn::{Configs, Offer};
use super::files::{FileError, Files, authorities, revoked, wrong};
use super::in_force::{Ending, InForce};
use super::resumption::Resumption;
use super::svid_verifier::SvidVerifier;
use super::verifier::{ServerProof, ServerVerifier};
use super::x509_context::X509Context;
use super::{certificate, next_id, own_certificate};
use crate::route::settings::{Claim, Endpoints, Protocol, Upstream};
use crate::route::tls::{Alpn, Ca, CertificateSource, MinVersion, Sni, Tls, Verify};

/// What one upstream's connections are encrypted with.
#[derive(Debug)]
pub(crate) struct Client {
    id: u32,
    settings: Arc<Tls>,
    alpn: Alpn,
    /// The name that is asked for, where it does not depend on the request.
    fixed_name: Option<ServerName<'static>>,
    /// The name that is asked for where there is no request.
    default_name: Option<ServerName<'static>>,
    /// Nothing while the proxy's own identity is needed and not there.
    in_force: InForce<ClientContext>,
}

/// A client certificate and the trust that goes with it.
#[derive(Debug)]
pub(crate) struct ClientContext {
    configs: Configs,
    /// Until when the client certificate is valid, in seconds since 1970; `None`: there
    /// is none.
    pub not_after: Option<u64>,
    /// That of the files; `None`: it may be another one by now.
    fingerprint: Option<u64>,
}

impl Client {
    /// For an upstream and the files that its settings name; `None`: it is reached in
    /// clear.
    ///
    /// # Errors
    /// Where a file has no such thing in it, or a certificate is not that of the key.
    pub(crate) fn new(upstream: &Upstream, files: &Files) -> Result<Option<Self>, FileError> {
        let Some(settings) = &upstream.tls else {
            return Ok(None);
        };
        let alpn = alpn(settings, upstream.protocol);
        let fixed_name = match &settings.sni {
            Sni::Auto => None,
            Sni::Name(name) => {
                let name = ServerName::try_from(name.clone());
                Some(name.map_err(|error| wrong("sni", error))?)
            }
        };
        Ok(Some(Self {
            default_name: default_name(upstream),
            in_force: InForce::new(ClientContext::find(settings, files, alpn)?),
            id: next_id(),
            settings: Arc::clone(settings),
            alpn,
            fixed_name,
        }))
    }

    /// Has new connections take what the files say now. Where they say the same as
    /// before, sessions that can be resumed stay.
    ///
    /// # Errors
    /// As those of [`Client::new`]; then all stays as it was.
    pub(crate) fn renew(&self, files: &Files) -> Result<(), FileError> {
        let before = self.in_force().and_then(|before| before.fingerprint);
        if before.is_some() && before == files.fingerprint() {
            return Ok(());
        }
        let context = ClientContext::find(&self.settings, files, self.alpn)?;
        self.in_force.put(context);
        Ok(())
    }

    /// Distinguishes it from all others: their connections are not shared.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it is what would be made for an upstream.
    pub(crate) fn serves(&self, upstream: &Upstream) -> bool {
        upstream.tls.as_ref() == Some(&self.settings)
            && self.alpn == alpn(&self.settings, upstream.protocol)
            && self.default_name == default_name(upstream)
    }

    /// What it was made for.
    pub(crate) fn settings(&self) -> &Arc<Tls> {
        &self.settings
    }

    /// The name that is asked for, where it does not depend on the request.
    pub(crate) fn fixed_name(&self) -> Option<&ServerName<'static>> {
        self.fixed_name.as_ref()
    }

    /// The name that is asked for where there is no request.
    pub(crate) fn default_name(&self) -> Option<&ServerName<'static>> {
        self.default_name.as_ref()
    }

    /// What new connections take; `None`: the proxy's own identity is missing.
    pub(crate) fn in_force(&self) -> Option<Arc<ClientContext>> {
        self.in_force.newest()
    }

    /// The same for a handshake that is about to begin: waits a little, and at most
    /// `within`, where the client
    /// certificate has come to its end, or the identity is gone.
    pub(crate) async fn lasting(&self, within: Duration) -> Option<Arc<ClientContext>> {
        self.in_force.lasting(within).await
    }
}

impl Ending for ClientContext {
    fn not_after(&self) -> Option<u64> {
        self.not_after
    }
}

/// What a connection of the control side to an HTTPS server is encrypted with.
///
/// # Errors
/// As those of [`Client::new`].
pub(crate) fn https_config(settings: &Tls, files: &Files) -> Result<Arc<ClientConfig>, FileError> {
    let context = ClientContext::new(settings, files, Alpn::Auto)?;
    Ok(Arc::clone(context.config(Offer::Http1)))
}

impl ClientContext {
    /// What a session is agreed upon with that offers this.
    pub(crate) fn config(&self, offer: Offer) -> &Arc<ClientConfig> {
        self.configs.of(offer)
    }

    /// `None`: it needs the proxy's own identity, which is not there.
    fn find(settings: &Tls, files: &Files, alpn: Alpn) -> Result<Option<Arc<Self>>, FileError> {
        if settings.needs_identity() && files.identity.is_none() {
            files.check("ca")?;
            return Ok(None);
        }
        let context = Self::new(settings, files, alpn)?;
        Ok(Some(Arc::new(context)))
    }

    fn new(settings: &Tls, files: &Files, alpn: Alpn) -> Result<Self, FileError> {
        let provider = provider();
        let resumption = Arc::new(Resumption::new());
        let verifier = ServerVerifier {
            proof: proof(settings, files, &provider)?,
            resumption: Arc::clone(&resumption),
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| wrong("min_version", error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let own = files.identity.as_ref();
        let own = own.filter(|_| settings.cert == Some(CertificateSource::Identity));
        let (mut config, not_after) = match (own, &files.cert, &files.key) {
            (Some(own), ..) => {
                let key = SingleCertAndKey::from(Arc::clone(&own.certified_key));
                let config = builder.with_client_cert_resolver(Arc::new(key));
                (config, Some(own.not_after))
            }
            (None, Some(cert), Some(key)) => {
                let shown = own_certificate::read(cert, key, builder.crypto_provider())?;
                let not_after = shown.cert.first();
                let not_after = not_after.and_then(|leaf| certificate::not_after(leaf));
                let shown = Arc::new(SingleCertAndKey::from(shown));
                (builder.with_client_cert_resolver(shown), not_after)
            }
            _ => (builder.with_no_client_auth(), None),
        };
        // Who is not verified has no certificate that could end.
        if settings.verify != Verify::Off {
            config.resumption = client::Resumption::store(resumption);
        }
        Ok(Self {
            configs: Configs::new(config, alpn),
            not_after,
            fingerprint: files.fingerprint(),
        })
    }
}

/// Opaque bytes are no application protocol that has a name.
fn alpn(settings: &Tls, protocol: Protocol) -> Alpn {
    match protocol {
        Protocol::Tcp => Alpn::Off,
        Protocol::Auto | Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => settings.alpn,
    }
}

/// The first name that is no wildcard, else the one that is resolved.
fn default_name(upstream: &Upstream) -> Option<ServerName<'static>> {
    let mut claimed = upstream.claims.iter().filter_map(|claim| match claim {
        Claim::Name { host, .. } => Some(host),
        Claim::Wildcard { .. } | Claim::Net { .. } => None,
    });
    let resolved = match &upstream.endpoints {
        Endpoints::Dns { name, .. } => Some(name),
        Endpoints::Static(_) | Endpoints::Original => None,
    };
    let name = claimed.next().or(resolved)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).ok()
}

/// The versions from this one on.
pub(super) fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static TLS13_ALONE: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min {
        MinVersion::Tls12 => rustls::ALL_VERSIONS,
        MinVersion::Tls13 => &TLS13_ALONE,
    }
}

/// The cryptography of every session. The first random bytes of the process take
/// the library 20 ms: they are drawn here, where settings are read, and not in the
/// first handshake, for which all requests of its shard would wait.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(preference);
        // If there are none, the first handshake says so.
        let _ = provider.secure_random.fill(&mut [0]);
        Arc::new(provider)
    }))
}

/// The place of a suite among those that are offered; equal ones stay in their
/// order. AES-128 with SHA-256 first, as browsers and Envoy have it: the key
/// schedule with SHA-384 is a third of the instructions of a handshake.
fn preference(suite: &SupportedCipherSuite) -> (bool, u8) {
    use rustls::CipherSuite as Suite;
    let rank = match suite.suite() {
        Suite::TLS13_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        Suite::TLS13_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 1,
        _ => 2,
    };
    (suite.version() != &version::TLS13, rank)
}

/// What servers have to prove.
fn proof(
    settings: &Tls,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerProof, FileError> {
    if let (Ca::Identity, Verify::Spiffe(expected), Some(own)) =
        (&settings.ca, &settings.verify, &files.identity)
    {
        let verifier = svid_verifier(own, files)?;
        return Ok(ServerProof::Svid(verifier, expected.clone()));
    }
    let chain = || chain_verifier(settings, files, provider);
    Ok(match &settings.verify {
        Verify::Off => ServerProof::Nothing,
        Verify::Full => ServerProof::Name(chain()?),
        Verify::Ca => ServerProof::Authority(chain()?),
        Verify::Spiffe(expected) => ServerProof::AuthorityAndId(chain()?, expected.clone()),
    })
}

/// Knows the workloads that came with an identity.
pub(super) fn svid_verifier(own: &X509Context, files: &Files) -> Result<SvidVerifier, FileError> {
    let lists = files.crl.as_ref().map(|crl| {
        let lists = revoked(crl)?.into_iter();
        let read = |list: CertificateRevocationListDer<'_>| {
            let list = OwnedCertRevocationList::from_der(&list);
            list.map(Into::into).map_err(|error| wrong("crl", error))
        };
        lists.map(read).collect()
    });
    Ok(SvidVerifier {
        trust: Arc::clone(&own.trust),
        lists: lists.transpose()?,
        algorithms: provider().signature_verification_algorithms,
    })
}

fn chain_verifier(
    settings: &Tls,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, FileError> {
    let own = files.identity.as_ref();
    let own = own.filter(|_| settings.ca == Ca::Identity);
    let roots = match (own, &files.ca) {
        (Some(own), _) => own.roots(),
        (None, Some(ca)) => Arc::new(authorities("ca", ca)?),
        (None, None) => system_roots()?,
    };
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    if let Some(crl) = &files.crl {
        builder = builder
            .with_crls(revoked(crl)?)
            .enforce_revocation_expiration();
    } else if let Some(own) = own {
        // Theirs count for who has one, and until there is another.
        let lists = own.trust.revocation_lists().iter().cloned();
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| wrong("crl", error))
}

/// The system's, read once.
fn system_roots() -> Result<Arc<RootCertStore>, FileError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(known) = ROOTS.get() {
        return Ok(Arc::clone(known));
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "install ca-certificates, or set ca".to_owned());
        return Err(wrong(
            "ca",
            format!("the system has no trusted certificates: {why}"),
        ));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    })))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::route::settings::Policies;

    fn authority() -> Vec<u8> {
        let parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap());
        certificate.unwrap().pem().into_bytes()
    }

    #[test]
    fn files_that_say_the_same_renew_nothing() {
        let upstream = Upstream {
            name: "web".into(),
            claims: Vec::new(),
            endpoints: Endpoints::Original,
            protocol: Protocol::Auto,
            tls: Some(Arc::new(Tls {
                ca: Ca::File("ca.pem".into()),
                ..Tls::default()
            })),
            auth: None,
            placeholders: Vec::new(),
            on_failure: None,
            policies: Policies::default(),
        };
        let mut files = Files {
            ca: Some(authority()),
            ..Files::default()
        };
        let client = Client::new(&upstream, &files).unwrap().unwrap();
        let first = client.in_force().unwrap();
        client.renew(&files).unwrap();
        assert!(Arc::ptr_eq(&first, &client.in_force().unwrap()));
        files.ca = Some(b"no certificate".to_vec());
        assert_eq!(client.renew(&files).unwrap_err().key, "ca");
        assert!(Arc::ptr_eq(&first, &client.in_force().unwrap()));
        files.ca = Some(authority());
        client.renew(&files).unwrap();
        assert!(!Arc::ptr_eq(&first, &client.in_force().unwrap()));
    }

    #[test]
    fn aes_128_is_offered_first_and_nothing_is_left_out() {
        let offered: Vec<String> = provider()
            .cipher_suites
            .iter()
            .map(|suite| format!("{:?}", suite.suite()))
            .collect();
        let first = [
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ];
        assert_eq!(offered[..4], first);
        let all = aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(offered.len(), all.len());
    }
}
