//! How long a client's connection lives, and in which order it is answered.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, eventually, matrix, on_http1, ports,
};

matrix!(
    many_requests_share_both_connections,
    a_request_split_at_every_byte_is_one_request,
    a_client_that_goes_away_cancels_the_upstream_side,
    an_idle_client_connection_is_ended,
);

on_http1!(
    pipelined_requests_are_answered_in_order,
    connection_close_is_obeyed,
    http_1_0_closes_unless_asked_to_keep,
    a_fin_after_a_request_still_gets_its_answer,
    a_fin_cuts_nothing_from_a_slow_reader,
);

fn many_requests_share_both_connections(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!((server.requests().len(), server.connections()), (50, 1));
}

fn pipelined_requests_are_answered_in_order(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    let all: String = (0..30).map(|number| get(&format!("/{number}"))).collect();
    client.send(all);
    for number in 0..30 {
        assert_eq!(client.response("GET").text(), format!("/{number}"));
    }
}

fn connection_close_is_obeyed(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(get("/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let answer = client.response("GET");
    assert_eq!(
        answer
            .field("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("close")
    );
    assert!(client.is_ended());

    let closing = Server::http(|_| response("200 OK", "Connection: close\r\n", "bye"));
    let (_proxy, listen) = Proxy::in_front_of(backend, closing.address());
    let mut client = Client::connect(listen);
    for _ in 0..3 {
        assert_eq!(
            client.get("/").text(),
            "bye",
            "only the upstream side closes"
        );
    }
    assert_eq!(closing.connections(), 3);
}

fn http_1_0_closes_unless_asked_to_keep(backend: Backend) {
    let server = Server::http(|request| match request.target.as_str() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
        }
        _ => text("ok"),
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let old = |path: &str| get(path).replace("HTTP/1.1", "HTTP/1.0");

    let mut client = Client::connect(listen);
    client.send(old("/"));
    assert_eq!(client.response("GET").text(), "ok");
    assert!(client.is_ended());

    let mut client = Client::connect(listen);
    client.send(old("/").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"));
    let kept = client.response("GET");
    assert_eq!(
        kept.field("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("keep-alive")
    );
    client.send(old("/chunked"));
    let answer = client.response("GET");
    assert_eq!(
        answer.field("transfer-encoding"),
        None,
        "HTTP/1.0 knows no chunks"
    );
    assert_eq!(answer.text(), "hello");
}

fn a_request_split_at_every_byte_is_one_request(column: Column) {
    let server = column.server(|request| Answer::ok(&request.body));
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.trickle();
    let call = Call::new("POST", "/x").trailed("wiki", ("T", "v"));
    assert_eq!(client.call(&call).text(), "wiki");
    assert_eq!(server.last_request().trailer("t"), Some("v"));
    assert_eq!(client.get("/").status, 200, "and the connection goes on");
}

fn a_fin_after_a_request_still_gets_its_answer(backend: Backend) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::http(move |_| {
        let _ = wait
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(10));
        text("late")
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(get("/"));
    client.finish();
    eventually("the request arrived", Duration::from_secs(5), || {
        !server.requests().is_empty()
    });
    go.send(()).expect("the server waits");
    assert_eq!(client.response("GET").text(), "late");
    assert!(client.is_ended());
}

fn a_fin_cuts_nothing_from_a_slow_reader(backend: Backend) {
    const BODY: usize = 12_000;
    let server = Server::http(|_| text(&"#".repeat(BODY)));
    let scratch = Scratch::new();
    let listen = scratch.path().join("http.sock");
    let config = format!(
        "listeners: [{{ name: http, bind: \"unix:{}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web], endpoints: [\"{}\"] }} }}\n",
        listen.display(),
        server.address()
    );
    let proxy = Proxy::start(backend, &config);
    let mut before = 0;
    // A socket takes some twenty of these answers: with one of the numbers the
    // last one does not fit when the proxy sees the FIN.
    for answers in 1..40 {
        let mut client = UnixStream::connect(&listen).expect("the proxy listens");
        client
            .write_all(get("/").repeat(answers).as_bytes())
            .expect("they fit");
        client.shutdown(Shutdown::Write).expect("it is open");
        let served = || server.requests().len();
        let soon = Duration::from_secs(10);
        eventually("most are asked for", soon, || {
            served() >= before + answers.min(15)
        });
        // Its shard answers when it has nothing better to do.
        for _ in 0..3 {
            proxy.metric("ambassador_connections", &[("listener", "http")]);
        }
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("no reset");
        let bodies = received.iter().filter(|byte| **byte == b'#').count();
        assert_eq!(bodies, answers * BODY, "of {answers} answers");
        before += answers;
        assert_eq!(served(), before);
    }
}

fn a_client_that_goes_away_cancels_the_upstream_side(column: Column) {
    let (tell, told) = std::sync::mpsc::channel();
    let server = column.script(move |exchange| {
        exchange.request()?;
        exchange.until_left()?;
        let _ = tell.send(());
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it was read", Duration::from_secs(5), || {
        !server.requests().is_empty()
    });
    client.leave();
    let ended = told.recv_timeout(Duration::from_secs(5));
    ended.expect("the upstream side ended");
}

fn an_idle_client_connection_is_ended(column: Column) {
    let idle = "defaults: { timeouts: { idle: 300ms } }";
    let start = |server: &Server| {
        let listen = ([127, 0, 0, 1], ports::free()).into();
        let config = one_upstream(listen, server.address(), "");
        (Proxy::start(column, &format!("{idle}\n{config}")), listen)
    };
    let server = column.ok();
    let (_proxy, listen) = start(&server);
    let mut client = column.connect(listen);
    assert_eq!(client.get("/").text(), "ok");
    assert!(client.is_ended());
    // Half an answer, then silence: the idle time of the exchange ends it.
    let (tell, told) = std::sync::mpsc::channel();
    let silent = column.script(move |exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(10))?;
        exchange.piece("half")?;
        exchange.until_left()?;
        let _ = tell.send(());
        Ok(())
    });
    let (_proxy, listen) = start(&silent);
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert!(client.try_answer().is_none(), "cut short, never completed");
    let ended = told.recv_timeout(Duration::from_secs(5));
    ended.expect("the upstream side ended");
}
