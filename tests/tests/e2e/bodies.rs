//! Bodies of every framing, in both directions.

use std::process::Command;

use ambassador_tests::client::get;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, matrix, on_http1, program,
};

matrix!(
    large_bodies_pass_both_ways,
    trailers_pass_both_ways,
    answers_without_a_body_leave_the_connection_usable,
    a_body_that_is_cut_short_is_not_completed,
    an_event_stream_is_not_collected,
);

on_http1!(
    chunks_extensions_and_trailers_pass_to_the_upstream,
    chunks_extensions_and_trailers_pass_to_the_client,
    a_body_that_ends_with_the_connection_is_whole,
    chunks_that_are_cut_short_are_not_completed,
);

fn chunks_extensions_and_trailers_pass_to_the_upstream(backend: Backend) {
    let server = Server::http(|request| text(&request.body.len().to_string()));
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n5;name=\"v;1\"\r\nhello\r\n0A\r\n0123456789\r\n\
         0\r\nX-Sum: abc\r\nX-More: d\r\n\r\n",
    );
    assert_eq!(client.response("POST").text(), "15");
    let request = server.last_request();
    assert_eq!(request.body, b"hello0123456789");
    let names: Vec<&str> = request
        .trailers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["X-Sum", "X-More"]);
}

fn chunks_extensions_and_trailers_pass_to_the_client(backend: Backend) {
    let server = Server::http(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
          3;q\r\nabc\r\n00002\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
            .to_vec()
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.text(), "abcde");
        assert_eq!(answer.trailers, [("X-Sum".to_owned(), "5".to_owned())]);
    }
    assert_eq!(server.connections(), 1);
}

fn trailers_pass_both_ways(column: Column) {
    let server = column.script(|exchange| {
        let request = exchange.request()?;
        let answer = Answer::status(200).field("Trailer", "X-Sum");
        exchange.send(&answer.in_pieces())?;
        if !request.body.is_empty() {
            exchange.piece(&request.body)?;
        }
        exchange.end(&[("X-Sum", request.trailer("x-sum").unwrap_or_default())])
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for body in ["hello", "", "again"] {
        client.send(&Call::new("POST", "/").field("Trailer", "X-Sum").in_pieces());
        if !body.is_empty() {
            client.piece(body);
        }
        client.end(&[("X-Sum", "abc"), ("X-More", "d")]);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, body.to_owned()));
        assert_eq!(answer.trailers.len(), 1, "{answer:?}");
        assert!(answer.trailers[0].0.eq_ignore_ascii_case("x-sum"));
        assert_eq!(answer.trailers[0].1, "abc");
        let request = server.last_request();
        assert_eq!(request.trailers.len(), 2);
        assert_eq!(request.trailer("x-more"), Some("d"));
    }
    assert_eq!(server.connections(), 1);
}

fn answers_without_a_body_leave_the_connection_usable(column: Column) {
    let server = column.server(|request| match request.target.as_str() {
        "/head" => Answer::status(200).announces(1000),
        "/head-in-pieces" => Answer::status(200).in_pieces(),
        "/204" => Answer::bare(204),
        "/304" => Answer::bare(304)
            .field("Content-Length", "99")
            .field("ETag", "\"x\""),
        _ => Answer::ok("after"),
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("1000")),
        ("HEAD", "/head-in-pieces", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("99")),
    ] {
        let answer = client.call(&Call::new(method, path));
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.field("content-length"), length, "{path}");
        assert!(answer.body.is_empty(), "{path}");
        assert_eq!(client.get("/").text(), "after", "{path}");
    }
    assert_eq!(server.connections(), 1);
}

fn a_body_that_ends_with_the_connection_is_whole(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")?;
        for _ in 0..100 {
            connection.write([b'x'; 1000])?;
        }
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").body.len(), 100_000);
    let url = format!("http://{listen}/");
    let mut curl = Command::new("curl");
    curl.args([
        "-sSf",
        "--http2-prior-knowledge",
        "-H",
        "X-Upstream-Host: web",
    ]);
    assert_eq!(program::succeed(curl.arg(url)).len(), 100_000);
}

fn a_body_that_is_cut_short_is_not_completed(column: Column) {
    let head = Answer::status(200);
    for cut in [head.clone().announces(100), head.in_pieces()] {
        let server = column.script(move |exchange| {
            exchange.request()?;
            exchange.send(&cut)?;
            exchange.piece("only this")?;
            // It ends here, and in order where the protocol knows such an end.
            Err(std::io::ErrorKind::Other.into())
        });
        let (_proxy, listen) = Proxy::in_front_of(column, server.address());
        let mut client = column.connect(listen);
        client.send(&Call::get("/"));
        let answer = client.try_answer();
        // A part of the answer may have been seen before the rest was missed.
        assert!(
            answer.as_ref().is_none_or(|answer| answer.status == 502),
            "{answer:?}"
        );
    }
}

fn chunks_that_are_cut_short_are_not_completed(backend: Backend) {
    for cut in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let server = Server::start(move |connection| {
            connection.request()?;
            connection.write(cut)
        });
        let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
        let mut client = Client::connect(listen);
        client.send(get("/"));
        let answer = client.try_response("GET");
        // A part of the answer may have been seen before the rest was missed.
        assert!(
            answer.as_ref().is_none_or(|answer| answer.status == 502),
            "{cut:?}: {answer:?}"
        );
    }
}

fn large_bodies_pass_both_ways(column: Column) {
    let server = column.server(|request| Answer::ok(&request.body));
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for size in [1, 4095, 8192, 65_536, 1_000_003] {
        let body: Vec<u8> = (0..size)
            .map(|index: usize| b'a' + (index % 23) as u8)
            .collect();
        assert!(
            client.call(&Call::post("/", &body)).body == body,
            "{size} bytes came back changed"
        );
    }
}

fn an_event_stream_is_not_collected(column: Column) {
    let (next, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.script(move |exchange| {
        exchange.request()?;
        let stream = Answer::status(200).field("Content-Type", "text/event-stream");
        exchange.send(&stream.in_pieces())?;
        for _ in 0..3 {
            exchange.piece("data: 1\n\n")?;
            // The next event is sent only after the client has this one.
            if wait.lock().expect("one user").recv().is_err() {
                return Ok(());
            }
        }
        exchange.end(&[])
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/events"));
    assert_eq!(client.head().status, 200);
    for _ in 0..3 {
        assert_eq!(client.content(9), b"data: 1\n\n");
        next.send(()).expect("the server waits");
    }
    assert!(client.is_at_end());
}
