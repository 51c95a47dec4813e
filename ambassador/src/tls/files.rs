//! What the files say that the configuration names: certificates, keys and lists.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
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

impl Files {
    /// Looks at all that can be read without the identity that is to go with it. `ca` is
    /// the key that names the authorities.
    ///
    /// # Errors
    /// Which file has no such thing in it.
    pub(super) fn check(&self, ca: &'static str) -> Result<(), FileError> {
        if let Some(text) = &self.ca {
            authorities(ca, text)?;
        }
        if let Some(text) = &self.cert {
            certificates("cert", text)?;
        }
        if let Some(text) = &self.key {
            private_key(text)?;
        }
        if let Some(text) = &self.crl {
            revoked(text)?;
        }
        Ok(())
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

/// A private key.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, FileError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        _ if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) => wrong(
            "key",
            "is protected by a passphrase, which nobody is here to type: write it without one, \
             as `openssl pkey` does",
        ),
        rustls::pki_types::pem::Error::NoItemsFound => wrong("key", "has no private key in PEM"),
        error => wrong("key", pem::PemError::Item(error)),
    })
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

/// Certificates that can be trust anchors, one at least.
pub(super) fn authorities(key: &'static str, text: &[u8]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(key, text)?);
    match roots.is_empty() {
        true => Err(wrong(key, "has no certificate of an authority")),
        false => Ok(roots),
    }
}

/// Of the file that this key names.
pub(super) fn wrong(key: &'static str, what: impl fmt::Display) -> FileError {
    FileError {
        key,
        what: what.to_string(),
    }
}
