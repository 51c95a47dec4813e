//! Connections over TLS that last: who may use them again, what slow peers make them
//! hold, and what hostile ones can do with a session that they have agreed upon.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::pki::ends_in;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Authority, Backend, Cgroup, Client, Connection, Leaf, Proxy, Server, eventually,
    on_both_backends, program,
};

use rustls::version::{TLS12, TLS13};

use crate::tls_upstream::{HANDSHAKES, config, free};

on_both_backends!(
    an_endpoint_with_a_bad_certificate_is_ejected,
    an_address_without_a_name_is_verified,
    no_session_outlasts_the_certificate_of_its_server,
    a_connection_that_dies_when_used_again_is_replaced,
    bytes_behind_an_answer_answer_no_other_request,
    a_slow_reader_stops_an_upstream_over_tls,
    a_slow_upstream_over_tls_stops_its_client,
    a_slow_client_of_a_listener_stops_the_upstream,
    words_without_an_end_within_a_session_are_bounded,
    a_listener_passes_tunnels_and_half_closes,
);

const MIB: u64 = 1024 * 1024;

/// A proxy in front of a server over TLS.
struct World {
    proxy: Proxy,
    listen: SocketAddr,
    server: Server,
}

impl World {
    fn start(
        backend: Backend,
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> World {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        let server = Server::secured(authority.issue(&["web.test"]).server(), serve);
        let ca = scratch.file("ca.pem", &authority.pem);
        let listen = free();
        let tls = format!("tls: {{ ca: {} }}", ca.display());
        World {
            proxy: Proxy::start(backend, &config(listen, server.address(), &tls)),
            listen,
            server,
        }
    }
}

/// A proxy whose listener speaks TLS, of this protocol; those who connect, and the server.
pub(crate) struct Inward {
    proxy: Proxy,
    listen: SocketAddr,
    authority: Authority,
    _server: Server,
}

impl Inward {
    pub(crate) fn start(backend: Backend, protocol: &str, server: Server) -> Inward {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        let (cert, key) = authority.issue(&["in.test"]).write(&scratch, "in");
        let listen = free();
        let text = format!(
            "listeners: [{{ name: in, bind: \"{listen}\", {protocol}, \
             tls: {{ cert: {}, key: {} }} }}]\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
            cert.display(),
            key.display(),
            server.address()
        );
        Inward {
            proxy: Proxy::start(backend, &text),
            listen,
            authority,
            _server: server,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        let mut client = Client::connect(self.listen);
        let trusting = Arc::new(self.authority.client(None));
        client.secure(trusting, "in.test").expect("it is in order");
        client
    }
}

fn an_endpoint_with_a_bad_certificate_is_ejected(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let serve = |connection: &mut Connection| connection.serve_http(|_| text("good"));
    let good = Server::secured(authority.issue(&["web.test"]).server(), serve);
    let bad = Server::secured(Leaf::self_signed(&["web.test"]).server(), serve);
    let listen = free();
    let text = format!(
        "listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\", \"{}\"], \
         outlier: {{ consecutive: 3, base_ejection: 1h }}, \
         circuit_breaker: {{ failures: off }}, tls: {{ ca: {} }} }} }}\n",
        bad.address(),
        good.address(),
        ca.display()
    );
    let _proxy = Proxy::start(backend, &text);
    let statuses: Vec<u16> = (0..60)
        .map(|_| Client::connect(listen).get("/").status)
        .collect();
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!((failed, bad.connections()), (3, 3), "{statuses:?}");
    assert_eq!(bad.requests().len(), 0);
}

fn an_address_without_a_name_is_verified(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    for (of, status) in [("10.1.2.3", "200"), ("10.1.2.4", "502")] {
        let serve = |connection: &mut Connection| {
            let session = connection.session();
            let name = session.and_then(|(session, _)| session.server_name().map(str::to_owned));
            assert_eq!(name, None);
            connection.serve_http(|_| text("ok"))
        };
        let server = Server::secured(authority.issue(&[of]).server(), serve);
        let cgroup = Cgroup::new();
        let text = format!(
            "upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"], protocol: http1, \
             tls: {{ ca: {} }} }} }}\n",
            server.address(),
            ca.display()
        );
        let _proxy = Proxy::capturing(backend, &cgroup, &text);
        let mut curl = cgroup.command("curl");
        curl.args([
            "-sS",
            "-m20",
            "-o/dev/null",
            "-w%{http_code}",
            "http://10.1.2.3/",
        ]);
        assert_eq!(program::succeed(&mut curl), status);
    }
}

fn no_session_outlasts_the_certificate_of_its_server(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    for version in [&TLS12, &TLS13] {
        let left = Duration::from_secs(6);
        let short = authority.issue_with(&["web.test"], |wanted| ends_in(wanted, left));
        let server = Server::secured(short.server_of(&[version], None), |connection| {
            let close = "Connection: close\r\n";
            connection.serve_http(|_| response("200 OK", close, "ok"))
        });
        let listen = free();
        let tls = format!("tls: {{ ca: {} }}", ca.display());
        let proxy = Proxy::start(backend, &config(listen, server.address(), &tls));
        let get = || Client::connect(listen).get("/").status;
        let labels = [("upstream", "web"), ("resumed", "true")];
        eventually("a session is taken up", left, || {
            assert_eq!(get(), 200);
            proxy.metric(HANDSHAKES, &labels) >= 1.0
        });
        eventually("its certificate ends", 3 * left, || get() == 502);
        let labels = [("upstream", "web"), ("outcome", "certificate-expired")];
        proxy.expect_metric(HANDSHAKES, &labels, 1.0);
    }
}

fn a_connection_that_dies_when_used_again_is_replaced(backend: Backend) {
    let world = World::start(backend, |connection| {
        connection.request()?;
        connection.write(text("ok"))?;
        connection.request()?;
        connection.reset()?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let mut client = Client::connect(world.listen);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(world.server.connections(), 2);
    // What may have been done must not be done again.
    client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
    assert_eq!(world.server.connections(), 2);
}

fn bytes_behind_an_answer_answer_no_other_request(backend: Backend) {
    let poisoned = Arc::new(AtomicUsize::new(0));
    let poisons = Arc::clone(&poisoned);
    let world = World::start(backend, move |connection| {
        while let Some(request) = connection.request()? {
            match request.target.as_str() {
                // In the records of the answer, and in one of its own.
                "/at-once" => connection.write([text("ok"), text("poison")].concat())?,
                "/later" => {
                    connection.write(text("ok"))?;
                    connection.write(text("poison"))?;
                    poisons.fetch_add(1, Ordering::SeqCst);
                }
                _ => connection.write(text("ok"))?,
            }
        }
        Ok(())
    });
    let mut client = Client::connect(world.listen);
    for number in 1..=5 {
        for path in ["/at-once", "/", "/later"] {
            assert_eq!(client.get(path).text(), "ok", "{path}");
        }
        // What comes when another request is under way already is that one's answer.
        eventually("it was sent", Duration::from_secs(5), || {
            poisoned.load(Ordering::SeqCst) == number
        });
        assert_eq!(client.get("/").text(), "ok");
    }
    assert!(world.server.connections() > 1);
}

/// How far a sender has come that writes blocks until it is told that no more are taken.
#[derive(Clone, Default)]
struct Sent(Arc<AtomicUsize>);

impl Sent {
    /// Sends so many blocks of 64 KiB.
    fn blocks(&self, connection: &mut Connection, count: usize) -> io::Result<()> {
        let block = vec![b'x'; 64 * 1024];
        for _ in 0..count {
            connection.write(&block)?;
            self.0.fetch_add(block.len(), Ordering::SeqCst);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until no more is taken; gives how much was.
    #[track_caller]
    fn until_stopped(&self) -> u64 {
        let (mut before, mut looks) = (0, 0);
        eventually("it is stopped", Duration::from_secs(20), || {
            let now = self.bytes();
            looks = if now == before && now > 0 {
                looks + 1
            } else {
                0
            };
            before = now;
            looks == 50
        });
        before as u64
    }
}

const TOTAL: usize = 128 * 1024 * 1024;
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 134217728\r\n\r\n";

#[track_caller]
fn expect_little(proxy: &Proxy, before: u64, sent: u64) {
    let grown = proxy.anonymous_bytes().saturating_sub(before);
    println!("{sent} bytes were taken, {grown} of private memory");
    // What the kernel holds on both sides.
    assert!(sent < 32 * MIB, "{sent} bytes were taken");
    assert!(grown < 4 * MIB, "private memory grew by {grown} bytes");
}

fn a_slow_reader_stops_an_upstream_over_tls(backend: Backend) {
    let sent = Sent::default();
    let sends = sent.clone();
    let world = World::start(backend, move |connection| {
        connection.request()?;
        connection.write(HEAD)?;
        sends.blocks(connection, TOTAL / (64 * 1024))?;
        connection.request().map(drop)
    });
    let before = world.proxy.anonymous_bytes();
    let mut client = Client::connect(world.listen);
    client.send(ambassador_tests::client::get("/"));
    expect_little(&world.proxy, before, sent.until_stopped());
    // And goes on where it is read again.
    let answer = client.response("GET");
    assert_eq!(answer.body.len(), TOTAL);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
}

fn a_slow_upstream_over_tls_stops_its_client(backend: Backend) {
    let gate = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&gate);
    let world = World::start(backend, move |connection| {
        let Some(mut request) = connection.head()? else {
            return Ok(());
        };
        while opened.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        connection.body(&mut request)?;
        connection.write(text(&request.body.len().to_string()))
    });
    let before = world.proxy.anonymous_bytes();
    let mut client = Client::connect(world.listen);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: {TOTAL}\r\n\r\n"
    ));
    let sent = Sent::default();
    let sends = sent.clone();
    let mut sender = Client::over(client.stream().try_clone().expect("descriptors are left"));
    let sending = std::thread::spawn(move || {
        let block = vec![b'x'; 64 * 1024];
        for _ in 0..TOTAL / block.len() {
            sender.send(&block);
            sends.0.fetch_add(block.len(), Ordering::SeqCst);
        }
    });
    expect_little(&world.proxy, before, sent.until_stopped());
    gate.store(1, Ordering::SeqCst);
    assert_eq!(client.response("POST").text(), TOTAL.to_string());
    sending.join().expect("everything was sent");
}

fn a_slow_client_of_a_listener_stops_the_upstream(backend: Backend) {
    let sent = Sent::default();
    let sends = sent.clone();
    let server = Server::start(move |connection| {
        connection.request()?;
        connection.write(HEAD)?;
        sends.blocks(connection, TOTAL / (64 * 1024))?;
        connection.request().map(drop)
    });
    let world = Inward::start(backend, "protocol: http", server);
    let before = world.proxy.anonymous_bytes();
    let mut client = world.connect();
    client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    expect_little(&world.proxy, before, sent.until_stopped());
    assert_eq!(client.response("GET").body.len(), TOTAL);
}

fn words_without_an_end_within_a_session_are_bounded(backend: Backend) {
    let said = Sent::default();
    let says = said.clone();
    let world = World::start(backend, move |connection| {
        connection.request()?;
        connection.write(text("ok"))?;
        // Asks for new keys all the time, and never reads what it gets.
        loop {
            let Some((session, stream)) = connection.session() else {
                return Ok(());
            };
            let renewed = session.connection().refresh_traffic_keys();
            renewed.map_err(io::Error::other)?;
            session.flush(stream)?;
            says.0.fetch_add(1, Ordering::SeqCst);
        }
    });
    let before = world.proxy.anonymous_bytes();
    let mut client = Client::connect(world.listen);
    assert_eq!(client.get("/").text(), "ok");
    eventually(
        "much was said, or it was ended",
        Duration::from_secs(20),
        || said.bytes() > 20_000 || world.server.open_connections() == 0,
    );
    let grown = world.proxy.anonymous_bytes().saturating_sub(before);
    println!(
        "{} updates of keys, {grown} bytes of private memory",
        said.bytes()
    );
    assert!(grown < 4 * MIB, "private memory grew by {grown} bytes");
    // Others are served meanwhile.
    assert_eq!(Client::connect(world.listen).get("/").text(), "ok");
}

fn a_listener_passes_tunnels_and_half_closes(backend: Backend) {
    let echo = || {
        Server::start(|connection| {
            let mut buffer = [0; 16 * 1024];
            loop {
                match connection.read(&mut buffer)? {
                    0 => return connection.write("bye"),
                    count => connection.write(&buffer[..count])?,
                }
            }
        })
    };
    let world = Inward::start(backend, "protocol: tcp, upstream: web", echo());
    let mut client = world.connect();
    let sent: Vec<u8> = (0..500_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    for part in sent.chunks(50_000) {
        client.send(part);
        assert!(client.exactly(part.len()) == part);
    }
    client.close_write();
    assert_eq!(client.rest().expect("an end in order"), b"bye");
    // A FIN that nobody has announced may be somebody else's.
    let mut cut = world.connect();
    cut.send("hello");
    assert_eq!(cut.exactly(5), b"hello");
    cut.finish();
    assert!(!matches!(cut.rest(), Ok(said) if said == b"bye"));
}
