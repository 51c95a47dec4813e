//! A slow side slows the other one down, and costs others nothing.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Caller, Client, Column, Proxy, Server, eventually, matrix, on_http1, os,
    ports,
};

matrix!(
    a_gibibyte_passes_in_flat_memory,
    a_client_that_does_not_read_stops_the_upstream,
    an_upstream_that_does_not_read_stops_the_client,
    stalled_readers_do_not_stop_a_live_request,
    unread_responses_do_not_stop_a_live_request,
);

on_http1!(
    uploads_that_nobody_reads_hold_little,
    stalled_readers_hold_little,
    unread_replies_made_by_the_proxy_do_not_stop_a_live_request,
);

const MIB: u64 = 1024 * 1024;
const GIB: usize = 1024 * 1024 * 1024;

fn a_gibibyte_passes_in_flat_memory(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(GIB))?;
        let block = vec![b'x'; 256 * 1024];
        (0..GIB / block.len()).try_for_each(|_| exchange.piece(&block))
    });
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let before = proxy.anonymous_bytes();
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert_eq!(client.head().status, 200);
    let (mut received, mut highest) = (0, before);
    let mut next_look = 0;
    while received < GIB {
        let count = client.more().expect("more to come").len();
        assert!(count > 0, "ended after {received}");
        received += count;
        if received >= next_look {
            highest = highest.max(proxy.anonymous_bytes());
            next_look += 16 * MIB as usize;
        }
    }
    assert_eq!(received, GIB);
    let grown = highest.saturating_sub(before);
    println!("1 GiB: private memory grew by {} KiB", grown / 1024);
    // A window of content may be there twice while it grows.
    let most = 4 * MIB + 2 * column.upstream.window();
    assert!(grown < most, "private memory grew by {grown} bytes");
}

/// Waits until some bytes have moved, and then a second has passed in which no more did.
fn wait_for_rest(moved: &AtomicU64) {
    eventually("some move", Duration::from_secs(20), || {
        moved.load(Ordering::SeqCst) > 0
    });
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
        let now = moved.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(now < 64 * MIB, "{now} bytes went nowhere");
    }
}

fn a_client_that_does_not_read_stops_the_upstream(column: Column) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let server = column.script(move |exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(GIB))?;
        let block = [b'x'; 64 * 1024];
        loop {
            exchange.piece(block)?;
            count.fetch_add(block.len() as u64, Ordering::SeqCst);
        }
    });
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let before = proxy.anonymous_bytes();
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    wait_for_rest(&sent);
    let grown = proxy.anonymous_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "the proxy kept {grown} bytes");
    client.close();
}

fn an_upstream_that_does_not_read_stops_the_client(column: Column) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let server = column.script(move |_| {
        let _ = ended
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(60));
        Err(std::io::ErrorKind::Other.into())
    });
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let before = proxy.anonymous_bytes();
    let mut client = column.connect(listen);
    client.send(&Call::new("PUT", "/").announces(GIB));
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = [b'x'; 64 * 1024];
            while !is_over.load(Ordering::SeqCst) && client.try_piece(block).is_ok() {
                sent.fetch_add(block.len() as u64, Ordering::SeqCst);
            }
        });
        wait_for_rest(&sent);
        let grown = proxy.anonymous_bytes().saturating_sub(before);
        assert!(grown < 4 * MIB, "the proxy kept {grown} bytes");
        // It is answered, and its body is refused.
        is_over.store(true, Ordering::SeqCst);
        drop(end);
    });
}

/// What a transfer holds whose receiver reads nothing: 64 KiB of its body, its
/// two connections and its request.
const STALLED: u64 = 72 * 1024;

fn uploads_that_nobody_reads_hold_little(backend: Backend) {
    const UPLOADS: u64 = 100;
    os::raise_open_files().expect("a soft limit can be raised");
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let server = Server::start(move |connection| {
        if connection.head()?.is_some_and(|head| head.target == "/") {
            let _ = ended.lock().expect("one user").recv();
        }
        Ok(())
    });
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let before = proxy.anonymous_bytes();
    let block = vec![b'x'; 1024 * 1024];
    let head = "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 1073741824\r\n\r\n";
    // Head and body at once: the most that one turn of the loop can find.
    let first = [head.as_bytes(), &block].concat();
    let uploads: Vec<TcpStream> = (0..UPLOADS)
        .map(|_| {
            let mut stream = TcpStream::connect(listen).expect("it listens");
            stream.set_nonblocking(true).expect("an open socket");
            let _ = stream.write(&first);
            stream
        })
        .collect();
    let mut idle_since = Instant::now();
    while idle_since.elapsed() < Duration::from_secs(1) {
        for mut stream in &uploads {
            if stream.write(&block).is_ok() {
                idle_since = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let each = proxy.anonymous_bytes().saturating_sub(before) / UPLOADS;
    println!("memory per unread upload on {backend:?}: {each} bytes");
    assert!(each < STALLED, "{each} bytes per unread upload");
    drop(end);
}

/// An answer of 256 KiB for `/big`, and a short one for all else.
fn big(target: &str) -> Answer {
    match target {
        "/big" => Answer::ok("x".repeat(256 * 1024)),
        _ => Answer::ok("live"),
    }
}

fn stalled_readers_do_not_stop_a_live_request(column: Column) {
    os::raise_open_files().expect("a soft limit can be raised");
    let server = column.server(|request| big(&request.target));
    let room = "pool: { max_connections: 2000, max_pending: 2000 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), room);
    let stalled: Vec<Caller> = (0..1000)
        .map(|_| {
            let stream = TcpStream::connect(listen).expect("it listens");
            os::limit_receive_buffer(&stream, 4096).expect("an open socket");
            let mut stalled = column.over(stream);
            stalled.send(&Call::get("/big"));
            stalled
        })
        .collect();
    eventually(
        "all of them were asked for",
        Duration::from_secs(30),
        || server.requests().len() >= 1000,
    );
    let mut client = column.connect(listen);
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "live");
        assert_eq!(column.connect(listen).get("/").text(), "live");
    }
    drop(stalled);
    assert_eq!(client.get("/").text(), "live");
}

fn stalled_readers_hold_little(backend: Backend) {
    os::raise_open_files().expect("a soft limit can be raised");
    let server = Server::http(|request| {
        if request.target == "/big" {
            text(&"x".repeat(256 * 1024))
        } else {
            text("live")
        }
    });
    let room = "pool: { max_connections: 2000 }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), room);
    let before = proxy.anonymous_bytes();
    let stalled: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(listen).expect("it listens");
            os::limit_receive_buffer(&stream, 4096).expect("an open socket");
            stream
                .write_all(get("/big").as_bytes())
                .expect("it is taken");
            stream
        })
        .collect();
    eventually(
        "all of them were asked for",
        Duration::from_secs(30),
        || server.requests().len() >= 1000,
    );
    let each = proxy.anonymous_bytes().saturating_sub(before) / 1000;
    println!("memory per stalled reader: {each} bytes");
    assert!(each < STALLED, "{each} bytes per stalled reader");
    drop(stalled);
    eventually("they are gone", Duration::from_secs(20), || {
        server.open_connections() <= 64
    });
}

/// Forty callers that read nothing, and somebody who waits five seconds at most.
fn forty_and_one(column: Column, listen: SocketAddr) -> (Vec<Caller>, Caller) {
    let stalled = (0..40).map(|_| {
        let stream = os::connect_with_small_buffers(listen).expect("it listens");
        column.over(stream)
    });
    let live = TcpStream::connect(listen).expect("it listens");
    let caller = column.over(live.try_clone().expect("descriptors are left"));
    let timeout = Some(Duration::from_secs(5));
    live.set_read_timeout(timeout).expect("valid");
    (stalled.collect(), caller)
}

fn expect_live(live: &mut Caller) {
    live.send(&Call::get("/"));
    assert_eq!(live.try_answer().expect("in time").text(), "ok");
}

/// Each caller stops to read amid many responses that are short, so that the proxy waits
/// with a head that has just come.
fn unread_responses_do_not_stop_a_live_request(column: Column) {
    let server = column.server(|_| Answer::ok("x".repeat(1000)));
    let live_server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    // All share one shard, and that has 32 receive buffers.
    let config = format!(
        "workers: 1\nlisteners: [{{ name: in, bind: \"{listen}\", protocol: http }}]\n\
         upstreams:\n  \
         unread: {{ hosts: [unread.test], endpoints: [\"{}\"] }}\n  \
         web: {{ hosts: [web.test], endpoints: [\"{}\"] }}\n",
        server.address(),
        live_server.address()
    );
    let _proxy = Proxy::start(column, &config);
    let (mut stalled, mut live) = forty_and_one(column, listen);
    let ask = Call::get("/").to("unread.test");
    let mut requests = usize::MAX;
    while server.requests().len() != requests {
        requests = server.requests().len();
        for caller in &mut stalled {
            for _ in 0..20 {
                caller.send(&ask);
            }
            expect_live(&mut live);
        }
    }
}

fn unread_replies_made_by_the_proxy_do_not_stop_a_live_request(backend: Backend) {
    let server = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    // All share one shard, and that has 32 receive buffers.
    let config = format!("workers: 1\n{}", one_upstream(listen, server.address(), ""));
    let proxy = Proxy::start(backend, &config);
    let stalled: Vec<TcpStream> = (0..40)
        .map(|_| os::connect_with_small_buffers(listen).expect("it listens"))
        .collect();
    for stream in &stalled {
        stream.set_nodelay(true).expect("an open socket");
    }
    let refused = b"GET / HTTP/1.1\r\nHost: nowhere.test\r\n\r\n";
    let mut live = Client::connect(listen);
    live.stream()
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("valid");
    let mut answered = 0.0;
    loop {
        for mut stream in stalled.iter().cycle().take(40 * 50) {
            stream.write_all(refused).expect("it is taken");
            // Its answer tells that the proxy has taken the other request: one
            // that had to wait would have left the shared buffers already.
            live.send(get("/"));
            let answer = live.try_response("GET");
            assert_eq!(answer.expect("in time").text(), "ok");
        }
        let before = answered;
        answered = proxy.metric("ambassador_requests_total", &[("reason", "no-route")]);
        if answered == before {
            break;
        }
        assert!(answered < 1e6, "{answered} replies went nowhere");
    }
    assert!(answered > 0.0, "they were answered until nothing was read");
}
