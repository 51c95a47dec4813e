//! Callers that leave: their upstream stops working for them, and their places
//! come free. A half-close is no leave.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Caller, Client, Column, Exchange, Proxy, Server, eventually, matrix,
    on_http1, os, ports,
};

matrix!(
    a_close_ends_the_wait_for_an_answer,
    a_close_ends_a_silent_stream,
    a_close_ends_the_wait_between_tries,
    a_close_ends_the_wait_for_a_turn,
    a_caller_that_closes_behind_its_answer_is_no_failure,
    a_close_ends_the_wait_for_a_place,
    a_reset_ends_an_upload_that_is_stuck,
);

on_http1!(
    a_half_close_gets_its_answer,
    a_client_that_reads_no_replies_is_given_up,
);

/// What a caller may cost after it has left. The proxy takes 60 ms at most; the
/// rest is for a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// Tells of each request that is given up.
fn watched(
    column: Column,
    begin: impl Fn(&mut Exchange<'_>) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Server, mpsc::Receiver<Instant>) {
    let (ended, told) = mpsc::channel();
    let server = column.script(move |exchange| {
        exchange.request()?;
        begin(exchange)?;
        exchange.until_left()?;
        let _ = ended.send(Instant::now());
        Ok(())
    });
    (server, told)
}

#[track_caller]
fn assert_soon(left: Instant, told: &mpsc::Receiver<Instant>) {
    let ended = told.recv_timeout(SOON).expect("the upstream is told");
    assert!(ended.saturating_duration_since(left) < SOON);
}

fn gone(proxy: &Proxy, count: f64) {
    let reason = [("reason", "client-gone")];
    proxy.expect_metric("ambassador_requests_total", &reason, count);
}

fn a_close_ends_the_wait_for_an_answer(column: Column) {
    let (server, told) = watched(column, |_| Ok(()));
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    for (asked, call) in [(1, Call::new("POST", "/")), (2, Call::post("/", "body"))] {
        let mut client = column.connect(listen);
        client.send(&call);
        eventually("it is asked", SOON, || server.requests().len() == asked);
        client.close();
        assert_soon(Instant::now(), &told);
    }
    gone(&proxy, 2.0);
    // Nobody but the caller is at fault.
    assert_eq!(proxy.upstream("web")["circuit_breaker"]["failures"], 0);
}

fn a_close_ends_a_silent_stream(column: Column) {
    let (server, told) = watched(column, |exchange| {
        let stream = Answer::status(200).field("Content-Type", "text/event-stream");
        exchange.send(&stream.in_pieces())?;
        exchange.piece("hi")
    });
    // All places are taken by those who leave.
    let more = "pool: { max_connections: 3, max_pending: 0 }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    for _ in 0..2 {
        let mut clients: Vec<_> = (0..3).map(|_| column.connect(listen)).collect();
        for client in &mut clients {
            client.send(&Call::get("/"));
            assert_eq!(client.head().status, 200);
            assert_eq!(client.content(2), b"hi");
        }
        clients.into_iter().for_each(Caller::close);
        let left = Instant::now();
        (0..3).for_each(|_| assert_soon(left, &told));
    }
    gone(&proxy, 6.0);
}

fn a_close_ends_the_wait_for_a_place(column: Column) {
    let (server, _told) = watched(column, |_| Ok(()));
    let more = "pool: { max_connections: 1, max_pending: 1 }\nhttp2: { max_streams: 1 }\n\
                timeouts: { connect: 1h }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut first = column.connect(listen);
    first.send(&Call::get("/"));
    eventually("it has the place", SOON, || server.requests().len() == 1);
    for left in 1..=3 {
        let mut waiting = column.connect(listen);
        waiting.send(&Call::get("/"));
        eventually("it waits", SOON, || {
            proxy.metric("ambassador_pool_connections", &[("state", "pending")]) == 1.0
        });
        waiting.close();
        gone(&proxy, f64::from(left));
    }
    assert_eq!(server.connections(), 1);
}

fn a_close_ends_the_wait_between_tries(column: Column) {
    let server = column.server(|_| Answer::status(503).field("Retry-After", "9").body("later"));
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), "");
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("a try has failed", SOON, || server.requests().len() == 1);
    client.close();
    gone(&proxy, 1.0);
    assert_eq!(server.requests().len(), 1);
}

fn a_close_ends_the_wait_for_a_turn(column: Column) {
    let server = column.ok();
    let more = "rate_limit: { requests_per_second: 1, burst: 1, on_limit: wait }\n\
                timeouts: { request: 1h }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    assert_eq!(column.connect(listen).get("/").status, 200);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = column.connect(listen);
            client.send(&Call::get("/"));
            client
        })
        .collect();
    clients.into_iter().for_each(Caller::close);
    eventually("all but a few have left", SOON, || {
        let reason = [("reason", "client-gone")];
        proxy.metric("ambassador_requests_total", &reason) >= 17.0
    });
}

fn a_reset_ends_an_upload_that_is_stuck(column: Column) {
    // Reads nothing of the body, so that the proxy stops reading it as well.
    let (resume, resumed) = mpsc::channel::<()>();
    let resumed = std::sync::Mutex::new(resumed);
    let server = column.script(move |_| {
        let _ = resumed.lock().expect("one request").recv();
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let stream = TcpStream::connect(listen).expect("it listens");
    let socket = stream.try_clone().expect("descriptors are left");
    let mut client = column.over(stream);
    client.send(&Call::new("POST", "/").announces(900_000_000));
    let limit = Some(Duration::from_millis(300));
    for set in [TcpStream::set_write_timeout, TcpStream::set_read_timeout] {
        set(&socket, limit).expect("a valid time");
    }
    // Until nobody takes any more.
    while client.try_piece(vec![b'x'; 64 * 1024]).is_ok() {}
    drop(socket);
    client.leave();
    gone(&proxy, 1.0);
    drop(resume);
}

fn a_half_close_gets_its_answer(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(request) = connection.request()? {
            // Longer than a caller is looked at.
            std::thread::sleep(Duration::from_millis(300));
            connection.write(text(&request.target))?;
        }
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send("GET /half HTTP/1.1\r\nHost: web.test\r\n\r\n");
    client.finish();
    assert_eq!(client.response("GET").text(), "/half");
    // Over a unix socket as well.
    let path = std::env::temp_dir().join(format!("amb-half-{}", ports::free()));
    let config = format!(
        "listeners: [{{ name: e, bind: \"unix:{}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
        path.display(),
        server.address()
    );
    let proxy = Proxy::start(backend, &config);
    let ask = || {
        use std::io::Write;
        let mut near = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        near.write_all(b"GET /unix HTTP/1.1\r\nHost: web.test\r\n\r\n")
            .expect("it is open");
        near
    };
    let mut near = ask();
    near.shutdown(std::net::Shutdown::Write)
        .expect("it is open");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut near, &mut answer).expect("an answer");
    assert!(answer.ends_with("/unix"), "{answer}");
    drop(ask());
    gone(&proxy, 1.0);
    drop(proxy);
    let _ = std::fs::remove_file(path);
}

fn a_caller_that_closes_behind_its_answer_is_no_failure(column: Column) {
    let server = column.ok();
    let (proxy, listen): (Proxy, SocketAddr) = Proxy::in_front_of(column, server.address());
    for _ in 0..20 {
        assert_eq!(column.connect(listen).get("/").status, 200);
    }
    let ok = [("status", "200"), ("reason", "")];
    proxy.expect_metric("ambassador_requests_total", &ok, 20.0);
    // Theirs goes to the next ones; each thread may have dialled one.
    assert!(server.connections() < 20, "{}", server.connections());
}

fn a_client_that_reads_no_replies_is_given_up(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut stream = os::connect_with_small_buffers(listen).expect("it listens");
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("valid");
    // Until the replies to these, which are made here, fill every buffer.
    let refused = b"GET / HTTP/1.1\r\nHost: nowhere.test\r\n\r\n".repeat(100);
    while stream.write_all(&refused).is_ok() {}
    // It has 10 s to read one.
    let open = || proxy.metric("ambassador_connections", &[("listener", "egress")]);
    assert_eq!(open(), 1.0);
    eventually("it is given up", Duration::from_secs(20), || open() == 0.0);
    gone(&proxy, 1.0);
}
