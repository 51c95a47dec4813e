//! Keys of AWS that a service takes no longer: how it says so, and what becomes of the
//! request.

use std::net::SocketAddr;

use ambassador_tests::nginx::Front;
use ambassador_tests::proxy::{Launch, Scratch, one_upstream};
use ambassador_tests::{Call, Column, Proxy, matrix};

use crate::credentials::listen;
use crate::sigv4::{Aws, CHUNKS, in_chunks, sigv4, upload};

matrix!(
    keys_that_are_over_are_replaced_and_the_request_sent_once_more,
    a_body_in_signed_chunks_is_signed_with_the_keys_of_each_try,
    a_refusal_for_another_reason_is_the_callers,
);

/// A proxy whose agent gives old keys first, and then others. `name` differs from proxy
/// to proxy.
fn start(column: Column, aws: &Aws, name: &str) -> (Proxy, SocketAddr, Scratch, Front) {
    let (listen, front) = (listen(), aws.front(column));
    let config = one_upstream(listen, front.address, &sigv4("s3", "container"));
    let scratch = Scratch::new();
    let shown = scratch.file("shown", "sh0wn\n").display().to_string();
    let agent = format!("http://{}/keys/{name}", aws.address);
    let variables = [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", shown),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent),
    ];
    let launch = Launch {
        environment: variables
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        ..Launch::default()
    };
    let proxy = Proxy::launch(column, &config, launch);
    assert!(get(column, listen, "/").1.starts_with("AKIDOLD "));
    // The token is read again when the agent is asked again.
    (proxy, listen, scratch, front)
}

fn get(column: Column, listen: SocketAddr, path: &str) -> (u16, String) {
    let answer = column.connect(listen).call(&Call::get(path).to("web.test"));
    (answer.status, answer.text())
}

fn resent(proxy: &Proxy) -> f64 {
    let labels = [("upstream", "web"), ("cause", "credential")];
    proxy.metric("ambassador_retries_total", &labels)
}

fn keys_that_are_over_are_replaced_and_the_request_sent_once_more(column: Column) {
    let aws = Aws::serving();
    for name in ["xml", "late", "in-pieces", "until-close", "json", "field"] {
        let (proxy, listen, _scratch, _front) = start(column, &aws, name);
        let (status, text) = get(column, listen, &format!("/{name}"));
        assert_eq!(status, 200, "{name}: {text}");
        assert!(text.starts_with("AKIDAGENT "), "{name}: {text}");
        assert_eq!(resent(&proxy), 1.0, "{name}");
    }
}

/// What was kept of it has the signatures of the program, not those of the try before.
fn a_body_in_signed_chunks_is_signed_with_the_keys_of_each_try(column: Column) {
    let aws = Aws::serving();
    let (proxy, listen, _scratch, _front) = start(column, &aws, "chunks");
    let sizes = [20_000, 9_000, 3];
    let call = upload("/xml", &sizes, CHUNKS).body(in_chunks(&sizes, CHUNKS));
    let answer = column.connect(listen).call(&call);
    assert_eq!(
        (answer.status, answer.text()),
        (200, format!("AKIDAGENT {CHUNKS}"))
    );
    assert_eq!(resent(&proxy), 1.0);
}

fn a_refusal_for_another_reason_is_the_callers(column: Column) {
    let aws = Aws::serving();
    let (proxy, listen, _scratch, _front) = start(column, &aws, "denied");
    for (path, status, bytes) in [
        ("/denied", 403, 84),
        ("/denied-field", 403, 84),
        ("/far-away", 403, 50_084),
    ] {
        let (got, text) = get(column, listen, path);
        assert_eq!((got, text.len()), (status, bytes), "{path}: {text}");
        assert!(text.ends_with("</Error>"), "{text}");
    }
    assert_eq!(resent(&proxy), 0.0);
    assert!(get(column, listen, "/").1.starts_with("AKIDOLD "));
}
