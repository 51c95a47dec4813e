//! Verifies that a peer is a workload of a trust domain that is believed.
//!
//! The authorities of the peer's own trust domain vouch for it. The name of the
//! host means nothing here.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertRevocationListError, CertificateError, Error, OtherError};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::svid::{self, SvidError};
use super::trust::Trust;
use crate::credential::spiffe_id::{IdMatch, SpiffeId, TrustDomain};

/// Knows workloads by the bundles of their trust domains.
#[derive(Debug)]
pub(crate) struct SvidVerifier {
    /// Whom it believes.
    pub trust: Arc<Trust>,
    /// Lists of revoked certificates beside those of the trust; `None`: there are no
    /// others. With them, a certificate is refused whose issuer has no valid list.
    pub lists: Option<Vec<CertRevocationList<'static>>>,
    /// How certificates may be signed.
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate that is in order is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PeerError {
    /// It shows no workload.
    Svid(SvidError),
    /// Nobody is known who could vouch for a workload of this trust domain.
    NoBundle(TrustDomain),
    /// It is another workload.
    Id {
        /// Who it has to be.
        expected: IdMatch,
        /// Who it is.
        peer: SpiffeId,
    },
    /// It is a workload that may not call.
    Unlisted(SpiffeId),
}

impl SvidVerifier {
    /// The workload that a certificate is of. `usage` is what it has shown it for.
    ///
    /// # Errors
    /// Where it is of none, or nobody vouches for it.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, Error> {
        let peer = id_of(leaf)?;
        let domain = peer.trust_domain();
        let Some(bundle) = self.trust.bundle(&domain) else {
            return Err(PeerError::NoBundle(domain).into());
        };
        let verify = |revocation: Option<RevocationOptions<'_>>| {
            let leaf = EndEntityCert::try_from(leaf)?;
            let (algorithms, roots) = (self.algorithms.all, &bundle.roots);
            leaf.verify_for_usage(
                algorithms,
                roots,
                intermediates,
                now,
                usage,
                revocation,
                None,
            )
            .map(drop)
        };
        let own: Vec<_> = self.trust.revocations().iter().collect();
        let own = RevocationOptionsBuilder::new(&own).ok();
        // A list whose successor is late revokes what it revoked.
        let own = own.map(|own| {
            own.with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        verify(own).map_err(chain_error)?;
        if let Some(lists) = &self.lists {
            let lists: Vec<_> = lists.iter().collect();
            let lists = RevocationOptionsBuilder::new(&lists).ok();
            let lists = lists.map(|lists| {
                lists
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build()
            });
            verify(lists).map_err(chain_error)?;
        }
        Ok(peer)
    }
}

/// The workload that a certificate is of, provided that somebody has verified it.
pub(super) fn id_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    Ok(svid::id_of(leaf).map_err(PeerError::Svid)?)
}

/// As rustls tells them for its own verifiers.
fn chain_error(error: webpki::Error) -> Error {
    use webpki::Error as Chain;
    match error {
        Chain::BadDer | Chain::BadDerTime => CertificateError::BadEncoding.into(),
        Chain::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }.into()
        }
        Chain::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }.into()
        }
        Chain::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        Chain::CertRevoked => CertificateError::Revoked.into(),
        Chain::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus.into(),
        Chain::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }.into()
        }
        Chain::IssuerNotCrlSigner => CertRevocationListError::IssuerInvalidForCrl.into(),
        Chain::InvalidCrlSignatureForPublicKey => CertRevocationListError::BadSignature.into(),
        Chain::InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        other => CertificateError::Other(OtherError(Arc::new(other))).into(),
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Svid(error) => write!(f, "{error}"),
            Self::NoBundle(domain) => {
                write!(
                    f,
                    "the peer is of the trust domain {domain}, of which there is no bundle"
                )
            }
            Self::Id { expected, peer } => {
                write!(f, "the peer is {peer}; accepted is {expected}")
            }
            Self::Unlisted(peer) => write!(f, "the peer is {peer}, which is none of `clients`"),
        }
    }
}

impl std::error::Error for PeerError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
    use rustls::crypto::aws_lc_rs::default_provider;
    use webpki::OwnedCertRevocationList;

    use super::super::test_authority::{TestAuthority, trust_in};
    use super::*;

    fn verifier(authorities: &[(&str, &TestAuthority)]) -> SvidVerifier {
        SvidVerifier {
            trust: Arc::new(trust_in(authorities)),
            lists: None,
            algorithms: default_provider().signature_verification_algorithms,
        }
    }

    fn verdict(verifier: &SvidVerifier, leaf: &CertificateDer<'_>) -> Result<String, String> {
        let usage = KeyUsage::server_auth();
        let verified = verifier.verify(leaf, &[], UnixTime::now(), usage);
        verified.map(|id| id.to_string()).map_err(words)
    }

    fn words(error: Error) -> String {
        match error {
            Error::InvalidCertificate(CertificateError::Other(error)) => error.0.to_string(),
            error => error.to_string(),
        }
    }

    fn is_in_order(verifier: &SvidVerifier, leaf: &CertificateDer<'_>) -> bool {
        verdict(verifier, leaf).is_ok()
    }

    #[track_caller]
    fn assert_refused(verifier: &SvidVerifier, leaf: &CertificateDer<'_>, words: &str) {
        let error = verdict(verifier, leaf).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn only_its_own_domain_vouches_for_a_peer() {
        let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
        let svid = other.svid("/payments", 1).certificate;
        let federated = verifier(&[("td", &td), ("other", &other)]);
        let id = "spiffe://other/payments".to_owned();
        assert_eq!(verdict(&federated, &svid), Ok(id));
        // A federated authority that makes an id of ours.
        let mut params = TestAuthority::params(1, Duration::from_secs(60));
        let uri = "spiffe://td/payments".try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let forged = other.issue(&params).certificate;
        assert_refused(&federated, &forged, "UnknownIssuer");
        let alone = verifier(&[("td", &td)]);
        assert_refused(
            &alone,
            &svid,
            "of the trust domain other, of which there is no bundle",
        );
    }

    #[test]
    fn a_revoked_certificate_is_refused_even_by_a_list_that_is_late() {
        let td = TestAuthority::new("td");
        let mut verifier = verifier(&[("td", &td)]);
        let trust = Arc::get_mut(&mut verifier.trust).unwrap();
        trust.add_revocations([td.revoke(7)].into_iter()).unwrap();
        let svid = |serial| td.svid("/payments", serial).certificate;
        assert!(is_in_order(&verifier, &svid(6)));
        assert_refused(&verifier, &svid(7), "Revoked");
    }

    #[test]
    fn lists_of_a_file_must_be_there_and_valid_and_those_of_the_trust_hold_too() {
        let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
        let list = |authority: &TestAuthority, serial, year| {
            let list = authority.revoke_until(serial, year);
            vec![OwnedCertRevocationList::from_der(&list).unwrap().into()]
        };
        let mut verifier = verifier(&[("td", &td)]);
        let trust = Arc::get_mut(&mut verifier.trust).unwrap();
        trust.add_revocations([td.revoke(5)].into_iter()).unwrap();
        verifier.lists = Some(list(&td, 7, 4000));
        let svid = |serial| td.svid("/payments", serial).certificate;
        assert!(is_in_order(&verifier, &svid(6)));
        assert_refused(&verifier, &svid(5), "Revoked");
        assert_refused(&verifier, &svid(7), "Revoked");
        verifier.lists = Some(list(&other, 7, 4000));
        assert_refused(&verifier, &svid(6), "UnknownRevocationStatus");
        verifier.lists = Some(list(&td, 7, 2024));
        let error = verdict(&verifier, &svid(6)).unwrap_err();
        assert!(error.contains("list"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        let td = TestAuthority::new("td");
        let verifier = verifier(&[("td", &td)]);
        let of = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = TestAuthority::params(1, Duration::from_secs(60));
            let uri = "spiffe://td/payments".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
            change(&mut params);
            td.issue(&params).certificate
        };
        assert!(is_in_order(&verifier, &of(&|_| {})));
        let expired = of(&|params| {
            params.not_before = rcgen::date_time_ymd(2023, 1, 1);
            params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        });
        assert_refused(&verifier, &expired, "expired");
        let future = of(&|params| {
            params.not_before = rcgen::date_time_ymd(2999, 1, 1);
            params.not_after = rcgen::date_time_ymd(3000, 1, 1);
        });
        assert_refused(&verifier, &future, "not valid yet");
        let client = of(&|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        assert_refused(&verifier, &client, "RequiredEkuNotFound");
        let none = of(&|params| params.subject_alt_names.clear());
        assert_refused(&verifier, &none, "no SPIFFE ID");
        assert_refused(&verifier, &td.certificate(), "that of an authority");
        let stranger = TestAuthority::new("td").svid("/payments", 1).certificate;
        assert_refused(&verifier, &stranger, "BadSignature");
    }
}
