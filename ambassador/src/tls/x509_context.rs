//! What a workload shows to others and whom it believes: an X.509-SVID with its
//! key, and the trust that came with it.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::certificate::{BadEncoding, CertificateFacts};
use super::svid::{self, SvidError};
use super::trust::{Trust, TrustError};
use crate::credential::spiffe_id::{SpiffeId, TrustDomain};

/// An identity that was checked as a whole.
#[derive(Debug)]
pub(crate) struct X509Context {
    /// Who it is.
    pub id: SpiffeId,
    /// The certificate, those between it and an authority, and the key, of which
    /// the library alone holds the bytes.
    pub certified_key: Arc<CertifiedKey>,
    /// Until when the certificate is valid, in seconds since 1970.
    pub not_after: u64,
    /// Whom it believes: its own trust domain at least.
    pub trust: Arc<Trust>,
}

/// Why an identity is refused.
#[derive(Debug)]
pub(crate) enum X509ContextError {
    /// There is no certificate.
    Empty,
    /// The first certificate shows no workload.
    Svid(SvidError),
    /// Another certificate of the chain, the first being 0.
    Chain {
        /// Its place.
        index: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// It is valid from this second on, which is still to come.
    NotYetValid(u64),
    /// It was valid until this second.
    Expired(u64),
    /// The key is none that can be used, or not that of the certificate.
    Key(rustls::Error),
    /// Whom to believe in its own trust domain is not known.
    NoBundle(TrustDomain),
    /// Whom to believe cannot be read.
    Trust(TrustError),
}

impl X509Context {
    /// Checks what is to be shown. `now` is in seconds since 1970.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        trust: Trust,
        now: u64,
    ) -> Result<Self, X509ContextError> {
        let leaf = chain.first().ok_or(X509ContextError::Empty)?;
        let id = svid::id_of(leaf).map_err(X509ContextError::Svid)?;
        let bad = |BadEncoding| X509ContextError::Svid(SvidError::Encoding(BadEncoding));
        let facts = CertificateFacts::read(leaf).map_err(bad)?;
        let (not_before, not_after) = (facts.not_before, facts.not_after);
        if now < not_before {
            return Err(X509ContextError::NotYetValid(not_before));
        }
        if now > not_after {
            return Err(X509ContextError::Expired(not_after));
        }
        for (index, certificate) in chain.iter().enumerate() {
            ParsedCertificate::try_from(certificate)
                .map_err(|source| X509ContextError::Chain { index, source })?;
        }
        let key = any_supported_type(key).map_err(X509ContextError::Key)?;
        let certified_key = CertifiedKey::new(chain, key);
        certified_key.keys_match().map_err(X509ContextError::Key)?;
        let domain = id.trust_domain();
        if trust.bundle(&domain).is_none() {
            return Err(X509ContextError::NoBundle(domain));
        }
        Ok(Self {
            id,
            certified_key: Arc::new(certified_key),
            not_after,
            trust: Arc::new(trust),
        })
    }
}

impl X509Context {
    /// The authorities of its own trust domain.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let bundle = self.trust.bundle(&self.id.trust_domain());
        bundle.map_or_else(|| Arc::new(RootCertStore::empty()), Arc::clone)
    }
}

impl fmt::Display for X509ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no certificate"),
            Self::Svid(error) => write!(f, "{error}"),
            Self::Chain { index, source } => {
                write!(f, "certificate {} of the chain is bad: {source}", index + 1)
            }
            Self::NotYetValid(since) => {
                write!(
                    f,
                    "the certificate is valid from {since} on (seconds since 1970)"
                )
            }
            Self::Expired(until) => {
                write!(
                    f,
                    "the certificate was valid until {until} (seconds since 1970)"
                )
            }
            Self::Key(error) => write!(f, "the key does not fit the certificate: {error}"),
            Self::NoBundle(domain) => {
                write!(f, "there is no bundle of the trust domain {domain}")
            }
            Self::Trust(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for X509ContextError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::super::test_authority::{TestAuthority, TestSvid, trust_in};
    use super::*;

    fn now() -> u64 {
        UnixTime::now().as_secs()
    }

    fn identity(
        chain: Vec<CertificateDer<'static>>,
        svid: TestSvid,
        trust: Trust,
        now: u64,
    ) -> Result<X509Context, String> {
        X509Context::new(chain, &svid.key.into(), trust, now).map_err(|error| error.to_string())
    }

    #[test]
    fn an_identity_is_an_svid_its_key_and_the_bundle_of_its_domain() {
        let authority = TestAuthority::new("td");
        let svid = authority.svid("/orders", 1);
        let chain = vec![svid.certificate.clone(), authority.certificate()];
        let identity = identity(chain, svid, trust_in(&[("td", &authority)]), now()).unwrap();
        assert_eq!(identity.id.as_str(), "spiffe://td/orders");
        assert_eq!(identity.certified_key.cert.len(), 2);
        let left = identity.not_after - now();
        assert!((3_590..=3_600).contains(&left), "{left}");
    }

    #[test]
    fn one_that_would_not_work_is_refused_with_the_reason() {
        let authority = TestAuthority::new("td");
        let refusal = |chain: Vec<CertificateDer<'static>>, svid, domain: &str, now| {
            identity(chain, svid, trust_in(&[(domain, &authority)]), now).unwrap_err()
        };
        let svid = || authority.svid("/orders", 1);
        let one = svid();
        let chain = vec![one.certificate.clone()];
        let error = refusal(chain.clone(), svid(), "td", now());
        assert!(error.starts_with("the key does not fit"), "{error}");
        let error = refusal(Vec::new(), svid(), "td", now());
        assert_eq!(error, "there is no certificate");
        let error = refusal(vec![authority.certificate()], svid(), "td", now());
        assert_eq!(error, "the certificate is that of an authority");
        let error = refusal(chain.clone(), one, "other", now());
        assert_eq!(error, "there is no bundle of the trust domain td");
        for (now, words) in [
            (now() - 120, "is valid from"),
            (now() + 3_700, "was valid until"),
        ] {
            let error = refusal(chain.clone(), svid(), "td", now);
            assert!(error.contains(words), "{error}");
        }
        let bad = CertificateDer::from(b"0".to_vec());
        let one = svid();
        let error = refusal(vec![one.certificate.clone(), bad], one, "td", now());
        assert!(
            error.starts_with("certificate 2 of the chain is bad"),
            "{error}"
        );
        let short = authority.svid_for("/orders", 2, Duration::from_secs(1));
        assert!(
            identity(
                vec![short.certificate.clone()],
                short,
                trust_in(&[("td", &authority)]),
                now()
            )
            .is_ok()
        );
    }

    #[test]
    fn a_bundle_or_list_that_cannot_be_read_is_told() {
        let mut trust = Trust::default();
        let id: SpiffeId = "spiffe://td".parse().unwrap();
        let bad = [CertificateDer::from(b"0".to_vec())].into_iter();
        let error = trust.add_bundle(id.trust_domain(), bad).unwrap_err();
        let error = X509ContextError::Trust(error).to_string();
        assert!(
            error.starts_with("a certificate in the bundle of td is bad"),
            "{error}"
        );
        let lists = [TestAuthority::new("td").revoke(1), b"0".to_vec().into()];
        let error = trust.add_revocations(lists.into_iter()).unwrap_err();
        let error = X509ContextError::Trust(error).to_string();
        assert!(error.starts_with("revocation list 2 is bad"), "{error}");
    }
}
