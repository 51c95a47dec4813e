//! gRPC between a client and a server of grpcio, with the proxy between them, and nginx
//! on either side of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::{Backend, Proxy, eventually, nginx, on_both_backends};
use serde_json::{Value, json};

use crate::tls_upstream::free;

on_both_backends!(
    calls_of_all_four_kinds_pass,
    metadata_and_trailers_pass,
    large_messages_pass,
    many_calls_at_a_time_pass,
    the_status_of_a_failure_passes,
    a_call_given_up_ends_at_the_server,
    nginx_passes_calls_on_to_the_proxy,
    the_proxy_passes_calls_on_to_nginx,
);

const PYTHON: &str = "grpcio==1.85.3 typing_extensions==4.16.0";
const NODE: &str = "@grpc/grpc-js@1.14.7 @js-sdsl/ordered-map@4.4.2";
const SOON: Duration = Duration::from_secs(10);

/// What a client or a server is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Library {
    /// grpcio.
    Python,
    /// @grpc/grpc-js.
    Node,
}

impl Library {
    fn server(self, notes: &Path) -> Command {
        let mut script = match self {
            Library::Python => program::script(PYTHON, "grpc_server.py"),
            Library::Node => program::node_script(NODE, "grpc_js.js"),
        };
        if matches!(self, Library::Node) {
            script.arg("serve");
        }
        script.arg(notes);
        script
    }

    /// What its client says of a call.
    #[track_caller]
    pub(crate) fn call(self, address: SocketAddr, words: &[&str]) -> Value {
        let mut script = match self {
            Library::Python => program::script(PYTHON, "grpc_client.py"),
            Library::Node => program::node_script(NODE, "grpc_js.js"),
        };
        if matches!(self, Library::Node) {
            script.arg("call");
        }
        let said = program::succeed(script.arg(address.to_string()).args(words));
        serde_json::from_str(&said).expect("it writes JSON")
    }
}

/// A server, and what it has noted.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    scratch: Scratch,
    _running: Running,
}

impl Peer {
    #[track_caller]
    pub(crate) fn start() -> Peer {
        Peer::start_with(Library::Python)
    }

    #[track_caller]
    pub(crate) fn start_with(library: Library) -> Peer {
        let scratch = Scratch::new();
        let mut script = library.server(&scratch.path().join("calls"));
        let script = script.stdin(Stdio::null());
        let mut running = Running::start(script.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut lines = BufReader::new(running.stdout()).lines();
        let port = lines.next().expect("a port").expect("readable");
        let port: u16 = port.parse().expect("a number");
        Peer {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            scratch,
            _running: running,
        }
    }

    /// Each call that it was made.
    pub(crate) fn calls(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.scratch.path().join("calls")).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["call"] == name).collect()
    }

    /// How often it has begun one.
    pub(crate) fn count(&self, name: &str) -> usize {
        let calls = self.calls(name);
        calls.iter().filter(|call| call["ended"].is_null()).count()
    }

    /// Waits until it has ended one.
    #[track_caller]
    pub(crate) fn expect_end(&self, name: &str) {
        eventually("the call ends at the server", SOON, || {
            self.calls(name).iter().any(|call| call["ended"] == true)
        });
    }
}

/// What a client of grpcio says of a call.
#[track_caller]
pub(crate) fn call(address: SocketAddr, words: &[&str]) -> Value {
    Library::Python.call(address, words)
}

/// A proxy in front of a server.
pub(crate) struct World {
    pub(crate) listen: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) peer: Peer,
}

impl World {
    #[track_caller]
    pub(crate) fn start(backend: Backend) -> World {
        World::start_with(backend, "")
    }

    /// The same, whose upstream has more settings.
    #[track_caller]
    pub(crate) fn start_with(backend: Backend, more: &str) -> World {
        World::before(Peer::start(), backend, more)
    }

    /// The same before this server.
    #[track_caller]
    pub(crate) fn before(peer: Peer, backend: Backend, more: &str) -> World {
        let listen = free();
        let more = format!("protocol: grpc\n{more}");
        World {
            proxy: Proxy::start(backend, &one_upstream(listen, peer.address, &more)),
            listen,
            peer,
        }
    }

    #[track_caller]
    pub(crate) fn call(&self, words: &[&str]) -> Value {
        call(self.listen, words)
    }

    /// So many calls have ended with this code, as the proxy counts.
    #[track_caller]
    pub(crate) fn expect_counted(&self, code: &str, count: f64) {
        let labels = [("upstream", "web"), ("grpc_status", code)];
        let proxy = &self.proxy;
        proxy.expect_metric("ambassador_requests_total", &labels, count);
    }
}

/// That such a call ended well, and with this.
#[track_caller]
pub(crate) fn assert_ok(said: &Value, key: &str, wanted: Value) {
    assert_eq!(
        (&said["code"], &said[key]),
        (&json!("OK"), &wanted),
        "{said}"
    );
}

fn calls_of_all_four_kinds_pass(backend: Backend) {
    let world = World::start(backend);
    assert_ok(&world.call(&["echo", "hello"]), "text", json!("hello"));
    assert_ok(
        &world.call(&["count", "4"]),
        "got",
        json!(["0", "1", "2", "3"]),
    );
    assert_ok(&world.call(&["count", "0"]), "got", json!([]));
    assert_ok(&world.call(&["total", "3000"]), "text", json!("3000000"));
    assert_ok(&world.call(&["total", "0"]), "text", json!("0"));
    // Each message waits for the answer to the one before.
    assert_ok(
        &world.call(&["both"]),
        "got",
        json!(["ONE", "TWO", "THREE"]),
    );
}

fn metadata_and_trailers_pass(backend: Backend) {
    let world = World::start(backend);
    let said = world.call(&["echo", "hello", "x-mine=1", "x-mine=2"]);
    assert_ok(&said, "initial", json!([["x-initial", "yes"]]));
    assert_ok(
        &said,
        "trailing",
        json!([["x-trailing", "yes"], ["x-trailing-bin", "0001"]]),
    );
    let calls = world.peer.calls("echo");
    let fields = &calls[0]["fields"];
    assert!(!fields["x-request-id"].is_null(), "{fields}");
    assert!(
        fields["user-agent"].to_string().contains("grpc-python"),
        "{fields}"
    );
}

fn large_messages_pass(backend: Backend) {
    let world = World::start(backend);
    for length in [0, 1, 16_384, 65_535, 1 << 20, 4 << 20, 12 << 20] {
        let said = world.call(&["big", &length.to_string()]);
        assert_ok(&said, "length", json!(length));
    }
}

fn many_calls_at_a_time_pass(backend: Backend) {
    let world = World::start(backend);
    assert_ok_many(&world.call(&["many", "300"]));
    assert_eq!(world.peer.count("echo"), 300);
}

#[track_caller]
fn assert_ok_many(said: &Value) {
    assert_eq!(said["right"], true, "{said}");
}

fn the_status_of_a_failure_passes(backend: Backend) {
    let world = World::start(backend);
    for code in [
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "INTERNAL",
        "RESOURCE_EXHAUSTED",
    ] {
        let said = world.call(&["fail", code]);
        // It is percent-encoded on its way.
        assert_eq!(said["code"], code, "{said}");
        assert_eq!(said["details"], "as asked: 100 %", "{said}");
    }
    assert_eq!(world.call(&["unknown"])["code"], "UNIMPLEMENTED");
    let late = world.call(&["late"]);
    assert_eq!(
        (&late["code"], &late["got"]),
        (&json!("DATA_LOSS"), &json!(["first"]))
    );
}

fn a_call_given_up_ends_at_the_server(backend: Backend) {
    let world = World::start(backend);
    assert_eq!(world.call(&["cancel"])["code"], "CANCELLED");
    world.peer.expect_end("endless");
}

fn nginx_passes_calls_on_to_the_proxy(backend: Backend) {
    let world = World::start(backend);
    let (scratch, address) = (Scratch::new(), free());
    let server = format!(
        "listen {address} http2; client_max_body_size 0; location / {{ grpc_pass grpc://{}; \
         grpc_set_header Host web.test; }}",
        world.listen
    );
    let _nginx = nginx::start(&scratch, address, &server);
    all_pass(Library::Python, address);
}

fn the_proxy_passes_calls_on_to_nginx(backend: Backend) {
    let (peer, scratch) = (Peer::start(), Scratch::new());
    let (address, listen) = (free(), free());
    let server = format!(
        "listen {address} http2; client_max_body_size 0; location / {{ grpc_pass grpc://{}; }}",
        peer.address
    );
    let _nginx = nginx::start(&scratch, address, &server);
    let _proxy = Proxy::start(backend, &one_upstream(listen, address, "protocol: grpc"));
    all_pass(Library::Python, listen);
}

/// Each kind of call, many of them at a time, and a failure.
#[track_caller]
pub(crate) fn all_pass(client: Library, address: SocketAddr) {
    let call = |words: &[&str]| client.call(address, words);
    assert_ok(&call(&["echo", "hello"]), "text", json!("hello"));
    assert_ok(&call(&["count", "2"]), "got", json!(["0", "1"]));
    assert_ok(&call(&["total", "1000"]), "text", json!("1000000"));
    assert_ok(&call(&["both"]), "got", json!(["ONE", "TWO", "THREE"]));
    assert_ok_many(&call(&["many", "50"]));
    assert_eq!(call(&["fail", "NOT_FOUND"])["code"], "NOT_FOUND");
}
