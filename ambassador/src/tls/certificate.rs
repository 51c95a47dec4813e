//! What a certificate says that webpki does not tell: until when it is valid,
//! what its key may be used for, and every URI among its names.
//!
//! It reads DER strictly and checks no signature. Who trusts a certificate has
//! webpki verify it first.

use std::fmt;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` with parts: the version of a certificate.
const VERSION: u8 = 0xa0;
/// `[3]` with parts: the extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
/// `[6]` of a general name: a URI.
const URI: u8 = 0x86;
/// The other general names (RFC 5280, section 4.2.1.6).
const OTHER_NAMES: [u8; 8] = [0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, 0x87, 0x88];

/// 2.5.29.n: the extensions of certificates (RFC 5280, section 4.2.1).
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 19];

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts<'a> {
    /// The first second in which it is valid, since 1970; before: 0.
    pub not_before: u64,
    /// The last one.
    pub not_after: u64,
    /// Whether it may be the issuer of others.
    pub is_authority: bool,
    /// `None`: for anything.
    pub key_usage: Option<KeyUsage>,
    /// In their order, whatever their bytes are.
    pub uris: Vec<&'a [u8]>,
}

/// What the key of a certificate may be used for (RFC 5280, section 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// Bit 0 is the highest.
    bits: u8,
}

/// It is no certificate, or one with an error in its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEncoding;

impl KeyUsage {
    /// keyCertSign or cRLSign: what only an authority does.
    pub(crate) fn signs_for_others(self) -> bool {
        self.bits & 0b0000_0110 != 0
    }
}

impl<'a> CertificateFacts<'a> {
    /// Reads those of a certificate.
    ///
    /// # Errors
    /// Where it is none, or not as DER is written.
    pub fn read(certificate: &'a [u8]) -> Result<Self, BadEncoding> {
        let mut certificate = Der::one(SEQUENCE, certificate)?;
        let mut body = Der(certificate.expect(SEQUENCE)?);
        body.skip_if(VERSION)?;
        body.expect(INTEGER)?; // serial number
        body.expect(SEQUENCE)?; // algorithm of the signature
        body.expect(SEQUENCE)?; // issuer
        let mut validity = Der(body.expect(SEQUENCE)?);
        let mut facts = Self {
            not_before: validity.time()?,
            not_after: validity.time()?,
            is_authority: false,
            key_usage: None,
            uris: Vec::new(),
        };
        body.expect(SEQUENCE)?; // subject
        body.expect(SEQUENCE)?; // public key
        while let Some((tag, content)) = body.next()? {
            if tag == EXTENSIONS {
                facts.read_extensions(Der::one(SEQUENCE, content)?)?;
            }
        }
        Ok(facts)
    }

    fn read_extensions(&mut self, mut extensions: Der<'a>) -> Result<(), BadEncoding> {
        let mut seen = Vec::new();
        while !extensions.is_empty() {
            let mut extension = Der(extensions.expect(SEQUENCE)?);
            let id = extension.expect(OBJECT_ID)?;
            extension.skip_if(BOOLEAN)?; // critical
            let value = extension.expect(OCTET_STRING)?;
            if seen.contains(&id) || !extension.is_empty() {
                return Err(BadEncoding);
            }
            seen.push(id);
            if id == KEY_USAGE {
                let [unused, bits @ ..] = Der(value).last(BIT_STRING)? else {
                    return Err(BadEncoding);
                };
                let bits = bits.first().copied().unwrap_or(0);
                self.key_usage = (*unused < 8).then_some(KeyUsage { bits });
                self.key_usage.ok_or(BadEncoding)?;
            } else if id == BASIC_CONSTRAINTS {
                let mut constraints = Der::one(SEQUENCE, value)?;
                let authority = constraints.skip_if(BOOLEAN)?;
                self.is_authority = authority.is_some_and(|it| it != [0]);
            } else if id == SUBJECT_ALT_NAME {
                let mut names = Der::one(SEQUENCE, value)?;
                while let Some((tag, name)) = names.next()? {
                    match tag {
                        URI => self.uris.push(name),
                        tag if OTHER_NAMES.contains(&tag) => {}
                        // webpki reads no further, and would know less.
                        _ => return Err(BadEncoding),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The last second in which a certificate is valid, since 1970; `None`: it is
/// malformed.
pub(crate) fn not_after(certificate: &[u8]) -> Option<u64> {
    let facts = CertificateFacts::read(certificate);
    facts.ok().map(|facts| facts.not_after)
}

/// The URIs that a certificate is for (RFC 5280 section 4.2.1.6), such as a SPIFFE id.
pub(crate) fn uris(certificate: &[u8]) -> Vec<String> {
    let uris = CertificateFacts::read(certificate).map(|facts| facts.uris);
    let text = |uri: &[u8]| String::from_utf8(uri.to_vec()).ok();
    uris.unwrap_or_default()
        .into_iter()
        .filter_map(text)
        .collect()
}

/// The certificates of a list that stand one behind the other.
///
/// # Errors
/// Where something else stands among them.
pub fn split(mut list: &[u8]) -> Result<Vec<&[u8]>, BadEncoding> {
    let mut certificates = Vec::new();
    while !list.is_empty() {
        let mut rest = Der(list);
        rest.expect(SEQUENCE)?;
        let (certificate, behind) = list.split_at(list.len() - rest.0.len());
        certificates.push(certificate);
        list = behind;
    }
    Ok(certificates)
}

/// Values with a tag and a length, one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// What is in the one value of this kind that the bytes are.
    fn one(tag: u8, bytes: &'a [u8]) -> Result<Self, BadEncoding> {
        Ok(Self(Der(bytes).last(tag)?))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value; `None`: there is none.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, BadEncoding> {
        let (tag, length, rest) = match *self.0 {
            [] => return Ok(None),
            // A tag of several bytes is in no certificate.
            [tag, ..] if tag & 0x1f == 0x1f => return Err(BadEncoding),
            [tag, length @ ..=0x7f, ref rest @ ..] => (tag, length.into(), rest),
            [tag, 0x81, length @ 0x80..=0xff, ref rest @ ..] => (tag, length.into(), rest),
            [tag, 0x82, high @ 1..=0xff, low, ref rest @ ..] => {
                (tag, u16::from_be_bytes([high, low]).into(), rest)
            }
            [tag, 0x83, high @ 1..=0xff, mid, low, ref rest @ ..] => {
                let length = u32::from_be_bytes([0, high, mid, low]);
                (tag, length as usize, rest)
            }
            _ => return Err(BadEncoding),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(BadEncoding)?;
        self.0 = rest;
        Ok(Some((tag, content)))
    }

    fn expect(&mut self, tag: u8) -> Result<&'a [u8], BadEncoding> {
        match self.next()? {
            Some((found, content)) if found == tag => Ok(content),
            _ => Err(BadEncoding),
        }
    }

    /// The same, with nothing behind it.
    fn last(mut self, tag: u8) -> Result<&'a [u8], BadEncoding> {
        let content = self.expect(tag)?;
        match self.is_empty() {
            true => Ok(content),
            false => Err(BadEncoding),
        }
    }

    fn skip_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, BadEncoding> {
        match self.0.first() {
            Some(first) if *first == tag => self.expect(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// Seconds since 1970.
    fn time(&mut self) -> Result<u64, BadEncoding> {
        let (tag, text) = self.next()?.ok_or(BadEncoding)?;
        let digits = text.strip_suffix(b"Z").ok_or(BadEncoding)?;
        let mut pairs = Vec::new();
        for pair in digits.chunks(2) {
            match *pair {
                [ten @ b'0'..=b'9', one @ b'0'..=b'9'] => {
                    pairs.push(u64::from(ten - b'0') * 10 + u64::from(one - b'0'));
                }
                _ => return Err(BadEncoding),
            }
        }
        let (year, rest) = match (tag, &*pairs) {
            // RFC 5280, section 4.1.2.5.1.
            (UTC_TIME, [year @ ..50, rest @ ..]) => (2000 + year, rest),
            (UTC_TIME, [year, rest @ ..]) => (1900 + year, rest),
            (GENERALIZED_TIME, [century, year, rest @ ..]) => (century * 100 + year, rest),
            _ => return Err(BadEncoding),
        };
        match *rest {
            [
                month @ 1..=12,
                day @ 1..=31,
                hour @ ..24,
                minute @ ..60,
                second @ ..60,
            ] => {
                let of_day = (hour * 60 + minute) * 60 + second;
                let day = days_since_year_0(year, month, day);
                let epoch = days_since_year_0(1970, 1, 1);
                Ok(day
                    .checked_sub(epoch)
                    .map_or(0, |days| days * 86_400 + of_day))
            }
            _ => Err(BadEncoding),
        }
    }
}

/// In the Gregorian calendar, counted from a March, so that a leap day is the last
/// of its year.
fn days_since_year_0(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = match month {
        ..3 => (year + 399, month + 9),
        _ => (year + 400, month - 3),
    };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day
}

impl fmt::Display for BadEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no certificate")
    }
}

impl std::error::Error for BadEncoding {}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose,
        SanType, date_time_ymd,
    };

    use super::*;

    fn certificate(params: CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_facts_of_a_leaf_are_read() {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 12, 31);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        for uri in ["spiffe://a/b", "https://a"] {
            let uri = uri.try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let der = certificate(params);
        let facts = CertificateFacts::read(&der).unwrap();
        assert_eq!(facts.not_before, 1_709_164_800);
        assert_eq!(facts.not_after, 2_587_593_600);
        assert!(!facts.is_authority);
        assert!(!facts.key_usage.unwrap().signs_for_others());
        assert_eq!(facts.uris, [&b"spiffe://a/b"[..], b"https://a"]);
    }

    #[test]
    fn an_authority_is_known_by_either_extension() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = certificate(params);
        let facts = CertificateFacts::read(&der).unwrap();
        assert!(facts.is_authority && facts.uris.is_empty());

        for purpose in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
            let mut params = CertificateParams::default();
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature, purpose];
            let der = certificate(params);
            let facts = CertificateFacts::read(&der).unwrap();
            assert!(!facts.is_authority);
            assert!(facts.key_usage.unwrap().signs_for_others());
        }
    }

    #[test]
    fn a_certificate_that_is_cut_or_padded_is_none() {
        let der = certificate(CertificateParams::default());
        assert!(CertificateFacts::read(&der).is_ok());
        for length in 0..der.len() {
            let facts = CertificateFacts::read(&der[..length]);
            assert_eq!(facts, Err(BadEncoding), "{length}");
        }
        let padded = [&der[..], b"\0"].concat();
        assert_eq!(CertificateFacts::read(&padded), Err(BadEncoding));
    }

    /// A peer shows it before anybody has verified it.
    #[test]
    fn no_change_of_a_certificate_panics() {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let der = certificate(params);
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                let _ = CertificateFacts::read(&changed);
                let _ = split(&changed);
            }
        }
    }

    #[test]
    fn an_extension_stands_once() {
        let names = |uri: &[u8]| {
            let name = [&[URI, uri.len() as u8], uri].concat();
            let content = [&[SEQUENCE, name.len() as u8], &name[..]].concat();
            CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
        };
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![names(b"spiffe://a/b"), names(b"spiffe://a/c")];
        let der = certificate(params.clone());
        assert_eq!(CertificateFacts::read(&der), Err(BadEncoding));
        // What is no text is a name all the same.
        params.custom_extensions = vec![names(b"\xff")];
        let der = certificate(params);
        assert_eq!(CertificateFacts::read(&der).unwrap().uris, [b"\xff"]);
    }

    #[test]
    fn names_of_no_known_kind_are_refused() {
        let names = |tag: u8| {
            let content = vec![SEQUENCE, 6, tag, 1, b'a', URI, 1, b'b'];
            let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            let mut params = CertificateParams::default();
            params.custom_extensions = vec![names];
            certificate(params)
        };
        for tag in OTHER_NAMES {
            let der = names(tag);
            assert_eq!(
                CertificateFacts::read(&der).unwrap().uris,
                [b"b"],
                "{tag:x}"
            );
        }
        for tag in [0x26, 0x80, 0xa6, 0x89, SEQUENCE] {
            assert_eq!(
                CertificateFacts::read(&names(tag)),
                Err(BadEncoding),
                "{tag:x}"
            );
        }
    }

    #[test]
    fn certificates_of_a_list_come_apart() {
        let ders = [1, 2, 3].map(|_| certificate(CertificateParams::default()));
        assert_eq!(split(&ders.concat()).unwrap(), ders);
        assert_eq!(split(b"").unwrap(), [b""; 0]);
        assert_eq!(
            split(&[&ders.concat()[..], b"x"].concat()),
            Err(BadEncoding)
        );
    }

    #[test]
    fn lengths_and_times_have_one_form() {
        let value = |bytes: &[u8]| Der(bytes).next().map(|it| it.unwrap().1.len());
        assert_eq!(value(&[4, 1, 9]), Ok(1));
        // Longer than need be, indefinite, a tag of two bytes, beyond the end.
        for bytes in [
            &[4, 0x81, 1, 9][..],
            &[4, 0x82, 0, 0x80, 9],
            &[4, 0x80, 0, 0],
            &[0x1f, 1, 9],
            &[4, 2, 9],
            &[4, 0x84, 0, 0, 0, 1, 9],
        ] {
            assert_eq!(value(bytes), Err(BadEncoding), "{bytes:?}");
        }
        let time =
            |tag: u8, text: &str| Der(&[&[tag, text.len() as u8], text.as_bytes()].concat()).time();
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(0));
        assert_eq!(time(GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000));
        assert_eq!(time(GENERALIZED_TIME, "20000301000000Z"), Ok(951_868_800));
        assert_eq!(time(GENERALIZED_TIME, "00000101000000Z"), Ok(0));
        for text in [
            "",
            "Z",
            "7001010000Z",
            "701301000000Z",
            "70010100000+Z",
            "700101000000",
        ] {
            assert_eq!(time(UTC_TIME, text), Err(BadEncoding), "{text}");
        }
    }
}
