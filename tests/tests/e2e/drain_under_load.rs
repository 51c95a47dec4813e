//! Nobody who has connected is reset by an end, or by a listener that goes.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, eventually, on_both_backends, on_http1, ports, program,
};

use crate::capture_scope::{inside, witness, world};

on_http1!(
    a_first_request_is_answered_after_the_drain_began,
    a_request_that_crosses_the_drain_is_answered,
);

on_both_backends!(
    who_connects_during_the_end_is_served_or_refused,
    who_is_captured_during_the_end_is_served_or_connects_straight,
    who_connects_to_a_listener_that_goes_is_served_or_refused,
);

const SOON: Duration = Duration::from_secs(10);

/// What a moment may hit differs: one round can go well by chance.
const ROUNDS: usize = 4;

/// Clients that connect all the time.
struct Storm(Child);

impl Storm {
    fn start(mut command: Command, host: &str, port: u16) -> Storm {
        command
            .args(["-c", include_str!("storm.py"), host, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Storm(command.spawn().expect("python runs"))
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

fn who_connects_during_the_end_is_served_or_refused(backend: Backend) {
    let server = Server::ok();
    for _ in 0..ROUNDS {
        let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
        let storm = Storm::start(Command::new(program::PYTHON), "127.0.0.1", listen.port());
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
        let storm = Storm::start(command, "10.1.2.3", 80);
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

fn who_connects_to_a_listener_that_goes_is_served_or_refused(backend: Backend) {
    let server = Server::ok();
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let with_listener = one_upstream(listen, server.address(), "");
    let without = with_listener
        .lines()
        .filter(|line| !line.contains("listeners:") && !line.contains("name: egress"))
        .collect::<Vec<_>>()
        .join("\n");
    let proxy = Proxy::start(backend, &with_listener);
    for _ in 0..ROUNDS {
        eventually("it listens", SOON, || {
            Client::try_connect(listen).is_some_and(|mut client| client.get("/").status == 200)
        });
        let storm = Storm::start(Command::new(program::PYTHON), "127.0.0.1", listen.port());
        let before = server.requests().len();
        eventually("it blows", SOON, || server.requests().len() > before + 200);
        proxy.rewrite_config(&without);
        eventually("it has gone", SOON, || {
            Client::try_connect(listen).is_none()
        });
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

fn a_first_request_is_answered_after_the_drain_began(backend: Backend) {
    let server = Server::ok();
    let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    drains(&proxy);
    client.send(get("/"));
    let answer = client.response("GET");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_ended());
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

/// It is sent in the moment in which the drain begins: the signal is still on
/// its way.
fn a_request_that_crosses_the_drain_is_answered(backend: Backend) {
    let server = Server::ok();
    for _ in 0..ROUNDS {
        let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(listen)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        proxy.signal(libc::SIGTERM);
        // All at once: each answer takes a busy machine its time.
        for client in &mut clients {
            client.send(get("/"));
        }
        for client in &mut clients {
            assert_eq!(client.response("GET").status, 200);
        }
        assert_eq!(proxy.wait(SOON).code(), Some(0));
    }
}
