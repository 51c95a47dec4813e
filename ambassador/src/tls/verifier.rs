//! Decides whether a server is the one that was asked for.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::svid_verifier::expect;
use crate::route::tls::Verify;

/// Verifies servers.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Verifies chain, time, revocation and, last, the name. `None`: nothing of that is
    /// asked for.
    pub chain: Option<Arc<WebPkiServerVerifier>>,
    /// What must be right.
    pub verify: Verify,
    /// Verifies the signatures of handshakes.
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match (verified, &self.verify) {
            // The name comes last: all else is right.
            (
                Ok(_)
                | Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })),
                Verify::Ca | Verify::Spiffe(_),
            ) => {
                if let Verify::Spiffe(expected) = &self.verify {
                    expect(expected, end_entity)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            (verified, _) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
