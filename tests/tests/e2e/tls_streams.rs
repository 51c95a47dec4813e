//! What goes through TLS towards an upstream: bodies of all kinds, tunnels, ends that
//! are whole and ends that are not; and what handshakes cost that come to nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Authority, Backend, Client, Connection, Proxy, Server, eventually, on_both_backends,
};
use rustls::version::{TLS12, TLS13};

use crate::tls_upstream::{HANDSHAKES, config, free, line};

on_both_backends!(
    large_bodies_are_unchanged,
    framing_passes_unchanged,
    an_end_without_a_word_is_a_cut,
    an_upgrade_is_a_tunnel,
    tunnels_are_encrypted_and_half_closed,
    records_of_one_byte_are_a_stream,
    a_reset_amid_a_handshake_is_made_good_elsewhere,
    a_handshake_without_an_end_has_the_time_of_a_connect,
    what_is_no_tls_is_malformed_and_gets_nothing_in_clear,
    a_connection_is_used_again_by_every_shard,
    a_connection_that_was_closed_while_idle_is_not_used,
    news_behind_an_answer_does_not_spoil_a_connection,
);

/// A proxy in front of a server over TLS.
struct World {
    proxy: Proxy,
    listen: SocketAddr,
    server: Server,
}

/// What a server is to be.
#[derive(Clone, Copy)]
struct Wanted {
    backend: Backend,
    version: &'static rustls::SupportedProtocolVersion,
    /// Further settings of the upstream.
    more: &'static str,
}

impl World {
    fn start(
        wanted: Wanted,
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> World {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        let leaf = authority.issue(&["web.test"]);
        let server = Server::secured(leaf.server_of(&[wanted.version], None), serve);
        let ca = scratch.file("ca.pem", &authority.pem);
        let listen = free();
        let more = format!("tls: {{ ca: {} }}\n{}", ca.display(), wanted.more);
        World {
            proxy: Proxy::start(wanted.backend, &config(listen, server.address(), &more)),
            listen,
            server,
        }
    }
}

/// Both versions.
fn both(backend: Backend) -> [Wanted; 2] {
    [&TLS12, &TLS13].map(|version| Wanted {
        backend,
        version,
        more: "",
    })
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 / 3) as u8).collect()
}

fn large_bodies_are_unchanged(backend: Backend) {
    const COUNT: usize = 6_000_000;
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            connection.serve_http(|request| {
                let mut answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {COUNT}\r\n\r\n").into_bytes();
                assert_eq!(request.body.len(), COUNT);
                answer.extend_from_slice(&request.body);
                answer
            })
        });
        let body = bytes(COUNT);
        let mut client = Client::connect(world.listen);
        for _ in 0..2 {
            client.send(format!(
                "POST /large HTTP/1.1\r\nHost: web.test\r\nContent-Length: {COUNT}\r\n\r\n"
            ));
            client.send(&body);
            let answer = client.response("POST");
            assert!(answer.status == 200 && answer.body == body);
        }
        assert_eq!(world.server.connections(), 1);
    }
}

fn framing_passes_unchanged(backend: Backend) {
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            while let Some(mut request) = connection.head()? {
                connection.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
                connection.body(&mut request)?;
                let sum = request.trailer("x-sum").unwrap_or("none").to_owned();
                connection.write(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n",
                )?;
                for part in request.body.chunks(3) {
                    connection.write(format!("{:x}\r\n", part.len()))?;
                    connection.write(part)?;
                    connection.write("\r\n")?;
                }
                connection.write(format!("0\r\nX-End: {sum}\r\n\r\n"))?;
            }
            Ok(())
        });
        let mut client = Client::connect(world.listen);
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send("5\r\nhello\r\n");
            assert_eq!(client.response("POST").status, 103);
            client.send("6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n");
            let answer = client.response("POST");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "hello world")
            );
            assert_eq!(answer.trailers, [("X-End".to_owned(), "11".to_owned())]);
        }
    }
}

fn an_end_without_a_word_is_a_cut(backend: Backend) {
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            let Some(request) = connection.request()? else {
                return Ok(());
            };
            connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome")?;
            match request.target.as_str() {
                // What follows says that this was all.
                "/whole" => Ok(()),
                // Whoever stands between could have sent this FIN.
                _ => {
                    connection.stream().shutdown(std::net::Shutdown::Write)?;
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
            }
        });
        let mut client = Client::connect(world.listen);
        assert_eq!(client.get("/whole").text(), "some");
        let mut client = Client::connect(world.listen);
        client.send(ambassador_tests::client::get("/cut"));
        assert!(client.try_response("GET").is_none(), "it is not whole");
        assert_eq!(line(&world.proxy, "/cut")["reason"], "upstream-reset");
    }
}

fn an_upgrade_is_a_tunnel(backend: Backend) {
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            connection.request()?;
            connection.write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
            )?;
            echo(connection)
        });
        let mut client = Client::connect(world.listen);
        client.send(
            "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        assert_eq!(client.response("GET").status, 101);
        for message in [&b"hello"[..], &bytes(100_000)] {
            client.send(message);
            assert!(client.exactly(message.len()) == message);
        }
        client.finish();
        assert_eq!(client.rest().expect("a FIN"), b"bye");
    }
}

/// Sends back what comes, and a word at its end.
fn echo(connection: &mut Connection) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match connection.read(&mut buffer)? {
            0 => return connection.write("bye"),
            count => connection.write(&buffer[..count])?,
        }
    }
}

fn tunnels_are_encrypted_and_half_closed(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    for version in [&TLS12, &TLS13] {
        let leaf = authority.issue(&["db.test"]);
        let server = Server::secured(leaf.server_of(&[version], None), echo);
        let listen = free();
        let text = format!(
            "listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: db }}]\n\
             upstreams: {{ db: {{ endpoints: [\"{}\"], tls: {{ ca: {}, sni: db.test }} }} }}\n",
            server.address(),
            ca.display()
        );
        let proxy = Proxy::start(backend, &text);
        let mut client = Client::connect(listen);
        let sent = bytes(1_000_000);
        let mut sender = Client::over(client.stream().try_clone().expect("descriptors are left"));
        let copy = sent.clone();
        let sending = std::thread::spawn(move || {
            sender.send(&copy);
            sender.finish();
        });
        let back = client.rest().expect("a FIN");
        assert!(back.strip_suffix(b"bye") == Some(&sent[..]));
        sending.join().expect("everything was sent");
        let labels = [("upstream", "db"), ("outcome", "closed")];
        proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
    }
}

fn records_of_one_byte_are_a_stream(backend: Backend) {
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            while connection.request()?.is_some() {
                let answer = response("200 OK", "", &"x".repeat(2_000));
                let all: io::Result<()> =
                    answer.chunks(1).try_for_each(|one| connection.write(one));
                all?;
            }
            Ok(())
        });
        let mut client = Client::connect(world.listen);
        for _ in 0..2 {
            assert_eq!(client.get("/").text(), "x".repeat(2_000));
        }
    }
}

fn a_reset_amid_a_handshake_is_made_good_elsewhere(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let good = Server::secured(authority.issue(&["web.test"]).server(), |connection| {
        connection.serve_http(|_| text("good"))
    });
    let bad = Server::start(|connection| {
        connection.read(&mut [0; 10])?;
        connection.reset()
    });
    let listen = free();
    let config = format!(
        "listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\", \"{}\"], \
         tls: {{ ca: {} }} }} }}\n",
        bad.address(),
        good.address(),
        ca.display()
    );
    let proxy = Proxy::start(backend, &config);
    let mut tries = 0;
    while bad.connections() == 0 {
        tries += 1;
        assert!(tries < 100, "the other one is never asked");
        let mut client = Client::connect(listen);
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response("GET").text(), "good");
    }
    let labels = [("upstream", "web"), ("outcome", "closed")];
    assert!(proxy.metric(HANDSHAKES, &labels) >= 1.0);
}

fn a_handshake_without_an_end_has_the_time_of_a_connect(backend: Backend) {
    let silent = Server::start(|connection| {
        while connection.read(&mut [0; 1024])? > 0 {}
        Ok(())
    });
    // A record of a hello that never ends, a byte at a time.
    let dripping = Server::start(|connection| {
        connection.write([22, 3, 3, 0x3f, 0, 2, 0, 0x3e, 0])?;
        loop {
            std::thread::sleep(Duration::from_millis(20));
            connection.write([3])?;
        }
    });
    for server in [silent, dripping] {
        let listen = free();
        let more = "tls: { verify: off }\ntimeouts: { connect: 400ms }\nretry: { attempts: 1 }";
        let proxy = Proxy::start(backend, &config(listen, server.address(), more));
        let begun = Instant::now();
        let answer = Client::connect(listen).get("/");
        let took = begun.elapsed();
        assert_eq!((answer.status, answer.reason()), (504, "connect-timeout"));
        let bounds = Duration::from_millis(400)..Duration::from_secs(3);
        assert!(bounds.contains(&took), "{took:?}");
        let labels = [("upstream", "web"), ("outcome", "timeout")];
        proxy.expect_metric(HANDSHAKES, &labels, 1.0);
        eventually("it is given up", Duration::from_secs(5), || {
            server.open_connections() == 0
        });
    }
}

/// Beginnings of servers that are none of TLS, or hostile.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let record = |kind: u8, content: &[u8]| {
        let length = (content.len() as u16).to_be_bytes();
        [&[kind, 3, 3][..], &length, content].concat()
    };
    // The message of a certificate of 16 MiB.
    let chain = [&[11, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    let mut hello = vec![2, 0, 0, 0x26, 3, 3];
    hello.extend([5; 32]);
    hello.extend([0, 0xc0, 0x2b, 0]);
    vec![
        ("http", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 100_000]),
        ("a chain first", record(22, &chain).repeat(1_000)),
        (
            "a chain without an end",
            [
                record(22, &hello),
                record(22, &chain),
                record(22, &[0; 16_000]).repeat(1_000),
            ]
            .concat(),
        ),
        ("empty records", record(22, &[]).repeat(1_000_000)),
        ("empty alerts", record(21, &[1, 90]).repeat(100_000)),
        ("changes of ciphers", record(20, &[1]).repeat(100_000)),
        ("data", record(23, &[0; 16_000]).repeat(1_000)),
        (
            "a hello of a client",
            ambassador_tests::hello::sound("web.test"),
        ),
    ]
}

fn what_is_no_tls_is_malformed_and_gets_nothing_in_clear(backend: Backend) {
    for (what, said) in hostile() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::new(AtomicUsize::new(0));
        let (hears, takes) = (Arc::clone(&heard), Arc::clone(&taken));
        let server = Server::start(move |connection| {
            let mut buffer = [0; 4096];
            let count = connection.read(&mut buffer)?;
            let hear = |bytes: &[u8]| {
                let mut heard = hears.lock().expect("no thread panics with it");
                heard.extend_from_slice(bytes);
            };
            hear(&buffer[..count]);
            for part in said.chunks(16 * 1024) {
                connection.write(part)?;
                takes.fetch_add(part.len(), Ordering::SeqCst);
            }
            loop {
                match connection.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => hear(&buffer[..count]),
                }
            }
        });
        let listen = free();
        let more = "tls: { verify: off }\nretry: { attempts: 4, base: 1ms }";
        let proxy = Proxy::start(backend, &config(listen, server.address(), more));
        let answer = Client::connect(listen).get("/secret");
        let told = (answer.status, answer.reason());
        assert_eq!(told, (502, "tls-failed"), "{what}");
        assert_eq!(line(&proxy, "/secret")["detail"], "malformed", "{what}");
        assert_eq!(server.connections(), 1, "{what}");
        // What the kernel holds for both sides, and no more.
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken < 8 << 20, "{what}: {taken} bytes");
        let heard = heard.lock().expect("no thread panics with it");
        assert_eq!(heard[0], 22, "{what}");
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("secret"), "{what}");
    }
}

fn a_connection_is_used_again_by_every_shard(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test"]);
    let server = Server::secured(leaf.server(), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let listen = free();
    // There is one, so whoever has none is handed the other's.
    let more = format!(
        "tls: {{ ca: {} }}\npool: {{ max_connections: 1 }}",
        ca.display()
    );
    let text = format!("workers: 2\n{}", config(listen, server.address(), &more));
    let proxy = Proxy::start(backend, &text);
    for _ in 0..40 {
        assert_eq!(Client::connect(listen).get("/").text(), "ok");
    }
    // A shard that is late to hand one over is not waited for: another is opened then, and
    // that one closes. Without a hand-over some 20 would be needed.
    let connections = server.connections();
    assert!(connections <= 10, "{connections}");
    let labels = [("upstream", "web"), ("outcome", "completed")];
    proxy.expect_metric(HANDSHAKES, &labels, connections as f64);
}

fn a_connection_that_was_closed_while_idle_is_not_used(backend: Backend) {
    for wanted in both(backend) {
        let world = World::start(wanted, |connection| {
            connection.request()?;
            connection.write(text("ok"))?;
            // Says that it is done, and leaves the stream open.
            if let Some((session, stream)) = connection.session() {
                session.finish(stream)?;
            }
            while connection.read(&mut [0; 64])? > 0 {}
            Ok(())
        });
        let mut client = Client::connect(world.listen);
        for number in 1..=5 {
            client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.response("POST").text(), "ok");
            assert_eq!(world.server.connections(), number);
            eventually("it is given up", Duration::from_secs(5), || {
                world.server.open_connections() == 0
            });
        }
    }
}

fn news_behind_an_answer_does_not_spoil_a_connection(backend: Backend) {
    let renewed = Arc::new(AtomicUsize::new(0));
    let renews = Arc::clone(&renewed);
    let wanted = Wanted {
        backend,
        version: &TLS13,
        more: "",
    };
    let world = World::start(wanted, move |connection| {
        while connection.request()?.is_some() {
            connection.write(text("ok"))?;
            // Late enough that the connection is idle by then.
            std::thread::sleep(Duration::from_millis(50));
            if let Some((session, stream)) = connection.session() {
                let renewed = session.connection().refresh_traffic_keys();
                renewed.map_err(io::Error::other)?;
                session.flush(stream)?;
            }
            renews.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    let mut client = Client::connect(world.listen);
    for number in 1..=5 {
        assert_eq!(client.get("/").text(), "ok");
        eventually("keys were changed", Duration::from_secs(5), || {
            renewed.load(Ordering::SeqCst) == number
        });
    }
    assert_eq!(world.server.connections(), 1);
}
