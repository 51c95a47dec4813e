//! What a token endpoint says (RFC 6749 section 5): a token and how long it is valid, or
//! why there is none.

use std::fmt;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::clock::{self, calendar};
use crate::control::https::{Answer, ExchangeError};
use crate::credential::secret::Secret;
use crate::printable::OneLine;

/// A token of an answer that does not say how long it is valid is got again after this
/// time at the latest.
const LIFETIME_UNKNOWN: Duration = Duration::from_secs(300);
/// No token is used for longer, whatever its server says.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// How much is shown of what a server says.
const SHOWN_CHARS_MAX: usize = 300;
/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A token that was got.
pub(super) struct AccessToken {
    /// The token alone.
    pub value: Secret,
    /// How long it is valid from now on.
    pub lifetime: Duration,
}

/// Why a server gave nothing. None of it shows what was sent, or a token.
#[derive(Debug)]
pub(super) enum ServerError {
    /// There was no answer.
    Exchange(ExchangeError),
    /// It said no.
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// What it says about that.
        said: Option<String>,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It said yes, and what came is of no use.
    Unusable(&'static str),
}

/// RFC 6749 section 5.1. Unknown members are ignored.
#[derive(Deserialize)]
struct Issued {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Json>,
}

/// RFC 6749 section 5.2.
#[derive(Deserialize)]
struct Refusal {
    error: Option<Json>,
    error_description: Option<String>,
}

/// The token of an answer. `sent` are the secrets of the question.
pub(super) fn access_token(answer: &Answer, sent: &[&Secret]) -> Result<AccessToken, ServerError> {
    if answer.status != StatusCode::OK {
        return Err(refusal(answer, sent));
    }
    let issued: Issued = serde_json::from_slice(answer.body.expose())
        .map_err(|_| ServerError::Unusable("gives no JSON with a token"))?;
    let value = issued
        .access_token
        .map(String::into_bytes)
        .map(Secret::from);
    let is_bearer = |kind: &String| kind.eq_ignore_ascii_case("bearer");
    if !issued.token_type.as_ref().is_none_or(is_bearer) {
        return Err(ServerError::Unusable(
            "gives a token that is no bearer token",
        ));
    }
    let value = value.filter(|value| !value.expose().is_empty());
    let value = value.ok_or(ServerError::Unusable("gives no access_token"))?;
    let lifetime = match &issued.expires_in {
        None | Some(Json::Null) => LIFETIME_UNKNOWN,
        Some(seconds) => lifetime(seconds)?,
    };
    Ok(AccessToken { value, lifetime })
}

/// `expires_in`: a number, which some servers write as a text.
fn lifetime(seconds: &Json) -> Result<Duration, ServerError> {
    let number = match seconds {
        Json::String(text) => text.trim().parse().ok(),
        seconds => seconds.as_f64(),
    };
    match number.filter(|seconds: &f64| !seconds.is_nan()) {
        Some(seconds) if seconds >= 1.0 => {
            let seconds = seconds.min(LIFETIME_MAX.as_secs_f64());
            Ok(Duration::from_secs_f64(seconds))
        }
        Some(_) => Err(ServerError::Unusable(
            "gives a token that has ended already",
        )),
        None => Err(ServerError::Unusable(
            "gives an expires_in that is no number",
        )),
    }
}

/// What an answer other than 200 says.
pub(super) fn refusal(answer: &Answer, sent: &[&Secret]) -> ServerError {
    let said = serde_json::from_slice::<Refusal>(answer.body.expose()).ok();
    let said = said.and_then(|refusal| {
        let description = refusal.error_description;
        let (error, more) = match refusal.error? {
            Json::String(error) => (error, description),
            // As the APIs of Google write it.
            Json::Object(error) => {
                let text = |name: &str| error.get(name).and_then(Json::as_str).map(str::to_owned);
                (text("status")?, text("message"))
            }
            _ => return None,
        };
        Some(more.map_or_else(|| error.clone(), |more| format!("{error}: {more}")))
    });
    ServerError::Refused {
        status: answer.status,
        said: said.and_then(|said| shown(&said, sent)),
        retry_after: retry_after(&answer.fields, clock::wall()),
    }
}

/// A text of a server, unless it repeats a secret.
pub(super) fn shown(said: &str, sent: &[&Secret]) -> Option<String> {
    let repeats = |secret: &&Secret| {
        let secret = secret.expose();
        !secret.is_empty()
            && said
                .as_bytes()
                .windows(secret.len())
                .any(|text| text == secret)
    };
    if sent.iter().any(repeats) {
        return None;
    }
    Some(said.chars().take(SHOWN_CHARS_MAX).collect())
}

/// RFC 9110 section 10.2.3: seconds or a date.
fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// How long it is until this time.
pub(super) fn until(time: &str, now: u64) -> Result<Duration, ServerError> {
    let end = calendar::parse_rfc3339(&without_fraction(time));
    let end = end.ok_or(ServerError::Unusable("gives an end that is no time"))?;
    match end.saturating_sub(now) {
        0 => Err(ServerError::Unusable("gives what has ended already")),
        seconds => Ok(Duration::from_secs(seconds).min(LIFETIME_MAX)),
    }
}

/// A time to the second: what is behind a point is a part of one.
fn without_fraction(time: &str) -> String {
    let Some((seconds, rest)) = time.split_once('.') else {
        return time.to_owned();
    };
    format!(
        "{seconds}{}",
        rest.trim_start_matches(|c: char| c.is_ascii_digit())
    )
}

impl ServerError {
    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Exchange(_) | Self::Unusable(_) => None,
        }
    }
}

impl From<ExchangeError> for ServerError {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::Refused { status, said, .. } => {
                write!(f, "answers {}", status.as_u16())?;
                match said {
                    Some(said) => write!(f, ": {}", OneLine(said)),
                    None => Ok(()),
                }
            }
            Self::Unusable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.as_bytes().to_vec())
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            fields: HeaderMap::new(),
            body: secret(body),
        }
    }

    #[test]
    fn a_token_and_its_lifetime_are_read() {
        let day = 86_400;
        for (body, seconds) in [
            (
                r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"x":[]}"#,
                3_600,
            ),
            (
                r#"{"access_token":"t","token_type":"bearer","expires_in":"3599"}"#,
                3_599,
            ),
            (r#"{"access_token":"t","expires_in":1.5}"#, 1),
            (r#"{"access_token":"t"}"#, 300),
            (r#"{"access_token":"t","expires_in":null}"#, 300),
            (r#"{"access_token":"t","expires_in":1e300}"#, 30 * day),
            (
                r#"{"access_token":"t","expires_in":18446744073709551616}"#,
                30 * day,
            ),
        ] {
            let token = access_token(&answer(200, body), &[]).expect(body);
            assert_eq!(token.value.expose(), b"t", "{body}");
            assert_eq!(token.lifetime.as_secs(), seconds, "{body}");
        }
    }

    #[test]
    fn an_answer_without_one_is_told() {
        for (body, what) in [
            ("", "gives no JSON with a token"),
            ("access_token=t", "gives no JSON with a token"),
            ("[]", "gives no JSON with a token"),
            (r#"{"access_token":7}"#, "gives no JSON with a token"),
            ("{}", "gives no access_token"),
            (r#"{"access_token":""}"#, "gives no access_token"),
            (
                r#"{"access_token":"t","token_type":"mac"}"#,
                "gives a token that is no bearer token",
            ),
            (
                r#"{"access_token":"t","token_type":"N_A"}"#,
                "gives a token that is no bearer token",
            ),
            (
                r#"{"access_token":"t","expires_in":0}"#,
                "gives a token that has ended already",
            ),
            (
                r#"{"access_token":"t","expires_in":-1}"#,
                "gives a token that has ended already",
            ),
            (
                r#"{"access_token":"t","expires_in":"soon"}"#,
                "gives an expires_in that is no number",
            ),
            (
                r#"{"access_token":"t","expires_in":"NaN"}"#,
                "gives an expires_in that is no number",
            ),
        ] {
            let error = access_token(&answer(200, body), &[]).err().expect(body);
            assert_eq!(error.to_string(), what, "{body}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_no_secret() {
        let sent = secret("hunter2");
        for (body, shown) in [
            ("", "answers 401"),
            ("<html>", "answers 401"),
            (
                r#"{"error":"invalid_client"}"#,
                "answers 401: invalid_client",
            ),
            (
                r#"{"error":"invalid_client","error_description":"no\r\nsuch \u001b[31mclient"}"#,
                r"answers 401: invalid_client: no\r\nsuch \u{1b}[31mclient",
            ),
            (
                r#"{"error":"x","error_description":"bad secret hunter2"}"#,
                "answers 401",
            ),
            (
                r#"{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}"#,
                "answers 401: PERMISSION_DENIED: denied",
            ),
            (r#"{"error":[]}"#, "answers 401"),
        ] {
            let error = access_token(&answer(401, body), &[&sent]).err().unwrap();
            assert_eq!(error.to_string(), shown, "{body}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(10_000));
        let error = access_token(&answer(400, &long), &[]).err().unwrap();
        assert_eq!(
            error.to_string().len(),
            "answers 400: ".len() + SHOWN_CHARS_MAX
        );
    }

    #[test]
    fn a_server_may_ask_for_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let date = |seconds| httpdate::fmt_http_date(now + Duration::from_secs(seconds));
        for (text, seconds) in [
            ("7".to_owned(), Some(7)),
            ("100000".to_owned(), Some(300)),
            (date(20), Some(20)),
            (
                httpdate::fmt_http_date(now - Duration::from_secs(20)),
                Some(0),
            ),
            ("soon".to_owned(), None),
            ("-1".to_owned(), None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(
                retry_after(&fields, now).map(|it| it.as_secs()),
                seconds,
                "{text}"
            );
        }
    }
}
