//! An authority of the tests: it makes the SVIDs of a trust domain, and revokes
//! them.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivatePkcs8KeyDer};

use super::trust::Trust;
use crate::credential::spiffe_id::SpiffeId;

/// The signing certificate of a trust domain, with its key.
pub(crate) struct TestAuthority {
    domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate, and the key in PKCS#8.
pub(crate) struct TestSvid {
    pub certificate: CertificateDer<'static>,
    pub key: PrivatePkcs8KeyDer<'static>,
}

impl TestAuthority {
    pub(crate) fn new(domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(domain, "")];
        let key = KeyPair::generate().unwrap();
        Self {
            domain: domain.to_owned(),
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Of a workload, with `serial`, from a minute ago until in an hour.
    pub(crate) fn svid(&self, path: &str, serial: u64) -> TestSvid {
        self.svid_for(path, serial, Duration::from_secs(3_600))
    }

    pub(crate) fn svid_for(&self, path: &str, serial: u64, lifetime: Duration) -> TestSvid {
        let mut params = Self::params(serial, lifetime);
        params.subject_alt_names = vec![uri(&self.domain, path)];
        self.issue(&params)
    }

    /// What the certificate of a leaf has beside its names.
    pub(crate) fn params(serial: u64, lifetime: Duration) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + lifetime).into();
        params
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> TestSvid {
        let key = KeyPair::generate().unwrap();
        TestSvid {
            certificate: params.signed_by(&key, &self.issuer).unwrap().der().clone(),
            key: key.serialize_der().into(),
        }
    }

    /// A list that revokes one certificate, and whose successor is long due.
    pub(crate) fn revoke(&self, serial: u64) -> CertificateRevocationListDer<'static> {
        self.revoke_until(serial, 2024)
    }

    /// A list that revokes one certificate, with a successor due in this year.
    pub(crate) fn revoke_until(
        &self,
        serial: u64,
        year: i32,
    ) -> CertificateRevocationListDer<'static> {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().clone()
    }
}

/// Trust in these authorities, each for its domain.
pub(crate) fn trust_in(authorities: &[(&str, &TestAuthority)]) -> Trust {
    let mut trust = Trust::default();
    for (domain, authority) in authorities {
        let id: SpiffeId = format!("spiffe://{domain}").parse().unwrap();
        let bundle = [authority.certificate()].into_iter();
        trust.add_bundle(id.trust_domain(), bundle).unwrap();
    }
    trust
}

fn uri(domain: &str, path: &str) -> SanType {
    SanType::URI(format!("spiffe://{domain}{path}").try_into().unwrap())
}
