//! Captured programs and upstreams with credentials: what they get, and what becomes
//! of them without the proxy.

use std::time::Duration;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Cgroup, Netns, Server, eventually, on_both_backends};

use crate::capture_scope::{curl, inside, world};
use crate::credentials::secret;

on_both_backends!(
    a_captured_program_never_holds_the_token,
    without_the_proxy_what_has_credentials_is_refused,
    an_upstream_says_itself_what_a_dead_proxy_means,
);

const SOON: Duration = Duration::from_secs(10);

/// How curl says ECONNREFUSED.
const REFUSED: Option<i32> = Some(7);

/// Tells what it is shown.
fn shown(namespace: &Netns) -> Server {
    Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| text(request.field("authorization").unwrap_or("nobody")))
    })
}

fn ask(namespace: &Netns, cgroup: &Cgroup, url: &str) -> Result<String, Option<i32>> {
    let output = curl(namespace, cgroup, url);
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(code),
    }
}

fn config(token: &std::path::Path, more: &str) -> String {
    format!(
        "upstreams:\n  \
         bank: {{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"], {more}\
         auth: {{ bearer: {{ file: \"{}\" }} }} }}\n  \
         shop: {{ hosts: [10.2.0.0/16], endpoints: [\"127.0.0.1:80\"] }}\n",
        token.display()
    )
}

fn a_captured_program_never_holds_the_token(backend: Backend) {
    let namespace = world(&["10.1.0.0/16", "10.2.0.0/16"]);
    let _server = shown(&namespace);
    let (cgroup, scratch) = (Cgroup::new(), Scratch::new());
    let token = secret(&scratch, "token", "t0ken-1\n");
    let _proxy = inside(backend, &namespace, &cgroup, &config(&token, ""));
    let bank = || ask(&namespace, &cgroup, "http://10.1.2.3/");
    assert_eq!(bank().as_deref(), Ok("Bearer t0ken-1"));
    let shop = || ask(&namespace, &cgroup, "http://10.2.2.3/");
    assert_eq!(shop().as_deref(), Ok("nobody"));
}

fn without_the_proxy_what_has_credentials_is_refused(backend: Backend) {
    let namespace = world(&["10.1.0.0/16", "10.2.0.0/16"]);
    let _server = shown(&namespace);
    let (cgroup, scratch) = (Cgroup::new(), Scratch::new());
    let token = secret(&scratch, "token", "t0ken-1\n");
    let mut proxy = inside(backend, &namespace, &cgroup, &config(&token, ""));
    let bank = || ask(&namespace, &cgroup, "http://10.1.2.3/");
    let shop = || ask(&namespace, &cgroup, "http://10.2.2.3/");
    assert_eq!(bank().as_deref(), Ok("Bearer t0ken-1"));
    proxy.kill();
    eventually("connects are refused", SOON, || bank() == Err(REFUSED));
    assert_eq!(shop().as_deref(), Ok("nobody"), "the rest goes straight");
    assert_eq!(bank(), Err(REFUSED), "and stay so");
    // A next proxy takes the pinned links over; once it says bypass, and is stopped,
    // nothing is left.
    drop(inside(
        backend,
        &namespace,
        &cgroup,
        &config(&token, "on_failure: bypass, "),
    ));
    assert_eq!(bank().as_deref(), Ok("nobody"));
}

fn an_upstream_says_itself_what_a_dead_proxy_means(backend: Backend) {
    let namespace = world(&["10.1.0.0/16", "10.2.0.0/16"]);
    let _server = shown(&namespace);
    let (cgroup, scratch) = (Cgroup::new(), Scratch::new());
    let token = secret(&scratch, "token", "t0ken-1\n");
    let bypass = config(&token, "on_failure: bypass, ");
    let mut proxy = inside(backend, &namespace, &cgroup, &bypass);
    let bank = || ask(&namespace, &cgroup, "http://10.1.2.3/");
    assert_eq!(bank().as_deref(), Ok("Bearer t0ken-1"));
    proxy.kill();
    eventually("connects go straight", SOON, || {
        bank().as_deref() == Ok("nobody")
    });
}
