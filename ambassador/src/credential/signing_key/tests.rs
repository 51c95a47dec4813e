use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING};
use base64::engine::general_purpose::STANDARD;

use super::*;

/// The private key of RFC 8037 appendix A.1 in PKCS#8.
const RFC8037: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";

/// As `openssl ecparam -genkey` writes it: the name of the curve in a block of its own.
const SEC1: &str = "\
-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIPrZcHeyspa9VnQtRc/OLUeGf+QiYtFnq3sSGw7E8ZTEoAoGCCqGSM49
AwEHoUQDQgAEOe459JFztZN/Aoc5fEU09es0rstINqMKmW5emCN4+rrQIDcl3UNi
OjBUfCopAA+d2nP9FrQG/dZKSladoWLG/g==
-----END EC PRIVATE KEY-----
";

fn pem(label: &str, der: &[u8]) -> Secret {
    let body = STANDARD.encode(der);
    let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    Secret::from(text.into_bytes())
}

fn read(text: &str) -> Result<SigningKey, KeyError> {
    SigningKey::from_pem(&Secret::from(text.as_bytes().to_vec()))
}

/// A key of each kind and format, by what it is called here.
pub(crate) fn keys() -> Vec<(&'static str, SigningKey)> {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let rsa = rsa.as_ref();
    // In front stand the version, the kind and the lengths around an RSAPrivateKey.
    let pkcs1 = &rsa[26..];
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let ec = ec.to_pkcs8v1().unwrap();
    let texts = [
        ("Ed25519", Secret::from(RFC8037.as_bytes().to_vec())),
        (
            "EC as openssl writes it",
            Secret::from(SEC1.as_bytes().to_vec()),
        ),
        ("EC in PKCS#8", pem("PRIVATE KEY", ec.as_ref())),
        ("RSA in PKCS#8", pem("PRIVATE KEY", rsa)),
        ("RSA in PKCS#1", pem("RSA PRIVATE KEY", pkcs1)),
    ];
    let read = |(name, text): (_, Secret)| (name, SigningKey::from_pem(&text).expect(name));
    texts.map(read).into()
}

#[test]
fn formats_of_openssl_are_read() {
    use Algorithm::{EdDsa, Es256, Rs256};
    let algorithms: Vec<_> = keys().iter().map(|(_, key)| key.algorithm()).collect();
    assert_eq!(algorithms, [EdDsa, Es256, Es256, Rs256, Rs256]);
}

#[test]
fn thumbprints_are_those_of_the_specifications() {
    let ed25519 = read(RFC8037).unwrap();
    assert_eq!(ed25519.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(
        ed25519.public(),
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
    );
    // By joserfc.
    let ec = read(SEC1).unwrap();
    assert_eq!(ec.id(), "OGteEZAQpb_mVlqVz6y0sYnDXbv63YBaiqAUAC-pOL8");
    // RFC 7638 section 3.1.
    let rsa = json!({
        "e": "AQAB",
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS\
              oc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65\
              YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyr\
              dkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK\
              nqDKgw",
    });
    assert_eq!(
        thumbprint(&rsa),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

/// RFC 8037 appendix A.4: signatures of Ed25519 do not vary.
#[test]
fn a_signature_is_that_of_the_specification() {
    let key = read(RFC8037).unwrap();
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert_eq!(
        URL_SAFE_NO_PAD.encode(key.sign(message).unwrap()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn numbers_of_a_public_key_of_rsa_are_found() {
    let numbers = [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1];
    assert_eq!(rsa_numbers(&numbers), Some((&[0x81][..], &[1, 0, 1][..])));
    let long = [
        &[0x30, 0x82, 1, 9, 2, 0x82, 1, 0][..],
        &[7; 256],
        &[2, 3, 1, 0, 1],
    ]
    .concat();
    assert_eq!(rsa_numbers(&long), Some((&[7; 256][..], &[1, 0, 1][..])));
    for end in 0..long.len() {
        assert_eq!(rsa_numbers(&long[..end]), None, "{end}");
    }
    assert_eq!(rsa_numbers(&[0x30, 0xff, 1]), None);
}

#[test]
fn what_is_no_key_is_told() {
    let other = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let other = pem("PRIVATE KEY", other.to_pkcs8v1().unwrap().as_ref());
    let other = std::str::from_utf8(other.expose()).unwrap();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: \
                       AES-256-CBC,00\n\nMIGb\n-----END RSA PRIVATE KEY-----\n";
    let cases = [
        ("", KeyError::NoKey),
        ("hunter2\n", KeyError::NoKey),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            KeyError::NoKey,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            KeyError::Unusable,
        ),
        (
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
            KeyError::Unusable,
        ),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n", KeyError::Unusable),
        (other, KeyError::Unusable),
        (encrypted, KeyError::Encrypted),
        (traditional, KeyError::Encrypted),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text).map(|_| ()), Err(expected), "{text}");
    }
}

#[test]
fn no_text_shows_the_private_half() {
    let key = read(RFC8037).unwrap();
    assert_eq!(
        format!("{key:?}"),
        "SigningKey(EdDSA kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k)"
    );
    for (name, key) in keys() {
        for private in ["d", "p", "q", "dp", "dq", "qi"] {
            assert_eq!(key.public().get(private), None, "{name}");
        }
    }
}
