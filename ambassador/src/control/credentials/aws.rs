//! Keys of AWS that end: of a role, by the Security Token Service, and of a container, by
//! the agent of ECS or EKS.

use std::borrow::Cow;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::oauth2::post;
use super::token_answer::{self, ServerError};
use crate::clock;
use crate::control::https::{Answer, HttpsClient, Question};
use crate::credential::form;
use crate::credential::secret::Secret;
use crate::credential::server_url::ServerUrl;
use crate::credential::sigv4::AwsKeys;

/// A role that is asked for.
pub(super) struct RoleRequest {
    /// The Security Token Service.
    pub url: ServerUrl,
    /// Its ARN.
    pub role: String,
    /// What the session is called in the logs of AWS.
    pub session: String,
}

/// Keys, and how long they are valid from now on.
pub(super) struct TemporaryKeys {
    pub keys: AwsKeys,
    pub lifetime: Duration,
}

/// Gets keys of a role for `subject` (`AssumeRoleWithWebIdentity` of the query API).
pub(super) async fn assume_role(
    request: &RoleRequest,
    subject: &Secret,
    client: &HttpsClient,
) -> Result<TemporaryKeys, ServerError> {
    let fields: [(&str, &[u8]); 5] = [
        ("Action", b"AssumeRoleWithWebIdentity"),
        ("Version", b"2011-06-15"),
        ("RoleArn", request.role.as_bytes()),
        ("RoleSessionName", request.session.as_bytes()),
        ("WebIdentityToken", subject.expose()),
    ];
    let mut question = post(&request.url, form::encoded(&fields));
    // The answer is XML in any case.
    question.fields.truncate(1);
    let answer = client.ask(question).await?;
    assumed(&answer, subject, clock::unix_ms() / 1_000)
}

pub(super) fn assumed(
    answer: &Answer,
    subject: &Secret,
    now: u64,
) -> Result<TemporaryKeys, ServerError> {
    let text = std::str::from_utf8(answer.body.expose()).unwrap_or_default();
    if answer.status != StatusCode::OK {
        let mut refused = token_answer::refusal(answer, &[subject]);
        if let (Some(code), ServerError::Refused { said, .. }) =
            (element(text, "Code"), &mut refused)
        {
            let message = element(text, "Message").unwrap_or_default();
            *said = token_answer::shown(&format!("{code}: {message}"), &[subject]);
        }
        return Err(refused);
    }
    let part = |name| element(text, name).map(Cow::into_owned);
    let keys = part("AccessKeyId").zip(part("SecretAccessKey"));
    let (id, secret) = keys.ok_or(ServerError::Unusable("gives no keys"))?;
    let token = part("SessionToken").ok_or(ServerError::Unusable("gives no SessionToken"))?;
    Ok(TemporaryKeys {
        keys: AwsKeys {
            id,
            secret: Secret::from(secret.into_bytes()),
            token: Some(Secret::from(token.into_bytes())),
        },
        lifetime: token_answer::until(&part("Expiration").unwrap_or_default(), now)?,
    })
}

/// The text of the first element with this name. AWS writes neither attributes nor
/// comments there.
fn element<'a>(xml: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    if !text.contains('&') {
        return Some(text.into());
    }
    // An ampersand last: what is behind it is text.
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let replaced =
        |text: String, (entity, character): (&str, &str)| text.replace(entity, character);
    Some(entities.into_iter().fold(text.to_owned(), replaced).into())
}

/// Asks the agent of a container. `token` is what it wants to be shown.
pub(super) async fn of_container(
    url: &ServerUrl,
    token: Option<&Secret>,
    client: &HttpsClient,
) -> Result<TemporaryKeys, ServerError> {
    let mut fields = Vec::new();
    if let Some(token) = token {
        let mut value = HeaderValue::from_bytes(token.expose())
            .map_err(|_| ServerError::Unusable("needs a token that fits into a header"))?;
        value.set_sensitive(true);
        fields.push((AUTHORIZATION, value));
    }
    let answer = client
        .ask(Question {
            url,
            method: Method::GET,
            fields,
            body: Secret::from(Vec::new()),
        })
        .await?;
    given(&answer, token, clock::unix_ms() / 1_000)
}

/// What the agent answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerKeys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: String,
}

pub(super) fn given(
    answer: &Answer,
    token: Option<&Secret>,
    now: u64,
) -> Result<TemporaryKeys, ServerError> {
    if answer.status != StatusCode::OK {
        let sent: Vec<&Secret> = token.into_iter().collect();
        return Err(token_answer::refusal(answer, &sent));
    }
    let keys: ContainerKeys = serde_json::from_slice(answer.body.expose())
        .map_err(|_| ServerError::Unusable("gives no keys with an Expiration"))?;
    Ok(TemporaryKeys {
        lifetime: token_answer::until(&keys.expiration, now)?,
        keys: AwsKeys {
            id: keys.access_key_id,
            secret: Secret::from(keys.secret_access_key.into_bytes()),
            token: keys.token.map(|token| Secret::from(token.into_bytes())),
        },
    })
}

#[cfg(test)]
mod tests;
