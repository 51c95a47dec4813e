//! SPIFFE: the proxy has an identity, shows it to its upstreams, and knows who they
//! are. A Workload API of the tests' own gives it out; nginx is the upstream.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Scratch, ambassador};
use ambassador_tests::workload_api::{Svid, TrustDomain, Update, WorkloadApi};
use ambassador_tests::{
    Backend, Client, Proxy, Response, eventually, nginx, on_both_backends, ports, program,
};

on_both_backends!(
    svids_change_every_second_and_no_request_fails,
    a_peer_is_known_by_its_id,
    a_federated_peer_is_vouched_for_by_its_own_domain_alone,
    what_the_agent_has_revoked_is_refused,
    an_agent_that_takes_the_identity_away_ends_its_use,
    an_agent_that_goes_away_is_no_reason_to_stop,
    files_are_an_identity_too,
    what_contradicts_itself_is_told,
);

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// An nginx that shows an SVID, wants one of the callers, and answers with the
/// serial number of theirs.
struct Nginx {
    address: SocketAddr,
    _running: Running,
    _scratch: Scratch,
}

impl Nginx {
    /// Each request comes over a connection of its own.
    fn start(svid: &Svid, trusted: &TrustDomain) -> Nginx {
        Nginx::with("keepalive_timeout 0", svid, trusted)
    }

    fn with(more: &str, svid: &Svid, trusted: &TrustDomain) -> Nginx {
        let scratch = Scratch::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        scratch.file("cert.pem", &svid.certificate_pem());
        scratch.file("key.pem", &svid.key_pem());
        scratch.file("ca.pem", &trusted.pem());
        let server = format!(
            "listen {address} ssl; ssl_protocols TLSv1.2 TLSv1.3; {more};\n\
             ssl_certificate cert.pem; ssl_certificate_key key.pem;\n\
             ssl_client_certificate ca.pem; ssl_verify_client on;\n\
             return 200 $ssl_client_serial;"
        );
        Nginx {
            _running: nginx::start(&scratch, address, &server),
            address,
            _scratch: scratch,
        }
    }
}

/// A proxy in front of one upstream.
struct Front {
    proxy: Proxy,
    listen: SocketAddr,
}

impl Front {
    /// `identity` and `tls` are what stands behind these keys.
    fn start(backend: Backend, upstream: SocketAddr, identity: &str, tls: &str) -> Front {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let proxy = Proxy::start(backend, &config(listen, upstream, identity, tls));
        Front { proxy, listen }
    }

    fn get(&self) -> Response {
        Client::connect(self.listen).get("/")
    }

    /// The serial number that the upstream saw, where it answered.
    fn serial(&self) -> Option<u64> {
        let response = self.get();
        let text = response.text();
        (response.status == 200).then(|| u64::from_str_radix(&text, 16).expect("a serial number"))
    }

    #[track_caller]
    fn expect_serial(&self, serial: u64) {
        let end = Instant::now() + SOON;
        while self.serial() != Some(serial) {
            let log = || format!("{:?}\n{}", self.get(), self.proxy.log());
            assert!(Instant::now() < end, "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A request is refused, and the log says why.
    #[track_caller]
    fn expect_failure(&self, outcome: &str, words: &str) {
        let end = Instant::now() + SOON;
        let fails_so = || {
            let response = self.get();
            let is_refused = (response.status, response.reason()) == (502, "tls-failed");
            is_refused && response.text().trim_end() == outcome && self.proxy.log().contains(words)
        };
        while !fails_so() {
            let log = || format!("{:?}\n{}", self.get().text(), self.proxy.log());
            assert!(Instant::now() < end, "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let labels = [("upstream", "web"), ("outcome", outcome)];
        let count = || {
            self.proxy
                .metric("ambassador_tls_handshakes_total", &labels)
        };
        eventually("it is counted", SOON, || count() > 0.0);
    }
}

fn config(listen: SocketAddr, upstream: SocketAddr, identity: &str, tls: &str) -> String {
    format!(
        "identity: {identity}\n\
         listeners: [{{ name: in, bind: {listen} }}]\n\
         upstreams: {{ web: {{ endpoints: [{upstream}], tls: {tls},\n  \
         retry: {{ attempts: 1 }}, circuit_breaker: {{ failures: 1000 }} }} }}\n"
    )
}

/// `identity`, as this agent gives it.
pub(crate) fn spiffe(agent: &WorkloadApi) -> String {
    format!("{{ spiffe: \"{}\" }}", agent.endpoint())
}

/// The proxy is another user than the one who started it, and confined, while it
/// speaks to the agent: as everywhere in these tests.
fn svids_change_every_second_and_no_request_fails(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let server = td.svid("/payments", 1, HOUR);
    let nginx = Nginx::with("keepalive_requests 1000000", &server, &td);
    // Shorter than the test, so that old connections have to leave in time; longer
    // than a slow machine takes for one of the steps below.
    let life = Duration::from_secs(6);
    let own = |serial| Update::of(&td.svid("/orders", serial, life), &td);
    let agent = WorkloadApi::start(scratch.path(), own(0x100));
    let tls = "{ cert: identity, verify: \"spiffe://td/payments\" }";
    let front = Front::start(backend, nginx.address, &spiffe(&agent), tls);
    front.expect_serial(0x100);

    let end = AtomicBool::new(false);
    let (listen, ended) = (front.listen, &end);
    let news = "new identity from the Workload API";
    let changes = || front.proxy.log().matches(news).count();
    let answers = std::thread::scope(|threads| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(move || {
                    let mut client = Client::connect(listen);
                    let mut serials = std::collections::BTreeMap::new();
                    while !ended.load(Ordering::Relaxed) {
                        let response = client.get("/");
                        assert_eq!(response.status, 200, "{:?}", response.text());
                        *serials.entry(response.text()).or_insert(0_u32) += 1;
                    }
                    serials
                })
            })
            .collect();
        for serial in 0x101..=0x10e {
            let next = Instant::now() + Duration::from_secs(1);
            agent.publish(own(serial));
            // One that comes before the last was taken would replace it.
            let taken = serial as usize - 0xff;
            eventually("the SVID is taken", SOON, || changes() == taken);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        end.store(true, Ordering::Relaxed);
        let ended = callers.into_iter().map(|caller| caller.join());
        let mut all = std::collections::BTreeMap::new();
        for (serial, count) in ended.flat_map(|serials| serials.expect("no request failed")) {
            *all.entry(serial).or_insert(0) += count;
        }
        all
    });
    println!("requests by serial number: {answers:?}");
    assert!(
        answers.len() >= 3,
        "connections of old SVIDs have left: {answers:?}"
    );
    front.expect_serial(0x10e);
    assert_eq!(agent.calls(), 1, "one call brought all of them");
    let left = front.proxy.metric(
        "ambassador_certificate_expiry_seconds",
        &[("name", "identity")],
    );
    assert!(left <= life.as_secs_f64(), "{left}");
    assert_eq!(changes(), 15, "{}", front.proxy.log());
}

fn a_peer_is_known_by_its_id(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let nginx = Nginx::start(&td.svid("/payments", 1, HOUR), &td);
    let update = Update::of(&td.svid("/orders", 2, HOUR), &td);
    let agent = WorkloadApi::start(scratch.path(), update);
    let front = |verify: &str| {
        let tls = format!("{{ cert: identity, verify: \"{verify}\" }}");
        Front::start(backend, nginx.address, &spiffe(&agent), &tls)
    };
    front("spiffe://td/payments").expect_serial(2);
    front("spiffe://td").expect_serial(2);
    for other in [
        "spiffe://td/orders",
        "spiffe://td/payments/sub",
        "spiffe://other",
    ] {
        let words = format!("the peer is spiffe://td/payments; accepted is {other}");
        let front = front(other);
        front.expect_failure("wrong-name", &words);
    }
    // The name counts where it is asked for; the authorities are those of the domain.
    let named = "{ cert: identity, sni: localhost }";
    Front::start(backend, nginx.address, &spiffe(&agent), named).expect_serial(2);
    let named = "{ cert: identity, sni: other.example }";
    let named = Front::start(backend, nginx.address, &spiffe(&agent), named);
    named.expect_failure("wrong-name", "a TLS handshake has failed");
    // Other authorities, and the id all the same.
    let ca = scratch.file("ca.pem", &td.pem());
    let by_file = format!(
        "{{ cert: identity, ca: {}, verify: \"spiffe://td/payments\" }}",
        ca.display()
    );
    Front::start(backend, nginx.address, &spiffe(&agent), &by_file).expect_serial(2);
    let by_file = format!(
        "{{ cert: identity, ca: {}, verify: \"spiffe://td/x\" }}",
        ca.display()
    );
    let front = Front::start(backend, nginx.address, &spiffe(&agent), &by_file);
    front.expect_failure("wrong-name", "accepted is spiffe://td/x");
}

fn a_federated_peer_is_vouched_for_by_its_own_domain_alone(backend: Backend) {
    let scratch = Scratch::new();
    let (td, other) = (TrustDomain::new("td"), TrustDomain::new("other"));
    // An authority of ours makes an id of theirs.
    let forged = TrustDomain::issuing("td", "other");
    let own = td.svid("/orders", 2, HOUR);
    let agent = WorkloadApi::start(scratch.path(), Update::of(&own, &td));
    let tls = "{ cert: identity, verify: \"spiffe://other/payments\" }";

    let theirs = Nginx::start(&other.svid("/payments", 1, HOUR), &td);
    let front = Front::start(backend, theirs.address, &spiffe(&agent), tls);
    let unknown = "the peer is of the trust domain other, of which there is no bundle";
    front.expect_failure("unknown-ca", unknown);
    agent.publish(Update::of(&own, &td).federated(&other));
    front.expect_serial(2);
    // It is not said again, so it holds no more.
    agent.publish(Update::of(&own, &td));
    front.expect_failure("unknown-ca", unknown);

    agent.publish(Update::of(&own, &forged).federated(&other));
    let wrong = Nginx::start(&forged.svid("/payments", 1, HOUR), &td);
    let front = Front::start(backend, wrong.address, &spiffe(&agent), tls);
    front.expect_failure("unknown-ca", "a TLS handshake has failed");
}

fn what_the_agent_has_revoked_is_refused(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let nginx = Nginx::start(&td.svid("/payments", 7, HOUR), &td);
    let own = td.svid("/orders", 2, HOUR);
    let update = || Update::of(&own, &td);
    let agent = WorkloadApi::start(scratch.path(), update().revoking(&td, &[6]));
    let by_id = "{ cert: identity, verify: \"spiffe://td/payments\" }";
    let by_name = "{ cert: identity, sni: localhost }";
    for tls in [by_id, by_name] {
        agent.publish(update().revoking(&td, &[6]));
        let front = Front::start(backend, nginx.address, &spiffe(&agent), tls);
        front.expect_serial(2);
        agent.publish(update().revoking(&td, &[6, 7]));
        front.expect_failure("revoked", "a TLS handshake has failed");
        agent.publish(update());
        front.expect_serial(2);
    }
}

fn an_agent_that_takes_the_identity_away_ends_its_use(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let nginx = Nginx::start(&td.svid("/payments", 1, HOUR), &td);
    let own = td.svid("/orders", 2, HOUR);
    let agent = WorkloadApi::start(scratch.path(), Update::of(&own, &td));
    let tls = "{ cert: identity, verify: \"spiffe://td/payments\" }";
    let front = Front::start(backend, nginx.address, &spiffe(&agent), tls);
    front.expect_serial(2);
    agent.refuse();
    front.expect_failure("no-identity", "the agent has taken the identity away");
    agent.publish(Update::of(&own, &td));
    front.expect_serial(2);
}

fn an_agent_that_goes_away_is_no_reason_to_stop(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let nginx = Nginx::start(&td.svid("/payments", 1, HOUR), &td);
    let update = |serial| Update::of(&td.svid("/orders", serial, HOUR), &td);
    let tls = "{ cert: identity, verify: \"spiffe://td/payments\" }";
    // Nobody is there yet.
    let identity = format!(
        "{{ spiffe: \"unix:{}\" }}",
        scratch.path().join("agent.sock").display()
    );
    let front = Front::start(backend, nginx.address, &identity, tls);
    front.expect_failure("no-identity", "cannot connect");
    // That is nothing that the upstream could be left alone for.
    let breaker = &front.proxy.upstream("web")["circuit_breaker"];
    assert_eq!(breaker["failures"], 0, "{breaker}");
    let agent = WorkloadApi::start(scratch.path(), update(2));
    front.expect_serial(2);
    agent.hang_up();
    eventually("it calls again", SOON, || agent.calls() > 2);
    front.expect_serial(2);
    drop(agent);
    front.expect_serial(2);
    let _agent = WorkloadApi::start(scratch.path(), update(3));
    front.expect_serial(3);
}

fn files_are_an_identity_too(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let nginx = Nginx::start(&td.svid("/payments", 1, HOUR), &td);
    // As Kubernetes does it: a link to a directory that is replaced as a whole.
    let write = |serial: u64, key: Option<&Svid>| {
        let svid = td.svid("/orders", serial, HOUR);
        let directory = scratch.path().join(serial.to_string());
        fs::create_dir(&directory).expect("writable");
        let write = |name: &str, text: &str| {
            fs::write(directory.join(name), text).expect("writable");
        };
        write("cert.pem", &svid.certificate_pem());
        write("key.pem", &key.unwrap_or(&svid).key_pem());
        write("bundle.pem", &td.pem());
        let link = scratch.path().join("new");
        symlink(&directory, &link).expect("writable");
        fs::rename(link, scratch.path().join("now")).expect("writable");
    };
    write(2, None);
    let at = |name: &str| scratch.path().join("now").join(name).display().to_string();
    let identity = format!(
        "{{ cert: {}, key: {}, bundle: {} }}",
        at("cert.pem"),
        at("key.pem"),
        at("bundle.pem")
    );
    let tls = "{ cert: identity, verify: \"spiffe://td/payments\" }";
    let front = Front::start(backend, nginx.address, &identity, tls);
    // It is there from the start.
    assert_eq!(front.serial(), Some(2));
    write(3, None);
    front.expect_serial(3);
    let failures = "ambassador_certificate_reload_failures_total";
    write(4, Some(&td.svid("/orders", 4, HOUR)));
    eventually("it is refused", SOON, || {
        front.proxy.metric(failures, &[]) == 1.0
    });
    assert!(front.proxy.log().contains("identity: the key does not fit"));
    front.expect_serial(3);
    write(5, None);
    front.expect_serial(5);
}

fn what_contradicts_itself_is_told(backend: Backend) {
    let scratch = Scratch::new();
    let [listen, upstream] = [9, 10].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let check = |identity: &str, tls: &str| {
        let text = config(listen, upstream, identity, tls);
        let text = text.replace("identity: NONE\n", "");
        let file = scratch.file("a.yaml", &text);
        let output = program::output(ambassador(backend).arg("check").arg(file));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let agent = "{ spiffe: \"unix:/run/agent.sock\" }";
    assert_eq!(check(agent, "{ cert: identity }"), "");
    for (identity, tls, words) in [
        ("NONE", "{ cert: identity }", "needs identity"),
        ("NONE", "{ ca: identity }", "needs identity"),
        (
            agent,
            "{ cert: identity, key: /key }",
            "must not be there with cert: identity",
        ),
        (
            agent,
            "{ verify: \"spiffe://TD/a\" }",
            "other characters than a-z",
        ),
        (
            agent,
            "{ verify: name }",
            "must be full, ca, off, or a SPIFFE ID",
        ),
        (
            agent,
            "on",
            "does nothing: no upstream has tls or auth with it",
        ),
        (
            "{}",
            "{ cert: identity }",
            "must have spiffe alone, or cert, key and bundle",
        ),
        (
            "{ spiffe: \"unix:/a\", key: /k }",
            "{ cert: identity }",
            "must have spiffe alone",
        ),
        (
            "{ cert: /a, key: /b }",
            "{ cert: identity }",
            "must have spiffe alone",
        ),
        (
            "{ spiffe: \"tcp://10.0.0.1:80\" }",
            "{ cert: identity }",
            "is not on loopback",
        ),
        (
            "{ spiffe: /agent.sock }",
            "{ cert: identity }",
            "is neither `unix:/path`",
        ),
        (
            "{ cert: /none/a, key: /none/b, bundle: /none/c }",
            "{ cert: identity }",
            "cannot read /none/a",
        ),
    ] {
        let said = check(identity, tls);
        assert!(said.contains(words), "{identity} {tls}: {said}");
    }
}
