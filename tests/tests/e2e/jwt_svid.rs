//! JWT-SVIDs as credentials: a Workload API of the tests' own gives them.

use std::net::SocketAddr;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::response;
use ambassador_tests::workload_api::{TrustDomain, Update, WorkloadApi};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::spiffe::{HOUR, SOON, spiffe};

on_both_backends!(
    a_jwt_svid_is_a_credential,
    a_jwt_svid_is_exchanged_for_another_token,
);

/// What the claims of a token say.
pub(crate) fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a JWT");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice(&claims).expect("JSON")
}

/// A proxy that shows a credential to a server on loopback.
fn with_auth(
    backend: Backend,
    server: &Server,
    agent: &WorkloadApi,
    auth: &str,
) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let text = format!(
        "identity: {}\n\
         listeners: [{{ name: in, bind: {listen} }}]\n\
         upstreams: {{ web: {{ endpoints: [{}], auth: {auth} }} }}\n",
        spiffe(agent),
        server.address()
    );
    (Proxy::start(backend, &text), listen)
}

fn a_jwt_svid_is_a_credential(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let update = Update::of(&td.svid("/orders", 2, HOUR), &td);
    let agent = WorkloadApi::start(scratch.path(), update);
    let server = Server::ok();
    let auth = "{ bearer: { spiffe: payments } }";
    let (proxy, listen) = with_auth(backend, &server, &agent, auth);
    eventually("there is a token", SOON, || {
        Client::connect(listen).get("/").status == 200
    });
    let request = server.last_request();
    let token = request.field("authorization").expect("a credential");
    let token = token.strip_prefix("Bearer ").expect("a bearer token");
    let claims = claims(token);
    assert_eq!(claims["sub"], "spiffe://td/orders");
    assert_eq!(claims["aud"], json!(["payments"]));
    // Nobody is told.
    assert!(!proxy.log().contains(token));
    assert!(!proxy.admin_get("/config").contains(token));
}

fn a_jwt_svid_is_exchanged_for_another_token(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let update = Update::of(&td.svid("/orders", 2, HOUR), &td);
    let agent = WorkloadApi::start(scratch.path(), update);
    let server = Server::ok();
    let sts = Server::http(|_| {
        let token = json!({
            "access_token": "exchanged",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600
        });
        response(
            "200 OK",
            "Content-Type: application/json\r\n",
            &token.to_string(),
        )
    });
    let url = format!("http://{}/token", sts.address());
    let auth =
        format!("{{ token_exchange: {{ grant: rfc8693, url: \"{url}\", subject: spiffe }} }}");
    let (_proxy, listen) = with_auth(backend, &server, &agent, &auth);
    eventually("there is a token", SOON, || {
        Client::connect(listen).get("/").status == 200
    });
    let request = server.last_request();
    assert_eq!(request.field("authorization"), Some("Bearer exchanged"));
    let form = String::from_utf8(sts.last_request().body).expect("a form");
    let shown = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("subject_token="));
    let claims = claims(shown.expect("a subject"));
    assert_eq!(claims["sub"], "spiffe://td/orders");
    assert_eq!(claims["aud"], json!([url]));
}
