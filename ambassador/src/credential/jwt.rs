//! Signed JSON Web Tokens (RFC 7515, RFC 7519): made here, never read.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::secret::Secret;
use super::signing_key::{SignError, SigningKey};

/// What a token says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims<'a> {
    /// Who signs it.
    pub issuer: &'a str,
    /// Of whom it speaks.
    pub subject: &'a str,
    /// Who is to accept it.
    pub audience: &'a str,
    /// When it was made, in seconds since 1970.
    pub issued_at: u64,
    /// For how long it holds from then on.
    pub lifetime: Duration,
    /// Differs from token to token, so that an audience can refuse a second use.
    pub id: u128,
}

impl Claims<'_> {
    /// When it ends, in seconds since 1970.
    pub(crate) fn expires_at(&self) -> u64 {
        self.issued_at.saturating_add(self.lifetime.as_secs())
    }

    /// The token in its compact form. `key_id` is what who verifies it calls the key.
    /// There is no `nbf`: it would say the same as `iat`, and a server whose clock is
    /// slow would refuse the token.
    pub(crate) fn signed_by(&self, key: &SigningKey, key_id: &str) -> Result<Secret, SignError> {
        let header = json!({ "alg": key.algorithm().name(), "typ": "JWT", "kid": key_id });
        let claims = json!({
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.audience,
            "iat": self.issued_at,
            "exp": self.expires_at(),
            "jti": format!("{:032x}", self.id),
        });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Secret::from(token.into_bytes()))
    }
}

#[cfg(test)]
mod tests;
