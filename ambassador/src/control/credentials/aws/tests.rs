use super::super::oauth2::tests::json;
use super::*;
use crate::control::https::tests::{Ca, Server, client, run};

/// As the reference of the API shows it.
const ASSUMED: &str = r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>amzn1.account.AF6RHO7KZU5XRVQJGXK6HB56KR2A</SubjectFromWebIdentityToken>
    <Audience>client.5498841531868486423.1548@apps.example.com</Audience>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::123456789012:assumed-role/FederatedWebIdentityRole/app1</Arn>
      <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:app1</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <SessionToken>AQoDYXdzEE0a8ANO1ewxE5TijQyp+IEXAMPLE</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <Expiration>2014-10-24T23:00:23Z</Expiration>
      <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"#;

/// 2014-10-24T22:00:23Z.
const NOW: u64 = 1_414_188_023;

fn secret(text: &str) -> Secret {
    Secret::from(text.as_bytes().to_vec())
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        fields: Default::default(),
        body: secret(body),
    }
}

#[test]
fn keys_of_a_role_are_read() {
    let read = assumed(&answer(200, ASSUMED), &secret("jwt"), NOW).unwrap();
    assert_eq!(read.keys.id, "ASgeIAIOSFODNN7EXAMPLE");
    assert_eq!(
        read.keys.secret.expose(),
        b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY"
    );
    let token = read.keys.token.unwrap();
    assert_eq!(token.expose(), b"AQoDYXdzEE0a8ANO1ewxE5TijQyp+IEXAMPLE");
    assert_eq!(read.lifetime, Duration::from_secs(3_600));
}

#[test]
fn why_there_are_no_keys_is_told() {
    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                   <Message>No provider &amp; no &lt;key&gt;</Message></Error></ErrorResponse>";
    let repeated = refused.replace("provider", "s3cr3t.jwt");
    for (status, body, what) in [
        (
            400,
            refused,
            "answers 400: InvalidIdentityToken: No provider & no <key>",
        ),
        (400, &repeated, "answers 400"),
        (500, "", "answers 500"),
        (200, "", "gives no keys"),
        (
            200,
            &ASSUMED.replace("SecretAccessKey", "X"),
            "gives no keys",
        ),
        (
            200,
            &ASSUMED.replace("SessionToken", "X"),
            "gives no SessionToken",
        ),
        (
            200,
            &ASSUMED.replace("Expiration", "X"),
            "gives an end that is no time",
        ),
        (
            200,
            &ASSUMED.replace("2014-10-24T23", "2014-10-24T22"),
            "gives what has ended already",
        ),
    ] {
        let error = assumed(&answer(status, body), &secret("s3cr3t.jwt"), NOW)
            .err()
            .expect(body);
        assert_eq!(error.to_string(), what, "{body}");
    }
}

#[test]
fn a_role_is_asked_for_by_the_query_api() {
    run(async {
        let sts = Server::start(None, json("400 Bad Request", "")).await;
        let request = RoleRequest {
            url: sts.url("http", "127.0.0.1"),
            role: "arn:aws:iam::123456789012:role/app".to_owned(),
            session: "orders".to_owned(),
        };
        let client = client(&Ca::new().roots);
        let error = assume_role(&request, &secret("a.b.c"), &client)
            .await
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "answers 400");
        let request = sts.requests().remove(0);
        assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"));
        assert!(
            request.ends_with(
                "\r\n\r\nAction=AssumeRoleWithWebIdentity&Version=2011-06-15\
                 &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fapp\
                 &RoleSessionName=orders&WebIdentityToken=a.b.c"
            ),
            "{request}"
        );
    });
}

#[test]
fn the_agent_of_a_container_gives_keys() {
    run(async {
        let body = r#"{"RoleArn":"x","AccessKeyId":"AKID","SecretAccessKey":"s","Token":"t",
                       "Expiration":"2099-01-01T00:00:00.5Z"}"#;
        let agent = Server::start(None, json("200 OK", body)).await;
        let url = agent.url("http", "127.0.0.1");
        let client = client(&Ca::new().roots);
        let shown = secret("sh0wn");
        let got = of_container(&url, Some(&shown), &client).await.unwrap();
        assert_eq!(got.keys.id, "AKID");
        assert_eq!(got.keys.secret.expose(), b"s");
        assert_eq!(got.keys.token.unwrap().expose(), b"t");
        let request = agent.requests().remove(0);
        assert!(
            request.starts_with("GET /token?a=b HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("authorization: sh0wn\r\n"), "{request}");
        for (status, body, what) in [
            ("200 OK", "{}", "gives no keys with an Expiration"),
            ("403 Forbidden", r#"{"error":"sh0wn"}"#, "answers 403"),
        ] {
            let agent = Server::start(None, json(status, body)).await;
            let url = agent.url("http", "127.0.0.1");
            let error = of_container(&url, Some(&shown), &client)
                .await
                .err()
                .unwrap();
            assert_eq!(error.to_string(), what);
        }
    });
}
