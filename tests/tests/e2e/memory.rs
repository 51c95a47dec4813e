//! What the proxy may hold is limited, and the worst go first.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::{Launch, one_upstream};
use ambassador_tests::{
    Backend, Call, Caller, Cgroup, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, on_http1, os, ports,
};

matrix!(heads_that_do_not_end_give_way,);

on_http1!(
    who_gives_way_amid_a_head_is_told_so,
    uploads_that_stall_give_way,
    responses_that_nobody_reads_give_way,
    heads_of_responses_that_do_not_end_give_way,
    many_small_heads_give_way,
);

on_both_backends!(
    the_peer_that_holds_the_most_gives_way,
    the_limit_is_that_of_the_cgroup,
    a_reload_changes_the_limit,
    nobody_more_is_let_in_where_nobody_can_go,
);

const MIB: u64 = 1 << 20;

/// What is held at most in the tests that attack.
const LIMIT: u64 = 24 * MIB;

/// How much more there may be for a moment: what arrives in one turn on each
/// shard, what requests take besides their bytes, tables that grow, and what the
/// allocator has not given back yet. Builds without optimization take the most.
const SLACK: u64 = 8 * MIB;

const PATIENCE: Duration = Duration::from_secs(10);

/// Held by a test that opens thousands of connections: the process that runs the
/// tests has descriptors for one of them at a time.
static THOUSANDS: Mutex<()> = Mutex::new(());

/// Attackers, each of whom can have 64 KiB and more held.
const MANY: usize = 600;

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn config(limit: &str, listen: SocketAddr, server: &Server) -> String {
    let pool = "pool: { max_connections: 2000, max_pending: 2000 }\n\
                timeouts: { request: 60s, head: 60s }";
    let upstream = one_upstream(listen, server.address(), pool);
    format!("memory_limit: {limit}\ndefaults: {{ timeouts: {{ head: 60s }} }}\n{upstream}")
}

fn start(column: impl Into<Column>, limit: &str, server: &Server) -> (Proxy, SocketAddr) {
    os::raise_open_files().expect("a soft limit can be raised");
    let listen = listen();
    (Proxy::start(column, &config(limit, listen, server)), listen)
}

fn shed(proxy: &Proxy) -> f64 {
    let memory = [("cause", "memory")];
    proxy.metric("ambassador_shed_connections_total", &memory)
}

fn memory(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("ambassador_memory_bytes", &[("kind", kind)])
}

/// Runs `attack`, which gives what it holds, while somebody else asks over one
/// connection, and over new ones; then looks at what it came to.
fn bear<T>(
    column: impl Into<Column>,
    proxy: &Proxy,
    listen: SocketAddr,
    attack: impl FnOnce() -> Vec<T>,
) {
    let column = column.into();
    let is_over = AtomicBool::new(false);
    let attackers = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut kept = column.connect(listen);
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(kept.get("/live").status, 200);
                assert_eq!(column.connect(listen).get("/live").status, 200);
            }
        });
        let attackers = attack();
        eventually("the worst are shed", PATIENCE, || shed(proxy) > 0.0);
        is_over.store(true, Ordering::Relaxed);
        asking.join().expect("everybody who asks is served");
        attackers
    });
    let peak = proxy.peak_bytes();
    assert!(peak < LIMIT + SLACK, "{} KiB", peak / 1024);
    assert!(memory(proxy, "held") < (LIMIT + SLACK) as f64);
    assert_eq!(memory(proxy, "limit"), LIMIT as f64);
    let log = proxy.log();
    assert!(log.contains("memory_limit is reached"), "{log}");
    assert_eq!(column.connect(listen).get("/live").status, 200);
    drop(attackers);
}

/// The beginning of a head, of 60 KiB.
fn begun_head() -> Vec<u8> {
    let field = format!("x-filler: {}\r\n", "a".repeat(1010));
    let mut head = b"GET / HTTP/1.1\r\nHost: web.test\r\n".to_vec();
    head.extend(field.repeat(60).bytes());
    head
}

/// So many connections, on each of which `bytes` were sent, as far as they were
/// taken.
fn send_on_many(count: usize, listen: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let attackers = (0..count).map(|_| {
        let mut client = Client::connect(listen);
        // It may have been shed.
        let _ = client.try_send(bytes);
        client.stream().try_clone().expect("descriptors are left")
    });
    attackers.collect()
}

/// So many callers, each of whom does this as far as it is taken: it may have been shed.
fn callers(column: Column, listen: SocketAddr, act: impl Fn(&mut Caller)) -> Vec<Caller> {
    let callers = (0..MANY).map(|_| {
        let mut caller = column.connect(listen);
        act(&mut caller);
        caller
    });
    callers.collect()
}

fn heads_that_do_not_end_give_way(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(column, "24MiB", &server);
    let filler = "a".repeat(1010);
    let large = (0..60).fold(Call::get("/"), |call, _| call.field("x-filler", &filler));
    bear(column, &proxy, listen, || {
        callers(column, listen, |caller| {
            let head = caller.begin(&large);
            let _ = caller.put(&head[..head.len() - 2]);
        })
    });
}

fn who_gives_way_amid_a_head_is_told_so(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, "24MiB", &server);
    let _attackers = send_on_many(MANY, listen, &begun_head());
    let overloaded = [("reason", "overloaded"), ("status", "503")];
    eventually("those who were shed are counted", PATIENCE, || {
        let told = proxy.metric("ambassador_requests_total", &overloaded);
        told > 0.0 && told == shed(&proxy)
    });
}

fn uploads_that_stall_give_way(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, "24MiB", &server);
    let mut upload = b"POST / HTTP/1.1\r\nHost: web.test\r\nIdempotency-Key: a\r\n\
                       Content-Length: 64000\r\n\r\n"
        .to_vec();
    upload.extend([b'x'; 63_000]);
    bear(backend, &proxy, listen, || {
        send_on_many(MANY, listen, &upload)
    });
    let overloaded = [("reason", "overloaded"), ("status", "503")];
    eventually("those who were shed are counted", PATIENCE, || {
        proxy.metric("ambassador_requests_total", &overloaded) == shed(&proxy)
    });
    let breaker = [("upstream", "web")];
    assert_eq!(proxy.metric("ambassador_breaker_state", &breaker), 0.0);
}

/// Sends without an end for `/`.
fn endless() -> Server {
    Server::start(|connection| {
        while let Some(request) = connection.head()? {
            if request.target == "/live" {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlive")?;
                continue;
            }
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n")?;
            loop {
                connection.write([b'x'; 16 * 1024])?;
            }
        }
        Ok(())
    })
}

fn responses_that_nobody_reads_give_way(backend: Backend) {
    let server = endless();
    let (proxy, listen) = start(backend, "24MiB", &server);
    bear(backend, &proxy, listen, || {
        let attackers = (0..MANY).map(|_| {
            let stream = os::connect_with_small_buffers(listen).expect("it listens");
            let mut client = Client::over(stream.try_clone().expect("descriptors are left"));
            let _ = client.try_send(get("/"));
            stream
        });
        attackers.collect()
    });
}

/// Begins a head for `/`, and never ends it.
fn unfinished() -> Server {
    Server::start(|connection| {
        while let Some(request) = connection.head()? {
            if request.target == "/live" {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlive")?;
                continue;
            }
            let field = format!("x-filler: {}\r\n", "a".repeat(1010));
            connection.write(format!("HTTP/1.1 200 OK\r\n{}", field.repeat(60)))?;
            return connection.read(&mut [0]).map(|_| ());
        }
        Ok(())
    })
}

fn heads_of_responses_that_do_not_end_give_way(backend: Backend) {
    let server = unfinished();
    let (proxy, listen) = start(backend, "24MiB", &server);
    let ask = get("/").into_bytes();
    bear(backend, &proxy, listen, || send_on_many(MANY, listen, &ask));
    let breaker = [("upstream", "web")];
    assert_eq!(proxy.metric("ambassador_breaker_state", &breaker), 0.0);
}

fn the_peer_that_holds_the_most_gives_way(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, "24MiB", &server);
    // As bad as the others by itself, but alone.
    let other = os::connect_from([127, 0, 0, 2].into(), listen).expect("loopback is a /8");
    let mut other = Client::over(other);
    other.send(begun_head());
    let head = begun_head();
    // Enough to reach the limit. Twice as many hold nothing at times, as they go faster
    // than the allocator gives back what they held: then the others are the worst.
    bear(backend, &proxy, listen, || {
        send_on_many(MANY / 2, listen, &head)
    });
    other.send("\r\n");
    let answer = other.response("GET");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn the_limit_is_that_of_the_cgroup(backend: Backend) {
    let _alone = THOUSANDS.lock().unwrap_or_else(PoisonError::into_inner);
    os::raise_open_files().expect("a soft limit can be raised");
    let server = Server::ok();
    let cgroup = Cgroup::with_memory(64 * MIB);
    let listen = listen();
    let config = config("auto", listen, &server);
    let wrapper = cgroup.wrapper();
    let launch = Launch {
        wrapper,
        ..Launch::default()
    };
    let mut proxy = Proxy::launch(backend, &config, launch);
    assert_eq!(memory(&proxy, "limit"), (64 * MIB * 4 / 5) as f64);
    let config: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/config")).expect("it is JSON");
    assert_eq!(config["memory_limit"], "auto");
    // More than the kernel lets it have, several times.
    let head = begun_head();
    let _attackers = send_on_many(4 * MANY, listen, &head);
    eventually("the worst are shed", PATIENCE, || {
        assert!(proxy.is_running(), "the kernel has ended it");
        shed(&proxy) > 0.0
    });
    assert_eq!(Client::connect(listen).get("/").status, 200);
}

fn a_reload_changes_the_limit(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, "none", &server);
    let limits = proxy.metrics();
    assert_eq!(
        limits.sum("ambassador_memory_bytes", &[("kind", "limit")]),
        0.0
    );
    let head = begun_head();
    let _attackers = send_on_many(MANY, listen, &head);
    assert_eq!(shed(&proxy), 0.0);
    proxy.rewrite_config(&config("24MiB", listen, &server));
    eventually("the worst are shed", PATIENCE, || {
        shed(&proxy) > 0.0 && memory(&proxy, "held") < LIMIT as f64
    });
    assert_eq!(memory(&proxy, "limit"), LIMIT as f64);
    proxy.rewrite_config(&config("4MiB", listen, &server));
    let failures = "ambassador_config_reload_failures_total";
    proxy.expect_metric(failures, &[], 1.0);
    let log = proxy.log();
    assert!(log.contains("is too little to start with"), "{log}");
    assert_eq!(memory(&proxy, "limit"), LIMIT as f64);
}

fn turned_away(proxy: &Proxy) -> f64 {
    let cause = [("cause", "memory")];
    proxy.metric("ambassador_dropped_accepts_total", &cause)
}

fn many_small_heads_give_way(backend: Backend) {
    let _alone = THOUSANDS.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::ok();
    let (proxy, listen) = start(backend, "19MiB\nworkers: 1", &server);
    let head = &begun_head()[..1_500];
    let mut attackers = Vec::new();
    while shed(&proxy) == 0.0 {
        assert!(attackers.len() < 15_000, "{}", memory(&proxy, "held"));
        attackers.extend(send_on_many(100, listen, head));
    }
    eventually("there is room for others", PATIENCE, || is_served(listen));
    drop(attackers);
}

/// Whether somebody new finds room.
fn is_served(listen: SocketAddr) -> bool {
    let mut client = Client::connect(listen);
    client.try_send(get("/")).is_ok() && client.try_response("GET").is_some()
}

/// Connections that hold nothing but themselves.
fn nobody_more_is_let_in_where_nobody_can_go(backend: Backend) {
    let _alone = THOUSANDS.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::ok();
    let (proxy, listen) = start(backend, "19MiB\nworkers: 1", &server);
    let mut first = Client::connect(listen);
    assert_eq!(first.get("/").status, 200);
    let mut idle = Vec::new();
    while turned_away(&proxy) == 0.0 {
        assert!(idle.len() < 15_000, "{} bytes", memory(&proxy, "held"));
        idle.extend((0..100).map(|_| Client::connect(listen)));
    }
    let log = proxy.log();
    assert!(
        log.contains("connections are reset: memory_limit is reached"),
        "{log}"
    );
    // Who was here before is served, and others when they have left.
    assert_eq!(first.get("/").status, 200);
    drop(idle);
    eventually("there is room again", PATIENCE, || is_served(listen));
}
