//! A private key that signs tokens: Ed25519, ECDSA on P-256 or RSA, read from PEM as
//! openssl writes it. Its public half is shown as a JSON Web Key (RFC 7517).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{self, PemObject as _};
use serde_json::{Value as Json, json};
use zeroize::Zeroize as _;

use super::secret::Secret;

/// How a token is signed, by the names of RFC 7518 section 3.1 and RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

/// A private key and its public half.
pub(crate) struct SigningKey {
    pair: Pair,
    /// The members of the public key that its thumbprint covers, in their order.
    public: Json,
    id: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Why a file holds no key to sign with. None of these shows a byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// There is no block of PEM with a private key.
    NoKey,
    /// It is protected by a passphrase.
    Encrypted,
    /// The key is damaged, or of another kind.
    Unusable,
}

/// The signature failed, which no key that was read does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignError;

impl SigningKey {
    /// Reads the first private key of a PEM file: PKCS#8, SEC1 (EC) or PKCS#1 (RSA).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub(crate) fn from_pem(text: &Secret) -> Result<Self, KeyError> {
        let mut der = PrivateKeyDer::from_pem_slice(text.expose()).map_err(|error| {
            let encrypted = b"ENCRYPTED";
            let is_encrypted =
                |text: &[u8]| text.windows(encrypted.len()).any(|it| it == encrypted);
            match error {
                _ if is_encrypted(text.expose()) => KeyError::Encrypted,
                pem::Error::NoItemsFound => KeyError::NoKey,
                _ => KeyError::Unusable,
            }
        })?;
        let pair = Pair::from_der(&der);
        der.zeroize();
        let pair = pair.ok_or(KeyError::Unusable)?;
        let public = pair.public();
        let id = thumbprint(&public);
        Ok(Self { pair, public, id })
    }

    /// What it signs with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match &self.pair {
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// Its thumbprint (RFC 7638), the `kid` of tokens and of the public key.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The public half as a JSON Web Key.
    pub(crate) fn public(&self) -> Json {
        let mut key = self.public.clone();
        key["alg"] = self.algorithm().name().into();
        key["kid"] = self.id.as_str().into();
        key["use"] = "sig".into();
        key
    }

    /// The signature as RFC 7518 section 3 has it: of ECDSA both numbers, one behind
    /// the other.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => {
                let signature = pair.try_sign(message).map_err(|_| SignError)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::P256(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| SignError)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SignError)?;
                Ok(signature)
            }
        }
    }
}

impl Pair {
    /// The format does not always tell the kind: PKCS#8 holds any of them.
    fn from_der(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let bytes = der.secret_der();
        match der {
            PrivateKeyDer::Pkcs8(_) => Ed25519KeyPair::from_pkcs8(bytes)
                .map(Self::Ed25519)
                .ok()
                .or_else(|| Self::p256(bytes))
                .or_else(|| RsaKeyPair::from_pkcs8(bytes).map(Self::Rsa).ok()),
            PrivateKeyDer::Sec1(_) => Self::p256(bytes),
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes).map(Self::Rsa).ok(),
            _ => None,
        }
    }

    fn p256(bytes: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes)
            .map(Self::P256)
            .ok()
    }

    /// The required members of the key, in the order of their names (RFC 7638
    /// section 3.2, RFC 8037 section 2).
    fn public(&self) -> Json {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(pair) => json!({
                "crv": "Ed25519",
                "kty": "OKP",
                "x": base64(pair.public_key().as_ref()),
            }),
            Self::P256(pair) => {
                // The uncompressed point: 4, then both coordinates.
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
                json!({ "crv": "P-256", "kty": "EC", "x": base64(x), "y": base64(y) })
            }
            Self::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref()).unwrap_or_default();
                json!({ "e": base64(e), "kty": "RSA", "n": base64(n) })
            }
        }
    }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (numbers, _) = element(0x30, der)?;
    let (modulus, rest) = element(2, numbers)?;
    let (exponent, _) = element(2, rest)?;
    // A zero in front keeps a number positive, and is no part of it.
    let unsigned = |number| <[u8]>::strip_prefix(number, &[0]).unwrap_or(number);
    Some((unsigned(modulus), unsigned(exponent)))
}

/// The content of an element of DER with this tag, and what is behind it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..0x80 => (usize::from(length), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let long = |sum: usize, byte: &u8| sum.checked_mul(256)?.checked_add((*byte).into());
            (bytes.iter().try_fold(0, long)?, rest)
        }
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

/// RFC 7638 section 3.
fn thumbprint(required: &Json) -> String {
    let hash = digest::digest(&digest::SHA256, required.to_string().as_bytes());
    URL_SAFE_NO_PAD.encode(hash)
}

impl Algorithm {
    /// The name that stands in tokens and configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm().name(), self.id)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "holds no private key in PEM",
            Self::Encrypted => "holds a key with a passphrase: store it without one",
            Self::Unusable => "holds no usable key: Ed25519, EC P-256, or RSA of 2048 bits or more",
        })
    }
}

impl std::error::Error for KeyError {}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("holds a key that does not sign")
    }
}

impl std::error::Error for SignError {}

#[cfg(test)]
pub(crate) mod tests;
