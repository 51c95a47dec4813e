//! How connections over TLS end: who got a part is never told that it was all.

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Authority, Backend, Client, Connection, Proxy, Server, eventually, on_both_backends,
};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::tls_connections::Inward;
use crate::tls_upstream::free;

on_both_backends!(
    a_cut_answer_has_no_last_word,
    a_cut_tunnel_has_no_last_word,
    a_client_that_cuts_its_tunnel_has_no_last_word,
    who_sends_what_is_no_record_is_told_so,
);

/// A part, and then the end, in order or not.
fn part(connection: &mut Connection, is_cut: bool) -> io::Result<()> {
    connection.write("HTTP/1.1 200 OK\r\n\r\npart")?;
    // It is passed on before the end.
    std::thread::sleep(Duration::from_millis(20));
    match is_cut {
        true => connection.reset(),
        false => connection.finish(),
    }
}

fn a_cut_answer_has_no_last_word(backend: Backend) {
    let server = Server::start(|connection| match connection.request()? {
        Some(request) => part(connection, request.target == "/cut"),
        None => Ok(()),
    });
    let inward = Inward::start(backend, "protocol: http", server);
    for (path, is_whole) in [("/cut", false), ("/whole", true)].repeat(5) {
        let mut client = inward.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n\r\n"));
        assert_eq!(client.rest().is_ok(), is_whole, "{path}");
    }
}

fn a_cut_tunnel_has_no_last_word(backend: Backend) {
    let server = Server::start(|connection| {
        let mut asked = [0];
        connection.read(&mut asked)?;
        part(connection, asked[0] == b'c')
    });
    let inward = Inward::start(backend, "protocol: tcp, upstream: web", server);
    for (asked, is_whole) in [("cut", false), ("whole", true)].repeat(5) {
        let mut client = inward.connect();
        client.send(asked);
        assert_eq!(client.rest().is_ok(), is_whole, "{asked}");
    }
}

fn a_client_that_cuts_its_tunnel_has_no_last_word(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let ends = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let seen = Arc::clone(&ends);
    let server = authority.issue(&["web.test"]).server();
    let server = Server::secured(server, move |connection| {
        let ended = loop {
            match connection.read(&mut [0; 16]) {
                Ok(0) => break 1,
                Ok(_) => connection.write("seen")?,
                Err(_) => break 0,
            }
        };
        seen[ended].fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let listen = free();
    let text = format!(
        "listeners: [{{ name: l, bind: \"{listen}\", protocol: tcp, upstream: web }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], protocol: tcp, endpoints: [\"{}\"], \
         tls: {{ ca: {} }} }} }}\n",
        server.address(),
        ca.display()
    );
    let _proxy = Proxy::start(backend, &text);
    for count in 1..=5 {
        let mut cut = Client::connect(listen);
        cut.send("part");
        assert_eq!(cut.exactly(4), b"seen");
        ambassador_tests::os::reset_on_close(cut.stream()).expect("it is a socket");
        drop(cut);
        let mut whole = Client::connect(listen);
        whole.send("all");
        assert_eq!(whole.exactly(4), b"seen");
        whole.finish();
        let all = || [0, 1].map(|kind| ends[kind].load(Ordering::SeqCst));
        eventually("both have ended", Duration::from_secs(10), || {
            all() == [count; 2]
        });
    }
}

fn who_sends_what_is_no_record_is_told_so(backend: Backend) {
    let inward = Inward::start(backend, "protocol: http", Server::ok());
    let mut client = inward.connect();
    client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    let mut stream = client.stream();
    stream
        .write_all(&[
            23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ])
        .expect("it is taken");
    let told = client.rest().expect_err("it ends in disorder").to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
}
