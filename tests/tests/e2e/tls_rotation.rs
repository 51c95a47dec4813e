//! Certificates that are renewed while requests go: none fails, new connections take
//! what is new, and what cannot be used changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ambassador_tests::pki::ends_in;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Authority, Backend, Client, Leaf, Proxy, Server, Session, eventually, on_both_backends,
};
use rustls::ServerConfig;

use crate::load::{Load, is_200};
use crate::tls_upstream::{config, free};

on_both_backends!(
    no_request_fails_while_both_sides_renew_their_certificates,
    a_listener_shows_what_is_new,
    a_bad_file_keeps_what_was_good,
    a_connection_ends_before_its_certificate,
    files_that_root_alone_may_read_are_followed,
    a_list_that_revokes_holds_for_sessions_from_before,
);

/// The time in which a changed file is taken, and then some for a busy machine.
const TAKEN_WITHIN: Duration = Duration::from_secs(4);

/// How often certificates change under load; `AMBASSADOR_ROTATIONS` says another number.
pub(crate) fn rotations() -> usize {
    let said = std::env::var("AMBASSADOR_ROTATIONS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(10)
}

/// A directory whose files change all at once, as Kubernetes mounts a Secret.
pub(crate) struct Mount {
    directory: PathBuf,
    number: usize,
}

impl Mount {
    pub(crate) fn new(scratch: &Scratch, files: &[(&str, &str)]) -> Mount {
        let directory = scratch.path().join("mounted");
        fs::create_dir(&directory).expect("the directory is writable");
        for (name, _) in files {
            let target = Path::new("..data").join(name);
            symlink(target, directory.join(name)).expect("the directory is writable");
        }
        let mut mount = Mount {
            directory,
            number: 0,
        };
        mount.put(files);
        mount
    }

    pub(crate) fn put(&mut self, files: &[(&str, &str)]) {
        let old = self.directory.join(format!("..{}", self.number));
        self.number += 1;
        let new = format!("..{}", self.number);
        fs::create_dir(self.directory.join(&new)).expect("the directory is writable");
        for (name, text) in files {
            let file = self.directory.join(&new).join(name);
            fs::write(&file, text).expect("the directory is writable");
            let only_root = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&file, only_root).expect("it is ours");
        }
        let link = self.directory.join("..next");
        symlink(&new, &link).expect("the directory is writable");
        fs::rename(&link, self.directory.join("..data")).expect("the directory is writable");
        let _ = fs::remove_dir_all(old);
    }

    /// One with a certificate and its key.
    fn of(scratch: &Scratch, leaf: &Leaf) -> Mount {
        Mount::new(scratch, &[("tls.crt", &leaf.pem), ("tls.key", &leaf.key)])
    }

    fn renew(&mut self, leaf: &Leaf) {
        self.put(&[("tls.crt", &leaf.pem), ("tls.key", &leaf.key)]);
    }

    /// What an upstream says that trusts the file `ca` and shows this certificate.
    fn as_client(&self, ca: &str) -> String {
        let (cert, key) = (self.at("tls.crt"), self.at("tls.key"));
        format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}")
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// The first certificate that the peer of a session has shown.
fn shown(session: &mut Session) -> Option<Vec<u8>> {
    let chain = session.connection().peer_certificates()?;
    chain.first().map(|leaf| leaf.to_vec())
}

/// Its bytes.
fn der(leaf: &Leaf) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let der = CertificateDer::from_pem_slice(leaf.pem.as_bytes());
    der.expect("it is PEM").to_vec()
}

/// A server whose certificate can be replaced. It tells what clients have shown last,
/// and ends each connection after some requests.
struct Renewed {
    server: Server,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Renewed {
    fn start(config: ServerConfig) -> Renewed {
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let shown_last = Arc::new(Mutex::new(Vec::new()));
        let (current, last) = (Arc::clone(&config), Arc::clone(&shown_last));
        let server = Server::start(move |connection| {
            let now = Arc::clone(&current.lock().expect("no thread panics with it"));
            connection.secure(now)?;
            if let Some((session, _)) = connection.session() {
                let mut last = last.lock().expect("no thread panics with it");
                *last = shown(session).unwrap_or_default();
            }
            let left = std::cell::Cell::new(20);
            connection.serve_http(|_| {
                left.set(left.get() - 1);
                match left.get() {
                    0 => response("200 OK", "Connection: close\r\n", "ok"),
                    _ => text("ok"),
                }
            })?;
            connection.finish()
        });
        Renewed {
            server,
            config,
            shown: shown_last,
        }
    }

    fn shown(&self) -> Vec<u8> {
        self.shown.lock().expect("no thread panics with it").clone()
    }

    fn renew(&self, config: ServerConfig) {
        *self.config.lock().expect("no thread panics with it") = Arc::new(config);
    }
}

fn no_request_fails_while_both_sides_renew_their_certificates(backend: Backend) {
    let scratch = Scratch::new();
    let clients = Authority::new("clients");
    // A server takes a new authority when all who call it have had time to know it.
    let mut authorities = vec![Authority::new("root 0")];
    let server_of = |authority: &Authority| {
        let leaf = authority.issue(&["web.test"]);
        leaf.server_of(rustls::ALL_VERSIONS, Some(&clients))
    };
    let renewed = Renewed::start(server_of(&authorities[0]));
    let mut client = clients.issue(&["client.test"]);
    let mut mount = Mount::new(
        &scratch,
        &[
            ("ca.crt", &authorities[0].pem),
            ("tls.crt", &client.pem),
            ("tls.key", &client.key),
        ],
    );
    let tls = mount.as_client(&mount.at("ca.crt")) + "\nretry: { attempts: 1 }";
    let listen = free();
    let proxy = Proxy::start(backend, &config(listen, renewed.server.address(), &tls));
    let load = Load::on(listen);
    for number in 1..=rotations() {
        sleep(Duration::from_secs(1));
        authorities.push(Authority::new(&format!("root {number}")));
        let known = &authorities[number.saturating_sub(5)..];
        let bundle: String = known.iter().map(|one| one.pem.as_str()).collect();
        client = clients.issue(&["client.test"]);
        mount.put(&[
            ("ca.crt", &bundle),
            ("tls.crt", &client.pem),
            ("tls.key", &client.key),
        ]);
        renewed.renew(server_of(&authorities[number.saturating_sub(4)]));
    }
    eventually("the last is taken", TAKEN_WITHIN, || {
        renewed.shown() == der(&client)
    });
    let result = load.stop();
    println!(
        "{} requests, {} connections, {} failed; the machine stalled for up to {:?}",
        result.asked,
        renewed.server.connections(),
        result.failed.len(),
        result.stall
    );
    result.expect_none_failed(&[&proxy]);
    assert!(result.asked > 200 && renewed.server.connections() > 50);
    proxy.expect_metric("ambassador_certificate_reload_failures_total", &[], 0.0);
}

fn a_listener_shows_what_is_new(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let mut leaf = authority.issue(&["in.test"]);
    let mut mount = Mount::of(&scratch, &leaf);
    let server = Server::ok();
    let listen = free();
    let text = format!(
        "listeners: [{{ name: in, bind: \"{listen}\", tls: {{ cert: {}, key: {} }} }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
        mount.at("tls.crt"),
        mount.at("tls.key"),
        server.address()
    );
    let proxy = Proxy::start(backend, &text);
    let trusting = Arc::new(authority.client(None));
    let shown_last = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&shown_last);
    let load = Load::start(move || {
        let (trusting, sees) = (Arc::clone(&trusting), Arc::clone(&sees));
        Box::new(move |_| {
            let mut client = Client::connect(listen);
            let secured = client.secure(Arc::clone(&trusting), "in.test");
            secured.map_err(|error| format!("no session: {error}"))?;
            let leaf = client.session().and_then(shown);
            *sees.lock().expect("no thread panics with it") = leaf.unwrap_or_default();
            is_200(Some(&client.get("/")))
        })
    });
    // What was opened before stays.
    let mut old = Client::connect(listen);
    let agreed = old.secure(Arc::new(authority.client(None)), "in.test");
    agreed.expect("it is in order");
    for _ in 0..5 {
        leaf = authority.issue(&["in.test"]);
        mount.renew(&leaf);
        let shown = || shown_last.lock().expect("no thread panics with it").clone();
        eventually("it is shown", TAKEN_WITHIN, || shown() == der(&leaf));
        assert_eq!(old.get("/").status, 200);
    }
    load.stop().expect_none_failed(&[&proxy]);
}

fn a_bad_file_keeps_what_was_good(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test"]);
    let renewed = Renewed::start(leaf.server_of(rustls::ALL_VERSIONS, Some(&clients)));
    let first = clients.issue(&["client.test"]);
    let mut mount = Mount::of(&scratch, &first);
    let tls = mount.as_client(&ca.display().to_string());
    let listen = free();
    let proxy = Proxy::start(backend, &config(listen, renewed.server.address(), &tls));
    let refused = "ambassador_certificate_reload_failures_total";
    let other = clients.issue(&["client.test"]);
    let mut count = 0.0;
    for (cert, key, what) in [
        (
            "no certificate",
            first.key.as_str(),
            "upstreams.web.tls.cert",
        ),
        (&first.pem, "no key", "upstreams.web.tls.key"),
        // They do not go together.
        (&first.pem, &other.key, "upstreams.web.tls.cert"),
        ("", "", "upstreams.web.tls.cert"),
    ] {
        mount.put(&[("tls.crt", cert), ("tls.key", key)]);
        count += 1.0;
        eventually("it is refused", TAKEN_WITHIN, || {
            proxy.metric(refused, &[]) == count
        });
        for _ in 0..25 {
            assert_eq!(Client::connect(listen).get("/").status, 200);
        }
        assert!(renewed.shown() == der(&first));
        let log = proxy.log();
        let told = log
            .lines()
            .filter(|line| line.contains("what was in force before stays"));
        let told: Vec<&str> = told.collect();
        assert_eq!(told.len() as f64, count, "{log}");
        assert!(
            told.last().is_some_and(|line| line.contains(what)),
            "{told:?}"
        );
        assert!(!log.contains("PRIVATE KEY"));
    }
    mount.renew(&other);
    eventually("the good one is taken", TAKEN_WITHIN, || {
        assert_eq!(Client::connect(listen).get("/").status, 200);
        renewed.shown() == der(&other)
    });
    // Nothing more is said of what is still bad.
    proxy.expect_metric(refused, &[], count);
}

fn a_connection_ends_before_its_certificate(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test"]);
    let server = leaf.server_of(rustls::ALL_VERSIONS, Some(&clients));
    let server = Server::secured(server, |connection| connection.serve_http(|_| text("ok")));
    // A tenth of it is two seconds, in which a busy machine finds out.
    let left = Duration::from_secs(20);
    let begun = Instant::now();
    let short = clients.issue_with(&["client.test"], |wanted| ends_in(wanted, left));
    let mut mount = Mount::of(&scratch, &short);
    let tls = mount.as_client(&ca.display().to_string());
    let listen = free();
    let proxy = Proxy::start(backend, &config(listen, server.address(), &tls));
    let name = [("name", "upstreams.web.tls")];
    let expiry = proxy.metric("ambassador_certificate_expiry_seconds", &name);
    assert!((0.0..=20.0).contains(&expiry), "{expiry}");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 200);
    let long = clients.issue(&["client.test"]);
    mount.renew(&long);
    // Requests keep it from being idle.
    eventually("the old connection ends", left, || {
        assert_eq!(client.get("/").status, 200);
        server.connections() == 2 && server.open_connections() == 1
    });
    assert!(begun.elapsed() < left, "{:?}", begun.elapsed());
    let expiry = proxy.metric("ambassador_certificate_expiry_seconds", &name);
    assert!(expiry > 1e9, "{expiry}");
}

fn files_that_root_alone_may_read_are_followed(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test"]);
    let renewed = Renewed::start(leaf.server_of(rustls::ALL_VERSIONS, Some(&clients)));
    let client = clients.issue(&["client.test"]);
    // Nobody else may even look into the directory.
    let only_root = fs::Permissions::from_mode(0o700);
    let private = scratch.path().join("private");
    fs::create_dir(&private).expect("the directory is writable");
    fs::set_permissions(&private, only_root.clone()).expect("it is ours");
    let mut mount = Mount::of(&scratch, &client);
    fs::set_permissions(&mount.directory, only_root).expect("it is ours");
    for in_place in [true, false] {
        let directory = match in_place {
            true => private.display(),
            false => mount.directory.display(),
        };
        let directory = directory.to_string();
        let put = |leaf: &Leaf| {
            fs::write(private.join("tls.crt"), &leaf.pem).expect("the directory is writable");
            fs::write(private.join("tls.key"), &leaf.key).expect("the directory is writable");
        };
        put(&client);
        let tls = format!(
            "tls: {{ ca: {ca}, cert: {directory}/tls.crt, key: {directory}/tls.key }}",
            ca = ca.display()
        );
        let listen = free();
        let _proxy = Proxy::start(backend, &config(listen, renewed.server.address(), &tls));
        for _ in 0..2 {
            assert_eq!(Client::connect(listen).get("/").status, 200);
            let next = clients.issue(&["client.test"]);
            match in_place {
                true => put(&next),
                false => mount.renew(&next),
            }
            eventually("it is taken", TAKEN_WITHIN, || {
                assert_eq!(Client::connect(listen).get("/").status, 200);
                renewed.shown() == der(&next)
            });
        }
    }
}

fn a_list_that_revokes_holds_for_sessions_from_before(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let seventh = |names: &[&str]| {
        authority.issue_with(names, |wanted| wanted.serial_number = Some(7_u64.into()))
    };
    let server = Server::secured(seventh(&["web.test"]).server(), |connection| {
        let close = "Connection: close\r\n";
        connection.serve_http(|_| response("200 OK", close, "ok"))
    });
    let revoking = |serials: &[u64]| {
        let list = authority.revoking(serials, false);
        let list = scratch.file("next.pem", &list);
        let place = scratch.path().join("list.pem");
        fs::rename(list, &place).expect("the directory is writable");
        place.display().to_string()
    };
    let list = revoking(&[1]);
    let (cert, key) = authority.issue(&["in.test"]).write(&scratch, "in");
    let (clear, encrypted) = (free(), free());
    let text = format!(
        "listeners:\n  - {{ name: out, bind: \"{clear}\" }}\n  \
         - {{ name: in, bind: \"{encrypted}\", tls: {{ cert: {}, key: {}, client_ca: {ca}, crl: {list} }} }}\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"], \
         tls: {{ ca: {ca}, crl: {list} }} }} }}\n",
        cert.display(),
        key.display(),
        server.address()
    );
    let proxy = Proxy::start(backend, &text);
    let trusting = Arc::new(authority.client(Some(&seventh(&["client.test"]))));
    let out = || Client::connect(clear).get("/").status;
    let inside = || {
        let mut client = Client::connect(encrypted);
        client.secure(Arc::clone(&trusting), "in.test").ok()?;
        let request = ambassador_tests::client::get("/");
        client.try_send(request).ok()?;
        Some(client.try_response("GET")?.status)
    };
    let is_resumed = |label: (&str, &str)| {
        let labels = [label, ("resumed", "true")];
        proxy.metric(crate::tls_upstream::HANDSHAKES, &labels) >= 1.0
    };
    eventually("sessions are taken up", TAKEN_WITHIN, || {
        assert_eq!((out(), inside()), (200, Some(200)));
        is_resumed(("upstream", "web")) && is_resumed(("listener", "in"))
    });
    revoking(&[7]);
    eventually("neither is let in", TAKEN_WITHIN, || {
        out() == 502 && inside().is_none()
    });
    for label in [("upstream", "web"), ("listener", "in")] {
        let labels = [label, ("outcome", "revoked")];
        assert!(proxy.metric(crate::tls_upstream::HANDSHAKES, &labels) >= 1.0);
    }
}
