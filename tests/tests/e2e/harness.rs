//! The harness against itself: a client that talks to a server directly.

use std::time::Duration;

use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Answer, Call, Cgroup, Client, Netns, Protocol, Server, eventually, program,
};

#[test]
fn a_client_and_a_server_understand_each_other() {
    let server = Server::http(|request| match request.target.as_str() {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n\
                        2;note=x\r\nhe\r\n3\r\nllo\r\n0\r\nX-End: yes\r\n\r\n"
            .to_vec(),
        "/echo" => response(
            "201 Created",
            "X-Kept: 1\r\n",
            &String::from_utf8_lossy(&request.body),
        ),
        _ => text("plain"),
    });
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/").text(), "plain");
    let chunked = client.get("/chunked");
    assert_eq!(chunked.text(), "hello");
    assert_eq!(chunked.trailers, [("X-End".to_owned(), "yes".to_owned())]);
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n");
    let created = client.response("POST");
    assert_eq!((created.status, created.text().as_str()), (201, "abc"));
    assert_eq!(
        server.last_request().trailers,
        [("T".to_owned(), "1".to_owned())]
    );
    assert_eq!((server.connections(), server.requests().len()), (1, 3));
}

#[test]
fn a_caller_and_an_upstream_understand_each_other_in_every_protocol() {
    for protocol in Protocol::ALL {
        let server = protocol.script(|exchange| match exchange.head().target.as_str() {
            "/echo" => {
                exchange.interim(103, &[("Link", "</a>")])?;
                let request = exchange.request()?;
                let sum = request.trailer("x-sum").unwrap_or("none");
                exchange.send(&Answer::status(201).field("X-Sum", sum).body(&request.body))
            }
            "/pieces" => {
                exchange.request()?;
                exchange.send(&Answer::status(200).in_pieces())?;
                exchange.piece("some")?;
                exchange.piece("thing")?;
                exchange.end(&[("X-End", "yes")])
            }
            "/cut" => {
                exchange.send(&Answer::status(200).announces(4))?;
                exchange.piece("som")?;
                exchange.reset()
            }
            "/left" => {
                exchange.until_left()?;
                exchange.request().map(drop)
            }
            early => exchange.send(&Answer::ok(early)),
        });
        let mut caller = protocol.connect(server.address());
        // Its body goes up when the server has told that it wants it.
        assert_eq!(caller.call(&Call::post("/echo", "whole")).status, 103);
        assert_eq!(caller.answer().text(), "whole");
        let call = Call::new("PUT", "/echo").announces(5);
        assert_eq!(caller.call(&call).status, 103);
        caller.piece("five!");
        assert_eq!(caller.answer().text(), "five!");
        let call = Call::new("PUT", "/echo").in_pieces();
        assert_eq!(caller.call(&call).status, 103);
        caller.piece("some");
        caller.piece("thing");
        caller.end(&[("X-Sum", "9")]);
        let answer = caller.answer();
        assert_eq!(
            (answer.status, answer.text()),
            (201, "something".to_owned())
        );
        assert_eq!(answer.field("x-sum"), Some("9"));

        let pieces = caller.call(&Call::get("/pieces"));
        let trailers = pieces.trailers.len();
        assert_eq!((pieces.text(), trailers), ("something".to_owned(), 1));
        let early = caller.call(&Call::post("/early", "unread"));
        assert_eq!(early.text(), "/early");
        assert_eq!(server.last_request().target, "/pieces");

        let mut left = protocol.connect(server.address());
        left.send(&Call::get("/left"));
        assert!(!left.is_answered());
        left.leave();
        eventually("the server has seen it", Duration::from_secs(5), || {
            server.last_request().target == "/left"
        });
        caller.send(&Call::get("/cut"));
        assert!(caller.try_answer().is_none(), "it is not whole");
    }
}

#[test]
fn a_server_can_reset_and_a_client_sees_it() {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.reset()
    });
    let mut client = Client::connect(server.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let error = client.rest().expect_err("a reset, not a FIN");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_program_runs_inside_a_cgroup_and_both_are_gone_after() {
    let cgroup = Cgroup::new();
    let path = cgroup.path().to_path_buf();
    let inside = program::succeed(cgroup.command("cat").arg("/proc/self/cgroup"));
    let name = path
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    assert!(inside.contains(&name), "{inside}");
    let mut sleeper = cgroup
        .command("sleep")
        .arg("60")
        .spawn()
        .expect("sleep is there");
    eventually("it is inside", Duration::from_secs(5), || {
        cgroup.processes().contains(&sleeper.id())
    });
    drop(cgroup);
    assert!(!path.exists());
    sleeper.wait().expect("it was killed");
}

#[test]
fn a_listener_can_be_inside_a_namespace() {
    let namespace = Netns::new();
    let server = Server::over(namespace.listen("127.0.0.1:80"), |connection| {
        connection.serve_http(|_| text("inside"))
    });
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = std::process::Command::new(nsenter);
    let body = program::succeed(
        command
            .args([entered, curl])
            .args(["-sS", "http://127.0.0.1/"]),
    );
    assert_eq!(body, "inside");
    assert_eq!(server.connections(), 1);
}

#[test]
fn every_way_to_connect_works_without_a_proxy() {
    let namespace = crate::capture_scope::world(&["10.1.0.0/16"]);
    namespace.ip(&["-6", "route", "add", "local", "fd00:1:2::/64", "dev", "lo"]);
    let _server = Server::over(namespace.listen("[::]:8080"), |connection| {
        connection
            .serve_http(|request| response("200 OK", "Connection: close\r\n", &request.target))
    });
    let modes = [
        "blocking",
        "nonblocking",
        "asyncio",
        "http.client",
        "fastopen-sendto",
        "fastopen-connect",
        "mptcp",
        "reconnect",
        "bound",
    ];
    for (host, source) in [("10.1.2.7", "127.0.0.1"), ("fd00:1:2::7", "::1")] {
        for mode in modes {
            let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
            let mut command = std::process::Command::new(nsenter);
            command.args([entered, python, "-c".into(), include_str!("get.py").into()]);
            let said = program::succeed(command.args([mode, host, "8080", source]));
            assert_eq!(said, format!("{host} 8080\n/{mode}\n"));
        }
    }
}

#[test]
fn ten_thousand_connections_work_without_a_proxy() {
    let namespace = crate::capture_scope::world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        let called = connection.local_address().ip().to_string();
        connection.serve_http(|_| response("200 OK", "Connection: close\r\n", &called))
    });
    let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
    let mut command = std::process::Command::new(nsenter);
    let said =
        program::succeed(command.args([entered, python, "-c".into(), crate::scale::MANY.into()]));
    assert_eq!((said.trim(), server.connections()), ("10000 0", 10_000));
}
