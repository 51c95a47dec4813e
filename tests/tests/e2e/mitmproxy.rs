//! mitmproxy between the proxy and who it speaks to: it sees no request, and no
//! credential.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Launch, Scratch};
use ambassador_tests::server::text;
use ambassador_tests::workload_api::TrustDomain;
use ambassador_tests::{
    Authority, Backend, Client, Proxy, Server, eventually, on_both_backends, os,
};

use crate::credentials::secret;
use crate::tls_upstream::{HANDSHAKES, config, free, line};

on_both_backends!(
    who_is_not_trusted_sees_no_credential,
    a_name_and_an_id_count_where_the_authority_is_trusted,
    a_client_in_front_of_it_does_not_get_through_a_listener,
);

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(30);
const PACKAGE: &str = "mitmproxy==11.0.2";
const TOKEN: &str = "t0ken-of-the-proxy";

/// It, in front of a server whose certificate it does not look at.
struct Middle {
    address: SocketAddr,
    scratch: Scratch,
    running: Running,
}

impl Middle {
    /// Its certificates are of an authority of its own, for whatever name a client wants,
    /// unless `options` say otherwise.
    #[track_caller]
    fn before(server: SocketAddr, options: &[&str]) -> Middle {
        let (scratch, address) = (Scratch::new(), free());
        let mut mitmdump = program::python_with(PACKAGE);
        mitmdump
            .args([
                "-c",
                "from mitmproxy.tools.main import mitmdump; mitmdump()",
            ])
            .args([
                "--mode",
                &format!("reverse:https://{server}"),
                "--ssl-insecure",
            ])
            .args(["--listen-host", "127.0.0.1", "--listen-port"])
            .arg(address.port().to_string())
            .arg("--set")
            .arg(format!("confdir={}", scratch.path().join("own").display()))
            .arg("-w")
            .arg(scratch.path().join("flows"))
            .args(options)
            .env("HOME", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let middle = Middle {
            running: Running::start(&mut mitmdump),
            address,
            scratch,
        };
        eventually("mitmproxy listens", SOON, || {
            Client::try_connect(address).is_some()
        });
        middle
    }

    /// The certificate of its own authority.
    fn authority(&self) -> PathBuf {
        self.scratch.path().join("own/mitmproxy-ca-cert.pem")
    }

    /// All requests that it has seen, as it dumps them at its end.
    fn flows(mut self) -> String {
        os::kill(self.running.id(), libc::SIGTERM).expect("it runs");
        self.running.wait(SOON);
        let flows = fs::read(self.scratch.path().join("flows")).expect("it wrote them");
        String::from_utf8_lossy(&flows).into_owned()
    }
}

/// A proxy that sends a token to the upstream `web`, and its listener.
fn start(backend: Backend, endpoint: SocketAddr, token: &Path, tls: &str) -> (Proxy, SocketAddr) {
    let listen = free();
    let more = format!(
        "auth: {{ bearer: {{ file: {} }} }}\ntls: {{ {tls} }}\n\
         timeouts: {{ connect: 30s }}\n",
        token.display()
    );
    (
        Proxy::start(backend, &config(listen, endpoint, &more)),
        listen,
    )
}

/// A request ends at once, and for this reason.
#[track_caller]
fn assert_refused(backend: Backend, middle: &Middle, token: &Path, tls: &str, cause: &str) {
    let (proxy, listen) = start(backend, middle.address, token, tls);
    let answer = Client::connect(listen).get("/refused");
    assert_eq!(
        (answer.status, answer.reason()),
        (502, "tls-failed"),
        "{tls}"
    );
    let line = line(&proxy, "/refused");
    assert_eq!(
        (&line["detail"], &line["attempts"]),
        (&cause.into(), &1.into()),
        "{line}"
    );
    let labels = [("upstream", "web"), ("outcome", cause)];
    proxy.expect_metric(HANDSHAKES, &labels, 1.0);
}

fn who_is_not_trusted_sees_no_credential(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = format!("ca: {}", scratch.file("ca.pem", &authority.pem).display());
    let token = secret(&scratch, "token", TOKEN);
    let server = Server::secured(authority.issue(&["web.test"]).server(), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let (_proxy, listen) = start(backend, server.address(), &token, &ca);
    assert_eq!(Client::connect(listen).get("/").status, 200);
    let before = server.requests().len();

    let middle = Middle::before(server.address(), &[]);
    assert_refused(backend, &middle, &token, &ca, "unknown-ca");
    assert_refused(backend, &middle, &token, "ca: system", "unknown-ca");
    assert_eq!(server.requests().len(), before);
    assert_unseen(&middle.flows());
}

fn a_name_and_an_id_count_where_the_authority_is_trusted(backend: Backend) {
    let scratch = Scratch::new();
    let token = secret(&scratch, "token", TOKEN);
    let domain = TrustDomain::new("mesh.test");
    let leaf = domain.svid("/web", 1, HOUR).leaf();
    let server = Server::secured(leaf.server(), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    // One that the authority has signed, for somebody else.
    let other = domain.svid("/other", 2, HOUR).leaf();
    let other = scratch.file("other.pem", &format!("{}{}", other.pem, other.key));
    let middle = Middle::before(server.address(), &["--certs", &other.display().to_string()]);
    let bundle = scratch.file("bundle.pem", &domain.pem());
    let ca = format!("ca: {}", bundle.display());
    let id = "verify: \"spiffe://mesh.test/web\"";
    assert_refused(backend, &middle, &token, &ca, "wrong-name");
    assert_refused(
        backend,
        &middle,
        &token,
        &format!("{ca}, {id}"),
        "wrong-name",
    );
    assert_unseen(&middle.flows());

    // One whose own authority the system trusts, for the name and the id of the server.
    let middle = Middle::before(server.address(), &[]);
    let (cert, key) = domain.svid("/shop", 3, HOUR).leaf().write(&scratch, "shop");
    let listen = free();
    let text = format!(
        "identity: {{ cert: {}, key: {}, bundle: {} }}\n\
         defaults: {{ timeouts: {{ connect: 30s }} }}\n\
         telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners: [{{ name: out, bind: \"{listen}\" }}]\nupstreams:\n  \
         name: {{ hosts: [localhost], endpoints: [\"{to}\"], tls: on, auth: {auth} }}\n  \
         id: {{ hosts: [id.test], endpoints: [\"{to}\"], tls: {{ cert: identity, {id} }}, \
         auth: {auth} }}\n",
        cert.display(),
        key.display(),
        bundle.display(),
        to = middle.address,
        auth = format_args!("{{ bearer: {{ file: {} }} }}", token.display())
    );
    let system = middle.authority().display().to_string();
    let launch = Launch {
        environment: vec![("SSL_CERT_FILE".into(), system)],
        ..Launch::default()
    };
    let proxy = Proxy::launch(backend, &text, launch);
    let get = |host: &str, path: &str| {
        let mut client = Client::connect(listen);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.response("GET")
    };
    let refused = get("id.test", "/refused");
    assert_eq!((refused.status, refused.reason()), (502, "tls-failed"));
    let line = line(&proxy, "/refused");
    assert_eq!(
        (&line["detail"], &line["attempts"]),
        (&"unknown-ca".into(), &1.into())
    );
    assert_eq!(get("localhost", "/let-in").status, 200);
    let flows = middle.flows();
    assert!(
        flows.contains("/let-in") && flows.contains(TOKEN),
        "{flows}"
    );
    assert!(!flows.contains("/refused"), "{flows}");
}

#[track_caller]
fn assert_unseen(flows: &str) {
    assert!(
        !flows.contains(TOKEN) && !flows.contains("/refused"),
        "{flows}"
    );
}

fn a_client_in_front_of_it_does_not_get_through_a_listener(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let (cert, key) = authority.issue(&["in.test"]).write(&scratch, "in");
    authority.issue(&["client.test"]).write(&scratch, "client");
    let server = Server::ok();
    let listen = free();
    let proxy = Proxy::start(
        backend,
        &format!(
            "listeners: [{{ name: in, bind: \"{listen}\", tls: {{ cert: {}, key: {}, \
             client_ca: {} }} }}]\nupstreams: {{ app: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ upstream: app }}]\n",
            cert.display(),
            key.display(),
            ca.display(),
            server.address()
        ),
    );
    // The client trusts whoever it meets.
    let status = |address: SocketAddr, name: &str, ca: &Path| {
        let mut curl = Command::new("curl");
        curl.current_dir(scratch.path())
            .args(["-sS", "-m20", "-o", "body", "-w", "%{http_code}"])
            .args(["--cert", "client.pem", "--key", "client.key", "--cacert"])
            .arg(ca)
            .args(["--resolve", &format!("{name}:{}:127.0.0.1", address.port())])
            .arg(format!("https://{name}:{}/", address.port()));
        let output = program::output(&mut curl);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(listen, "in.test", &ca), "200");
    let before = server.requests().len();
    let other = Authority::new("other").issue(&["client.test"]);
    let other = scratch.file("other.pem", &format!("{}{}", other.pem, other.key));
    let shown = format!("client_certs={}", other.display());
    for (options, outcome) in [
        (&["--set", "request_client_cert=true"][..], "no-certificate"),
        (&["--set", &*shown][..], "unknown-ca"),
    ] {
        let middle = Middle::before(listen, options);
        let status = status(middle.address, "in.test", &middle.authority());
        assert_ne!(status, "200", "{outcome}");
        let labels = [("listener", "in"), ("outcome", outcome)];
        eventually(outcome, SOON, || proxy.metric(HANDSHAKES, &labels) >= 1.0);
    }
    assert_eq!(server.requests().len(), before);
}
