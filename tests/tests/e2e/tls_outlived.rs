//! Certificates that come to their end in a handshake, or while the proxy stands still:
//! what is to follow them is there, and no request fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use ambassador_tests::pki::ends_in;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::text;
use ambassador_tests::workload_api::{TrustDomain, Update, WorkloadApi};
use ambassador_tests::{
    Authority, Backend, Client, Leaf, Proxy, Server, eventually, on_both_backends,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::spiffe::{HOUR, SOON, spiffe};
use crate::tls_rotation::Mount;
use crate::tls_upstream::{HANDSHAKES, config, free};

on_both_backends!(
    a_client_certificate_that_ends_while_the_server_looks_at_it_is_replaced,
    a_server_whose_certificate_ends_in_the_handshake_is_asked_again,
    a_client_that_is_slow_to_begin_is_shown_what_is_in_force,
    an_identity_that_ends_while_the_proxy_stands_still_is_replaced,
);

/// How long a certificate is valid that is to end in a handshake: long enough for it and
/// its successor to be taken, on a machine that is busy.
const SHORT: Duration = Duration::from_secs(8);

/// The same of one that nobody has to take in time.
const LIFETIME: Duration = Duration::from_secs(3);

/// The settings of an upstream that may take longer than that.
const PATIENT: &str = "retry: { attempts: 1 }\ntimeouts: { connect: 20s, request: 30s }";

/// How often short-lived ones look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A request and what is to become of it.
struct Case {
    version: &'static SupportedProtocolVersion,
    method: &'static str,
    status: u16,
}

/// With TLS 1.3 the client has sent its request before the server has looked at its
/// certificate: then it is sent again where it may arrive twice.
const CASES: [Case; 4] = [
    Case {
        version: &TLS12,
        method: "GET",
        status: 200,
    },
    Case {
        version: &TLS12,
        method: "POST",
        status: 200,
    },
    Case {
        version: &TLS13,
        method: "GET",
        status: 200,
    },
    Case {
        version: &TLS13,
        method: "POST",
        status: 502,
    },
];

/// Verifies clients, and looks at the certificate of the first one until that has ended.
#[derive(Debug)]
struct SlowVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    shown: AtomicUsize,
}

impl SlowVerifier {
    fn shown(&self) -> usize {
        self.shown.load(Ordering::SeqCst)
    }
}

impl ClientCertVerifier for SlowVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verify = || {
            let now = UnixTime::now();
            self.verifier.verify_client_cert(leaf, between, now)
        };
        if self.shown.fetch_add(1, Ordering::SeqCst) == 0 {
            loop {
                verify()?;
                sleep(LOOK_EVERY);
            }
        }
        verify()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Names of the files, and what is in them.
fn files(leaf: &Leaf) -> [(&str, &str); 2] {
    [("tls.crt", &leaf.pem), ("tls.key", &leaf.key)]
}

/// The status of the only request.
fn ask(listen: SocketAddr, method: &str) -> u16 {
    let mut client = Client::connect(listen);
    client.send(format!(
        "{method} / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 0\r\n\r\n"
    ));
    client.response(method).status
}

fn a_client_certificate_that_ends_while_the_server_looks_at_it_is_replaced(backend: Backend) {
    std::thread::scope(|threads| {
        for case in &CASES {
            threads.spawn(|| is_replaced(backend, case));
        }
    });
}

fn is_replaced(backend: Backend, case: &Case) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let verifier = Arc::new(SlowVerifier {
        verifier: clients.verifier(),
        shown: AtomicUsize::new(0),
    });
    let leaf = authority.issue(&["web.test"]);
    let secured = leaf.server_with(&[case.version], verifier.clone());
    let server = Server::secured(secured, |connection| connection.serve_http(|_| text("ok")));
    let mut mount = Mount::new(&scratch, &files(&clients.issue(&["client.test"])));
    let (cert, key) = (mount.at("tls.crt"), mount.at("tls.key"));
    let tls = format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}\n{PATIENT}");
    let listen = free();
    let proxy = Proxy::start(backend, &config(listen, server.address(), &tls));
    let short = clients.issue_with(&["client.test"], |wanted| ends_in(wanted, SHORT));
    mount.put(&files(&short));
    eventually("it is taken", SHORT, || {
        let left = proxy.metric("ambassador_certificate_expiry_seconds", &[]);
        left <= SHORT.as_secs_f64()
    });
    let status = std::thread::scope(|threads| {
        let asked = threads.spawn(|| ask(listen, case.method));
        eventually("it is shown", SHORT, || verifier.shown() == 1);
        mount.put(&files(&clients.issue(&["client.test"])));
        asked.join().expect("it is answered")
    });
    let version = case.version.version;
    assert_eq!(status, case.status, "{version:?} {}", case.method);
    assert_eq!(server.requests().len(), usize::from(status == 200));
    let labels = [("upstream", "web"), ("outcome", "refused-by-peer")];
    proxy.expect_metric(HANDSHAKES, &labels, 1.0);
    // And whoever comes now has no trouble.
    assert_eq!(ask(listen, "POST"), 200);
}

fn a_server_whose_certificate_ends_in_the_handshake_is_asked_again(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    // What it shows to each connection, and when it begins with that.
    let (shown, next) = mpsc::channel::<(ServerConfig, SystemTime)>();
    let next = Mutex::new(next);
    let server = Server::start(move |connection| {
        let next = next.lock().expect("no thread panics with it").recv();
        let (config, at) = next.map_err(std::io::Error::other)?;
        while SystemTime::now() < at {
            sleep(LOOK_EVERY);
        }
        connection.secure(Arc::new(config))?;
        connection.serve_http(|_| text("ok"))
    });
    let tls = format!("tls: {{ ca: {ca} }}\n{PATIENT}");
    let listen = free();
    let proxy = Proxy::start(backend, &config(listen, server.address(), &tls));
    let status = std::thread::scope(|threads| {
        let asked = threads.spawn(|| ask(listen, "POST"));
        eventually("it is called", SOON, || server.connections() == 1);
        let short = authority.issue_with(&["web.test"], |wanted| ends_in(wanted, LIFETIME));
        let end = SystemTime::now() + LIFETIME + Duration::from_secs(1);
        let long = authority.issue(&["web.test"]);
        for leaf in [short, long] {
            let next = (leaf.server(), end);
            shown.send(next).expect("it listens");
        }
        asked.join().expect("it is answered")
    });
    assert_eq!((status, server.connections()), (200, 2));
    let labels = [("upstream", "web"), ("outcome", "certificate-expired")];
    proxy.expect_metric(HANDSHAKES, &labels, 1.0);
}

fn a_client_that_is_slow_to_begin_is_shown_what_is_in_force(backend: Backend) {
    let (scratch, server) = (Scratch::new(), Server::ok());
    let authority = Authority::new("root");
    let mut mount = Mount::new(&scratch, &files(&authority.issue(&["in.test"])));
    let listen = free();
    let text = format!(
        "listeners: [{{ name: in, bind: \"{listen}\", tls: {{ cert: {}, key: {} }} }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
        mount.at("tls.crt"),
        mount.at("tls.key"),
        server.address()
    );
    let _proxy = Proxy::start(backend, &text);
    let trusting = Arc::new(authority.client(None));
    let shown = |client: &mut Client| {
        let secured = client.secure(Arc::clone(&trusting), "in.test");
        secured.expect("it is in order");
        let session = client.session().expect("it is secured");
        let chain = session.connection().peer_certificates();
        chain.expect("it has shown one")[0].to_vec()
    };
    let before = shown(&mut Client::connect(listen));
    let mut slow: Vec<_> = (0..4).map(|_| Client::connect(listen)).collect();
    mount.put(&files(&authority.issue(&["in.test"])));
    eventually("another one is shown", SOON, || {
        shown(&mut Client::connect(listen)) != before
    });
    for client in &mut slow {
        assert!(shown(client) != before);
        assert_eq!(client.get("/").status, 200);
    }
}

/// What the agent has sent meanwhile, and what its clients have, is there when it goes on.
fn an_identity_that_ends_while_the_proxy_stands_still_is_replaced(backend: Backend) {
    let (scratch, td) = (Scratch::new(), TrustDomain::new("td"));
    let own = |serial, lifetime| Update::of(&td.svid("/own", serial, lifetime), &td);
    let pay = td.svid("/pay", 1, HOUR).leaf();
    let server = Server::secured(pay.server(), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let agent = WorkloadApi::start(scratch.path(), own(1, HOUR));
    let listen = free();
    let text = format!(
        "identity: {}\n\
         listeners: [{{ name: in, bind: \"{listen}\", tls: {{ cert: identity, client_auth: required }} }}]\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{}\"]\n    \
         tls: {{ cert: identity, verify: \"spiffe://td/pay\" }}\n    retry: {{ attempts: 1 }}\n",
        spiffe(&agent),
        server.address()
    );
    let proxy = Proxy::start(backend, &text);
    let caller = Arc::new(td.client(Some(&td.svid("/shop", 1, HOUR))));
    let ask = || {
        let mut client = Client::connect(listen);
        let secured = client.secure(Arc::clone(&caller), "localhost");
        secured.map_err(|error| error.to_string())?;
        Ok::<_, String>(client.get("/").status)
    };
    eventually("the identity has come", SOON, || ask() == Ok(200));
    for serial in 1..=3 {
        // One that ends unread, and its successor.
        agent.publish(own(10 * serial, LIFETIME));
        proxy.stop();
        agent.publish(own(10 * serial + 1, LIFETIME));
        let end = SystemTime::now() + LIFETIME + Duration::from_secs(1);
        std::thread::scope(|threads| {
            let asked: Vec<_> = (0..4).map(|_| threads.spawn(ask)).collect();
            while SystemTime::now() < end {
                sleep(LOOK_EVERY);
            }
            agent.publish(own(10 * serial + 2, LIFETIME));
            proxy.signal(libc::SIGCONT);
            for one in asked {
                let answer = one.join().expect("it does not panic");
                assert_eq!(answer, Ok(200), "{}", proxy.log());
            }
        });
    }
    assert_eq!(agent.calls(), 1, "{}", proxy.log());
}
