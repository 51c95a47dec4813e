//! The circuit breaker, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::{
    Answer, Backend, Call, Caller, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, ports,
};

matrix!(
    it_opens_at_the_threshold_and_closes_by_a_probe,
    it_opens_for_connections_that_fail,
    consecutive_failures_are_counted_as_such,
    one_probe_among_many_callers,
    a_probe_whose_client_goes_does_not_wedge_it,
    the_last_answer_is_returned_when_it_opens_between_tries,
    a_caller_that_withholds_its_body_opens_nothing,
);

on_both_backends!(
    an_operator_sets_it,
    opaque_connections_are_reset_while_it_is_open,
    adopted_upstreams_have_one_each,
    a_client_that_is_slow_to_ask_is_no_probe_and_no_success,
);

const SOON: Duration = Duration::from_secs(10);

/// A server that fails while it is told to, and counts.
struct Flaky {
    server: Server,
    failing: Arc<AtomicBool>,
}

impl Flaky {
    fn failing(column: impl Into<Column>) -> Self {
        let failing = Arc::new(AtomicBool::new(true));
        let fails = Arc::clone(&failing);
        let column = column.into();
        let server = column.server(move |_| match fails.load(Ordering::SeqCst) {
            true => Answer::status(500).body("broken"),
            false => Answer::ok("ok"),
        });
        Self { server, failing }
    }

    fn recovers(&self) {
        self.failing.store(false, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.server.requests().len()
    }
}

fn state(proxy: &Proxy) -> f64 {
    proxy.metric("ambassador_breaker_state", &[("upstream", "web")])
}

fn start(column: Column, server: &Server, breaker: &str) -> (Proxy, SocketAddr) {
    let more = format!("circuit_breaker: {{ {breaker} }}");
    Proxy::in_front_of_with(column, server.address(), &more)
}

fn it_opens_at_the_threshold_and_closes_by_a_probe(column: Column) {
    let flaky = Flaky::failing(column);
    let (proxy, listen) = start(column, &flaky.server, "failures: 5, sleep: 500ms");
    let mut client = column.connect(listen);
    for _ in 0..5 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.reason()), (500, ""));
    }
    let opened = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (503, "circuit-open"));
    assert_eq!((flaky.requests(), state(&proxy)), (5, 2.0));

    // The first probe fails: it stays open for as long again.
    eventually("a probe was let through", SOON, || {
        client.get("/").reason().is_empty()
    });
    assert!(opened.elapsed() >= Duration::from_millis(450));
    assert_eq!(flaky.requests(), 6);
    assert_eq!(client.get("/").reason(), "circuit-open");
    flaky.recovers();
    eventually("a probe succeeds", SOON, || client.get("/").status == 200);
    assert_eq!((flaky.requests(), state(&proxy)), (7, 0.0));
    assert_eq!(client.get("/").status, 200);
    for (to, count) in [("open", 2.0), ("half-open", 2.0), ("closed", 1.0)] {
        let labels = [("upstream", "web"), ("to", to)];
        proxy.expect_metric("ambassador_breaker_transitions_total", &labels, count);
    }
}

fn it_opens_for_connections_that_fail(column: Column) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = "retry: { attempts: 1 }\ncircuit_breaker: { failures: 3 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, nobody, more);
    let mut client = column.connect(listen);
    for _ in 0..3 {
        assert_eq!(client.get("/").reason(), "connect-failed");
    }
    assert_eq!(client.get("/").reason(), "circuit-open");
}

fn consecutive_failures_are_counted_as_such(column: Column) {
    let turn = AtomicUsize::new(0);
    // Two of three fail, then all.
    let server = column.server(move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        match turn % 3 == 2 && turn < 30 {
            true => Answer::ok("ok"),
            false => Answer::status(502),
        }
    });
    let (_proxy, listen) = start(column, &server, "consecutive: 3");
    let mut client = column.connect(listen);
    for _ in 0..30 {
        assert_eq!(client.get("/").reason(), "");
    }
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 502);
    }
    assert_eq!(client.get("/").reason(), "circuit-open");
}

fn one_probe_among_many_callers(column: Column) {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let asked = AtomicUsize::new(0);
    // Fails; a probe is held until all other callers have their answers.
    let server = column.server(move |_| {
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            let _ = held.lock().expect("no panic").recv();
        }
        Answer::status(500)
    });
    let (proxy, listen) = start(column, &server, "failures: 1, sleep: 1s");
    // All shards have callers.
    ambassador_tests::os::raise_open_files().expect("a soft limit can be raised");
    let mut clients: Vec<Caller> = (0..2_000).map(|_| column.connect(listen)).collect();
    assert_eq!(clients[0].get("/").status, 500);
    for round in 1..=3 {
        let mut probes = 0;
        eventually("there was a probe", SOON, || {
            for client in &mut clients {
                client.send(&Call::get("/"));
            }
            let mut waiting: Vec<&mut Caller> = clients.iter_mut().collect();
            eventually("all but a probe are answered", SOON, || {
                waiting.retain_mut(|client| !client.is_answered());
                waiting.len() == server.requests().len() - round
            });
            if waiting.len() == 1 {
                release.send(()).expect("the server runs");
            }
            let answers = clients.iter_mut().map(Caller::answer);
            probes += answers.filter(|answer| answer.reason().is_empty()).count();
            probes > 0
        });
        assert_eq!((probes, server.requests().len()), (1, 1 + round));
    }
    assert!(state(&proxy) > 0.0);
}

fn a_probe_whose_client_goes_does_not_wedge_it(column: Column) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // Fails once, is silent once, then well.
    let server = column.script(move |exchange| {
        exchange.request()?;
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => exchange.send(&Answer::status(500)),
            1 => Ok(()),
            _ => exchange.send(&Answer::ok("ok")),
        }
    });
    let (proxy, listen) = start(column, &server, "failures: 1, sleep: 4s");
    let mut client = column.connect(listen);
    assert_eq!(client.get("/").status, 500);
    let probes = || asked.load(Ordering::SeqCst) == 2;
    let probe = loop {
        let mut candidate = column.connect(listen);
        candidate.send(&Call::get("/"));
        eventually("it is answered, or the probe", SOON, || {
            probes() || candidate.is_answered()
        });
        if probes() {
            break candidate;
        }
    };
    assert_eq!(client.get("/").reason(), "circuit-open");
    probe.leave();
    // Sooner than after another sleep.
    eventually("the next is the probe", Duration::from_secs(3), || {
        client.get("/").status == 200
    });
    assert_eq!(state(&proxy), 0.0);
}

fn the_last_answer_is_returned_when_it_opens_between_tries(column: Column) {
    let server = column.server(|_| Answer::status(503).body("my own words"));
    let more = "retry: { attempts: 5, base: 1ms }\ncircuit_breaker: { failures: 2 }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut client = column.connect(listen);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (503, ""));
    assert_eq!(answer.text(), "my own words");
    assert_eq!(server.requests().len(), 2);
    let labels = [("status", "503"), ("reason", "circuit-open")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
    assert_eq!(client.get("/").reason(), "circuit-open");
}

fn an_operator_sets_it(backend: Backend) {
    let server = Server::ok();
    let scratch = ambassador_tests::proxy::Scratch::new();
    let token = scratch.file("token", "s3cret");
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "admin: {{ listen: \"{admin}\", token_file: {} }}\n{}",
        token.display(),
        ambassador_tests::proxy::one_upstream(listen, server.address(), "")
    );
    let file = scratch.file("breaker.yaml", &config);
    let mut command = ambassador_tests::proxy::ambassador(backend);
    let _running =
        ambassador_tests::program::Running::start(command.args(["run", "--config"]).arg(file));
    eventually("it serves", SOON, || {
        Client::try_connect(listen).is_some_and(|mut client| client.get("/").status == 200)
    });
    let post = |word: &str, with: &str| {
        let mut client = Client::connect(admin);
        client.send(format!(
            "POST /upstreams/web/breaker/{word} HTTP/1.1\r\nHost: localhost\r\n{with}\
             Content-Length: 0\r\n\r\n"
        ));
        client.response("POST").status
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(post("open", ""), 401);
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(post("open", token), 200);
    assert_eq!(client.get("/").reason(), "circuit-open");
    assert_eq!(post("auto", token), 200);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(post("shut", token), 404);
}

fn opaque_connections_are_reset_while_it_is_open(backend: Backend) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners:\n  - {{ name: db, bind: \"{listen}\", protocol: tcp, upstream: web }}\n\
         upstreams:\n  web:\n    endpoints: [\"{nobody}\"]\n    protocol: tcp\n    \
         circuit_breaker: {{ failures: 2 }}\n"
    );
    let proxy = Proxy::start(backend, &config);
    for _ in 0..4 {
        assert!(Client::connect(listen).rest().is_err(), "it is reset");
    }
    for (outcome, count) in [("connect-failed", 2.0), ("circuit-open", 2.0)] {
        let labels = [("upstream", "web"), ("outcome", outcome)];
        eventually("they are counted", SOON, || {
            proxy.metric("ambassador_tcp_connections_total", &labels) == count
        });
    }
}

fn adopted_upstreams_have_one_each(backend: Backend) {
    let (flaky, well) = (Flaky::failing(backend), Server::ok());
    let cgroup = ambassador_tests::Cgroup::new();
    let config = "capture: { include: { cidrs: [127.0.0.0/8] }, unmatched: adopt }\n";
    let proxy = Proxy::capturing(backend, &cgroup, config);
    let get = |address: SocketAddr| {
        let mut curl = cgroup.command("curl");
        let status = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %header{x-ambassador-reason}",
        ];
        let url = format!("http://{address}/");
        ambassador_tests::program::succeed(curl.args(status).arg(url))
    };
    for _ in 0..5 {
        assert_eq!(get(flaky.server.address()), "500 ");
    }
    assert_eq!(get(flaky.server.address()), "503 circuit-open");
    assert_eq!(get(well.address()), "200 ");
    for (server, state) in [(flaky.server.address(), "open"), (well.address(), "closed")] {
        let shown = proxy.upstream(&server.to_string());
        assert_eq!(shown["circuit_breaker"]["state"], state, "{shown}");
    }
}

/// The proxy dials ahead for a captured client that says nothing, as its server
/// may speak first. That it can be dialled makes no upstream well.
fn a_client_that_is_slow_to_ask_is_no_probe_and_no_success(backend: Backend) {
    let flaky = Flaky::failing(backend);
    let cgroup = ambassador_tests::Cgroup::new();
    let config = format!(
        "capture: {{ include: {{ cidrs: [10.1.2.3/32] }} }}\n\
         upstreams:\n  web:\n    hosts: [10.1.2.3]\n    endpoints: [\"{}\"]\n    \
         circuit_breaker: {{ consecutive: 3, sleep: 3s }}\n",
        flaky.server.address()
    );
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    // Connects, waits, asks; prints the status and the reason.
    let slow = "import socket, time\n\
        s = socket.create_connection(('10.1.2.3', 80), 10)\n\
        time.sleep(0.03)\n\
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n\
        answer = b''.join(iter(lambda: s.recv(4096), b'')).decode()\n\
        reason = [l for l in answer.split('\\r\\n') if l.startswith('x-ambassador-reason')]\n\
        print(answer.split()[1], *reason)\n";
    let ask = || {
        let mut python = cgroup.command(ambassador_tests::program::PYTHON);
        let said = ambassador_tests::program::succeed(python.args(["-c", slow]));
        said.trim().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(ask(), "500");
    }
    assert_eq!(ask(), "503 x-ambassador-reason: circuit-open");
    eventually("a probe was sent", SOON, || ask() == "500");
    assert_eq!((flaky.requests(), state(&proxy)), (4, 2.0));
    flaky.recovers();
    eventually("a probe closes it", SOON, || ask() == "200");
    assert_eq!(state(&proxy), 0.0);
}

/// A server gives such a request up some time, by its end or by an error.
fn a_caller_that_withholds_its_body_opens_nothing(column: Column) {
    let server = column.script(|exchange| {
        if exchange.head().method == "GET" {
            return exchange.send(&Answer::ok("ok"));
        }
        assert_eq!(exchange.some()?, b"some");
        std::thread::sleep(Duration::from_millis(1_500));
        match exchange.head().target == "/ends" {
            true => Err(std::io::ErrorKind::TimedOut.into()),
            false => exchange.send(&Answer::status(500).body("no body")),
        }
    });
    let more = "circuit_breaker: { failures: 2, sleep: 1h }\nretry: { attempts: 1 }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let paths = ["/ends", "/ends", "/answers", "/answers"];
    let callers = paths.map(|path| {
        let mut client = column.connect(listen);
        client.send(&Call::new("POST", path).announces(9));
        client.piece("some");
        client
    });
    let statuses = callers.map(|mut client| client.answer().status);
    assert_eq!(statuses, [502, 502, 500, 500]);
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert_eq!(state(&proxy), 0.0);
}
