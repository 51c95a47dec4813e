//! An identity from files, as a helper beside an agent writes them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::tls::pem::{self, PemError};
use crate::tls::svid;
use crate::tls::trust::Trust;
use crate::tls::x509_context::{X509Context, X509ContextError};
use crate::workload::named;

/// More than a chain, a bundle or a list of revoked certificates is.
const FILE_BYTES_MAX: usize = 4 << 20;

/// PEM files that make up an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityFiles {
    /// The SVID, then the certificates between it and an authority.
    pub cert: PathBuf,
    /// Its key, unencrypted.
    pub key: PathBuf,
    /// The authorities of its trust domain; revocation lists may stand among them.
    pub bundle: PathBuf,
}

/// Why files give no identity.
#[derive(Debug)]
pub(crate) enum FilesError {
    /// One cannot be read.
    Read {
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// One is no PEM.
    Pem {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// What they hold does not fit together.
    Identity(X509ContextError),
}

impl IdentityFiles {
    /// All of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key, &self.bundle].into_iter()
    }

    /// Reads and checks them; waits for the file system. `now` is in seconds since
    /// 1970.
    pub(crate) fn read(&self, now: u64) -> Result<X509Context, FilesError> {
        let cert = content(&self.cert)?;
        let key = content(&self.key)?;
        let bundle = content(&self.bundle)?;
        self.identity(&cert, &key, &bundle, now)
    }

    /// The identity that is in the content of these files.
    fn identity(
        &self,
        cert: &[u8],
        key: &[u8],
        bundle: &[u8],
        now: u64,
    ) -> Result<X509Context, FilesError> {
        let chain: Vec<CertificateDer<'_>> = items(&self.cert, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map(Key);
        let key = key.map_err(|source| pem_error(&self.key, PemError::Item(source)))?;
        let authorities: Vec<CertificateDer<'_>> = items(&self.bundle, bundle)?;
        let lists: Vec<CertificateRevocationListDer<'_>> = items(&self.bundle, bundle)?;
        let leaf = chain.first().ok_or(X509ContextError::Empty)?;
        let id = svid::id_of(leaf).map_err(X509ContextError::Svid)?;
        let mut trust = Trust::default();
        let added = trust.add_bundle(id.trust_domain(), authorities.into_iter());
        added.map_err(X509ContextError::Trust)?;
        let added = trust.add_revocations(lists.into_iter());
        added.map_err(X509ContextError::Trust)?;
        Ok(X509Context::new(chain, &key.0, trust, now)?)
    }
}

/// The id of the identity in a file that is certificate, key and bundle at once, or why
/// there is none. `now` is in seconds since 1970.
pub fn identity_in(pem: &[u8], now: u64) -> Result<String, String> {
    let [cert, key, bundle] = ["cert", "key", "bundle"].map(PathBuf::from);
    let files = IdentityFiles { cert, key, bundle };
    let identity = files.identity(pem, pem, pem, now);
    identity
        .map(|identity| identity.id.to_string())
        .map_err(|error| error.to_string())
}

/// Zeroed when it is dropped.
struct Key(PrivateKeyDer<'static>);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, FilesError> {
    let content = named::read(path, FILE_BYTES_MAX).map_err(|source| FilesError::Read {
        path: path.to_owned(),
        source,
    });
    content.map(Zeroizing::new)
}

/// All of one kind that stand in a file.
fn items<T: PemObject>(path: &Path, content: &[u8]) -> Result<Vec<T>, FilesError> {
    pem::items(content).map_err(|source| pem_error(path, source))
}

fn pem_error(path: &Path, source: PemError) -> FilesError {
    FilesError::Pem {
        path: path.to_owned(),
        source,
    }
}

impl From<X509ContextError> for FilesError {
    fn from(error: X509ContextError) -> Self {
        Self::Identity(error)
    }
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Pem { path, source } => write!(f, "{} is no PEM: {source}", path.display()),
            Self::Identity(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for FilesError {}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls::pki_types::UnixTime;
    use tempfile::TempDir;

    use super::*;
    use crate::tls::test_authority::TestAuthority;

    fn pem(kind: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        format!(
            "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
            lines.join("\n")
        )
    }

    struct Scratch {
        directory: TempDir,
        td: TestAuthority,
    }

    impl Scratch {
        fn new() -> Self {
            let scratch = Self {
                directory: tempfile::tempdir().unwrap(),
                td: TestAuthority::new("td"),
            };
            let svid = scratch.td.svid("/orders", 1);
            let chain = pem("CERTIFICATE", &svid.certificate);
            let authority = pem("CERTIFICATE", &scratch.td.certificate());
            scratch.write("cert", &[&chain[..], &authority].concat());
            scratch.write("key", &pem("PRIVATE KEY", svid.key.secret_pkcs8_der()));
            scratch.write("bundle", &authority);
            scratch
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.directory.path().join(name), text).unwrap();
        }

        fn read(&self) -> Result<X509Context, String> {
            let at = |name| self.directory.path().join(name);
            let files = IdentityFiles {
                cert: at("cert"),
                key: at("key"),
                bundle: at("bundle"),
            };
            let identity = files.read(UnixTime::now().as_secs());
            identity.map_err(|error| error.to_string())
        }
    }

    #[test]
    fn files_make_an_identity_and_lists_may_stand_in_the_bundle() {
        let scratch = Scratch::new();
        let identity = scratch.read().unwrap();
        assert_eq!(identity.id.as_str(), "spiffe://td/orders");
        assert_eq!(identity.certified_key.cert.len(), 2);
        assert!(identity.trust.revocations().is_empty());
        let list = pem("X509 CRL", &scratch.td.revoke(1));
        let authority = pem("CERTIFICATE", &scratch.td.certificate());
        scratch.write("bundle", &[list, authority].concat());
        assert_eq!(scratch.read().unwrap().trust.revocations().len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let broken = |name: &str, text: &str| {
            let scratch = Scratch::new();
            scratch.write(name, text);
            scratch.read().unwrap_err()
        };
        assert_eq!(broken("cert", ""), "there is no certificate");
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        for name in ["cert", "bundle"] {
            let error = broken(name, cut);
            assert!(error.contains(&format!("/{name} is no PEM")), "{error}");
        }
        assert!(broken("key", "").contains("/key is no PEM"));
        assert!(broken("bundle", "").contains("no bundle of the trust domain td"));
        let scratch = Scratch::new();
        fs::remove_file(scratch.directory.path().join("key")).unwrap();
        let error = scratch.read().unwrap_err();
        assert!(
            error.starts_with("cannot read") && error.contains("/key"),
            "{error}"
        );
        let other = TestAuthority::new("td").svid("/orders", 1);
        let key = pem("PRIVATE KEY", other.key.secret_pkcs8_der());
        assert!(broken("key", &key).starts_with("the key does not fit"));
    }
}
