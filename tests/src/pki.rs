//! Certificates, made as a test needs them: sound ones, and each with the fault that
//! it is to have.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::proxy::Scratch;

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
    /// Its key, in PEM.
    pub key: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate.
    pub pem: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A root of this name.
    pub fn new(name: &str) -> Authority {
        Authority::made(name, KeyPair::generate().expect("keys can be made"), None)
    }

    /// One between this one and its certificates.
    pub fn below(&self, name: &str) -> Authority {
        let key = KeyPair::generate().expect("keys can be made");
        Authority::made(name, key, Some(&self.issuer))
    }

    fn made(name: &str, key: KeyPair, by: Option<&Issuer<'static, KeyPair>>) -> Authority {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = match by {
            Some(issuer) => wanted.signed_by(&key, issuer),
            None => wanted.self_signed(&key),
        };
        Authority {
            pem: certificate.expect("it is sound").pem(),
            key: key.serialize_pem(),
            issuer: Issuer::new(wanted, key),
        }
    }

    /// A sound certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |_| {})
    }

    /// One that is as `change` makes it.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let (wanted, key) = wanted(names, change);
        let certificate = wanted.signed_by(&key, &self.issuer);
        Leaf::of(&certificate.expect("it is sound"), &key)
    }

    /// A list of its revoked certificates that has ended or not, in PEM.
    pub fn revoking(&self, serials: &[u64], is_old: bool) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 2),
            next_update: date_time_ymd(if is_old { 2025 } else { 4000 }, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("it is sound");
        list.pem().expect("it is sound")
    }

    /// Lets those in whose certificates it has signed.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&self.pem)));
        verifier.build().expect("it has a root")
    }

    /// A client that trusts it, and shows a certificate or none.
    pub fn client(&self, shown: Option<&Leaf>) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, shown)
    }

    /// The same, which speaks these versions.
    pub fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<&Leaf>,
    ) -> ClientConfig {
        client(&self.pem, versions, shown)
    }
}

/// A client that trusts an authority, speaks these versions, and shows a certificate or
/// none.
pub fn client(
    authority_pem: &str,
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<&Leaf>,
) -> ClientConfig {
    let trusting = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots(authority_pem));
    match shown {
        Some(leaf) => trusting
            .with_client_auth_cert(leaf.chain(), leaf.private_key())
            .expect("they go together"),
        None => trusting.with_no_client_auth(),
    }
}

fn roots(authority_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes());
    let authority = authority.expect("it is PEM");
    roots.add(authority).expect("it is sound");
    roots
}

impl Leaf {
    /// One that has signed itself.
    pub fn self_signed(names: &[&str]) -> Leaf {
        let (wanted, key) = wanted(names, |_| {});
        Leaf::of(&wanted.self_signed(&key).expect("it is sound"), &key)
    }

    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Leaf {
        Leaf {
            pem: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// The same behind one that stands between it and a root.
    pub fn behind(mut self, authority: &Authority) -> Leaf {
        self.pem.push_str(&authority.pem);
        self
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, scratch: &Scratch, name: &str) -> (PathBuf, PathBuf) {
        let pem = scratch.file(&format!("{name}.pem"), &self.pem);
        (pem, scratch.file(&format!("{name}.key"), &self.key))
    }

    /// A server that shows it.
    pub fn server(&self) -> ServerConfig {
        self.server_of(rustls::ALL_VERSIONS, None)
    }

    /// A server that speaks these versions, and lets those in whom `clients` has signed.
    pub fn server_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> ServerConfig {
        let verifier = match clients {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(authority) => authority.verifier(),
        };
        self.server_with(versions, verifier)
    }

    /// The same with whoever decides which clients are let in.
    pub fn server_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> ServerConfig {
        let builder = ServerConfig::builder_with_protocol_versions(versions);
        let builder = builder.with_client_cert_verifier(verifier);
        let config = builder.with_single_cert(self.chain(), self.private_key());
        let mut config = config.expect("they go together");
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("keys can be made");
        config
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = CertificateDer::pem_slice_iter(self.pem.as_bytes());
        chain.map(|one| one.expect("it is PEM")).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("it is PEM")
    }
}

fn wanted(
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut wanted = CertificateParams::new(names).expect("they are names");
    change(&mut wanted);
    (wanted, KeyPair::generate().expect("keys can be made"))
}

/// Has a certificate end so much later than now.
pub fn ends_in(wanted: &mut CertificateParams, left: Duration) {
    wanted.not_after = (SystemTime::now() + left).into();
}
