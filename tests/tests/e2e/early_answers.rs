//! Answers that come before the whole request has been sent.

use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use ambassador_tests::server::response;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, matrix, on_http1, program,
};

matrix!(
    the_rest_of_the_body_is_passed_on,
    a_server_that_takes_no_more_ends_the_upload,
);

on_http1!(
    an_early_answer_says_that_the_connection_ends,
    one_that_was_held_back_says_so_too,
    an_answer_that_has_begun_is_not_followed_by_another,
    a_client_of_the_standard_library_lives_on,
    curl_lives_on_with_a_refused_expectation,
);

const REFUSAL: &str = "413 Content Too Large";

/// Refuses each body after its head, and closes.
fn refusing(status: &'static str) -> Server {
    Server::start(move |connection| {
        if connection.head()?.is_some() {
            connection.write(response(status, "", "no"))?;
        }
        Ok(())
    })
}

fn an_early_answer_says_that_the_connection_ends(backend: Backend) {
    let server = refusing(REFUSAL);
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    for framing in ["Content-Length: 9000000", "Transfer-Encoding: chunked"] {
        let mut client = Client::connect(listen);
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: web.test\r\n{framing}\r\n\r\n"
        ));
        let answer = client.response("PUT");
        assert_eq!(
            (answer.status, answer.field("connection")),
            (413, Some("close"))
        );
    }
}

fn one_that_was_held_back_says_so_too(backend: Backend) {
    let server = refusing("503 Service Unavailable");
    let more = "retry: { methods: [PUT], base: 1ms }\ncircuit_breaker: { failures: off }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let mut client = Client::connect(listen);
    client.send("PUT / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 9\r\n\r\nbo");
    let answer = client.response("PUT");
    assert_eq!(
        (answer.status, answer.field("connection")),
        (503, Some("close"))
    );
    assert_eq!(server.connections(), 3);
}

/// Begins an answer to each request, and leaves it at that.
fn beginning() -> Server {
    Server::start(|connection| {
        connection.head()?;
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nab")?;
        let mut rest = [0; 1024];
        while connection.read(&mut rest)? > 0 {}
        Ok(())
    })
}

fn an_answer_that_has_begun_is_not_followed_by_another(backend: Backend) {
    let server = beginning();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send("PUT / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nab") {
        read.extend(client.exactly(1));
    }
    client.send("no chunk\r\n");
    assert!(client.rest().is_err(), "it would be taken for its body");
    let labels = [("status", "200"), ("reason", "bad-request")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

fn the_rest_of_the_body_is_passed_on(column: Column) {
    let (arrived, told) = mpsc::channel();
    let server = column.script(move |exchange| {
        exchange.send(&Answer::status(202).body("so far so good"))?;
        let _ = arrived.send(exchange.request()?.body.len());
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    let call = Call::new("POST", "/").announces(3_000_000);
    assert_eq!(client.call(&call).status, 202);
    client.piece(vec![b'x'; 3_000_000]);
    let limit = Duration::from_secs(10);
    assert_eq!(told.recv_timeout(limit), Ok(3_000_000));
}

/// Its caller is silent, and keeps nothing open.
fn a_server_that_takes_no_more_ends_the_upload(column: Column) {
    let (answered, told) = mpsc::channel();
    let told = Mutex::new(told);
    let server = column.script(move |exchange| {
        exchange.send(&Answer::status(413).body("no"))?;
        let _ = told.lock().expect("no panic").recv();
        exchange.reset()
    });
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    let call = Call::new("POST", "/").announces(3_000_000);
    assert_eq!(client.call(&call).status, 413);
    let labels = [("upstream", "web"), ("status", "413")];
    proxy.expect_metric("ambassador_requests_total", &labels, 0.0);
    answered.send(()).expect("the server waits");
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

/// A request that is refused amid its body, and one after it on the same
/// connection object, which opens another where it was told to.
const PYTHON: &str = "
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=20)
for _ in range(3):
    connection.request('POST', '/', body=b'x' * 600_000, headers={'Host': 'web.test'})
    answer = connection.getresponse()
    answer.read()
    connection.request('GET', '/', headers={'Host': 'web.test'})
    after = connection.getresponse()
    print(answer.status, after.status, after.read().decode())
";

fn a_client_of_the_standard_library_lives_on(backend: Backend) {
    let server = Server::start(|connection| {
        let Some(head) = connection.head()? else {
            return Ok(());
        };
        match head.method.as_str() {
            "GET" => connection.write(response("200 OK", "Connection: close\r\n", "well")),
            _ => {
                connection.write(response(REFUSAL, "Connection: close\r\n", "no"))?;
                connection.finish()?;
                // As servers do, so that the answer is not destroyed.
                let mut rest = [0; 64 * 1024];
                while matches!(connection.read(&mut rest), Ok(1..)) {}
                Ok(())
            }
        }
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut python = Command::new(program::PYTHON);
    let said = program::succeed(python.args(["-c", PYTHON, &listen.port().to_string()]));
    assert_eq!(said, "413 200 well\n".repeat(3));
}

fn curl_lives_on_with_a_refused_expectation(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(head) = connection.head()? {
            if head.field("expect").is_some() {
                connection.write(response("401 Unauthorized", "", "who?"))?;
                return Ok(());
            }
            connection.write(response("200 OK", "", "well"))?;
        }
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let url = format!("http://{listen}/");
    let body = "x".repeat(2_000);
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "-m",
        "20",
        "-H",
        "Host: web.test",
        "-w",
        " %{http_code}\n",
    ])
    .args(["-H", "Expect: 100-continue", "-d", &body, &url])
    .args(["--next", "-sS", "-m", "20", "-H", "Host: web.test"])
    .args(["-w", " %{http_code}\n", &url]);
    assert_eq!(program::succeed(&mut curl), "who? 401\nwell 200\n");
}
