//! Tokens that are got for another one: OAuth 2.0 Token Exchange (RFC 8693), and the
//! forms of it that Google Cloud and Microsoft Entra have.

use hyper::Method;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::oauth2::{JWT_BEARER, post};
use super::token_answer::{self, AccessToken, ServerError};
use crate::clock;
use crate::control::https::{Answer, HttpsClient, Question};
use crate::credential::form;
use crate::credential::secret::Secret;
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::servers::{ExchangeGrant, TokenExchange};

const GRANT: (&str, &[u8]) = (
    "grant_type",
    b"urn:ietf:params:oauth:grant-type:token-exchange",
);
const SUBJECT_TYPE: (&str, &[u8]) = (
    "subject_token_type",
    b"urn:ietf:params:oauth:token-type:jwt",
);
const REQUESTED_TYPE: (&str, &[u8]) = (
    "requested_token_type",
    b"urn:ietf:params:oauth:token-type:access_token",
);
/// What a token of Google Cloud allows that is exchanged for one of a service account:
/// whatever the roles of its holder allow.
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Gets a token for `subject`.
pub(super) async fn fetch(
    settings: &TokenExchange,
    subject: &Secret,
    client: &HttpsClient,
) -> Result<AccessToken, ServerError> {
    let url = &settings.server.url;
    match &settings.grant {
        ExchangeGrant::Rfc8693 { audience, scopes } => {
            let scopes = scopes.join(" ");
            exchange(url, audience.as_deref(), &scopes, subject, client).await
        }
        ExchangeGrant::Gcp {
            audience,
            impersonate,
            scopes,
        } => {
            let Some(account) = impersonate else {
                let scopes = scopes.join(" ");
                return exchange(url, Some(audience), &scopes, subject, client).await;
            };
            let own = exchange(url, Some(audience), CLOUD_PLATFORM, subject, client).await?;
            impersonated(account, scopes, &own.value, client).await
        }
        ExchangeGrant::Azure { client_id, scope } => {
            let fields: [(&str, &[u8]); 5] = [
                ("grant_type", b"client_credentials"),
                ("client_id", client_id.as_bytes()),
                ("scope", scope.as_bytes()),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", subject.expose()),
            ];
            let answer = client.ask(post(url, form::encoded(&fields))).await?;
            token_answer::access_token(&answer, &[subject])
        }
    }
}

/// RFC 8693 section 2.1.
async fn exchange(
    url: &ServerUrl,
    audience: Option<&str>,
    scope: &str,
    subject: &Secret,
    client: &HttpsClient,
) -> Result<AccessToken, ServerError> {
    let mut fields = vec![GRANT, SUBJECT_TYPE, REQUESTED_TYPE];
    fields.push(("subject_token", subject.expose()));
    if let Some(audience) = audience {
        fields.push(("audience", audience.as_bytes()));
    }
    if !scope.is_empty() {
        fields.push(("scope", scope.as_bytes()));
    }
    let answer = client.ask(post(url, form::encoded(&fields))).await?;
    token_answer::access_token(&answer, &[subject])
}

/// A token of a service account, by `generateAccessToken` of Google's IAM Credentials.
async fn impersonated(
    account: &ServerUrl,
    scopes: &[String],
    own: &Secret,
    client: &HttpsClient,
) -> Result<AccessToken, ServerError> {
    let bearer = Zeroizing::new([b"Bearer ", own.expose()].concat());
    let mut bearer = HeaderValue::from_bytes(&bearer)
        .map_err(|_| ServerError::Unusable("gives a token that does not fit into a header"))?;
    bearer.set_sensitive(true);
    let content_type = HeaderValue::from_static("application/json");
    let answer = client
        .ask(Question {
            url: account,
            method: Method::POST,
            fields: vec![(AUTHORIZATION, bearer), (CONTENT_TYPE, content_type)],
            body: Secret::from(json!({ "scope": scopes }).to_string().into_bytes()),
        })
        .await?;
    let now = clock::unix_ms() / 1_000;
    generated(&answer, own, now)
}

/// The answer of `generateAccessToken`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    access_token: String,
    expire_time: String,
}

pub(super) fn generated(
    answer: &Answer,
    own: &Secret,
    now: u64,
) -> Result<AccessToken, ServerError> {
    if answer.status != StatusCode::OK {
        return Err(token_answer::refusal(answer, &[own]));
    }
    let generated: Generated = serde_json::from_slice(answer.body.expose())
        .map_err(|_| ServerError::Unusable("gives no accessToken with an expireTime"))?;
    let value = Secret::from(generated.access_token.into_bytes());
    Ok(AccessToken {
        value,
        lifetime: token_answer::until(&generated.expire_time, now)?,
    })
}

#[cfg(test)]
mod tests;
