//! `auth.identity`: a token that the proxy signs.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::server::required;
use crate::config::findings::Findings;
use crate::config::read::{Place, object};
use crate::config::setting::Value;
use crate::config::values::{FilePath, Period, Text, Time, choice};
use crate::credential::settings;
use crate::credential::signing_key::Algorithm;

/// With a shorter one, requests on their way would carry tokens that have ended.
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_SECONDS_MAX: u64 = 24 * 3600;

object! {
    /// A token that the proxy signs: a JWT with `iss`, `sub`, `aud`, `iat`, `exp` and
    /// `jti`. `sub` is the issuer. Its public key is in `GET /jwks.json` of the admin API.
    #[schemars(extend("required" = ["key", "issuer", "audience"]))]
    Identity {
        /// A file with the private key in PEM, without a passphrase. It is read again
        /// when it changes. Required.
        key: FilePath,
        /// What the key signs by: Ed25519, or ECDSA on P-256.
        #[schemars(extend("default" = "EdDSA"))]
        algorithm: SignatureAlgorithm,
        /// Who calls: the name of this service. Required.
        issuer: Text,
        /// Who is called: what the upstream wants to find as its own name. Required.
        audience: Text,
        /// How long a token is valid, from 10 s to a day. It is renewed before.
        #[schemars(extend("default" = "5m"))]
        ttl: Period<TTL_SECONDS_MAX>,
    }
}

choice! {
    /// What a key signs by.
    SignatureAlgorithm: Algorithm {
        /// Ed25519.
        EdDsa = "EdDSA" => Algorithm::EdDsa,
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256" => Algorithm::Es256,
    }
}

impl Identity {
    pub(super) fn settings(
        &self,
        place: &Place,
        findings: &mut Findings,
    ) -> Option<settings::Identity> {
        let key = self.key.as_ref().map(|key| key.value.0.clone());
        if key.is_none() {
            findings.mistake_unless_inside(place, "must have a key");
        }
        let issuer = required(&self.issuer, place, "must have an issuer", findings);
        let audience = required(&self.audience, place, "must have an audience", findings);
        let mut ttl = settings::Identity::TTL;
        if let Some(own) = self.ttl.as_ref() {
            ttl = own.meaning();
            if ttl < TTL_MIN {
                findings.mistake_at(own, "must be 10s at least");
            }
        }
        let algorithm = self.algorithm.as_ref();
        Some(settings::Identity {
            key: key?,
            algorithm: algorithm.map_or(Algorithm::EdDsa, |it| it.value.meaning()),
            issuer: issuer?,
            audience: audience?,
            ttl,
        })
    }
}

/// As the file would write it.
pub(super) fn shown(settings: &settings::Identity) -> Json {
    json!({
        "key": settings.key.display().to_string(),
        "algorithm": settings.algorithm.name(),
        "issuer": settings.issuer,
        "audience": settings.audience,
        "ttl": Time::text(settings.ttl),
    })
}
