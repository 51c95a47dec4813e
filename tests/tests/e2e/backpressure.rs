//! A slow side slows the other one down, and costs others nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_http1, os, ports};

on_http1!(
    a_gibibyte_passes_in_flat_memory,
    a_client_that_does_not_read_stops_the_upstream,
    an_upstream_that_does_not_read_stops_the_client,
    uploads_that_nobody_reads_hold_little,
    stalled_readers_do_not_stop_a_live_request,
    unread_replies_made_by_the_proxy_do_not_stop_a_live_request,
    unread_responses_do_not_stop_a_live_request,
);

const MIB: u64 = 1024 * 1024;

fn a_gibibyte_passes_in_flat_memory(backend: Backend) {
    let total = 1024 * MIB;
    let server = Server::start(move |connection| {
        connection.request()?;
        connection.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"
        ))?;
        let block = vec![b'x'; 256 * 1024];
        for _ in 0..total / block.len() as u64 {
            connection.write(&block)?;
        }
        connection.request().map(drop)
    });
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let before = proxy.anonymous_bytes();
    let mut stream = TcpStream::connect(listen).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("valid");
    stream.write_all(get("/").as_bytes()).expect("it is taken");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let mut buffer = vec![0; 256 * 1024];
    let (mut received, mut highest) = (0, before);
    let mut next_look = 0;
    while received < total {
        let count = stream.read(&mut buffer).expect("more to come") as u64;
        assert!(count > 0, "ended after {received}");
        received += count;
        if received >= next_look {
            highest = highest.max(proxy.anonymous_bytes());
            next_look += 16 * MIB;
        }
    }
    assert_eq!(received, total);
    let grown = highest.saturating_sub(before);
    println!(
        "1 GiB on {backend:?}: private memory grew by {} KiB",
        grown / 1024
    );
    assert!(grown < 4 * MIB, "private memory grew by {grown} bytes");
}

fn a_client_that_does_not_read_stops_the_upstream(backend: Backend) {
    let (progress, sent) = std::sync::mpsc::channel();
    let server = Server::start(move |connection| {
        connection.request()?;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")?;
        connection
            .stream()
            .set_write_timeout(Some(Duration::from_secs(1)))?;
        let block = [b'x'; 64 * 1024];
        let mut total = 0_usize;
        // Ends when a whole second passed without room for a block.
        while connection.write(block).is_ok() {
            total += block.len();
        }
        let _ = progress.send(total);
        Ok(())
    });
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let before = proxy.anonymous_bytes();
    let mut client = Client::connect(listen);
    client.send(get("/"));
    let total = sent
        .recv_timeout(Duration::from_secs(20))
        .expect("the upstream was stopped");
    assert!(total < 64 * MIB as usize, "{total} bytes went nowhere");
    let grown = proxy.anonymous_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "the proxy kept {grown} bytes");
}

fn an_upstream_that_does_not_read_stops_the_client(backend: Backend) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let server = Server::start(move |connection| {
        connection.head()?;
        let _ = ended
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(20));
        Ok(())
    });
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let before = proxy.anonymous_bytes();
    let mut client = Client::connect(listen);
    client.send(
        "PUT / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nContent-Length: 1073741824\r\n\r\n",
    );
    client
        .stream()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("valid");
    let block = [b'x'; 64 * 1024];
    let mut total = 0;
    while client.try_send(block).is_ok() {
        total += block.len();
        assert!(total < 64 * MIB as usize, "{total} bytes went nowhere");
    }
    let grown = proxy.anonymous_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "the proxy kept {grown} bytes");
    drop(end);
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

fn stalled_readers_do_not_stop_a_live_request(backend: Backend) {
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
    let mut client = Client::connect(listen);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "live");
    }
    println!(
        "20 live requests beside 1,000 stalled ones on {backend:?}: {:?}",
        start.elapsed()
    );
    let each = proxy.anonymous_bytes().saturating_sub(before) / 1000;
    println!("memory per stalled reader: {each} bytes");
    assert!(each < STALLED, "{each} bytes per stalled reader");
    drop(stalled);
    eventually("they are gone", Duration::from_secs(20), || {
        server.open_connections() <= 64
    });
    assert_eq!(client.get("/").text(), "live");
}

/// Each caller stops to read amid many responses that are short, so that the proxy waits
/// with a head that has just come.
fn unread_responses_do_not_stop_a_live_request(backend: Backend) {
    let server = Server::http(|_| text(&"x".repeat(1000)));
    let live_server = Server::ok();
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
    let _proxy = Proxy::start(backend, &config);
    let mut stalled: Vec<TcpStream> = (0..40)
        .map(|_| os::connect_with_small_buffers(listen).expect("it listens"))
        .collect();
    let mut live = Client::connect(listen);
    let timeout = Some(Duration::from_secs(5));
    live.stream().set_read_timeout(timeout).expect("valid");
    let asked = b"GET / HTTP/1.1\r\nHost: unread.test\r\n\r\n".repeat(20);
    let mut requests = usize::MAX;
    while server.requests().len() != requests {
        requests = server.requests().len();
        for stream in &mut stalled {
            stream.write_all(&asked).expect("it is taken");
            live.send(get("/"));
            let answer = live.try_response("GET");
            assert_eq!(answer.expect("in time").text(), "ok");
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
