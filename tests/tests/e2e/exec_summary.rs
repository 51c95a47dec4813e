//! What `exec` says at its end.

use std::process::{Command, Output};

use ambassador_tests::proxy::{self, ambassador};
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Netns, Server, on_both_backends, program};

use crate::capture_scope::world;

on_both_backends!(
    tls_is_shown_by_its_name,
    a_summary_without_calls_says_so,
    an_aborted_request_ends_without_a_word_of_the_drain,
);

/// `exec` inside a namespace; a summary is asked for.
fn exec(backend: Backend, namespace: &Netns, command: &[&str]) -> Output {
    let [nsenter, entered, binary] = namespace.wrap(&proxy::binary().display().to_string());
    let mut whole = Command::new(nsenter);
    whole.args([&entered, &binary, "exec", "--summary", "--"]);
    program::output(
        whole
            .args(command)
            .env("AMBASSADOR_BACKEND", backend.name()),
    )
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn tls_is_shown_by_its_name(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:443"), |connection| {
        // A hello is all that it takes.
        connection.read(&mut [0; 1024]).map(drop)
    });
    let curl = |to: &str, url: &str| {
        let resolve = format!("shop.test:443:{to}");
        let curl = ["curl", "-sk", "-m20", "--resolve", &resolve, url];
        said(&exec(backend, &namespace, &curl))
    };
    let named = curl("10.1.2.3", "https://shop.test/");
    assert!(named.contains("  shop.test:443: 1 requests"), "{named}");
    assert!(!named.contains("10.1.2.3"), "{named}");
    let unnamed = curl("10.1.2.3", "https://10.1.2.3/");
    assert!(unnamed.contains("  10.1.2.3:443: 1 requests"), "{unnamed}");
    assert_eq!(server.connections(), 2);
}

fn a_summary_without_calls_says_so(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let idle = said(&exec(backend, &namespace, &["true"]));
    assert!(
        idle.starts_with("no call to sum up: the command made no TCP connection"),
        "{idle}"
    );
    let missing = exec(backend, &namespace, &["/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(
        said(&missing),
        "ambassador: /no/such/program: No such file or directory\n\
         no call to sum up: the command did not run\n"
    );
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let busy = said(&exec(
        backend,
        &namespace,
        &["curl", "-sS", "-m20", "http://10.1.2.3/"],
    ));
    assert!(busy.starts_with("upstream "), "{busy}");
    assert!(busy.contains("  10.1.2.3: 1 requests"), "{busy}");
    assert!(!busy.contains("no call"), "{busy}");
}

fn an_aborted_request_ends_without_a_word_of_the_drain(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.request()?;
        // Until the proxy gives up.
        connection.read(&mut [0; 16]).map(drop)
    });
    let output = exec(
        backend,
        &namespace,
        &["curl", "-s", "-m1", "http://10.1.2.3/"],
    );
    assert_eq!(output.status.code(), Some(28), "curl gave up: {output:?}");
    let said = said(&output).to_lowercase();
    for word in ["warn", "drain"] {
        assert!(!said.contains(word), "{said}");
    }
    assert!(said.contains("10.1.2.3: 1 requests"), "{said}");
}

#[test]
fn a_summary_of_no_command_is_a_wrong_command_line() {
    let output = program::output(ambassador(Backend::Ring).args(["exec", "--summary", "--"]));
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
