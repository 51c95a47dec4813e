//! TLS is passed through to the upstream that claims the name it asks for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Backend, Cgroup, Proxy, on_both_backends, ports, program};

on_both_backends!(
    tls_goes_where_its_server_name_says,
    openssl_goes_where_its_server_name_says,
    a_hello_in_pieces_after_a_silence_is_understood,
    a_tunnel_goes_where_the_server_name_says,
    tls_is_a_bad_request_where_the_name_speaks_http,
    tls_of_a_program_is_not_encrypted_once_more,
);

/// Two TLS servers that answer with their own name and the one asked for.
const SERVERS: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
asked = {}
context.sni_callback = lambda connection, name, _: asked.__setitem__(connection, name)
def answer(connection, name):
    try:
        tls = context.wrap_socket(connection, server_side=True)
        tls.recv(4096)
        body = f"{name} for {asked.pop(tls)}"
        tls.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        tls.close()
    except OSError:
        connection.close()
def serve(listener, name):
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0], name)).start()
for name in sys.argv[3:]:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(listener, name)).start()
"#;

/// Says nothing, then its hello in three pieces, byte by byte or in records of 20
/// bytes; prints the last line of the answer.
const SLOW: &str = r#"
import socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(received, sent, server_hostname=sys.argv[1])
connection = socket.create_connection(("10.1.2.3", 443), 20)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def pieces(said):
    if sys.argv[2] == "bytes":
        return [said[at:at + 1] for at in range(len(said))], 0.001
    if sys.argv[2] == "records" and said[:1] == b"\x16":
        parts = [said[at:at + 20] for at in range(5, len(said), 20)]
        return [said[:3] + len(part).to_bytes(2, "big") + part for part in parts], 0.005
    return [said[:1], said[1:100], said[100:]], 0.03
def until_done(step):
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            parts, pause = pieces(sent.read())
            for part in parts:
                time.sleep(pause)
                connection.sendall(part)
            got = connection.recv(65536)
            assert got, "closed"
            received.write(got)
until_done(tls.do_handshake)
tls.write(b"GET / HTTP/1.1\r\n\r\n")
print(until_done(lambda: tls.read(4096)).decode().splitlines()[-1])
"#;

/// The servers, and a proxy for which `api.test` and `*.wild.test` mean the
/// first and 10.1.2.3 the second.
fn world(backend: Backend, cgroup: &Cgroup, unmatched: &str) -> (Running, Proxy) {
    world_with(
        backend,
        cgroup,
        &format!("capture: {{ unmatched: {unmatched} }}"),
        "auto",
    )
}

/// The same with `more`, and what is spoken to the first.
fn world_with(backend: Backend, cgroup: &Cgroup, more: &str, protocol: &str) -> (Running, Proxy) {
    let scratch = Scratch::new();
    let (certificate, key) = (scratch.path().join("c"), scratch.path().join("k"));
    program::succeed(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=test", "-batch", "-out"])
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key),
    );
    let mut servers = Running::start(
        Command::new(program::PYTHON)
            .args(["-c", SERVERS])
            .args([&certificate, &key])
            .args(["named", "addressed"])
            .stdout(Stdio::piped()),
    );
    let mut lines = BufReader::new(servers.stdout()).lines();
    let mut port = || lines.next().expect("a port").expect("readable");
    let config = format!(
        "{more}\n\
         upstreams:\n  named: {{ hosts: [api.test, \"*.wild.test\"], protocol: {protocol}, endpoints: [\"127.0.0.1:{}\"] }}\n  \
         addressed: {{ hosts: [10.1.2.3], endpoints: [\"127.0.0.1:{}\"] }}\n",
        port(),
        port()
    );
    let proxy = Proxy::capturing(backend, cgroup, &config);
    (servers, proxy)
}

fn tls_goes_where_its_server_name_says(backend: Backend) {
    let cgroup = Cgroup::new();
    let (_servers, proxy) = world(backend, &cgroup, "refuse");
    let curl = |name: &str, address: &str| {
        let mut curl = cgroup.command("curl");
        curl.args(["-sSk", "-m20", "--resolve"])
            .arg(format!("{name}:443:{address}"))
            .arg(format!("https://{name}/"));
        program::output(&mut curl)
    };
    let ask = |name: &str, address: &str| {
        let output = curl(name, address);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask("api.test", "10.1.2.3"), "named for api.test");
    assert_eq!(ask("API.test", "10.9.9.9"), "named for api.test");
    assert_eq!(ask("a.wild.test", "10.9.9.9"), "named for a.wild.test");
    assert_eq!(ask("other.test", "10.1.2.3"), "addressed for other.test");
    assert_eq!(ask("10.1.2.3", "10.1.2.3"), "addressed for None");
    let refused = curl("other.test", "10.9.9.9");
    assert!(!refused.status.success(), "nothing claims it");
    ambassador_tests::eventually("counted", std::time::Duration::from_secs(5), || {
        let count = |upstream| {
            let labels = [("upstream", upstream)];
            proxy.metric("ambassador_tcp_connections_total", &labels)
        };
        count("named") == 3.0 && count("addressed") == 2.0
    });
    let labels = [("upstream", "unmatched"), ("outcome", "no-route")];
    proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
}

fn openssl_goes_where_its_server_name_says(backend: Backend) {
    let cgroup = Cgroup::new();
    let (_servers, _proxy) = world(backend, &cgroup, "proxy");
    let ask = |options: &str| {
        let client = format!(
            "printf 'GET / HTTP/1.1\\r\\n\\r\\n' | \
             openssl s_client -quiet -connect 10.1.2.3:443 {options} 2>/dev/null"
        );
        let mut shell = cgroup.command("sh");
        let said = program::output(shell.args(["-c", &client])).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let answer = said.lines().find(|line| line.contains(" for "));
        answer.unwrap_or(&said).to_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, answer) in [
            ("-servername api.test", "named for api.test"),
            ("-servername API.Test", "named for API.Test"),
            ("-servername other.test", "addressed for other.test"),
            ("-noservername", "addressed for None"),
        ] {
            assert_eq!(ask(&format!("{version} {name}")), answer);
        }
    }
}

fn a_hello_in_pieces_after_a_silence_is_understood(backend: Backend) {
    let cgroup = Cgroup::new();
    let (_servers, _proxy) = world(backend, &cgroup, "proxy");
    let ask = |name: &str, mode: &str| {
        let mut client = cgroup.command(program::PYTHON);
        program::succeed(client.args(["-c", SLOW, name, mode]))
    };
    for mode in ["pieces", "bytes", "records"] {
        assert_eq!(ask("api.test", mode), "named for api.test\n", "{mode}");
        assert_eq!(
            ask("other.test", mode),
            "addressed for other.test\n",
            "{mode}"
        );
    }
}

fn a_tunnel_goes_where_the_server_name_says(backend: Backend) {
    let cgroup = Cgroup::new();
    let listen = format!("127.0.0.1:{}", ports::free());
    let listener = format!("listeners: [{{ name: e, bind: \"{listen}\" }}]");
    let (_servers, proxy) = world_with(backend, &cgroup, &listener, "auto");
    let ask = |name: &str, connect: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sSk", "-m20", "-x", &format!("http://{listen}")])
            .args(["--connect-to", &format!("{name}:443:{connect}:443")])
            .arg(format!("https://{name}/"));
        program::succeed(&mut curl)
    };
    assert_eq!(ask("api.test", "api.test"), "named for api.test");
    assert_eq!(ask("a.wild.test", "10.1.2.3"), "named for a.wild.test");
    assert_eq!(ask("other.test", "10.1.2.3"), "addressed for other.test");
    assert_eq!(ask("other.test", "api.test"), "named for other.test");
    for (upstream, tunnels) in [("named", 3.0), ("addressed", 1.0)] {
        let labels = [("upstream", upstream)];
        proxy.expect_metric("ambassador_tcp_connections_total", &labels, tunnels);
    }
}

/// As it is where the address is claimed.
fn tls_is_a_bad_request_where_the_name_speaks_http(backend: Backend) {
    let cgroup = Cgroup::new();
    let (_servers, proxy) = world_with(backend, &cgroup, "", "http1");
    let mut curl = cgroup.command("curl");
    curl.args([
        "-sSk",
        "-m20",
        "--resolve",
        "api.test:443:10.9.9.9",
        "https://api.test/",
    ]);
    assert!(!program::output(&mut curl).status.success());
    let labels = [("reason", "bad-request")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

/// The upstream speaks TLS with those who do not; who does keeps its own.
fn tls_of_a_program_is_not_encrypted_once_more(backend: Backend) {
    let cgroup = Cgroup::new();
    let listen = format!("127.0.0.1:{}", ports::free());
    let listener = format!("listeners: [{{ name: e, bind: \"{listen}\" }}]");
    let encrypts = "auto, tls: { verify: off }";
    let (_servers, proxy) = world_with(backend, &cgroup, &listener, encrypts);
    let resolve = ["--resolve", "api.test:443:10.9.9.9"];
    let through = ["-x", &format!("http://{listen}")];
    for way in [resolve, through] {
        let mut curl = match way == resolve {
            true => cgroup.command("curl"),
            false => Command::new("curl"),
        };
        curl.args(["-sSk", "-m20"]).args(way);
        let answer = program::succeed(curl.arg("https://api.test/"));
        assert_eq!(answer, "named for api.test", "{way:?}");
    }
    // Silent at first, so that its server is dialled before it says that it speaks TLS.
    let mut client = cgroup.command(program::PYTHON);
    let answer = program::succeed(client.args(["-c", SLOW, "api.test", "pieces"]));
    assert_eq!(answer, "named for api.test\n");
    // What a program leaves open is encrypted here.
    let mut curl = cgroup.command("curl");
    curl.args(["-sS", "-m20", "--resolve", "api.test:80:10.9.9.9"]);
    let answer = program::succeed(curl.arg("http://api.test/"));
    assert!(answer.starts_with("named for "), "{answer}");
    proxy.expect_metric(
        "ambassador_tcp_connections_total",
        &[("upstream", "named")],
        3.0,
    );
}
