//! Nobody who has connected is reset by an end, or by a listener that goes.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Backend, Call, Caller, Cgroup, Column, Protocol, Proxy, eventually, matrix, on_both_backends,
    ports, program,
};

use crate::capture_scope::{inside, witness, world};

matrix!(
    a_first_request_is_answered_after_the_drain_began,
    a_request_that_crosses_the_drain_is_answered,
    who_connects_during_the_end_is_served_or_refused,
    who_connects_to_a_listener_that_goes_is_served_or_refused,
);

on_both_backends!(who_is_captured_during_the_end_is_served_or_connects_straight);

const SOON: Duration = Duration::from_secs(10);

/// What a moment may hit differs: one round can go well by chance.
const ROUNDS: usize = 4;

/// Clients that connect all the time.
struct Storm(Child);

impl Storm {
    fn start(mut command: Command, host: &str, port: u16, protocol: Protocol) -> Storm {
        command
            .args(["-c", include_str!("storm.py"), host, &port.to_string()])
            .arg(protocol.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Storm(command.spawn().expect("python runs"))
    }

    fn at(listen: SocketAddr, column: Column) -> Storm {
        let host = listen.ip().to_string();
        let python = Command::new(program::PYTHON);
        Storm::start(python, &host, listen.port(), column.client)
    }

    /// How many answers came whole, and how the others ended.
    fn end(mut self) -> (usize, String) {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut said).expect("it is text");
        assert!(program::wait(&mut self.0, SOON).success());
        let (whole, others) = said.trim().split_once(' ').expect("two words");
        (whole.parse().expect("a number"), others.to_owned())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn who_connects_during_the_end_is_served_or_refused(column: Column) {
    let server = column.ok();
    for _ in 0..ROUNDS {
        let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
        let storm = Storm::at(listen, column);
        let before = server.requests().len();
        eventually("it blows", SOON, || server.requests().len() > before + 200);
        proxy.signal(libc::SIGTERM);
        assert_eq!(proxy.wait(SOON).code(), Some(0));
        let (whole, others) = storm.end();
        assert_eq!(others, "{}", "besides {whole} that were served");
    }
}

fn who_is_captured_during_the_end_is_served_or_connects_straight(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = witness(&namespace);
    for _ in 0..ROUNDS {
        let cgroup = Cgroup::new();
        let mut proxy = inside(backend, &namespace, &cgroup, "drain_timeout: 5s\n");
        let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
        let mut command = cgroup.command(nsenter);
        command.args([entered, python]);
        let before = server.requests().len();
        let storm = Storm::start(command, "10.1.2.3", 80, Protocol::Http1);
        eventually("it blows", SOON, || server.requests().len() > before + 200);
        proxy.signal(libc::SIGTERM);
        assert_eq!(proxy.wait(SOON).code(), Some(0));
        let ended = server.requests().len();
        eventually("it connects straight", SOON, || {
            server.requests().len() > ended + 10
        });
        let (whole, others) = storm.end();
        assert_eq!(others, "{}", "besides {whole} that were served");
    }
}

fn who_connects_to_a_listener_that_goes_is_served_or_refused(column: Column) {
    let server = column.ok();
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let with_listener = one_upstream(listen, server.address(), "");
    let without = with_listener
        .lines()
        .filter(|line| !line.contains("listeners:") && !line.contains("name: egress"))
        .collect::<Vec<_>>()
        .join("\n");
    let proxy = Proxy::start(column, &with_listener);
    for _ in 0..ROUNDS {
        eventually("it listens", SOON, || {
            let client = column.try_connect(listen);
            client.is_some_and(|mut client| client.get("/").status == 200)
        });
        let storm = Storm::at(listen, column);
        let before = server.requests().len();
        eventually("it blows", SOON, || server.requests().len() > before + 200);
        proxy.rewrite_config(&without);
        eventually("it has gone", SOON, || column.try_connect(listen).is_none());
        let (whole, others) = storm.end();
        assert_eq!(others, "{}", "besides {whole} that were served");
        proxy.rewrite_config(&with_listener);
    }
}

fn drains(proxy: &Proxy) {
    proxy.signal(libc::SIGTERM);
    eventually("it drains", SOON, || {
        proxy.admin_status("/readyz") != Some(200)
    });
}

fn a_first_request_is_answered_after_the_drain_began(column: Column) {
    let server = column.ok();
    let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    drains(&proxy);
    let answer = client.get("/");
    assert_eq!(answer.status, 200);
    assert!(client.is_told_of_end(&answer));
    assert!(client.is_ended());
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

/// It is sent in the moment in which the drain begins: the signal is still on
/// its way.
fn a_request_that_crosses_the_drain_is_answered(column: Column) {
    let server = column.ok();
    for _ in 0..ROUNDS {
        let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
        let mut clients: Vec<Caller> = (0..20).map(|_| column.connect(listen)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        let call = Call::get("/");
        proxy.signal(libc::SIGTERM);
        // All at once: each answer takes a busy machine its time.
        for client in &mut clients {
            client.send(&call);
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        assert_eq!(proxy.wait(SOON).code(), Some(0));
    }
}
