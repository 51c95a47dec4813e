//! What a captured connection is taken for, by its first bytes.

use std::time::Duration;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Connection, Proxy, Server, on_both_backends, on_http1, program,
};

use crate::capture::claim;

on_http1!(requests_behind_one_of_an_odd_method_are_requests,);

on_both_backends!(
    what_has_no_http_version_is_relayed,
    a_beginning_of_http_or_tls_is_not_waited_for_long,
    what_has_an_http_version_is_a_request,
    a_slow_request_is_one_all_the_same,
    a_server_that_complains_of_silence_does_not_speak_first,
    a_server_that_has_spoken_first_is_sent_requests_all_the_same,
    two_silent_sides_have_the_time_of_a_tunnel,
    what_is_configured_is_not_sniffed,
);

/// Sends its arguments one by one, each when the one before has come back whole
/// (`turns`), or after a silence (`slow`); then tells the end of what it will
/// send. Prints what came back. `16*3` is a byte three times.
const CLIENT: &str = r#"
import socket, sys, time
def meant(piece):
    code, _, count = piece.partition("*")
    return bytes.fromhex(code) * int(count or 1)
def recv(connection, count):
    got = b""
    while len(got) < count and (more := connection.recv(65536)):
        got += more
    return got
connection = socket.create_connection(("10.1.2.3", 7000), 20)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
mode, pieces = sys.argv[1], [meant(piece) for piece in sys.argv[2:]]
got = b""
for piece in pieces:
    connection.sendall(piece)
    if mode == "turns":
        got += recv(connection, len(piece))
    else:
        time.sleep(0.3)
connection.shutdown(socket.SHUT_WR)
got += recv(connection, 1 << 30)
same = got == b"".join(pieces)
sys.stdout.write("as it was" if same else got.decode("latin-1"))
"#;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn say<S: AsRef<str>>(cgroup: &Cgroup, mode: &str, pieces: &[S]) -> String {
    let mut command = cgroup.command(program::PYTHON);
    command.args(["-c", CLIENT, mode]);
    program::succeed(command.args(pieces.iter().map(AsRef::as_ref)))
}

/// Answers what ends like a request of HTTP/1, and says whether it came through
/// the proxy as one; sends everything else back.
fn versatile(connection: &mut Connection) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut all = Vec::new();
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        all.extend_from_slice(&buffer[..count]);
        let said = String::from_utf8_lossy(&all);
        if !said.contains(" HTTP/1.") {
            connection.write(&buffer[..count])?;
        } else if said.ends_with("\r\n\r\n") {
            let is_proxied = said.contains("x-request-id");
            return connection.write(text(if is_proxied { "proxied" } else { "direct" }));
        }
    }
}

fn world(backend: Backend) -> (Server, Cgroup, Proxy) {
    let server = Server::start(versatile);
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    (server, cgroup, proxy)
}

fn what_has_no_http_version_is_relayed(backend: Backend) {
    let (_server, cgroup, _proxy) = world(backend);
    for said in [
        "OPTIONS rtsp://10.1.2.3/a RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        "OPTIONS sip:a@b SIP/2.0\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        "OPTIONS icap://10.1.2.3/a ICAP/1.0\r\nHost: 10.1.2.3\r\n\r\n",
        "GET key\r\n",
        "GET /old\r\n",
        "\r\n\r\n",
        "HELLO\n",
    ] {
        let back = say(&cgroup, "turns", &[hex(said.as_bytes())]);
        assert_eq!(back, "as it was", "{said:?}");
    }
    // A line that does not end, and one that ends late.
    assert_eq!(say(&cgroup, "turns", &["41*100000"]), "as it was");
    let late = [hex(b"GET "), "41*70000".into(), hex(b"\r\n")].map(String::from);
    assert_eq!(say(&cgroup, "turns", &late), "as it was");
}

fn a_beginning_of_http_or_tls_is_not_waited_for_long(backend: Backend) {
    let (_server, cgroup, proxy) = world(backend);
    let beginnings = ["H", "P", "\x16", "GET ", "PRI * HTT", "OPTIONS sip:a", "\r"];
    for beginning in beginnings {
        let pieces = [hex(beginning.as_bytes()), hex(b"and the rest\r\n")];
        let back = say(&cgroup, "turns", &pieces);
        assert_eq!(back, "as it was", "{beginning:?}");
    }
    // A FIN says that no more will come, of a request neither.
    assert_eq!(say(&cgroup, "turns", &[hex(b"GET k")]), "as it was");
    ambassador_tests::eventually("counted as relayed", Duration::from_secs(5), || {
        let labels = [("upstream", "web"), ("outcome", "closed")];
        let relayed = proxy.metric("ambassador_tcp_connections_total", &labels);
        relayed == beginnings.len() as f64 + 1.0
    });
}

fn what_has_an_http_version_is_a_request(backend: Backend) {
    let (_server, cgroup, proxy) = world(backend);
    let lines = [
        "GET / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "BREW /pot HTTP/1.1",
        "A-METHOD-OF-MORE-THAN-THIRTY-TWO-LETTERS / HTTP/1.1",
        "get / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "QUERY /caf\u{e9} HTTP/1.1",
        "GET http://10.1.2.3/ HTTP/1.1",
    ];
    for line in lines {
        let said = format!("{line}\r\nHost: 10.1.2.3\r\nConnection: close\r\n\r\n");
        // The last line of what came back.
        let back = say(&cgroup, "slow", &[hex(said.as_bytes())]);
        assert!(back.ends_with("\r\nproxied"), "{line:?}: {back}");
    }
    let labels = [("upstream", "web"), ("status", "200")];
    proxy.expect_metric("ambassador_requests_total", &labels, lines.len() as f64);
}

fn a_slow_request_is_one_all_the_same(backend: Backend) {
    let (_server, cgroup, _proxy) = world(backend);
    let rest = hex(b"1.1\r\nHost: 10.1.2.3\r\nConnection: close\r\n\r\n");
    for start in [
        "GET /a HTTP/",
        "PURGE /a HTTP/",
        "POST http://10.1.2.3/ HTTP/",
    ] {
        let back = say(&cgroup, "slow", &[&hex(start.as_bytes()), &rest]);
        assert!(back.ends_with("\r\nproxied"), "{start:?}: {back}");
    }
}

/// What follows on the same destination would be taken for opaque bytes, around
/// all that holds for its requests.
fn a_server_that_complains_of_silence_does_not_speak_first(backend: Backend) {
    const COMPLAINTS: [&[u8]; 3] = [
        b"",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x28",
    ];
    let server = Server::start(|connection| {
        // Of three connections with nothing on them, each after 50 ms.
        let wait = Some(Duration::from_millis(50));
        connection.stream().set_read_timeout(wait)?;
        let mut byte = [0];
        match connection.stream().peek(&mut byte) {
            Ok(1..) => versatile(connection),
            _ => connection.write(COMPLAINTS[(connection.number - 1) / 2 % 3]),
        }
    });
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let request = hex(b"GET / HTTP/1.1\r\nHost: 10.1.2.3\r\nConnection: close\r\n\r\n");
    for complaint in COMPLAINTS {
        // Silence, as long as it takes the server to complain.
        say(&cgroup, "slow", &[""]);
        let back = say(&cgroup, "slow", &[&request]);
        assert!(back.ends_with("\r\nproxied"), "{complaint:?}: {back}");
    }
}

/// One silent connection, of whomever, must not take the policies from the
/// requests that follow.
fn a_server_that_has_spoken_first_is_sent_requests_all_the_same(backend: Backend) {
    const GREETING: &str = "220 are you there?\r\n";
    let server = Server::start(|connection| {
        connection
            .stream()
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        if connection.stream().peek(&mut [0]).is_err() {
            connection.write(GREETING)?;
        }
        connection.stream().set_read_timeout(None)?;
        versatile(connection)
    });
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let request = hex(b"GET / HTTP/1.1\r\nHost: 10.1.2.3\r\nConnection: close\r\n\r\n");
    for _ in 0..3 {
        assert_eq!(say(&cgroup, "slow", &[""]), GREETING);
        let back = say(&cgroup, "slow", &[&request]);
        assert!(back.ends_with("\r\nproxied"), "{back}");
    }
    let labels = [("upstream", "web"), ("status", "200")];
    proxy.expect_metric("ambassador_requests_total", &labels, 3.0);
}

fn two_silent_sides_have_the_time_of_a_tunnel(backend: Backend) {
    const SILENT: &str = "import socket, time\n\
        since = time.monotonic()\n\
        connection = socket.create_connection(('10.1.2.3', 7000), 20)\n\
        try: connection.recv(1)\n\
        except ConnectionResetError: print(time.monotonic() - since >= 0.6)";
    let server = Server::echo();
    let cgroup = Cgroup::new();
    let config = format!(
        "defaults: {{ timeouts: {{ idle: 50ms, tunnel: 600ms }} }}\n{}",
        claim("10.1.2.3", &server)
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    let mut command = cgroup.command(program::PYTHON);
    assert_eq!(program::succeed(command.args(["-c", SILENT])), "True\n");
}

fn requests_behind_one_of_an_odd_method_are_requests(backend: Backend) {
    let server = Server::http(|request| {
        let is_proxied = request.field("x-request-id").is_some();
        text(if is_proxied { "proxied" } else { "direct" })
    });
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let request = |method, more| format!("{method} / HTTP/1.1\r\nHost: 10.1.2.3\r\n{more}\r\n");
    let both = request("BREW", "") + &request("GET", "Connection: close\r\n");
    let back = say(&cgroup, "slow", &[hex(both.as_bytes())]);
    assert_eq!(back.matches("proxied").count(), 2, "{back}");
}

fn what_is_configured_is_not_sniffed(backend: Backend) {
    let server = Server::start(versatile);
    for (protocol, said, back) in [
        ("http1", "GET key\r\n", "HTTP/1.1 400 "),
        ("tcp", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 "),
    ] {
        let cgroup = Cgroup::new();
        let claim = claim("10.1.2.3", &server);
        let config = format!("defaults: {{ protocol: {protocol} }}\n{claim}");
        let _proxy = Proxy::capturing(backend, &cgroup, &config);
        let got = say(&cgroup, "slow", &[hex(said.as_bytes())]);
        assert!(got.starts_with(back), "{protocol}: {got}");
        assert_eq!(got.ends_with("direct"), protocol == "tcp", "{got}");
    }
}
