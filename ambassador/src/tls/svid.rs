//! X.509-SVIDs: certificates whose holder is a SPIFFE ID.

use std::fmt;

use super::certificate::{BadEncoding, CertificateFacts};
use crate::credential::spiffe_id::{IdError, SpiffeId};

/// Why a certificate shows no workload's id (X509-SVID, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SvidError {
    /// It is no certificate.
    Encoding(BadEncoding),
    /// It has none, or several: exactly one URI may stand among its names.
    UriCount(usize),
    /// The URI is no SPIFFE ID.
    Id(IdError),
    /// The id is that of a trust domain, and of no workload in it.
    NoPath,
    /// It may sign certificates or revocation lists: an authority is no workload.
    Authority,
}

/// Who the certificate speaks for, provided that somebody has verified it.
///
/// # Errors
/// Where it speaks for no workload.
pub fn id_of(leaf: &[u8]) -> Result<SpiffeId, SvidError> {
    let facts = CertificateFacts::read(leaf).map_err(SvidError::Encoding)?;
    if facts.is_authority || facts.key_usage.is_some_and(|it| it.signs_for_others()) {
        return Err(SvidError::Authority);
    }
    let &[uri] = &*facts.uris else {
        return Err(SvidError::UriCount(facts.uris.len()));
    };
    // No byte outside of ASCII is in an id, so where it stands makes no difference.
    let uri = str::from_utf8(uri).map_err(|_| SvidError::Id(IdError::PathCharacter))?;
    let id: SpiffeId = uri.parse().map_err(SvidError::Id)?;
    match id.path() {
        "" => Err(SvidError::NoPath),
        _ => Ok(id),
    }
}

impl fmt::Display for SvidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(error) => write!(f, "the certificate {error}"),
            Self::UriCount(0) => f.write_str("the certificate has no SPIFFE ID"),
            Self::UriCount(count) => write!(f, "the certificate has {count} URIs, not one"),
            Self::Id(error) => write!(f, "the URI of the certificate {error}"),
            Self::NoPath => f.write_str("the SPIFFE ID of the certificate has no path"),
            Self::Authority => f.write_str("the certificate is that of an authority"),
        }
    }
}

impl std::error::Error for SvidError {}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn params(uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params
    }

    fn id(params: &CertificateParams) -> Result<String, SvidError> {
        let key = KeyPair::generate().unwrap();
        id_of(params.self_signed(&key).unwrap().der()).map(|id| id.to_string())
    }

    #[test]
    fn the_id_is_the_one_uri_of_a_leaf() {
        let one = params(&["spiffe://td/orders"]);
        assert_eq!(id(&one).unwrap(), "spiffe://td/orders");
        for (uris, error) in [
            (&[][..], SvidError::UriCount(0)),
            (&["spiffe://td/a", "spiffe://td/b"], SvidError::UriCount(2)),
            (&["spiffe://td/a", "https://td/b"], SvidError::UriCount(2)),
            (&["https://td/b"], SvidError::Id(IdError::Scheme)),
            (&["spiffe://td/a/"], SvidError::Id(IdError::Segment)),
            (&["spiffe://td"], SvidError::NoPath),
        ] {
            assert_eq!(id(&params(uris)), Err(error), "{uris:?}");
        }
        assert_eq!(id_of(b""), Err(SvidError::Encoding(BadEncoding)));
    }

    #[test]
    fn an_authority_is_no_workload() {
        for purpose in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let mut params = params(&["spiffe://td/orders"]);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, purpose];
            assert_eq!(id(&params), Err(SvidError::Authority));
        }
        let mut params = params(&["spiffe://td/orders"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(id(&params), Err(SvidError::Authority));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        assert!(id(&params).is_ok());
    }
}
