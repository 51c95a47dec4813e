//! What upstreams are told of the certificate of a client, and what they cannot be told by
//! the client itself.

use ambassador_tests::{Backend, on_both_backends};

use crate::tls_listener::{World, named};
use crate::tls_upstream::line_with;

on_both_backends!(
    what_can_be_taken_for_the_header_does_not_pass,
    who_sent_what_is_no_request_is_logged,
);

const SANITIZED: &str =
    ", client_ca: CLIENTS, client_auth: optional, forward_client_cert: sanitize_set";

fn what_can_be_taken_for_the_header_does_not_pass(backend: Backend) {
    let world = World::start(backend, SANITIZED);
    let id = "spiffe://peer.test/a";
    let good = named(&world.clients, id);
    for (shown, expected) in [(None, 0), (Some(&good), 1)] {
        for forged in [
            "X_Forwarded_Client_Cert: URI=spiffe://forged\r\n",
            "x-forwarded_client-cert: URI=spiffe://forged\r\nX_FORWARDED-Client_Cert: Hash=1\r\n",
            "Connection: x-forwarded-client-cert\r\nX-Forwarded-Client-Cert: By=forged\r\n",
        ] {
            let mut client = world.connect(shown).expect("it is let in");
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: web.test\r\nX-Kept: 1\r\n{forged}\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\
                 X-Forwarded-Client-Cert: URI=spiffe://forged\r\n\
                 x_forwarded_client_cert: URI=spiffe://forged\r\nX-Sum: 1\r\n\r\n"
            ));
            assert_eq!(client.response("POST").status, 200);
            let request = world.server.last_request();
            let all = request.fields.iter().chain(&request.trailers);
            let told: Vec<_> = all
                .filter(|(name, _)| name.replace('_', "-").len() == 23)
                .collect();
            assert_eq!(told.len(), expected, "{forged}: {told:?}");
            assert!(
                told.iter().all(|(_, value)| value.ends_with(id)),
                "{told:?}"
            );
            assert_eq!(request.field("x-kept"), Some("1"));
            assert_eq!(request.trailer("x-sum"), Some("1"));
        }
    }
}

fn who_sent_what_is_no_request_is_logged(backend: Backend) {
    let world = World::start(backend, SANITIZED);
    let good = named(&world.clients, "spiffe://peer.test/a");
    let mut client = world.connect(Some(&good)).expect("it is let in");
    client.send("GET / HTTP/1.1\r\nno field\r\n\r\n");
    assert_eq!(client.response("GET").status, 400);
    let logged = line_with(&world.proxy, "reason", "bad-request");
    assert_eq!(logged["peer_id"], "spiffe://peer.test/a", "{logged}");
}
