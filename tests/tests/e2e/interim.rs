//! Interim answers and `Expect: 100-continue`.

use ambassador_tests::client::get;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

on_both_backends!(
    interim_answers_pass,
    interim_answers_without_end_are_a_502,
    the_upstream_decides_about_continue,
    a_final_answer_instead_of_continue_passes,
);

fn interim_answers_pass(backend: Backend) {
    let server = Server::http(|_| {
        let mut answer =
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
                .to_vec();
        answer.extend(text("final"));
        answer
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    for _ in 0..2 {
        client.send(get("/"));
        let hints = client.response("GET");
        assert_eq!((hints.status, hints.field("link")), (103, Some("</a.css>")));
        assert_eq!(client.response("GET").status, 102);
        assert_eq!(client.response("GET").text(), "final");
    }
}

fn interim_answers_without_end_are_a_502(backend: Backend) {
    let server = Server::http(|_| b"HTTP/1.1 102 Processing\r\n\r\n".repeat(200));
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(get("/"));
    let last = (0..200)
        .map(|_| client.response("GET"))
        .find(|response| response.status != 102)
        .expect("they are not passed on for ever");
    assert_eq!(last.status, 502);
    assert_eq!(last.field("x-ambassador-reason"), Some("protocol-error"));
}

fn the_upstream_decides_about_continue(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(mut request) = connection.head()? {
            assert_eq!(request.field("expect"), Some("100-continue"));
            connection.write("HTTP/1.1 100 Continue\r\n\r\n")?;
            connection.body(&mut request)?;
            connection.write(text(&String::from_utf8_lossy(&request.body)))?;
        }
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    for _ in 0..2 {
        client.send(
            "PUT / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n",
        );
        assert_eq!(
            client.response("PUT").status,
            100,
            "before any of the body was sent"
        );
        client.send("body");
        assert_eq!(client.response("PUT").text(), "body");
    }
}

fn a_final_answer_instead_of_continue_passes(backend: Backend) {
    let server = Server::start(|connection| {
        connection.head()?;
        connection.write("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "PUT / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nExpect: 100-continue\r\n\
         Content-Length: 4\r\n\r\n",
    );
    let answer = client.response("PUT");
    assert_eq!((answer.status, answer.reason()), (417, ""));
}
