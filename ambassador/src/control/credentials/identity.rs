//! A token that the proxy signs itself, to show an upstream who calls it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::secret_file::SecretFile;
use super::token::{SourceError, Token};
use crate::clock;
use crate::credential::Material;
use crate::credential::jwt::Claims;
use crate::credential::key_set::KeySet;
use crate::credential::settings::Identity;
use crate::credential::signing_key::SigningKey;

/// Longer than a key of RSA with 8,192 bits.
const KEY_BYTES_MAX: usize = 16 << 10;
/// A token says that it was made up to so long ago: a server whose clock is slow refuses
/// those of the future.
const AGE_MAX: Duration = Duration::from_secs(30);

/// The public keys of all tokens that may be in use.
#[derive(Debug, Default)]
pub(in crate::control) struct PublicKeys(Mutex<KeySet>);

/// Signs tokens with the key of a file.
pub(super) struct IdentitySource {
    settings: Identity,
    key: SecretFile,
    public_keys: Arc<PublicKeys>,
}

impl PublicKeys {
    /// The document for those who verify tokens.
    pub(in crate::control) fn document(&self) -> Json {
        self.with(|keys| keys.document(unix_seconds()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut KeySet) -> T) -> T {
        // Every critical section leaves it whole.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl IdentitySource {
    pub(super) fn new(settings: &Identity, public_keys: &Arc<PublicKeys>) -> Self {
        Self {
            key: SecretFile::new(&settings.key),
            settings: settings.clone(),
            public_keys: Arc::clone(public_keys),
        }
    }

    /// The file of the key.
    pub(super) fn file(&self) -> &SecretFile {
        &self.key
    }

    /// Signs a token.
    pub(super) async fn fetch(&mut self) -> Result<Token, SourceError> {
        let text = self.key.read(KEY_BYTES_MAX).await?;
        let key = SigningKey::from_pem(&text)?;
        let settings = &self.settings;
        if key.algorithm() != settings.algorithm {
            return Err(SourceError::Algorithm(settings.algorithm));
        }
        let now = unix_seconds();
        let age = AGE_MAX.min(settings.ttl / 10).as_secs();
        let claims = Claims {
            issuer: &settings.issuer,
            subject: &settings.issuer,
            audience: &settings.audience,
            issued_at: now.saturating_sub(age),
            lifetime: settings.ttl,
            id: clock::random_u128(),
        };
        let value = claims.signed_by(&key, key.id())?;
        let expires_at = claims.expires_at();
        self.public_keys
            .with(|keys| keys.has_signed(&key, expires_at, now));
        let left = Duration::from_secs(expires_at.saturating_sub(now));
        Ok(Token {
            value: Material::Secret(value),
            expires: Some(clock::now() + left),
        })
    }

    /// Until there may be another key.
    pub(super) async fn change(&mut self) {
        self.key.change().await;
    }
}

fn unix_seconds() -> u64 {
    clock::unix_ms() / 1_000
}
