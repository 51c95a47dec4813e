use super::super::oauth2::tests::{json as answer_of, server};
use super::*;
use crate::clock::calendar;
use crate::control::https::tests::{Ca, Server, client, run};
use crate::credential::settings::servers::Subject;

const ISSUED: &str = r#"{"access_token":"t0ken","token_type":"Bearer","expires_in":60,
    "issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;

fn subject() -> Secret {
    Secret::from(b"sub.ject.jwt".to_vec())
}

async fn fetched(at: &Server, grant: ExchangeGrant) -> Result<AccessToken, ServerError> {
    let settings = TokenExchange {
        server: server(&at.url("http", "127.0.0.1").to_string()),
        subject: Subject::File("/var/run/token".into()),
        grant,
    };
    fetch(&settings, &subject(), &client(&Ca::new().roots)).await
}

/// The form that gets a token.
async fn form(grant: ExchangeGrant) -> String {
    let at = Server::start(None, answer_of("200 OK", ISSUED)).await;
    let token = fetched(&at, grant).await.unwrap();
    assert_eq!(token.value.expose(), b"t0ken");
    let request = at.requests().remove(0);
    request.split_once("\r\n\r\n").unwrap().1.to_owned()
}

const EXCHANGE: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
                        &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
                        &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A\
                        access_token&subject_token=sub.ject.jwt";

#[test]
fn each_grant_has_its_form() {
    run(async {
        let plain = ExchangeGrant::Rfc8693 {
            audience: None,
            scopes: Vec::new(),
        };
        assert_eq!(form(plain).await, EXCHANGE);
        let full = ExchangeGrant::Rfc8693 {
            audience: Some("a&b".to_owned()),
            scopes: vec!["r".to_owned(), "w".to_owned()],
        };
        assert_eq!(
            form(full).await,
            format!("{EXCHANGE}&audience=a%26b&scope=r+w")
        );
        let gcp = ExchangeGrant::Gcp {
            audience: "//iam.googleapis.com/p".to_owned(),
            impersonate: None,
            scopes: vec!["s".to_owned()],
        };
        let expected = format!("{EXCHANGE}&audience=%2F%2Fiam.googleapis.com%2Fp&scope=s");
        assert_eq!(form(gcp).await, expected);
        let azure = ExchangeGrant::Azure {
            client_id: "0000-app".to_owned(),
            scope: "https://vault.azure.net/.default".to_owned(),
        };
        assert_eq!(
            form(azure).await,
            "grant_type=client_credentials&client_id=0000-app\
             &scope=https%3A%2F%2Fvault.azure.net%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A\
             jwt-bearer&client_assertion=sub.ject.jwt"
        );
    });
}

#[test]
fn a_service_account_is_impersonated_with_the_first_token() {
    run(async {
        let body = r#"{"accessToken":"acc0unt","expireTime":"2099-01-01T00:00:00.123Z"}"#;
        let account = Server::start(None, answer_of("200 OK", body)).await;
        let sts = Server::start(None, answer_of("200 OK", ISSUED)).await;
        let grant = ExchangeGrant::Gcp {
            audience: "pool".to_owned(),
            impersonate: Some(account.url("http", "127.0.0.1")),
            scopes: vec!["https://www.googleapis.com/auth/devstorage.read_only".to_owned()],
        };
        let token = fetched(&sts, grant).await.unwrap();
        assert_eq!(token.value.expose(), b"acc0unt");
        let request = sts.requests().remove(0);
        let all = "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform";
        assert!(request.ends_with(all), "{request}");
        let request = account.requests().remove(0);
        assert!(
            request.contains("authorization: Bearer t0ken\r\n"),
            "{request}"
        );
        assert!(
            request.contains("content-type: application/json\r\n"),
            "{request}"
        );
        let scopes = "{\"scope\":[\"https://www.googleapis.com/auth/devstorage.read_only\"]}";
        assert!(request.ends_with(scopes), "{request}");
    });
}

#[test]
fn a_generated_token_ends_when_it_says() {
    let now = calendar::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
    let read = |status, body: &str| {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            fields: Default::default(),
            body: Secret::from(body.as_bytes().to_vec()),
        };
        let token = generated(&answer, &subject(), now);
        token
            .map(|token| token.lifetime.as_secs())
            .map_err(|error| error.to_string())
    };
    let token = |time: &str| format!(r#"{{"accessToken":"t","expireTime":"{time}"}}"#);
    assert_eq!(read(200, &token("2026-01-01T01:00:00Z")), Ok(3_600));
    assert_eq!(
        read(200, &token("2026-01-01T01:00:00.999999999Z")),
        Ok(3_600)
    );
    assert_eq!(read(200, &token("2026-01-01T01:00:00.5+00:30")), Ok(1_800));
    for (status, body, what) in [
        (
            200,
            token("2025-12-31T23:59:59Z"),
            "gives what has ended already",
        ),
        (200, token("soon"), "gives an end that is no time"),
        (
            200,
            "{}".to_owned(),
            "gives no accessToken with an expireTime",
        ),
        (
            403,
            r#"{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}"#.to_owned(),
            "answers 403: PERMISSION_DENIED: no",
        ),
    ] {
        assert_eq!(read(status, &body), Err(what.to_owned()), "{body}");
    }
}

#[test]
fn a_refusal_does_not_repeat_the_subject() {
    run(async {
        let body = r#"{"error":"invalid_grant","error_description":"sub.ject.jwt has expired"}"#;
        let at = Server::start(None, answer_of("400 Bad Request", body)).await;
        let plain = ExchangeGrant::Rfc8693 {
            audience: None,
            scopes: Vec::new(),
        };
        let error = fetched(&at, plain).await.err().unwrap();
        assert_eq!(error.to_string(), "answers 400");
    });
}
