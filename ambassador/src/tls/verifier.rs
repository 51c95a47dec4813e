//! Decides whether a server is the one that was asked for.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use webpki::KeyUsage;

use super::resumption::Resumption;
use super::svid_verifier::{PeerError, SvidVerifier, id_of};
use crate::credential::spiffe_id::{IdMatch, SpiffeId};

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// What is verified.
    pub proof: ServerProof,
    /// Is told which certificates were right.
    pub resumption: Arc<Resumption>,
    /// How handshakes may be signed.
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// What a server has to prove beside that it has the key of its certificate.
#[derive(Debug)]
pub(super) enum ServerProof {
    /// Nothing.
    Nothing,
    /// That one of the authorities has signed it, and its name.
    Name(Arc<WebPkiServerVerifier>),
    /// That one of the authorities has signed it.
    Authority(Arc<WebPkiServerVerifier>),
    /// That one of the authorities has signed it, and its id.
    AuthorityAndId(Arc<WebPkiServerVerifier>, IdMatch),
    /// That the bundle of its trust domain vouches for it, and its id.
    Svid(SvidVerifier, IdMatch),
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_chain = |chain: &WebPkiServerVerifier| {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
        };
        match &self.proof {
            ServerProof::Nothing => return Ok(ServerCertVerified::assertion()),
            ServerProof::Name(chain) => {
                by_chain(chain)?;
            }
            ServerProof::Authority(chain) => but_for_the_name(by_chain(chain))?,
            ServerProof::AuthorityAndId(chain, expected) => {
                but_for_the_name(by_chain(chain))?;
                expect(expected, id_of(end_entity)?)?;
            }
            ServerProof::Svid(verifier, expected) => {
                let usage = KeyUsage::server_auth();
                let peer = verifier.verify(end_entity, intermediates, now, usage)?;
                expect(expected, peer)?;
            }
        }
        self.resumption.verified(server_name, end_entity);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The name comes last: where it alone is wrong, all else is right.
fn but_for_the_name(verified: Result<ServerCertVerified, Error>) -> Result<(), Error> {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    match verified {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

fn expect(expected: &IdMatch, peer: SpiffeId) -> Result<(), Error> {
    match expected.accepts(&peer) {
        true => Ok(()),
        false => Err(PeerError::Id {
            expected: expected.clone(),
            peer,
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::super::outcome::outcome_of;
    use super::super::test_authority::{TestAuthority, trust_in};
    use super::*;
    use crate::telemetry::TlsOutcome;

    #[test]
    fn the_id_decides_and_not_the_name() {
        let td = TestAuthority::new("td");
        let svid = td.svid("/payments", 1).certificate;
        let name = ServerName::try_from("elsewhere.test").unwrap();
        let verdict = |expected: &str| {
            let algorithms = default_provider().signature_verification_algorithms;
            let svids = SvidVerifier {
                trust: Arc::new(trust_in(&[("td", &td)])),
                lists: None,
                algorithms,
            };
            let verifier = ServerVerifier {
                proof: ServerProof::Svid(svids, expected.parse().unwrap()),
                resumption: Arc::new(Resumption::new()),
                algorithms,
            };
            let now = UnixTime::now();
            let verified = verifier.verify_server_cert(&svid, &[], &name, &[], now);
            verified.map(drop)
        };
        for expected in ["spiffe://td/payments", "spiffe://td", "spiffe://td/*"] {
            verdict(expected).unwrap();
        }
        for expected in [
            "spiffe://td/orders",
            "spiffe://other",
            "spiffe://td/payments/*",
        ] {
            let error = verdict(expected).unwrap_err();
            assert!(matches!(outcome_of(&error), TlsOutcome::WrongName));
        }
    }
}
