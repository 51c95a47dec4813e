//! What is needed of a certificate beside its verification: until when it is valid, and
//! the URIs that it is for.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The URIs that a certificate is for (RFC 5280 section 4.2.1.6), such as a SPIFFE id.
pub(crate) fn uris(certificate: &[u8]) -> Vec<String> {
    let der = CertificateDer::from(certificate);
    let Ok(certificate) = EndEntityCert::try_from(&der) else {
        return Vec::new();
    };
    certificate.valid_uri_names().map(str::to_owned).collect()
}

/// The end of a certificate's validity (RFC 5280 section 4.1.2.5), in seconds since
/// 1970; `None`: it is malformed, or was before.
pub(crate) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (certificate, _) = value(certificate, SEQUENCE)?;
    let (mut fields, _) = value(certificate, SEQUENCE)?;
    // The version may be left out.
    if fields.first() == Some(&VERSION) {
        fields = value(fields, VERSION)?.1;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = value(fields, tag)?.1;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (_, not_after) = any(validity)?;
    moment(not_after)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The value with this tag at the start, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    if der.first() != Some(&tag) {
        return None;
    }
    any(der)
}

/// The value at the start, and what follows it (X.690 section 8.1).
fn any(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time as RFC 5280 wants it: to the second, in UTC.
fn moment(der: &[u8]) -> Option<u64> {
    let (text, _) = any(der)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match *der.first()? {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut parts = [0; 5];
    for (at, part) in parts.iter_mut().enumerate() {
        *part = rest.get(2 * at..2 * at + 2)?.parse().ok()?;
    }
    let [month, day, hour, minute, second] = parts;
    let is_valid = rest.len() == 10
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    u64::try_from(seconds).ok().filter(|_| is_valid)
}

/// Days from 1970 to a day of the Gregorian calendar. Years are counted from March, so
/// that a leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn until(year: i32, month: u8, day: u8) -> Option<u64> {
        let mut parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.not_after = date_time_ymd(year, month, day);
        let certificate = parameters
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        not_after(certificate.der())
    }

    #[test]
    fn the_end_is_that_of_the_certificate() {
        assert_eq!(until(1970, 1, 2), Some(86_400));
        assert_eq!(until(2000, 2, 29), Some(951_782_400));
        assert_eq!(until(2049, 12, 31), Some(2_524_521_600));
        // From 2050 on it is written in another form.
        assert_eq!(until(2050, 1, 1), Some(2_524_608_000));
        assert_eq!(until(2400, 3, 1), Some(13_574_649_600));
    }

    #[test]
    fn what_is_cut_or_changed_has_no_end_or_another() {
        let parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = parameters
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let der = certificate.der();
        for length in 0..der.len() {
            let _ = not_after(&der[..length]);
        }
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.to_vec();
                changed[at] ^= 1 << bit;
                let _ = not_after(&changed);
            }
        }
        assert_eq!(not_after(b""), None);
        assert_eq!(not_after(&der[..100]), None);
    }
}
