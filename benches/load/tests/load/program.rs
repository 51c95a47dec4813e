//! The program under test, and servers that do what a test says.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use hdrhistogram::Histogram;
use serde_json::Value;

/// `ambassador-load` with `arguments`.
pub fn load(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador-load"));
    command.args(arguments);
    command
}

/// Runs a load against `to`, with the arguments of `line`; it has to end well.
#[track_caller]
pub fn run(to: SocketAddr, line: &str) -> Value {
    let output = try_run(to, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Runs a load against `to`, with the arguments of `line`.
pub fn try_run(to: SocketAddr, line: &str) -> Output {
    load(&["run", "--to", &to.to_string()])
        .args(line.split_whitespace())
        .output()
        .expect("the program was built")
}

/// The histogram of a distribution in a report.
#[track_caller]
pub fn histogram(latency: &Value) -> Histogram<u64> {
    let encoded = latency["hdr_v2_ns"].as_str().expect("a histogram");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .expect("base64");
    hdrhistogram::serialization::Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .expect("an encoded histogram")
}

/// `ambassador-load serve`; killed when dropped.
pub struct Upstream {
    pub child: Child,
    pub address: SocketAddr,
}

impl Upstream {
    pub fn http() -> Self {
        Self::start(&[])
    }

    pub fn tcp() -> Self {
        Self::start(&["--tcp"])
    }

    fn start(arguments: &[&str]) -> Self {
        let mut child = load(&["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("it says a line");
        let address = line.trim_end().strip_prefix("ready ").expect("it is ready");
        Self {
            address: address.parse().expect("an address"),
            child,
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that does `serve` with each connection, on a thread each, for as
/// long as the test process lives.
pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.expect("a client")));
        }
    });
    address
}

/// Waits for a whole request; false when the client has closed.
pub fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(received) => request.extend_from_slice(&buffer[..received]),
        }
    }
    true
}
