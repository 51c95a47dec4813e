use std::path::PathBuf;

use super::*;
use crate::control::https::tests::{Ca, Server, client, run};
use crate::credential::settings::servers::{ClientKey, TokenServer};
use crate::credential::signing_key::tests::keys;

const ISSUED: &str = r#"{"access_token":"t0ken","token_type":"Bearer","expires_in":60}"#;

pub(in crate::control) fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(in crate::control) fn server(url: &str) -> TokenServer {
    TokenServer {
        url: ServerUrl::parse(url).unwrap(),
        ca: None,
        certificate: None,
    }
}

fn settings(url: &str, client_auth: ClientAuth) -> ClientCredentials {
    ClientCredentials {
        server: server(url),
        client_id: "my app:1".to_owned(),
        client_auth,
        scopes: vec!["read".to_owned(), "write:all".to_owned()],
        audience: Some("https://api.example".to_owned()),
    }
}

fn secret(text: &str) -> ClientProof {
    ClientProof::Secret(Secret::from(text.as_bytes().to_vec()))
}

/// The request that gets a token in this way.
async fn request(client_auth: ClientAuth, proof: &ClientProof) -> String {
    let server = Server::start(None, json("200 OK", ISSUED)).await;
    let url = server.url("http", "127.0.0.1").to_string();
    let client = client(&Ca::new().roots);
    let token = fetch(&settings(&url, client_auth), proof, &client)
        .await
        .unwrap();
    assert_eq!(token.value.expose(), b"t0ken");
    assert_eq!(token.lifetime, Duration::from_secs(60));
    server.requests().remove(0)
}

const ASKED: &str = "grant_type=client_credentials&scope=read+write%3Aall\
                     &audience=https%3A%2F%2Fapi.example";

#[test]
fn a_secret_is_in_the_form_or_in_the_head() {
    run(async {
        let file = PathBuf::from("/s");
        let hard = secret("p:w %&+=\u{e9}");
        let post = request(ClientAuth::SecretPost(file.clone()), &hard).await;
        let form =
            format!("\r\n\r\n{ASKED}&client_id=my+app%3A1&client_secret=p%3Aw+%25%26%2B%3D%C3%A9");
        assert!(post.ends_with(&form), "{post}");
        assert!(post.starts_with("POST /token?a=b HTTP/1.1\r\n"), "{post}");
        assert!(
            post.contains("content-type: application/x-www-form-urlencoded\r\n"),
            "{post}"
        );
        assert!(post.contains("accept: application/json\r\n"), "{post}");
        assert!(!post.contains("authorization"), "{post}");

        let basic = request(ClientAuth::SecretBasic(file), &hard).await;
        assert!(basic.ends_with(&format!("\r\n\r\n{ASKED}")), "{basic}");
        let pair = STANDARD.encode("my+app%3A1:p%3Aw+%25%26%2B%3D%C3%A9");
        assert!(
            basic.contains(&format!("authorization: Basic {pair}\r\n")),
            "{basic}"
        );
    });
}

#[test]
fn a_certificate_needs_the_name_alone() {
    run(async {
        let mtls = request(ClientAuth::Mtls, &ClientProof::Certificate).await;
        assert!(
            mtls.ends_with(&format!("\r\n\r\n{ASKED}&client_id=my+app%3A1")),
            "{mtls}"
        );
    });
}

#[test]
fn a_key_signs_who_the_client_is() {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    run(async {
        for (name, key) in keys() {
            let proof = ClientProof::Key(key);
            for own_id in [None, Some("by-hand")] {
                let named = ClientKey {
                    file: PathBuf::from("/k"),
                    id: own_id.map(str::to_owned),
                };
                let request = request(ClientAuth::PrivateKeyJwt(named), &proof).await;
                let (_, form) = request.split_once("\r\n\r\n").unwrap();
                let before = format!(
                    "{ASKED}&client_id=my+app%3A1&client_assertion_type=urn%3Aietf%3Aparams%3A\
                     oauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion="
                );
                let token = form.strip_prefix(&before).expect(form);
                let part = |at: usize| -> serde_json::Value {
                    let part = token.split('.').nth(at).unwrap();
                    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
                };
                let ClientProof::Key(key) = &proof else {
                    panic!()
                };
                assert_eq!(part(0)["kid"], own_id.unwrap_or(key.id()), "{name}");
                assert_eq!(part(0)["alg"], key.algorithm().name(), "{name}");
                let claims = part(1);
                assert_eq!(claims["iss"], "my app:1");
                assert_eq!(claims["sub"], "my app:1");
                let audience = claims["aud"].as_str().unwrap();
                assert!(audience.ends_with("/token?a=b"), "{audience}");
                let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
                assert_eq!(lifetime, 120);
                assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
            }
        }
    });
}

#[test]
fn what_the_server_refuses_is_told_without_the_secret() {
    run(async {
        let client = client(&Ca::new().roots);
        for (status, body, shown) in [
            (
                "401 Unauthorized",
                r#"{"error":"invalid_client","error_description":"who?"}"#,
                "answers 401: invalid_client: who?",
            ),
            (
                "400 Bad Request",
                r#"{"error":"invalid_request","error_description":"hunter2 is no secret"}"#,
                "answers 400",
            ),
            ("503 Unavailable", "down", "answers 503"),
            ("302 Found", r#"{"access_token":"t"}"#, "answers 302"),
            ("200 OK", "<html>", "gives no JSON with a token"),
        ] {
            let server = Server::start(None, json(status, body)).await;
            let url = server.url("http", "127.0.0.1").to_string();
            let settings = settings(&url, ClientAuth::SecretPost("/s".into()));
            let error = fetch(&settings, &secret("hunter2"), &client)
                .await
                .err()
                .unwrap();
            assert_eq!(error.to_string(), shown);
        }
        let slow = "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        let server = Server::start(None, slow).await;
        let url = server.url("http", "127.0.0.1").to_string();
        let settings = settings(&url, ClientAuth::SecretPost("/s".into()));
        let error = fetch(&settings, &secret("hunter2"), &client)
            .await
            .err()
            .unwrap();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    });
}
