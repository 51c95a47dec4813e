//! Decides whether a client may come in by the certificate that it shows.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::KeyUsage;

use super::svid_verifier::{PeerError, SvidVerifier, id_of};
use crate::credential::spiffe_id::SpiffeId;
use crate::route::tls::{ClientAuth, ListenerTls};

/// Verifies clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// Who vouches for them.
    pub vouchers: Vouchers,
    /// What the settings ask of them.
    pub settings: Arc<ListenerTls>,
    /// How handshakes may be signed.
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// Who vouches for clients.
#[derive(Debug)]
pub(super) enum Vouchers {
    /// Authorities.
    Authorities(Arc<dyn ClientCertVerifier>),
    /// The bundle of their trust domain.
    Bundles(SvidVerifier),
}

impl ClientVerifier {
    /// Whether a workload may call; `peer` finds out which one it is.
    fn admit(&self, peer: impl FnOnce() -> Result<SpiffeId, Error>) -> Result<(), Error> {
        let Some(listed) = &self.settings.clients else {
            return Ok(());
        };
        let peer = peer()?;
        match listed.iter().any(|one| one.accepts(&peer)) {
            true => Ok(()),
            false => Err(PeerError::Unlisted(peer).into()),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.settings.client_auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.vouchers {
            Vouchers::Authorities(chain) => chain.root_hint_subjects(),
            // Those of trust domains say little, and may be many.
            Vouchers::Bundles(_) => &[],
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.vouchers {
            Vouchers::Authorities(chain) => {
                chain.verify_client_cert(end_entity, intermediates, now)?;
                self.admit(|| id_of(end_entity))?;
            }
            Vouchers::Bundles(verifier) => {
                let usage = KeyUsage::client_auth();
                let peer = verifier.verify(end_entity, intermediates, now, usage)?;
                self.admit(|| Ok(peer))?;
            }
        }
        Ok(ClientCertVerified::assertion())
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

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::server::WebPkiClientVerifier;

    use super::super::outcome::outcome_of;
    use super::super::test_authority::{TestAuthority, trust_in};
    use super::*;
    use crate::telemetry::TlsOutcome;

    fn verdict(vouchers: Vouchers, clients: &[&str], leaf: &CertificateDer<'_>) -> TlsOutcome {
        let clients = clients.iter().map(|id| id.parse().unwrap()).collect();
        let settings = ListenerTls {
            clients: Some(clients).filter(|clients: &Vec<_>| !clients.is_empty()),
            ..ListenerTls::default()
        };
        let verifier = ClientVerifier {
            vouchers,
            settings: Arc::new(settings),
            algorithms: default_provider().signature_verification_algorithms,
        };
        match verifier.verify_client_cert(leaf, &[], UnixTime::now()) {
            Ok(_) => TlsOutcome::Completed,
            Err(error) => outcome_of(&error),
        }
    }

    #[test]
    fn those_who_are_listed_may_call_whoever_vouches_for_them() {
        let (td, other) = (TestAuthority::new("td"), TestAuthority::new("other"));
        let bundles = || {
            Vouchers::Bundles(SvidVerifier {
                trust: Arc::new(trust_in(&[("td", &td), ("other", &other)])),
                lists: None,
                algorithms: default_provider().signature_verification_algorithms,
            })
        };
        let authorities = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates([td.certificate(), other.certificate()]);
            let provider = Arc::new(default_provider());
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            Vouchers::Authorities(chain.build().unwrap())
        };
        let svid = td.svid("/ns/shop/orders", 1).certificate;
        let foreign = other.svid("/orders", 1).certificate;
        let stranger = TestAuthority::new("stranger")
            .svid("/orders", 1)
            .certificate;
        for vouchers in [&bundles as &dyn Fn() -> Vouchers, &authorities] {
            let verdict = |clients: &[&str], leaf| verdict(vouchers(), clients, leaf).as_str();
            for clients in [
                &[][..],
                &["spiffe://td"],
                &["spiffe://td/ns/shop/*"],
                &["spiffe://td/x", "spiffe://td/ns/shop/orders"],
            ] {
                assert_eq!(verdict(clients, &svid), "completed", "{clients:?}");
            }
            for clients in [
                &["spiffe://td/x"][..],
                &["spiffe://other", "spiffe://td/ns/shop"],
            ] {
                assert_eq!(verdict(clients, &svid), "not-allowed", "{clients:?}");
            }
            assert_eq!(verdict(&[], &foreign), "completed");
            assert_eq!(verdict(&["spiffe://td"], &foreign), "not-allowed");
            assert_eq!(verdict(&[], &stranger), "unknown-ca");
        }
    }
}
