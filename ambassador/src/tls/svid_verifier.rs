//! Verifies that a peer is the workload that it is to be.
//!
//! The authorities of the peer's own trust domain vouch for it. The name of the
//! host means nothing here.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertRevocationListError, CertificateError, DigitallySignedStruct, Error, OtherError,
    SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::svid::{self, SvidError};
use super::trust::Trust;
use crate::credential::spiffe_id::{IdMatch, SpiffeId, TrustDomain};

/// Accepts the peers that a match names.
#[derive(Debug)]
pub(crate) struct SvidVerifier {
    /// Whom it believes.
    pub trust: Arc<Trust>,
    /// Whom it accepts.
    pub expected: IdMatch,
    /// How certificates and handshakes may be signed.
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
}

impl SvidVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let peer = svid::id_of(leaf).map_err(PeerError::Svid)?;
        let domain = peer.trust_domain();
        let Some(bundle) = self.trust.bundle(&domain) else {
            return Err(PeerError::NoBundle(domain).into());
        };
        let revocations: Vec<&CertRevocationList<'_>> = self.trust.revocations().iter().collect();
        // A list whose successor is late revokes what it revoked.
        let revocation = RevocationOptionsBuilder::new(&revocations).ok().map(|it| {
            it.with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    self.algorithms.all,
                    &bundle.roots,
                    intermediates,
                    now,
                    usage,
                    revocation,
                    None,
                )
                .map(drop)
            })
            .map_err(chain_error)?;
        accept(&self.expected, peer)
    }
}

/// Whether a certificate, which somebody else has verified, is that of a peer that
/// is accepted.
pub(super) fn expect(expected: &IdMatch, leaf: &CertificateDer<'_>) -> Result<(), Error> {
    accept(expected, svid::id_of(leaf).map_err(PeerError::Svid)?)
}

fn accept(expected: &IdMatch, peer: SpiffeId) -> Result<(), Error> {
    match expected.accepts(&peer) {
        true => Ok(()),
        false => Err(PeerError::Id {
            expected: expected.clone(),
            peer,
        }
        .into()),
    }
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
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
        }
    }
}

impl std::error::Error for PeerError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::super::test_authority::TestAuthority;
    use super::*;

    fn verifier(expected: &str, authorities: &[(&str, &TestAuthority)]) -> SvidVerifier {
        let mut trust = Trust::default();
        for (domain, authority) in authorities {
            let id: SpiffeId = format!("spiffe://{domain}").parse().unwrap();
            let bundle = [authority.certificate()].into_iter();
            trust.add_bundle(id.trust_domain(), bundle).unwrap();
        }
        SvidVerifier {
            trust: Arc::new(trust),
            expected: expected.parse().unwrap(),
            algorithms: default_provider().signature_verification_algorithms,
        }
    }

    fn verdict(verifier: &SvidVerifier, leaf: &CertificateDer<'_>) -> Result<(), String> {
        // The name of the host means nothing.
        let name = ServerName::try_from("elsewhere.test").unwrap();
        let verified = verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::now());
        verified.map(drop).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::Other(error)) => error.0.to_string(),
            error => error.to_string(),
        })
    }

    #[track_caller]
    fn assert_refused(verifier: &SvidVerifier, leaf: &CertificateDer<'_>, words: &str) {
        let error = verdict(verifier, leaf).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_id_decides_and_not_the_name() {
        let td = TestAuthority::new("td");
        let svid = td.svid("/payments", 1).certificate;
        for expected in ["spiffe://td/payments", "spiffe://td"] {
            assert_eq!(verdict(&verifier(expected, &[("td", &td)]), &svid), Ok(()));
        }
        for expected in ["spiffe://td/orders", "spiffe://other"] {
            let words = format!("the peer is spiffe://td/payments; accepted is {expected}");
            assert_refused(&verifier(expected, &[("td", &td)]), &svid, &words);
        }
    }

    #[test]
    fn only_its_own_domain_vouches_for_a_peer() {
        let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
        let svid = other.svid("/payments", 1).certificate;
        let federated = verifier("spiffe://other/payments", &[("td", &td), ("other", &other)]);
        assert_eq!(verdict(&federated, &svid), Ok(()));
        // A federated authority that makes an id of ours.
        let mut params = TestAuthority::params(1, Duration::from_secs(60));
        let uri = "spiffe://td/payments".try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let forged = other.issue(&params).certificate;
        let ours = verifier("spiffe://td/payments", &[("td", &td), ("other", &other)]);
        assert_refused(&ours, &forged, "UnknownIssuer");
        let alone = verifier("spiffe://other/payments", &[("td", &td)]);
        assert_refused(
            &alone,
            &svid,
            "of the trust domain other, of which there is no bundle",
        );
    }

    #[test]
    fn a_revoked_certificate_is_refused_even_by_a_list_that_is_late() {
        let td = TestAuthority::new("td");
        let mut verifier = verifier("spiffe://td", &[("td", &td)]);
        let trust = Arc::get_mut(&mut verifier.trust).unwrap();
        trust.add_revocations([td.revoke(7)].into_iter()).unwrap();
        let svid = |serial| td.svid("/payments", serial).certificate;
        assert_eq!(verdict(&verifier, &svid(6)), Ok(()));
        assert_refused(&verifier, &svid(7), "Revoked");
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        let td = TestAuthority::new("td");
        let verifier = verifier("spiffe://td", &[("td", &td)]);
        let of = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = TestAuthority::params(1, Duration::from_secs(60));
            let uri = "spiffe://td/payments".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
            change(&mut params);
            td.issue(&params).certificate
        };
        assert_eq!(verdict(&verifier, &of(&|_| {})), Ok(()));
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
