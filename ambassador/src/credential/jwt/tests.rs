use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value as Json;

use super::*;
use crate::credential::signing_key::tests::keys;

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Checks a signature by the JSON Web Key alone, as a server does.
fn is_valid(key: &Json, message: &[u8], signature: &[u8]) -> bool {
    let member = |name: &str| decoded(key[name].as_str().unwrap());
    let verified = match key["alg"].as_str().unwrap() {
        "EdDSA" => UnparsedPublicKey::new(&ED25519, member("x")).verify(message, signature),
        "ES256" => {
            let point = [&[4][..], &member("x"), &member("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        }
        _ => RsaPublicKeyComponents {
            n: member("n"),
            e: member("e"),
        }
        .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
    };
    verified.is_ok()
}

#[test]
fn a_token_is_verified_by_the_public_key() {
    let claims = Claims {
        issuer: "orders",
        subject: "orders \"ü\"",
        audience: "payments",
        issued_at: 1_700_000_000,
        lifetime: Duration::from_secs(300),
        id: 0xabc,
    };
    for (name, key) in keys() {
        let token = claims.signed_by(&key, key.id()).unwrap();
        let token = std::str::from_utf8(token.expose()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let [header, body, signature] = parts[..] else {
            panic!("{name}: {token}");
        };
        let public = key.public();
        let header: Json = serde_json::from_slice(&decoded(header)).unwrap();
        assert_eq!(
            header,
            json!({ "alg": public["alg"], "typ": "JWT", "kid": public["kid"] })
        );
        let body: Json = serde_json::from_slice(&decoded(body)).unwrap();
        assert_eq!(
            body,
            json!({
                "iss": "orders", "sub": "orders \"ü\"", "aud": "payments",
                "iat": 1_700_000_000, "exp": 1_700_000_300,
                "jti": "00000000000000000000000000000abc",
            })
        );
        let signed = token.rsplit_once('.').unwrap().0;
        let signature = decoded(signature);
        assert!(is_valid(&public, signed.as_bytes(), &signature), "{name}");
        let other = signed.replace('.', "x.");
        assert!(!is_valid(&public, other.as_bytes(), &signature), "{name}");
    }
}
