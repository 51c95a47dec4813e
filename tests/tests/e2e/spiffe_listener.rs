//! Listeners with the identity of the proxy: they show its SVID, and know their clients
//! by their SPIFFE IDs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, ambassador};
use ambassador_tests::workload_api::{Svid, TrustDomain, Update, WorkloadApi, uri};
use ambassador_tests::{
    Authority, Backend, Client, Proxy, Server, eventually, on_both_backends, program,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa};
use rustls::ClientConfig;

use crate::load::Load;
use crate::spiffe::{HOUR, SOON, spiffe};
use crate::tls_rotation::rotations;
use crate::tls_upstream::{HANDSHAKES, free, line};

on_both_backends!(
    svids_of_both_sides_change_every_second_and_no_request_fails,
    clients_are_known_by_their_ids,
    clients_of_a_federated_domain_are_vouched_for_by_it_alone,
    a_session_ends_with_the_trust_that_it_was_agreed_upon_with,
    without_an_identity_nobody_is_let_in_and_it_is_told,
    an_identity_of_files_and_authorities_of_files_go_together,
    what_contradicts_itself_is_told,
);

/// A proxy whose listener `in` has an identity, in front of a server in clear.
struct Inbound {
    proxy: Proxy,
    listen: SocketAddr,
    server: Server,
}

impl Inbound {
    /// `identity` is what stands behind that key, `tls` what the listener says beside its
    /// certificate.
    fn start(backend: Backend, identity: &str, tls: &str) -> Inbound {
        Inbound::launch(identity, tls, |text| Proxy::start(backend, text))
    }

    fn launch(identity: &str, tls: &str, launch: impl FnOnce(&str) -> Proxy) -> Inbound {
        let (server, listen) = (Server::ok(), free());
        let text = format!(
            "telemetry: {{ access_log: {{ path: stdout }} }}\nidentity: {identity}\n\
             listeners: [{{ name: in, bind: \"{listen}\", tls: {{ cert: identity{tls} }} }}]\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
            server.address()
        );
        Inbound {
            proxy: launch(&text),
            listen,
            server,
        }
    }

    /// What becomes of a request, and whether its session was taken up.
    fn ask(&self, config: &Arc<ClientConfig>) -> Option<bool> {
        let mut client = Client::connect(self.listen);
        client.secure(Arc::clone(config), "localhost").ok()?;
        let request = "GET /in HTTP/1.1\r\nHost: web.test\r\n\r\n";
        client.try_send(request).ok()?;
        let answer = client.try_response("GET")?;
        assert_eq!(answer.status, 200);
        Some(client.session()?.is_resumed())
    }

    #[track_caller]
    fn expect_admission(&self, config: ClientConfig) {
        let config = Arc::new(config);
        eventually("it is let in", SOON, || self.ask(&config).is_some());
    }

    #[track_caller]
    fn expect_refusal(&self, config: ClientConfig, outcome: &str, words: &str) {
        let config = Arc::new(config);
        let labels = [("listener", "in"), ("outcome", outcome)];
        let count = || self.proxy.metric(HANDSHAKES, &labels);
        let before = count();
        eventually("it is refused, counted and logged", SOON, || {
            self.ask(&config).is_none() && count() > before && self.proxy.log().contains(words)
        });
    }
}

/// The proxy of each side is another user than the one who started it, and confined.
fn svids_of_both_sides_change_every_second_and_no_request_fails(backend: Backend) {
    // Shorter than the test, so that old connections have to leave in time.
    const LIFETIME: Duration = Duration::from_secs(4);
    let td = TrustDomain::new("td");
    let (shop, pay) = (Scratch::new(), Scratch::new());
    let of = |path: &str, serial| Update::of(&td.svid(path, serial, LIFETIME), &td);
    let shop = WorkloadApi::start(shop.path(), of("/shop", 1));
    let pay = WorkloadApi::start(pay.path(), of("/pay", 1));
    let tls = ", clients: [\"spiffe://td/shop\"], forward_client_cert: sanitize_set";
    let inbound = Inbound::start(backend, &spiffe(&pay), tls);
    let listen = free();
    let outbound = Proxy::start(
        backend,
        &format!(
            "telemetry: {{ access_log: {{ path: stdout }} }}\nidentity: {}\n\
             listeners: [{{ name: out, bind: \"{listen}\" }}]\n\
             upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{}\"]\n    \
             tls: {{ cert: identity, verify: \"spiffe://td/pay\" }}\n    retry: {{ attempts: 1 }}\n",
            spiffe(&shop),
            inbound.listen
        ),
    );
    let get = "GET /both HTTP/1.1\r\nHost: web.test\r\n\r\n";
    let ask = move || {
        let mut client = Client::connect(listen);
        client.send(get);
        client.response("GET").status == 200
    };
    let mut serial = 1;
    let mut rotate = || {
        serial += 1;
        shop.publish(of("/shop", serial));
        pay.publish(of("/pay", serial));
    };
    eventually("the identity has come", SOON, || {
        rotate();
        ask()
    });
    let load = Load::on(listen);
    for _ in 0..rotations() {
        sleep(Duration::from_secs(1));
        rotate();
    }
    let result = load.stop_while(&mut rotate);
    let labels = [("listener", "in"), ("outcome", "completed")];
    let handshakes = inbound.proxy.metric(HANDSHAKES, &labels);
    println!(
        "{} requests, {handshakes} handshakes, {} failed; the machine stalled for up to {:?}",
        result.asked,
        result.failed.len(),
        result.stall
    );
    result.expect_none_failed(&[&outbound, &inbound.proxy]);
    // Over HTTP/2 all requests share a connection, which is used for four and a half
    // seconds at most.
    assert!(result.asked > 200 && handshakes >= rotations() as f64 / 5.0);
    // Who it is is told, in the log and to the server.
    rotate();
    let mut client = Client::connect(listen);
    client.send("GET /told HTTP/1.1\r\nHost: web.test\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(line(&inbound.proxy, "/told")["peer_id"], "spiffe://td/shop");
    assert_eq!(line(&outbound, "/told")["tls_version"], "1.3");
    let request = inbound.server.last_request();
    let told = request
        .field("x-forwarded-client-cert")
        .expect("it is told");
    assert!(told.starts_with("By=spiffe://td/pay;Hash="), "{told}");
    assert!(told.ends_with(";URI=spiffe://td/shop"), "{told}");
}

fn clients_are_known_by_their_ids(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let update = || Update::of(&td.svid("/pay", 1, HOUR), &td);
    let agent = WorkloadApi::start(scratch.path(), update());
    let tls = ", clients: [\"spiffe://td/shop\", \"spiffe://td/ns/*\"]";
    let inbound = Inbound::start(backend, &spiffe(&agent), tls);
    let of = |path: &str, serial| td.client(Some(&td.svid(path, serial, HOUR)));
    inbound.expect_admission(of("/shop", 2));
    inbound.expect_admission(of("/ns/a/sa/b", 3));
    for other in ["/shop/x", "/pay", "/ns"] {
        let words = format!("the peer is spiffe://td{other}, which is none of `clients`");
        inbound.expect_refusal(of(other, 4), "not-allowed", &words);
    }
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        td.client(Some(
            &td.svid_with("/shop", 5, HOUR, |params| change(params)),
        ))
    };
    let two = with(&|params| params.subject_alt_names.push(uri("spiffe://td/ns/a")));
    inbound.expect_refusal(two, "bad-certificate", "has 2 URIs, not one");
    let none = with(&|params| params.subject_alt_names.truncate(1));
    inbound.expect_refusal(none, "bad-certificate", "has no SPIFFE ID");
    let authority = with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    inbound.expect_refusal(authority, "bad-certificate", "is that of an authority");
    inbound.expect_refusal(td.client(None), "no-certificate", "");
    let forged = TrustDomain::new("td").svid("/shop", 6, HOUR);
    inbound.expect_refusal(td.client(Some(&forged)), "bad-certificate", "BadSignature");
    agent.publish(update().revoking(&td, &[7]));
    inbound.expect_refusal(of("/shop", 7), "revoked", "");
    inbound.expect_admission(of("/shop", 8));
}

fn clients_of_a_federated_domain_are_vouched_for_by_it_alone(backend: Backend) {
    let scratch = Scratch::new();
    let (td, other) = (TrustDomain::new("td"), TrustDomain::new("other"));
    let own = td.svid("/pay", 1, HOUR);
    let agent = WorkloadApi::start(scratch.path(), Update::of(&own, &td));
    let inbound = Inbound::start(backend, &spiffe(&agent), ", client_auth: required");
    let theirs = || td.client(Some(&other.svid("/shop", 2, HOUR)));
    inbound.expect_admission(td.client(Some(&td.svid("/shop", 2, HOUR))));
    let unknown = "of the trust domain other, of which there is no bundle";
    inbound.expect_refusal(theirs(), "unknown-ca", unknown);
    agent.publish(Update::of(&own, &td).federated(&other));
    inbound.expect_admission(theirs());
    // Neither speaks for the other.
    let forged = TrustDomain::issuing("other", "td").svid("/shop", 3, HOUR);
    inbound.expect_refusal(td.client(Some(&forged)), "unknown-ca", "");
    agent.publish(Update::of(&own, &td));
    inbound.expect_refusal(theirs(), "unknown-ca", unknown);
}

fn a_session_ends_with_the_trust_that_it_was_agreed_upon_with(backend: Backend) {
    let scratch = Scratch::new();
    let (td, other) = (TrustDomain::new("td"), TrustDomain::new("other"));
    let own = td.svid("/pay", 1, HOUR);
    let update = || Update::of(&own, &td).federated(&other);
    let agent = WorkloadApi::start(scratch.path(), update());
    let tls = ", client_auth: required";
    let inbound = Inbound::start(backend, &spiffe(&agent), tls);
    let config = Arc::new(td.client(Some(&other.svid("/shop", 2, HOUR))));
    let resumes = || {
        eventually("a session is taken up", SOON, || {
            inbound.ask(&config) == Some(true)
        });
    };
    let refuses = || eventually("it is refused", SOON, || inbound.ask(&config).is_none());
    resumes();
    // The bundle has gone, as one that changes would.
    agent.publish(Update::of(&own, &td));
    refuses();
    agent.publish(update());
    resumes();
    agent.publish(update().revoking(&other, &[2]));
    refuses();
    agent.publish(update());
    resumes();
    agent.refuse();
    refuses();
}

fn without_an_identity_nobody_is_let_in_and_it_is_told(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let socket = scratch.path().join("agent.sock");
    let identity = format!("{{ spiffe: \"unix:{}\" }}", socket.display());
    let client = || td.client(Some(&td.svid("/shop", 2, HOUR)));
    let inbound = Inbound::launch(&identity, ", client_auth: required", |text| {
        Proxy::spawn(backend, text, Launch::default())
    });
    let readiness = || inbound.proxy.admin_try_get("/readyz");
    let obstacle = "listener in refuses its clients: the identity of the proxy is not there";
    let told = || {
        let answer = readiness();
        answer.is_some_and(|it| it.status == 503 && it.text().trim_end() == obstacle)
    };
    eventually("it is not ready", SOON, told);
    inbound.expect_refusal(
        client(),
        "no-identity",
        "identity of the proxy is not there",
    );
    let update = || Update::of(&td.svid("/pay", 1, HOUR), &td);
    let agent = WorkloadApi::start(scratch.path(), update());
    inbound.expect_admission(client());
    let is_ready = || readiness().is_some_and(|answer| answer.status == 200);
    eventually("it is ready", SOON, is_ready);
    agent.refuse();
    inbound.expect_refusal(
        client(),
        "no-identity",
        "identity of the proxy is not there",
    );
    eventually("it is not ready any more", SOON, told);
    agent.publish(update());
    inbound.expect_admission(client());
}

fn an_identity_of_files_and_authorities_of_files_go_together(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let write = |svid: &Svid| {
        let cert = scratch.file("cert.pem", &svid.certificate_pem());
        let key = scratch.file("key.pem", &svid.key_pem());
        let bundle = scratch.file("bundle.pem", &td.pem());
        let [cert, key, bundle] = [cert, key, bundle].map(|path| path.display().to_string());
        format!("{{ cert: {cert}, key: {key}, bundle: {bundle} }}")
    };
    let identity = write(&td.svid("/pay", 1, HOUR));
    // Its clients have certificates of somebody else, with ids.
    let clients = Authority::new("clients");
    let ca = scratch.file("clients.pem", &clients.pem);
    let list = scratch.file("list.pem", &clients.revoking(&[7], false));
    let tls = format!(
        ", client_ca: {}, crl: {}, clients: [\"spiffe://elsewhere\"]",
        ca.display(),
        list.display()
    );
    let inbound = Inbound::start(backend, &identity, &tls);
    let of = |id: &str, serial: u64| {
        let leaf = clients.issue_with(&[], |params| {
            params.subject_alt_names.push(uri(id));
            params.serial_number = Some(serial.into());
        });
        td.client_with(Some(&leaf))
    };
    inbound.expect_admission(of("spiffe://elsewhere/shop", 2));
    inbound.expect_refusal(
        of("spiffe://td/shop", 3),
        "not-allowed",
        "none of `clients`",
    );
    inbound.expect_refusal(of("spiffe://elsewhere/shop", 7), "revoked", "");
    inbound.expect_refusal(
        td.client(Some(&td.svid("/shop", 2, HOUR))),
        "unknown-ca",
        "",
    );
    // Another one is shown as soon as it is there.
    let shown = || {
        let mut client = Client::connect(inbound.listen);
        let secured = client.secure(Arc::new(of("spiffe://elsewhere/shop", 4)), "localhost");
        secured.expect("it is let in");
        let session = client.session()?;
        let chain = session.connection().peer_certificates()?;
        Some(chain.first()?.to_vec())
    };
    let before = shown();
    write(&td.svid("/pay", 5, HOUR));
    eventually("another one is shown", SOON, || shown() != before);
}

fn what_contradicts_itself_is_told(backend: Backend) {
    let scratch = Scratch::new();
    scratch.file("bad.pem", "no certificate");
    let check = |identity: &str, tls: &str| {
        let text = format!(
            "{identity}\nlisteners: [{{ name: in, bind: \"127.0.0.1:9\", tls: {{ {tls} }} }}]\n\
             upstreams: {{ web: {{ endpoints: [\"127.0.0.1:10\"] }} }}\n"
        );
        let file = scratch.file("a.yaml", &text);
        let output = program::output(ambassador(backend).arg("check").arg(file));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let identity = "identity: { spiffe: \"unix:/run/agent.sock\" }";
    for tls in [
        "cert: identity",
        "cert: identity, client_auth: optional",
        "cert: identity, clients: [\"spiffe://td/*\"]",
    ] {
        assert_eq!(check(identity, tls), "");
    }
    for (identity, tls, words) in [
        // What can be read without an agent is looked at.
        (
            identity,
            "cert: identity, client_ca: bad.pem",
            "tls.client_ca: has no certificate in PEM",
        ),
        ("", "cert: identity", "needs identity, which says who"),
        (
            identity,
            "cert: identity, key: k",
            "must not be there with cert: identity",
        ),
        (identity, "cert: identity, clients: []", "names nobody"),
        (
            identity,
            "cert: identity, clients: [spiffe]",
            "does not begin with spiffe://",
        ),
        (
            identity,
            "cert: identity, client_auth: off, clients: [\"spiffe://td\"]",
            "so clients does nothing",
        ),
        (
            identity,
            "cert: identity, crl: list.pem",
            "so crl does nothing",
        ),
        (
            identity,
            "cert: c.pem, client_auth: required",
            "must have a key",
        ),
        (
            identity,
            "cert: c.pem, key: k.pem, clients: [\"spiffe://td\"]",
            "needs a client_ca",
        ),
    ] {
        let said = check(identity, tls);
        assert!(said.contains(words), "{identity} {tls}: {said}");
    }
}
