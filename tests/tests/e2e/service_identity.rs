//! Tokens that the proxy signs: PyJWT verifies them by the published keys alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Backend, Call, Client, Column, Proxy, Server, eventually, matrix, on_both_backends, program,
};
use serde_json::Value;

use crate::credentials::{all, replace, secret};

matrix!(
    a_signed_token_is_what_the_upstream_gets,
    a_new_key_fails_no_request,
);

on_both_backends!(
    a_token_is_renewed_before_it_ends,
    a_key_that_does_not_fit_is_told,
    public_keys_are_for_everybody,
);

const SOON: Duration = Duration::from_secs(30);

/// Verifies tokens by a set of keys, and prints what they say.
const VERIFY: &str = r#"
import json, jwt, sys
keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(sys.argv[1]).keys}
said = []
for token in sys.argv[2:]:
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(
        token, keys[header["kid"]], algorithms=["EdDSA", "ES256"],
        audience="payments", issuer="orders", leeway=120,
        options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]})
    said.append({"header": header, "claims": claims})
print(json.dumps(said))
"#;

/// Header and claims of each token; panics where one does not verify.
#[track_caller]
fn verified(keys: &str, tokens: &[String]) -> Vec<Value> {
    let mut python = program::python_with("pyjwt[crypto]==2.10.1");
    let said = program::succeed(python.args(["-c", VERIFY, keys]).args(tokens));
    serde_json::from_str(&said).expect("json.dumps writes JSON")
}

/// A private key as openssl makes it.
fn key(scratch: &Scratch, algorithm: &str) -> String {
    let path = scratch.path().join("made");
    let mut openssl = Command::new("openssl");
    match algorithm {
        "EdDSA" => openssl.args(["genpkey", "-algorithm", "ED25519", "-out"]),
        _ => openssl.args(["ecparam", "-genkey", "-name", "prime256v1", "-out"]),
    };
    program::succeed(openssl.arg(&path));
    fs::read_to_string(&path).expect("openssl wrote it")
}

fn identity(key: &Path, more: &str) -> String {
    let key = key.display();
    format!(
        "auth: {{ identity: {{ key: \"{key}\", issuer: orders, audience: payments{more} }} }}\n"
    )
}

/// The token of the last request.
fn token(server: &Server) -> String {
    let tokens = all(&server.last_request(), "x-service-identity");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens.into_iter().next().expect("there is one")
}

/// The part that names the key.
fn head(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}

fn a_signed_token_is_what_the_upstream_gets(column: Column) {
    for algorithm in ["EdDSA", "ES256"] {
        let server = column.ok();
        let scratch = Scratch::new();
        let key = secret(&scratch, "key.pem", &key(&scratch, algorithm));
        let more = identity(&key, &format!(", algorithm: {algorithm}"));
        let (proxy, listen) = column.in_front_of(&server, &more);
        let mut caller = column.connect(listen);
        let call = Call::get("/")
            .to("web.test")
            .lines("X-Service-Identity: mine\r\n");
        assert_eq!(caller.call(&call).status, 200);
        let token = token(&server);
        let keys = proxy.admin_get("/jwks.json");
        let said = &verified(&keys, std::slice::from_ref(&token))[0];
        assert_eq!(said["header"]["alg"], algorithm);
        assert_eq!(said["header"]["typ"], "JWT");
        assert_eq!(said["claims"]["sub"], "orders");
        let seconds = |name: &str| said["claims"][name].as_u64().expect("a time");
        assert_eq!(seconds("exp") - seconds("iat"), 300);
        let own = fs::read_to_string(&key).expect("it is ours");
        for line in own
            .lines()
            .filter(|line| line.len() > 20 && !line.starts_with('-'))
        {
            for told in [&keys, &proxy.log(), &proxy.admin_get("/config")] {
                assert!(!told.contains(line) && !told.contains(&token), "{told}");
            }
        }
    }
}

/// Tokens of the old key are verified by what is published after the new one came.
fn a_new_key_fails_no_request(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let path = scratch.file("key.pem", &key(&scratch, "EdDSA"));
    let (proxy, listen) = column.in_front_of(&server, &identity(&path, ""));
    let mut caller = column.connect(listen);
    let mut tokens: Vec<String> = Vec::new();
    for round in 0..3 {
        if round > 0 {
            replace(&path, &key(&scratch, "EdDSA"));
            eventually("the new key signs", SOON, || {
                assert_eq!(caller.get("/").status, 200);
                head(&token(&server)) != head(&tokens[round - 1])
            });
        }
        assert_eq!(caller.get("/").status, 200);
        tokens.push(token(&server));
    }
    let said = verified(&proxy.admin_get("/jwks.json"), &tokens);
    let ids: Vec<_> = said.iter().map(|it| &it["header"]["kid"]).collect();
    assert!(
        ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
        "{ids:?}"
    );
    // A bad one leaves that of before in use.
    replace(&path, "no key");
    let failed = [("upstream", "web"), ("outcome", "failed")];
    eventually("it is refused", SOON, || {
        proxy.metric("ambassador_credential_refreshes_total", &failed) >= 1.0
    });
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(head(&token(&server)), head(&tokens[2]));
}

fn a_token_is_renewed_before_it_ends(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let key = scratch.file("key.pem", &key(&scratch, "EdDSA"));
    let more = identity(&key, ", ttl: 10s");
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &more);
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    let first = token(&server);
    let left = proxy.metric(
        "ambassador_credential_expiry_seconds",
        &[("upstream", "web")],
    );
    assert!(left > 0.0 && left <= 9.0, "{left}");
    eventually("there is another token", SOON, || {
        assert_eq!(caller.get("/").status, 200);
        token(&server) != first
    });
    let changed = SystemTime::now().duration_since(UNIX_EPOCH);
    let changed = changed.expect("it is later than 1970").as_secs();
    let said = verified(&proxy.admin_get("/jwks.json"), &[first, token(&server)]);
    let end = |token: &Value| token["claims"]["exp"].as_u64().expect("a time");
    assert!(
        changed < end(&said[0]) && end(&said[0]) < end(&said[1]),
        "{changed} {said:?}"
    );
}

fn a_key_that_does_not_fit_is_told(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let path = scratch.file("key.pem", &key(&scratch, "ES256"));
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &identity(&path, ""));
    let mut caller = Client::connect(listen);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n";
    for (text, what) in [
        (None, "does not sign by EdDSA"),
        (Some("hunter2"), "holds no private key in PEM"),
        (Some(encrypted), "with a passphrase"),
    ] {
        if let Some(text) = text {
            replace(&path, text);
        }
        eventually("it is told", SOON, || {
            let why = &proxy.upstream("web")["credential"]["last_failure"];
            why.as_str()
                .is_some_and(|why| why.contains(what) && why.contains("key.pem"))
        });
        let answer = caller.get("/");
        assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
    }
    assert!(!proxy.log().contains("hunter2"));
    assert_eq!(server.requests().len(), 0);
}

/// Verifiers are elsewhere, and know the proxy by any name.
fn public_keys_are_for_everybody(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let key = scratch.file("key.pem", &key(&scratch, "EdDSA"));
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &identity(&key, ""));
    assert_eq!(Client::connect(listen).get("/").status, 200);
    let ask = |path: &str| {
        let mut client = Client::connect(proxy.admin());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: keys.example\r\n\r\n"));
        client.response("GET")
    };
    let answer = ask("/jwks.json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let keys: Value = serde_json::from_str(&answer.text()).expect("it is JSON");
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "{keys}");
    assert_eq!(ask("/config").status, 403);
}
