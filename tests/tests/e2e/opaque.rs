//! TCP that is not HTTP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(
    bytes_pass_both_ways,
    a_server_that_speaks_first_is_heard,
    half_close_passes_in_both_directions,
    a_failed_dial_is_a_reset,
    a_large_transfer_is_unchanged,
    a_unix_socket_can_be_the_listener,
    silence_ends_a_relay_after_a_time_of_its_own,
);

fn relay(backend: Backend, endpoint: SocketAddr) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"{endpoint}\"] }} }}\n"
    );
    (Proxy::start(backend, &config), listen)
}

fn bytes_pass_both_ways(backend: Backend) {
    let server = Server::echo();
    let (proxy, listen) = relay(backend, server.address());
    let mut client = Client::connect(listen);
    for message in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00\x01\x02", &[9; 5000]] {
        client.send(message);
        assert_eq!(client.exactly(message.len()), message);
    }
    drop(client);
    eventually("the upstream side ended", Duration::from_secs(5), || {
        server.open_connections() == 0
    });
    eventually("it was counted", Duration::from_secs(5), || {
        proxy.metric("ambassador_tcp_connections_total", &[("upstream", "db")]) >= 1.0
    });
}

fn a_server_that_speaks_first_is_heard(backend: Backend) {
    let server = Server::start(|connection| {
        connection.write("220 ready\r\n")?;
        let mut byte = [0];
        connection.read(&mut byte).map(drop)
    });
    let (_proxy, listen) = relay(backend, server.address());
    for _ in 0..3 {
        assert_eq!(Client::connect(listen).exactly(11), b"220 ready\r\n");
    }
}

fn half_close_passes_in_both_directions(backend: Backend) {
    let server = Server::start(|connection| {
        let mut all = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            match connection.read(&mut buffer)? {
                0 => return connection.write(format!("{} bytes", all.len())),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    });
    let (_proxy, listen) = relay(backend, server.address());
    let mut client = Client::connect(listen);
    client.send([1; 10_000]);
    client.finish();
    assert_eq!(client.rest().expect("a FIN"), b"10000 bytes");

    let talker = Server::start(|connection| {
        connection.write("done")?;
        connection.finish()?;
        let mut buffer = [0; 5];
        let count = connection.read(&mut buffer)?;
        assert_eq!(&buffer[..count], b"heard");
        connection.reset()
    });
    let (_proxy, listen) = relay(backend, talker.address());
    let mut client = Client::connect(listen);
    assert_eq!(client.exactly(4), b"done");
    client.send("heard");
    eventually("the upstream heard it", Duration::from_secs(5), || {
        talker.open_connections() == 0
    });
}

fn a_failed_dial_is_a_reset(backend: Backend) {
    let closed = Server::echo().address();
    let (_proxy, listen) = relay(backend, closed);
    let mut client = Client::connect(listen);
    let error = client.rest().expect_err("never a polite end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn a_large_transfer_is_unchanged(backend: Backend) {
    let server = Server::echo();
    let (_proxy, listen) = relay(backend, server.address());
    let mut client = Client::connect(listen);
    let stream = client.stream().try_clone().expect("descriptors are left");
    let data: Vec<u8> = (0..8_000_000_u32)
        .map(|index| (index * 7 / 3) as u8)
        .collect();
    let copy = data.clone();
    let sender = std::thread::spawn(move || {
        let mut sender = Client::over(stream);
        sender.send(&copy);
        sender.finish();
    });
    assert!(
        client.rest().expect("a FIN") == data,
        "bytes were changed, lost or reordered"
    );
    sender.join().expect("everything was sent");
}

fn silence_ends_a_relay_after_a_time_of_its_own(backend: Backend) {
    let server = Server::echo();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: db }}]\n\
         defaults: {{ timeouts: {{ idle: 50ms, tunnel: 600ms }} }}\n\
         upstreams: {{ db: {{ endpoints: [\"{}\"] }} }}\n",
        server.address()
    );
    let proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    // No later than the last byte passes.
    let silent_since = Instant::now();
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    client.rest().expect_err("never a polite end");
    assert!(silent_since.elapsed() >= Duration::from_millis(600));
    let labels = [("upstream", "db"), ("outcome", "idle-timeout")];
    proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
}

fn a_unix_socket_can_be_the_listener(backend: Backend) {
    use std::io::{Read, Write};
    let server = Server::echo();
    let scratch = ambassador_tests::proxy::Scratch::new();
    let path = scratch.path().join("db.sock");
    let config = format!(
        "listeners: [{{ name: db, bind: \"unix:{}\", protocol: tcp, upstream: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"{}\"] }} }}\n",
        path.display(),
        server.address()
    );
    let _proxy = Proxy::start(backend, &config);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("valid");
    stream.write_all(b"over a path").expect("it is taken");
    let mut back = [0; 11];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"over a path");
}
