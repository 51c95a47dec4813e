//! Tokens that the proxy gets of a server over TLS: OAuth 2.0 client credentials, and
//! token exchange.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Backend, Client, Column, Proxy, Server, eventually, matrix, on_both_backends,
};
use serde_json::{Value, json};

use crate::credentials::{all, replace, secret};

matrix!(
    a_token_of_a_server_is_what_the_upstream_gets,
    a_token_is_replaced_before_it_ends,
);

on_both_backends!(
    a_key_shows_who_the_client_is,
    a_certificate_shows_who_the_client_is,
    a_server_that_is_not_trusted_gets_nothing,
    a_server_that_refuses_is_told_of_without_the_secret,
    a_token_is_exchanged_for_that_of_a_file,
    a_service_account_is_impersonated,
);

const SOON: Duration = Duration::from_secs(30);
/// Whatever a form and a header could get wrong.
const HARD: &str = "p:w%41 &+=\"\\;~/";

/// A server that gives tokens.
struct TokenServer {
    scratch: Scratch,
    port: u16,
    _running: Running,
}

impl TokenServer {
    /// Serves over TLS, with a certificate of an authority of its own; `mtls` asks for one
    /// of the same, `plain` is without.
    fn serving(mode: &str) -> TokenServer {
        let scratch = Scratch::new();
        authority(scratch.path());
        certificate(scratch.path(), "server", "DNS:localhost,IP:127.0.0.1");
        let script = scratch.file("oauth.py", include_str!("oauth.py"));
        let answer = json!({ "body": {
            "access_token": "t0ken-COUNT", "token_type": "Bearer", "expires_in": 3600,
        } });
        fs::write(scratch.path().join("answer"), answer.to_string()).expect("it is writable");
        let mut running = Running::start(
            Command::new(program::PYTHON)
                .arg(script)
                .arg(scratch.path())
                .arg(mode)
                .stdout(Stdio::piped()),
        );
        let mut lines = BufReader::new(running.stdout()).lines();
        let port = lines.next().expect("a port").expect("readable");
        TokenServer {
            scratch,
            port: port.parse().expect("a number"),
            _running: running,
        }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/token", self.port)
    }

    /// It answers so from now on.
    fn answers(&self, answer: &Value) {
        replace(&self.scratch.path().join("answer"), &answer.to_string());
    }

    /// What it was asked.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.scratch.path().join("requests")).unwrap_or_default();
        let read = |line| serde_json::from_str(line).expect("json.dumps writes JSON");
        text.lines().map(read).collect()
    }

    /// `oauth2` of an upstream; `more` says who the client is.
    fn oauth2(&self, more: &str) -> String {
        let (url, ca) = (self.url(), self.path("ca.pem"));
        format!(
            "auth: {{ oauth2: {{ token_url: \"{url}\", client_id: \"my app\", \
             scopes: [read, \"write:all\"], audience: \"https://web.test\", {more} }} }}\n"
        )
        .replace("CA", &ca)
    }
}

/// A certificate authority in a directory: `ca.pem` and `ca.key`.
fn authority(directory: &Path) {
    program::succeed(
        openssl(directory)
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=authority", "-batch"])
            .args(["-out", "ca.pem", "-keyout", "ca.key"]),
    );
}

/// A certificate of it: `NAME.pem` and `NAME.key`.
fn certificate(directory: &Path, name: &str, names: &str) {
    program::succeed(
        openssl(directory)
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-CA", "ca.pem", "-CAkey", "ca.key", "-batch"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName={names}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args([
                "-out",
                &format!("{name}.pem"),
                "-keyout",
                &format!("{name}.key"),
            ]),
    );
}

fn openssl(directory: &Path) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory);
    openssl
}

const ASKED: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("scope", "read write:all"),
    ("audience", "https://web.test"),
];

#[track_caller]
fn assert_form(request: &Value, more: &[(&str, &str)]) {
    let mut form = request["form"].as_object().expect("a form").clone();
    for (name, value) in ASKED.iter().chain(more) {
        assert_eq!(form.remove(*name), Some(json!(value)), "{request}");
    }
    assert!(form.is_empty(), "{request}");
}

fn a_token_of_a_server_is_what_the_upstream_gets(column: Column) {
    for client_auth in ["secret_post", "secret_basic"] {
        let tokens = TokenServer::serving("tls");
        let server = column.ok();
        let scratch = Scratch::new();
        let file = secret(&scratch, "secret", &format!("{HARD}\n"));
        let more = tokens.oauth2(&format!(
            "client_auth: {client_auth}, client_secret: {{ file: \"{}\" }}, tls: {{ ca: \"CA\" }}",
            file.display()
        ));
        let (proxy, listen) = column.in_front_of(&server, &more);
        // Those of the first moment wait for one and the same token.
        let callers: Vec<_> = (0..8)
            .map(|_| std::thread::spawn(move || column.connect(listen).get("/").status))
            .collect();
        for caller in callers {
            assert_eq!(caller.join().expect("it has an answer"), 200);
        }
        for request in server.requests() {
            assert_eq!(all(&request, "authorization"), ["Bearer t0ken-1"]);
        }
        let requests = tokens.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0]["path"], "/token");
        match client_auth {
            "secret_post" => {
                assert_form(
                    &requests[0],
                    &[("client_id", "my app"), ("client_secret", HARD)],
                );
            }
            _ => {
                assert_form(&requests[0], &[]);
                assert_eq!(requests[0]["basic"], json!(["my app", HARD]));
            }
        }
        for told in [
            proxy.log(),
            proxy.admin_get("/config"),
            proxy.admin_get("/upstreams"),
        ] {
            assert!(!told.contains("p:w") && !told.contains("t0ken"), "{told}");
        }
        // Another secret is another client.
        replace(&file, "other");
        eventually("another token is got", SOON, || {
            assert_eq!(column.connect(listen).get("/").status, 200);
            server.last_request().field("authorization") == Some("Bearer t0ken-2")
        });
    }
}

/// Ahead of its end, and with that of before as long as the server is away.
fn a_token_is_replaced_before_it_ends(column: Column) {
    let tokens = TokenServer::serving("tls");
    let short =
        |seconds: u32| json!({ "body": { "access_token": "t0ken-COUNT", "expires_in": seconds } });
    tokens.answers(&short(4));
    let server = column.ok();
    let scratch = Scratch::new();
    let file = secret(&scratch, "secret", "s3cret");
    let more = tokens.oauth2(&format!(
        "client_secret: {{ file: \"{}\" }}, tls: {{ ca: \"CA\" }}",
        file.display()
    ));
    let (proxy, listen) = column.in_front_of(&server, &more);
    let mut caller = column.connect(listen);
    for round in 1..=3 {
        let wanted = format!("Bearer t0ken-{round}");
        eventually("the next token is sent", SOON, || {
            assert_eq!(caller.get("/").status, 200);
            server.last_request().field("authorization") == Some(&wanted)
        });
    }
    let busy = json!({ "status": 503, "fields": { "Retry-After": "1" }, "body": {} });
    tokens.answers(&busy);
    let failed = [("upstream", "web"), ("outcome", "failed")];
    eventually("the server is away", SOON, || {
        proxy.metric("ambassador_credential_refreshes_total", &failed) >= 1.0
    });
    // The token of before is sent until it ends, and then nothing is.
    eventually("the token has ended", SOON, || {
        caller.get("/").status == 503
    });
    let sent = server.requests().len();
    let answer = caller.get("/");
    assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
    assert_eq!(server.requests().len(), sent);
    let why = proxy.upstream("web")["credential"]["last_failure"].to_string();
    assert!(why.contains("/token answers 503"), "{why}");
    tokens.answers(&short(3600));
    eventually("there is a token", SOON, || caller.get("/").status == 200);
}

fn a_key_shows_who_the_client_is(backend: Backend) {
    const VERIFY: &str = "import json, jwt, sys\n\
        key = open(sys.argv[1]).read()\n\
        print(json.dumps([jwt.get_unverified_header(sys.argv[2]), jwt.decode(sys.argv[2], key, \
        algorithms=['RS256', 'ES256', 'EdDSA'], audience=sys.argv[3], issuer='my app', \
        options={'require': ['iss', 'sub', 'aud', 'iat', 'exp', 'jti']})]))";
    for kind in ["RSA", "ED25519"] {
        let tokens = TokenServer::serving("tls");
        let server = Server::ok();
        let scratch = Scratch::new();
        program::succeed(openssl(scratch.path()).args([
            "genpkey",
            "-algorithm",
            kind,
            "-out",
            "client.key",
        ]));
        program::succeed(openssl(scratch.path()).args([
            "pkey",
            "-in",
            "client.key",
            "-pubout",
            "-out",
            "client.pub",
        ]));
        let more = tokens.oauth2(&format!(
            "private_key: {{ file: \"{}/client.key\", id: k1 }}, tls: {{ ca: \"CA\" }}",
            scratch.path().display()
        ));
        let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
        assert_eq!(Client::connect(listen).get("/").status, 200);
        assert_eq!(
            server.last_request().field("authorization"),
            Some("Bearer t0ken-1")
        );
        let request = &tokens.requests()[0];
        let assertion = request["form"]["client_assertion"]
            .as_str()
            .expect("a token");
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_form(
            request,
            &[
                ("client_id", "my app"),
                ("client_assertion_type", kind),
                ("client_assertion", assertion),
            ],
        );
        let mut python = program::python_with("pyjwt[crypto]==2.10.1");
        let said = program::succeed(
            python
                .args(["-c", VERIFY])
                .arg(scratch.path().join("client.pub"))
                .args([assertion, &tokens.url()]),
        );
        let said: Value = serde_json::from_str(&said).expect("json.dumps writes JSON");
        assert_eq!(
            (&said[0]["kid"], &said[1]["sub"]),
            (&json!("k1"), &json!("my app"))
        );
    }
}

fn a_certificate_shows_who_the_client_is(backend: Backend) {
    let tokens = TokenServer::serving("mtls");
    certificate(tokens.scratch.path(), "orders", "DNS:orders.test");
    let server = Server::ok();
    let (cert, key) = (tokens.path("orders.pem"), tokens.path("orders.key"));
    let more = tokens.oauth2(&format!(
        "tls: {{ ca: \"CA\", cert: \"{cert}\", key: \"{key}\" }}"
    ));
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );
    let requests = tokens.requests();
    assert_form(&requests[0], &[("client_id", "my app")]);
    assert_eq!(requests[0]["peer"], json!({ "commonName": "orders" }));
}

fn a_server_that_is_not_trusted_gets_nothing(backend: Backend) {
    let tokens = TokenServer::serving("tls");
    let server = Server::ok();
    let scratch = Scratch::new();
    let file = secret(&scratch, "secret", "s3cret");
    // Neither the system nor another authority knows it; the address is not in its name.
    authority(scratch.path());
    let other = format!(", tls: {{ ca: \"{}/ca.pem\" }}", scratch.path().display());
    let named = tokens.oauth2("").replace("localhost", "127.0.0.2");
    for (base, tls, why) in [
        (
            tokens.oauth2(""),
            "",
            "gives no TLS session: invalid peer certificate",
        ),
        (
            tokens.oauth2(""),
            &*other,
            "gives no TLS session: invalid peer certificate",
        ),
        (
            named,
            ", tls: { ca: \"CA\" }",
            "takes no connection at 127.0.0.2",
        ),
    ] {
        let client = format!(
            "client_secret: {{ file: \"{}\" }}{tls} }} }}",
            file.display()
        );
        let more = base
            .replace(" } }", &client)
            .replace("\"CA\"", &format!("\"{}\"", tokens.path("ca.pem")));
        let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
        let answer = Client::connect(listen).get("/");
        assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
        let told = proxy.upstream("web")["credential"]["last_failure"].to_string();
        assert!(told.contains(why), "{told}");
    }
    assert_eq!((tokens.requests().len(), server.requests().len()), (0, 0));
}

fn a_server_that_refuses_is_told_of_without_the_secret(backend: Backend) {
    let tokens = TokenServer::serving("tls");
    let server = Server::ok();
    let scratch = Scratch::new();
    let file = secret(&scratch, "secret", "s3cret");
    let more = tokens.oauth2(&format!(
        "client_secret: {{ file: \"{}\" }}, tls: {{ ca: \"CA\" }}",
        file.display()
    ));
    let refusal = |description: &str| {
        let body = json!({ "error": "invalid_client", "error_description": description });
        json!({ "status": 401, "body": body })
    };
    tokens.answers(&refusal("the secret s3cret is wrong"));
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
    let mut caller = Client::connect(listen);
    let told = |what: &str| {
        let why = proxy.upstream("web")["credential"]["last_failure"].to_string();
        why.contains(what)
    };
    assert_eq!(caller.get("/").reason(), "auth-unavailable");
    eventually("it is told", SOON, || told("/token answers 401\""));
    tokens.answers(&refusal("no such \u{1b}[31mclient"));
    eventually("it is told", SOON, || {
        told("answers 401: invalid_client: no such")
    });
    tokens.answers(&json!({ "status": 200, "body": { "access_token": "two words" } }));
    eventually("it is told", SOON, || told("no bearer token"));
    tokens.answers(&json!({ "status": 302, "fields": { "Location": "/" }, "body": {} }));
    eventually("it is told", SOON, || told("answers 302"));
    let log = proxy.log();
    assert!(!log.contains("s3cret") && !log.contains('\u{1b}'), "{log}");
    assert_eq!(server.requests().len(), 0);
}

fn a_token_is_exchanged_for_that_of_a_file(backend: Backend) {
    let tokens = TokenServer::serving("tls");
    let server = Server::ok();
    let scratch = Scratch::new();
    let subject = secret(&scratch, "subject", "sub.ject.1\n");
    let (url, ca, file) = (tokens.url(), tokens.path("ca.pem"), subject.display());
    let azure = "grant: azure, client_id: app, audience: \"https://vault.test\"";
    let exchange = "grant: rfc8693, audience: web, scopes: [a, b]";
    for (grant, count) in [(exchange, 1), (azure, 3)] {
        let more = format!(
            "auth: {{ token_exchange: {{ {grant}, url: \"{url}\", subject: {{ file: \"{file}\" }}, \
             tls: {{ ca: \"{ca}\" }} }} }}\n"
        );
        let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
        let mut caller = Client::connect(listen);
        assert_eq!(caller.get("/").status, 200);
        let sent = format!("Bearer t0ken-{count}");
        assert_eq!(server.last_request().field("authorization"), Some(&*sent));
        // The subject of a pod is replaced now and then.
        replace(&subject, &format!("sub.ject.{}", count + 1));
        let next = format!("Bearer t0ken-{}", count + 1);
        eventually("the new subject is exchanged", SOON, || {
            assert_eq!(caller.get("/").status, 200);
            server.last_request().field("authorization") == Some(&next)
        });
        drop((caller, proxy));
        replace(&subject, &format!("sub.ject.{}", count + 2));
    }
    let forms: Vec<Value> = tokens
        .requests()
        .iter()
        .map(|it| it["form"].clone())
        .collect();
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    assert_eq!(
        forms[1],
        json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": jwt, "subject_token": "sub.ject.2",
            "audience": "web", "scope": "a b",
        })
    );
    assert_eq!(
        forms.last(),
        Some(&json!({
            "grant_type": "client_credentials", "client_id": "app",
            "scope": "https://vault.test/.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": "sub.ject.4",
        }))
    );
}

fn a_service_account_is_impersonated(backend: Backend) {
    let (sts, account) = (TokenServer::serving("tls"), TokenServer::serving("plain"));
    account.answers(&json!({ "body": {
        "accessToken": "acc0unt-COUNT", "expireTime": "2099-01-01T00:00:00Z",
    } }));
    let server = Server::ok();
    let scratch = Scratch::new();
    let subject = secret(&scratch, "subject", "sub.ject");
    let more = format!(
        "auth: {{ token_exchange: {{ grant: gcp, audience: \"//iam.test/pool\", url: \"{}\", \
         impersonate: \"http://127.0.0.1:{}/x:generateAccessToken\", scopes: [\"https://s.test/r\"], \
         subject: {{ file: \"{}\" }}, tls: {{ ca: \"{}\" }} }} }}\n",
        sts.url(),
        account.port,
        subject.display(),
        sts.path("ca.pem"),
    );
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer acc0unt-1")
    );
    let form = &sts.requests()[0]["form"];
    assert_eq!(
        form["scope"],
        "https://www.googleapis.com/auth/cloud-platform"
    );
    assert_eq!(
        (&form["audience"], &form["subject_token"]),
        (&json!("//iam.test/pool"), &json!("sub.ject"))
    );
    let request = &account.requests()[0];
    assert_eq!(request["path"], "/x:generateAccessToken");
    assert_eq!(request["authorization"], "Bearer t0ken-1");
    assert_eq!(request["json"], json!({ "scope": ["https://s.test/r"] }));
}
