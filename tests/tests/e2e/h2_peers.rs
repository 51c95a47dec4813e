//! HTTP/2 with what people run: nghttp2's server and clients, nginx, curl, and the
//! library h2 of Python.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Authority, Backend, Client, Proxy, Server, eventually, nginx, on_both_backends,
};

use crate::tls_upstream::free;

on_both_backends!(
    nghttpd_is_spoken_to_in_clear,
    nghttpd_is_spoken_to_over_tls,
    nginx_tells_what_it_is_spoken_to_in,
    curl_knows_before,
    curl_agrees_upon_it_over_tls,
    curl_that_asks_for_an_upgrade_stays_with_http1,
    nghttp_is_answered_whatever_its_frames_are_like,
    h2load_loses_no_request,
    python_is_answered_through_small_windows,
    python_answers_through_small_windows,
    python_refuses_and_is_asked_again,
);

/// The library of Python.
const PACKAGES: &str = "h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0";
const LARGE: usize = 3_000_000;

/// A listener with TLS or without, in front of a server of HTTP/1 that sends back what
/// it gets.
struct World {
    listen: SocketAddr,
    server: Server,
    scratch: Scratch,
    _proxy: Proxy,
}

impl World {
    fn start(backend: Backend, secured: bool) -> World {
        let scratch = Scratch::new();
        let authority = Authority::new("root");
        scratch.file("ca.pem", &authority.pem);
        let (cert, key) = authority.issue(&["web.test"]).write(&scratch, "server");
        let tls = format!(
            ", tls: {{ cert: {}, key: {} }}",
            cert.display(),
            key.display()
        );
        let server = Server::http(|request| match request.target.as_str() {
            "/large" => text(&"x".repeat(LARGE)),
            "/length" => text(&request.body.len().to_string()),
            "/echo" => text(&String::from_utf8_lossy(&request.body)),
            _ => text("ok"),
        });
        let listen = free();
        let config = format!(
            "listeners: [{{ name: in, bind: \"{listen}\", protocol: http{} }}]\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
            if secured { &tls } else { "" },
            server.address()
        );
        World {
            _proxy: Proxy::start(backend, &config),
            listen,
            server,
            scratch,
        }
    }

    /// A file of so many octets.
    fn file(&self, length: usize) -> String {
        let path = self.scratch.file("body", &"b".repeat(length));
        path.display().to_string()
    }

    /// curl, whose name `web.test` is the listener.
    #[track_caller]
    fn curl(&self, arguments: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m30", "--fail", "--cacert"]);
        curl.arg(self.scratch.path().join("ca.pem"));
        curl.args(["--connect-to", &format!("web.test::{}", self.listen)]);
        program::succeed(curl.args(arguments))
    }

    /// An address below the upstream's name.
    fn url(&self, path: &str) -> String {
        format!("http://{}/web{path}", self.listen)
    }
}

/// A server of another program, and the proxy in front of it.
struct Upstream {
    listen: SocketAddr,
    proxy: Proxy,
    _running: Running,
}

impl Upstream {
    /// Waits for it, and has the proxy speak with it as `more` says.
    #[track_caller]
    fn behind(backend: Backend, running: Running, address: SocketAddr, more: &str) -> Upstream {
        eventually("it listens", Duration::from_secs(10), || {
            Client::try_connect(address).is_some()
        });
        let listen = free();
        Upstream {
            // With one worker there is one connection, whose limits are known.
            proxy: Proxy::start(
                backend,
                &format!("workers: 1\n{}", one_upstream(listen, address, more)),
            ),
            listen,
            _running: running,
        }
    }
}

fn nghttpd(directory: &Path, address: SocketAddr, arguments: &[&str]) -> Running {
    let mut nghttpd = Command::new("nghttpd");
    nghttpd.args(["-a", "127.0.0.1", "--echo-upload", "-d"]);
    nghttpd.arg(directory).args(&arguments[..1]);
    nghttpd
        .arg(address.port().to_string())
        .args(&arguments[1..]);
    nghttpd.stdin(Stdio::null()).stdout(Stdio::null());
    Running::start(nghttpd.stderr(Stdio::null()))
}

/// Files and uploads of nghttpd.
#[track_caller]
fn assert_serves(upstream: &Upstream) {
    let mut client = Client::connect(upstream.listen);
    let small = client.get("/small");
    assert_eq!((small.status, small.text()), (200, "small".to_owned()));
    assert_eq!(client.get("/large").body.len(), LARGE);
    assert_eq!(client.get("/none").status, 404);
    let body = "u".repeat(300_000);
    client.send(format!(
        "POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let echo = client.response("POST");
    assert_eq!((echo.status, echo.body.len()), (200, body.len()));
    client.send("HEAD /small HTTP/1.1\r\nHost: web.test\r\n\r\n");
    assert_eq!(client.response("HEAD").status, 200);
    let several: Vec<_> = (0..10)
        .map(|_| {
            let mut client = Client::connect(upstream.listen);
            client.send(ambassador_tests::client::get("/large"));
            client
        })
        .collect();
    for mut client in several {
        assert_eq!(client.response("GET").body.len(), LARGE);
    }
}

fn files(scratch: &Scratch) {
    scratch.file("small", "small");
    scratch.file("large", &"l".repeat(LARGE));
}

fn nghttpd_is_spoken_to_in_clear(backend: Backend) {
    let (scratch, address) = (Scratch::new(), free());
    files(&scratch);
    let running = nghttpd(scratch.path(), address, &["--no-tls"]);
    let upstream = Upstream::behind(backend, running, address, "protocol: http2");
    assert_serves(&upstream);
}

fn nghttpd_is_spoken_to_over_tls(backend: Backend) {
    let (scratch, address) = (Scratch::new(), free());
    files(&scratch);
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let (cert, key) = authority.issue(&["web.test"]).write(&scratch, "server");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    for protocol in ["http2", "auto"] {
        // It speaks nothing but HTTP/2.
        let running = nghttpd(scratch.path(), address, &["-v", &key, &cert]);
        let tls = format!("tls: {{ ca: {} }}\nprotocol: {protocol}", ca.display());
        assert_serves(&Upstream::behind(backend, running, address, &tls));
    }
}

fn nginx_tells_what_it_is_spoken_to_in(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    authority.issue(&["web.test"]).write(&scratch, "server");
    let certificate = "ssl_certificate server.pem; ssl_certificate_key server.key;";
    let tls = format!("tls: {{ ca: {} }}", ca.display());
    let cases = [
        ("http2", "protocol: http2".to_owned(), "HTTP/2.0"),
        ("", "protocol: auto".to_owned(), "HTTP/1.1"),
        ("ssl http2", format!("{tls}\nprotocol: http2"), "HTTP/2.0"),
        ("ssl http2", format!("{tls}\nprotocol: auto"), "HTTP/2.0"),
        ("ssl http2", format!("{tls}\nprotocol: http1"), "HTTP/1.1"),
        ("ssl", format!("{tls}\nprotocol: auto"), "HTTP/1.1"),
    ];
    for (listen, more, protocol) in cases {
        let address = free();
        let certificate = if listen.starts_with("ssl") {
            certificate
        } else {
            ""
        };
        let server = format!(
            "listen {address} {listen}; {certificate}\n\
             location / {{ return 200 \"$server_protocol $http_host $request_length\"; }}\n\
             location /slow {{ limit_rate 2m; root {}; }}",
            scratch.path().display()
        );
        let running = nginx::start(&scratch, address, &server);
        let upstream = Upstream::behind(backend, running, address, &more);
        let answer = Client::connect(upstream.listen).get("/");
        let text = answer.text();
        assert!(text.starts_with(protocol), "{listen}, {more}: {text}");
        assert!(answer.field("connection").is_none(), "{}", answer.head);
    }
}

fn curl_knows_before(backend: Backend) {
    let world = World::start(backend, false);
    let http2 = "--http2-prior-knowledge";
    let version = ["-w", " %{http_version}"];
    let url = |path: &str| format!("http://web.test{path}");
    let curl = |more: &[&str]| world.curl(&[&[http2], more].concat());
    assert_eq!(curl(&[&version[..], &[&url("/")]].concat()), "ok 2");
    let size = ["-w", "%{size_download}", "-o", "/dev/null"];
    let large = LARGE.to_string();
    assert_eq!(curl(&[&size[..], &[&url("/large")]].concat()), large);
    let body = world.file(LARGE);
    assert_eq!(curl(&["-T", &body, &url("/length")]), large);
    assert_eq!(curl(&["-d", "posted", &url("/echo")]), "posted");
    assert!(curl(&["-I", &url("/")]).starts_with("HTTP/2 200"));
}

fn curl_agrees_upon_it_over_tls(backend: Backend) {
    let world = World::start(backend, true);
    for (wanted, version) in [("--http2", "ok 2"), ("--http1.1", "ok 1.1")] {
        let said = world.curl(&[wanted, "-w", " %{http_version}", "https://web.test/"]);
        assert_eq!(said, version);
    }
    let four = ["https://web.test/"; 4];
    assert_eq!(
        world.curl(&[&["--http2", "-Z"], &four[..]].concat()),
        "okokokok"
    );
    let body = world.file(LARGE);
    let said = world.curl(&["--http2", "-T", &body, "https://web.test/length"]);
    assert_eq!(said, LARGE.to_string());
}

fn curl_that_asks_for_an_upgrade_stays_with_http1(backend: Backend) {
    let world = World::start(backend, false);
    // `Upgrade: h2c` is no more (RFC 9113, section 3.1).
    let said = world.curl(&["--http2", "-w", " %{http_version}", "http://web.test/"]);
    assert_eq!(said, "ok 1.1");
    let last = world.server.last_request();
    assert_eq!(
        (last.field("upgrade"), last.field("http2-settings")),
        (None, None)
    );
}

fn nghttp_is_answered_whatever_its_frames_are_like(backend: Backend) {
    let world = World::start(backend, false);
    let nghttp = |arguments: &[&str], path: &str| {
        let mut nghttp = Command::new("nghttp");
        program::succeed(
            nghttp
                .args(["-t", "20"])
                .args(arguments)
                .arg(world.url(path)),
        )
    };
    assert_eq!(nghttp(&[], "/"), "ok");
    assert_eq!(nghttp(&["--continuation"], "/"), "ok");
    assert_eq!(nghttp(&["-b", "255"], "/"), "ok");
    assert_eq!(nghttp(&["-c", "0"], "/"), "ok");
    assert_eq!(nghttp(&["--no-dep", "-p", "1"], "/"), "ok");
    assert_eq!(nghttp(&["-w", "10", "-W", "16"], "/large").len(), LARGE);
    let body = world.file(200_000);
    assert_eq!(nghttp(&["-d", &body], "/length"), "200000");
    assert_eq!(nghttp(&["-d", &body, "-b", "100"], "/length"), "200000");
    // HTTP/1 has trailers where it tells no length.
    let trailer = ["-d", &body, "--trailer", "x-sum: 9", "--no-content-length"];
    assert_eq!(nghttp(&trailer, "/length"), "200000");
    assert_eq!(world.server.last_request().trailer("x-sum"), Some("9"));
    let several = nghttp(&["-m", "50"], "/");
    assert_eq!(several, "ok".repeat(50));
}

fn h2load_loses_no_request(backend: Backend) {
    for secured in [false, true] {
        let world = World::start(backend, secured);
        let scheme = if secured { "https" } else { "http" };
        let body = world.file(20_000);
        let all = |count: usize, more: &[&str], path: &str| {
            let mut h2load = Command::new("h2load");
            h2load.args(["-c", "4", "-m", "20", "-n", &count.to_string()]);
            let url = format!("{scheme}://{}/web{path}", world.listen);
            let said = program::succeed(h2load.args(more).arg(url));
            let line = said.lines().find(|line| line.starts_with("requests:"));
            let right = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
            assert!(line.is_some_and(|line| line.ends_with(&right)), "{said}");
        };
        all(4000, &[], "/");
        all(400, &["-d", &body], "/length");
        all(8, &["-w", "12", "-W", "14"], "/large");
    }
}

fn python_is_answered_through_small_windows(backend: Backend) {
    let world = World::start(backend, false);
    let mut script = program::script(PACKAGES, "h2_requests.py");
    let said = program::succeed(script.arg(world.listen.to_string()));
    assert_eq!(said.trim(), "ok 20");
}

/// The server of the script.
#[track_caller]
fn python(backend: Backend, more: &str) -> Upstream {
    let mut script = program::script(PACKAGES, "h2_answers.py");
    let script = script.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(script.stderr(Stdio::null()));
    let mut lines = BufReader::new(running.stdout()).lines();
    let port = lines.next().expect("a port").expect("readable");
    let port: u16 = port.parse().expect("a number");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Upstream::behind(
        backend,
        running,
        address,
        &format!("protocol: http2\n{more}"),
    )
}

fn python_answers_through_small_windows(backend: Backend) {
    let upstream = python(backend, "");
    let mut client = Client::connect(upstream.listen);
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(client.get("/large").body.len(), 1_000_000);
    let trailers = client.get("/trailers").trailers;
    assert_eq!(trailers, [("x-sum".to_owned(), "9".to_owned())]);
    let cookies = client.get("/cookies");
    let cookies = cookies
        .fields
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    let cookies: Vec<&str> = cookies.map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies, ["a=1", "c=3"]);
    assert_eq!(client.get("/interim").status, 103);
    assert_eq!(client.response("GET").text(), "ok");
    // More at a time than the server takes, through windows of 500 octets.
    let body = "b".repeat(100_000);
    let several: Vec<_> = (0..10)
        .map(|_| {
            let mut client = Client::connect(upstream.listen);
            let head = "POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: 100000\r\n\r\n";
            client.send(format!("{head}{body}"));
            client
        })
        .collect();
    for mut client in several {
        assert_eq!(client.response("POST").text(), body);
    }
    // The answer is whole before the request is.
    let mut early = Client::connect(upstream.listen);
    early.send("POST /early HTTP/1.1\r\nHost: web.test\r\nContent-Length: 9\r\n\r\nfour");
    assert_eq!(early.response("POST").status, 200);
    assert_eq!(Client::connect(upstream.listen).get("/").status, 200);
}

fn python_refuses_and_is_asked_again(backend: Backend) {
    let upstream = python(backend, "retry: { attempts: 2, base: 1ms }");
    // REFUSED_STREAM, or GOAWAY below it: nothing was processed, so a POST is sent again.
    for path in ["/refused/get", "/goaway/get"] {
        let answer = Client::connect(upstream.listen).get(path);
        assert_eq!(
            (answer.status, answer.text()),
            (200, "ok".to_owned()),
            "{path}"
        );
    }
    for path in ["/refused/post", "/goaway/post"] {
        let mut client = Client::connect(upstream.listen);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: web.test\r\nContent-Length: 4\r\n\r\nbody"
        ));
        let answer = client.response("POST");
        assert_eq!(
            (answer.status, answer.text()),
            (200, "ok".to_owned()),
            "{path}"
        );
    }
    assert!(
        upstream
            .proxy
            .metric("ambassador_retries_total", &[("upstream", "web")])
            >= 4.0
    );
}
