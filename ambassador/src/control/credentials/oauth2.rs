//! Tokens that a client gets for itself: the client credentials grant of OAuth 2.0
//! (RFC 6749 section 4.4).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::token_answer::{self, AccessToken, ServerError};
use crate::clock;
use crate::control::https::{HttpsClient, Question};
use crate::credential::form;
use crate::credential::jwt::Claims;
use crate::credential::secret::Secret;
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::servers::{ClientAuth, ClientCredentials};
use crate::credential::signing_key::SigningKey;

/// The type of a token that a client signs (RFC 7523 section 2.2).
pub(super) const JWT_BEARER: &[u8] = b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long such a token is valid: it is used at once.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(120);
/// It was made so long ago, for a server whose clock is slow.
const ASSERTION_AGE_SECONDS: u64 = 10;

/// What shows who the client is, as it was read.
pub(super) enum ClientProof {
    /// The secret.
    Secret(Secret),
    /// The key.
    Key(SigningKey),
    /// The certificate of the connection.
    Certificate,
}

/// Gets a token.
pub(super) async fn fetch(
    settings: &ClientCredentials,
    proof: &ClientProof,
    client: &HttpsClient,
) -> Result<AccessToken, ServerError> {
    let question = question(settings, proof)?;
    let answer = client.ask(question).await?;
    let sent: &[&Secret] = match proof {
        ClientProof::Secret(secret) => &[secret],
        ClientProof::Key(_) | ClientProof::Certificate => &[],
    };
    token_answer::access_token(&answer, sent)
}

fn question<'a>(
    settings: &'a ClientCredentials,
    proof: &ClientProof,
) -> Result<Question<'a>, ServerError> {
    let url = &settings.server.url;
    let scope = settings.scopes.join(" ");
    let mut fields: Vec<(&str, &[u8])> = vec![("grant_type", b"client_credentials")];
    if !scope.is_empty() {
        fields.push(("scope", scope.as_bytes()));
    }
    if let Some(audience) = &settings.audience {
        fields.push(("audience", audience.as_bytes()));
    }
    let id = ("client_id", settings.client_id.as_bytes());
    let (assertion, mut authorization) = (assertion(settings, proof)?, None);
    match (&settings.client_auth, proof) {
        (ClientAuth::SecretBasic(_), ClientProof::Secret(secret)) => {
            authorization = Some(basic(&settings.client_id, secret));
        }
        (_, ClientProof::Secret(secret)) => {
            fields.extend([id, ("client_secret", secret.expose())]);
        }
        (_, ClientProof::Certificate) => fields.push(id),
        (_, ClientProof::Key(_)) => {
            let assertion = assertion.as_ref().map_or(&[][..], Secret::expose);
            let kind = ("client_assertion_type", JWT_BEARER);
            fields.extend([id, kind, ("client_assertion", assertion)]);
        }
    }
    let mut question = post(url, form::encoded(&fields));
    question.fields.extend(authorization);
    Ok(question)
}

/// A form to a server that answers with JSON.
pub(super) fn post(url: &ServerUrl, form: Secret) -> Question<'_> {
    let fields = [
        (CONTENT_TYPE, form::MEDIA_TYPE),
        (ACCEPT, "application/json"),
    ];
    Question {
        url,
        method: Method::POST,
        fields: fields
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .into(),
        body: form,
    }
}

/// RFC 6749 section 2.3.1.
fn basic(id: &str, secret: &Secret) -> (HeaderName, HeaderValue) {
    let pair = form::basic_pair(id, secret.expose());
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    let mut value = HeaderValue::from_str(&text).expect("base64 is visible");
    value.set_sensitive(true);
    (AUTHORIZATION, value)
}

/// What the client signs to show who it is (RFC 7523 section 3).
fn assertion(
    settings: &ClientCredentials,
    proof: &ClientProof,
) -> Result<Option<Secret>, ServerError> {
    let (ClientAuth::PrivateKeyJwt(named), ClientProof::Key(key)) = (&settings.client_auth, proof)
    else {
        return Ok(None);
    };
    let claims = Claims {
        issuer: &settings.client_id,
        subject: &settings.client_id,
        audience: &settings.server.url.to_string(),
        issued_at: (clock::unix_ms() / 1_000).saturating_sub(ASSERTION_AGE_SECONDS),
        lifetime: ASSERTION_LIFETIME,
        id: clock::random_u128(),
    };
    let key_id = named.id.as_deref().unwrap_or(key.id());
    let signed = claims.signed_by(key, key_id);
    let failed =
        |_| ServerError::Unusable("cannot be shown a token of the client: its key does not sign");
    signed.map(Some).map_err(failed)
}

#[cfg(test)]
pub(super) mod tests;
