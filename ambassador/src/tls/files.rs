//! What the files say that the configuration names: certificates, keys and lists.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use super::pem;
use super::x509_context::X509Context;

/// The content of the files that the configuration names for one upstream or listener.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// No file but the proxy's own identity, where it is there.
    pub identity: Option<Arc<X509Context>>,
    /// Certificates of authorities.
    pub ca: Option<Vec<u8>>,
    /// The own certificate.
    pub cert: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// Lists of revoked certificates.
    pub crl: Option<Vec<u8>>,
}

impl Files {
    /// Tells what was read from what was read before, and is not stored anywhere; `None`:
    /// it is not to be told, as there is more to it than files.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let Self {
            identity: None,
            ca,
            cert,
            key,
            crl,
        } = self
        else {
            return None;
        };
        let key = key.as_deref();
        Some(
            KEY.get_or_init(RandomState::new)
                .hash_one((ca, cert, key, crl)),
        )
    }
}

/// What is wrong with a file, or with the system's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileError {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
}

/// Lists of revoked certificates.
pub(super) fn revoked(
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, FileError> {
    match pem::items(text) {
        Ok(lists) if Vec::is_empty(&lists) => Err(wrong("crl", "has no list in PEM")),
        lists => lists.map_err(|error| wrong("crl", error)),
    }
}

/// Certificates, one at least.
pub(super) fn certificates(
    key: &'static str,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    match pem::items(text) {
        Ok(all) if Vec::is_empty(&all) => Err(wrong(key, "has no certificate in PEM")),
        all => all.map_err(|error| wrong(key, error)),
    }
}

/// Those that can be trust anchors.
pub(super) fn roots(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    roots
}

/// Of the file that this key names.
pub(super) fn wrong(key: &'static str, what: impl fmt::Display) -> FileError {
    FileError {
        key,
        what: what.to_string(),
    }
}
