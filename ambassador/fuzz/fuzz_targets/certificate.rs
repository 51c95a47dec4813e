//! A certificate in DER, or a list of them: no input panics, and what is read of one is
//! what webpki reads.

#![no_main]

use ambassador::testing::tls::certificate::{CertificateFacts, split};
use ambassador::testing::tls::svid::id_of;
use libfuzzer_sys::fuzz_target;
use pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The last second of the year 9999, the last that can be written.
const END: u64 = 253_402_300_799;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parts) = split(bytes) {
        assert_eq!(parts.concat(), bytes);
    }
    let facts = CertificateFacts::read(bytes);
    let id = id_of(bytes);
    let Ok(facts) = facts else {
        assert!(id.is_err());
        return;
    };
    assert_eq!(split(bytes), Ok(vec![bytes]));
    assert!(facts.not_before <= END && facts.not_after <= END);
    if let Ok(id) = id {
        assert_eq!(facts.uris, [id.to_string().as_bytes()]);
    }
    if let Ok(certificate) = EndEntityCert::try_from(&CertificateDer::from(bytes)) {
        let texts = facts.uris.iter();
        let texts = texts.filter_map(|uri| std::str::from_utf8(uri).ok());
        assert!(certificate.valid_uri_names().eq(texts));
    }
});
