//! Asks a Workload API for a JWT-SVID: a token for one audience.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Bytes;
use prost::Message;
use serde::Deserialize;
use tokio::time::timeout;

use super::super::grpc::{self, GrpcError};
use super::message::{self, MessageError};
use super::question;
use super::workload_api::CallError;
use crate::credential::Secret;
use crate::credential::settings::SvidAudience;

/// How long one call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const FETCH_JWT_SVID: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";

/// Asks for a JWT-SVID.
#[derive(Clone, PartialEq, Message)]
struct SvidRequest {
    /// Whom the token is for.
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
}

/// The tokens, the default one first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<SvidMessage>,
}

/// A token.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct SvidMessage {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// A JWT in its compact form: text, and read as bytes so that it is no copy.
    #[prost(bytes = "bytes", tag = "2")]
    svid: Bytes,
}

/// A new token, of the default identity.
pub(crate) async fn fetch_jwt_svid(wanted: &SvidAudience) -> Result<JwtSvid, CallError> {
    let fetch = async {
        let connection = wanted
            .endpoint
            .connect()
            .await
            .map_err(CallError::Connect)?;
        let request = SvidRequest {
            audience: vec![wanted.audience.clone()],
        };
        let question = question(FETCH_JWT_SVID, ANSWER_WITHIN);
        let mut answer = grpc::call(connection, question, &request).await?;
        let message = answer.next().await?.ok_or(GrpcError::Cut)?;
        Ok(SvidResponse::read(message)?.token()?)
    };
    timeout(ANSWER_WITHIN, fetch)
        .await
        .map_err(|_| CallError::Slow)?
}

impl SvidResponse {
    /// Reads one.
    pub(super) fn read(frame: Bytes) -> Result<Self, MessageError> {
        message::read(frame)
    }

    /// The default token.
    pub(super) fn token(&self) -> Result<JwtSvid, MessageError> {
        let svid = self.svids.first().ok_or(MessageError::NoSvid)?;
        let id = message::id(&svid.spiffe_id)?;
        let claims = claims(&svid.svid).ok_or(MessageError::Token)?;
        match claims.sub == id.to_string() {
            true => Ok(JwtSvid {
                token: svid.svid.to_vec().into(),
                expires: claims.exp,
            }),
            false => Err(MessageError::Token),
        }
    }
}

/// A token that says who the workload is. Its signature is for others to verify.
#[derive(Debug)]
pub(crate) struct JwtSvid {
    /// The JWT.
    pub token: Secret,
    /// Until when it is valid, in seconds since 1970.
    pub expires: u64,
}

/// Those that an SVID has (JWT-SVID, section 3).
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

/// Of a JWT in its compact form (RFC 7515, section 7.1).
fn claims(token: &[u8]) -> Option<Claims> {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut parts = token.split(|byte| *byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !token.iter().all(|it| is_allowed(it) || *it == b'.') {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

impl fmt::Debug for SvidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SvidMessage").field(&self.spiffe_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_agent::TestAgent;
    use super::*;

    fn token(claims: &str) -> String {
        format!(
            "eyJhbGciOiJFUzI1NiJ9.{}.c2ln",
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    fn response(id: &str, token: &str) -> SvidResponse {
        SvidResponse {
            svids: vec![SvidMessage {
                spiffe_id: id.to_owned(),
                svid: token.as_bytes().to_vec().into(),
            }],
        }
    }

    #[test]
    fn a_token_is_for_the_audience_that_is_asked_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut agent = TestAgent::new();
            let wanted = SvidAudience {
                endpoint: agent.endpoint(),
                audience: "sts".to_owned(),
            };
            let claims = r#"{"sub":"spiffe://td/orders","aud":["sts"],"exp":2000000000}"#;
            let answer = async {
                let mut call = agent.call().await;
                assert_eq!(call.head.uri.path(), FETCH_JWT_SVID);
                let frame = call.request.data().await.unwrap().unwrap();
                let request = SvidRequest::decode(frame.slice(5..)).unwrap();
                assert_eq!(request.audience, ["sts"]);
                call.send(&response("spiffe://td/orders", &token(claims)));
                call.end(0, "");
                agent.call().await.end(7, "no identity issued");
            };
            let ask = async {
                let svid = fetch_jwt_svid(&wanted).await.unwrap();
                let error = fetch_jwt_svid(&wanted).await.unwrap_err();
                (svid, error.to_string())
            };
            let ((svid, error), ()) = tokio::join!(ask, answer);
            assert_eq!(svid.expires, 2_000_000_000);
            assert_eq!(svid.token.expose(), token(claims).as_bytes());
            assert!(!format!("{svid:?}").contains("eyJ"));
            assert_eq!(error, "it answered PermissionDenied: no identity issued");
        });
    }

    #[test]
    fn what_is_no_token_of_the_id_is_refused() {
        let good = r#"{"sub":"spiffe://td/a","exp":9}"#;
        let read = |id: &str, token: &str| {
            let encoded = response(id, token).encode_to_vec();
            let read = SvidResponse::read(encoded.into()).unwrap();
            read.token().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(read("spiffe://td/a", &token(good)), Ok(()));
        for bad in [
            "".to_owned(),
            "a.b".to_owned(),
            token(good) + ".x",
            token(good) + "\r\nx: y",
            token("{}"),
            token(r#"{"sub":"spiffe://td/b","exp":9}"#),
            token(r#"{"sub":"spiffe://td/a"}"#),
        ] {
            let error = read("spiffe://td/a", &bad).unwrap_err();
            assert_eq!(error, "its token is no JWT of that id", "{bad}");
        }
        assert!(read("td", &token(good)).is_err());
        let none = SvidResponse { svids: Vec::new() };
        assert!(none.token().is_err());
    }
}
