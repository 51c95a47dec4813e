//! Load over TLS, against a server that says how its handshakes went.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, thread};

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Authority, Session};
use rustls::{NamedGroup, ServerConfig, ServerConnection};

use crate::program::{run, try_run};

const NAME: &str = "load.test";

/// A server of `SIZE` bytes, whatever is asked for.
struct TlsServer {
    address: SocketAddr,
    authorities: PathBuf,
    handshakes: Arc<AtomicU64>,
    _scratch: Scratch,
}

const SIZE: usize = 64;

impl TlsServer {
    fn start() -> Self {
        let authority = Authority::new("load");
        let config = Arc::new(authority.issue(&[NAME]).server());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let handshakes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&handshakes);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, counted) = (Arc::clone(&config), Arc::clone(&counted));
                thread::spawn(move || answer(stream, config, &counted));
            }
        });
        let scratch = Scratch::new();
        Self {
            address,
            authorities: scratch.file("ca.pem", &authority.pem),
            handshakes,
            _scratch: scratch,
        }
    }

    fn line(&self, how: &str) -> String {
        let file = self.authorities.display();
        format!("{how} --size {SIZE} --seconds 0.3 --host {NAME} --tls {file}")
    }
}

/// Answers until the client leaves. A session that was taken up again, or with
/// another group than X25519, is not counted.
fn answer(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    handshakes: &AtomicU64,
) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut session = Session::agree(connection, &mut stream)?;
    let group = session.connection().negotiated_key_exchange_group();
    let group = group.map(|group| group.name());
    if !session.is_resumed() && group == Some(NamedGroup::X25519) {
        handshakes.fetch_add(1, Ordering::Relaxed);
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
    let response = [head.as_bytes(), &[b'x'; SIZE]].concat();
    let mut received = Vec::new();
    let mut part = [0; 4096];
    loop {
        match session.read(&mut stream, &mut part)? {
            0 => return Ok(()),
            length => received.extend_from_slice(&part[..length]),
        }
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            session.write(&mut stream, &response)?;
        }
    }
}

#[test]
fn a_kept_connection_makes_one_handshake() {
    let server = TlsServer::start();
    let report = run(server.address, &server.line("--closed --connections 4"));
    assert_eq!(report["errors_total"], 0, "{report}");
    assert!(report["requests"].as_u64() > Some(4), "{report}");
    assert_eq!(server.handshakes.load(Ordering::Relaxed), 4);
}

#[test]
fn a_new_connection_makes_a_full_handshake() {
    let server = TlsServer::start();
    for how in ["--closed", "--rate 100", "--closed --blocking-connect"] {
        let before = server.handshakes.load(Ordering::Relaxed);
        let line = server.line(&format!("{how} --new-connections --connections 2"));
        let report = run(server.address, &line);
        assert_eq!(report["errors_total"], 0, "{report}");
        let requests = report["requests"].as_u64().unwrap();
        let handshakes = server.handshakes.load(Ordering::Relaxed) - before;
        assert!(requests > 0 && handshakes >= requests, "{how}: {report}");
    }
}

#[test]
fn a_server_of_another_authority_gets_no_request() {
    let (server, other) = (TlsServer::start(), TlsServer::start());
    let line = other.line("--closed --connections 1");
    let report = run(server.address, &line);
    assert_eq!(report["requests"], 0, "{report}");
    assert!(report["errors"]["broken"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_file_without_authorities_is_refused() {
    let server = TlsServer::start();
    fs::write(&server.authorities, "nothing").unwrap();
    let output = try_run(server.address, &server.line("--closed --connections 1"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("ca.pem"),
        "{said}"
    );
}
