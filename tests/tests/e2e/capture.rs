//! Unmodified clients are captured at connect(), however they connect.

use std::process::Command;
use std::time::Duration;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Netns, Proxy, Server, eventually, on_both_backends, program,
};

on_both_backends!(
    curl_to_an_unroutable_address,
    every_way_to_connect_over_ipv4,
    every_way_to_connect_over_ipv6,
    a_v4_mapped_destination,
    a_client_bound_to_an_address,
    two_endpoints_by_two_destinations,
    an_opaque_protocol_is_relayed,
    a_client_that_says_little_and_ends_is_relayed,
    a_name_in_the_request_wins_over_the_address,
    a_workload_in_another_namespace,
    keep_alive_through_capture,
);

/// Runs one GET of `get.py` inside `cgroup`; gives its two lines.
pub fn get(cgroup: &Cgroup, mode: &str, host: &str, port: u16, more: &[&str]) -> (String, String) {
    let mut command = cgroup.command(program::PYTHON);
    command
        .args(["-c", include_str!("get.py"), mode, host, &port.to_string()])
        .args(more);
    let lines = program::succeed(&mut command);
    let (peer, body) = lines.split_once('\n').expect("two lines");
    (peer.to_owned(), body.trim_end().to_owned())
}

/// An upstream that is what these destinations mean.
pub fn claim(hosts: &str, server: &Server) -> String {
    format!(
        "upstreams: {{ web: {{ hosts: [{hosts}], endpoints: [\"{}\"] }} }}\n",
        server.address()
    )
}

fn curl_to_an_unroutable_address(backend: Backend) {
    let server = Server::http(|request| text(&format!("got {}", request.target)));
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let before = proxy.metric(
        "ambassador_captured_connects_total",
        &[("verdict", "captured")],
    );
    let mut curl = cgroup.command("curl");
    let body = program::succeed(curl.args(["-sS", "-m20", "http://10.1.2.3/hello?x=1"]));
    assert_eq!(body, "got /hello?x=1");
    let request = server.last_request();
    assert_eq!(request.field("host"), Some("10.1.2.3"));
    assert!(
        request
            .field("user-agent")
            .is_some_and(|agent| agent.starts_with("curl/"))
    );
    let after = proxy.metric(
        "ambassador_captured_connects_total",
        &[("verdict", "captured")],
    );
    assert!(
        after > before,
        "counted in the kernel: {before} then {after}"
    );
    let labels = [("upstream", "web"), ("method", "GET"), ("status", "200")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

fn every_way_to_connect_over_ipv4(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.0/24", &server));
    for mode in [
        "blocking",
        "nonblocking",
        "asyncio",
        "http.client",
        "fastopen-sendto",
        "fastopen-connect",
        "mptcp",
        "reconnect",
    ] {
        let (peer, body) = get(&cgroup, mode, "10.1.2.7", 8080, &[]);
        assert_eq!(
            (peer.as_str(), body),
            ("10.1.2.7 8080", format!("/{mode}")),
            "{mode}"
        );
    }
}

fn every_way_to_connect_over_ipv6(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("\"fd00:1:2::/64\"", &server));
    for mode in [
        "blocking",
        "nonblocking",
        "asyncio",
        "http.client",
        "fastopen-sendto",
        "fastopen-connect",
        "mptcp",
    ] {
        let (peer, body) = get(&cgroup, mode, "fd00:1:2::7", 8080, &[]);
        assert_eq!(
            (peer.as_str(), body),
            ("fd00:1:2::7 8080", format!("/{mode}")),
            "{mode}"
        );
    }
}

fn a_v4_mapped_destination(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let (peer, body) = get(&cgroup, "blocking", "::ffff:10.1.2.3", 80, &[]);
    assert_eq!(
        (peer.as_str(), body.as_str()),
        ("::ffff:10.1.2.3 80", "/blocking")
    );
}

fn a_client_bound_to_an_address(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let (peer, body) = get(&cgroup, "bound", "10.1.2.3", 80, &["127.0.0.1"]);
    assert_eq!((peer.as_str(), body.as_str()), ("10.1.2.3 80", "/bound"));
}

fn two_endpoints_by_two_destinations(backend: Backend) {
    let (one, two) = (Server::http(|_| text("one")), Server::http(|_| text("two")));
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams:\n  one: {{ hosts: [\"10.1.0.0/16:80\"], endpoints: [\"{}\"] }}\n  \
         two: {{ hosts: [\"10.1.0.0/16:81\"], endpoints: [\"{}\"] }}\n",
        one.address(),
        two.address()
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    assert_eq!(get(&cgroup, "blocking", "10.1.9.9", 80, &[]).1, "one");
    assert_eq!(get(&cgroup, "blocking", "10.1.9.9", 81, &[]).1, "two");
}

fn an_opaque_protocol_is_relayed(backend: Backend) {
    let server = Server::start(|connection| {
        connection.write("220 hello\r\n")?;
        let mut buffer = [0; 64];
        let count = connection.read(&mut buffer)?;
        let said = buffer[..count].to_vec();
        connection.write(said)
    });
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let script = "import socket,time\n\
        for _ in range(3):\n\
        \x20s=socket.create_connection(('10.1.2.3',25),20)\n\
        \x20t=time.monotonic(); assert s.recv(100)==b'220 hello\\r\\n'\n\
        \x20s.sendall(b'\\x00\\xffquit'); assert s.recv(100)==b'\\x00\\xffquit'; assert s.recv(1)==b''\n\
        \x20s.close()\n";
    program::succeed(cgroup.command(program::PYTHON).args(["-c", script]));
    eventually("three were counted", Duration::from_secs(5), || {
        proxy.metric("ambassador_tcp_connections_total", &[("upstream", "web")]) == 3.0
    });
}

fn a_client_that_says_little_and_ends_is_relayed(backend: Backend) {
    let server = Server::start(|connection| {
        let (mut said, mut buffer) = (Vec::new(), [0; 64]);
        loop {
            match connection.read(&mut buffer)? {
                0 => return connection.write([&said, &b" is all"[..]].concat()),
                count => said.extend_from_slice(&buffer[..count]),
            }
        }
    });
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    // Nothing, what may become a request line, what may become TLS.
    let script = "import socket\n\
        for said in (b'', b'P', b'\\x16\\x03\\x01'):\n\
        \x20s=socket.create_connection(('10.1.2.3',7),20)\n\
        \x20s.sendall(said); s.shutdown(socket.SHUT_WR)\n\
        \x20heard=b''.join(iter(lambda: s.recv(100), b''))\n\
        \x20assert heard==said+b' is all', heard\n";
    program::succeed(cgroup.command(program::PYTHON).args(["-c", script]));
}

fn a_name_in_the_request_wins_over_the_address(backend: Backend) {
    let (by_name, by_address) = (
        Server::http(|_| text("name")),
        Server::http(|_| text("address")),
    );
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams:\n  named: {{ hosts: [api.test], endpoints: [\"{}\"] }}\n  \
         addressed: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }}\n",
        by_name.address(),
        by_address.address()
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    let ask = |name: &str| {
        let mut curl = cgroup.command("curl");
        curl.args(["-sS", "-m20", "--resolve", &format!("{name}:80:10.1.2.3")]);
        program::succeed(curl.arg(format!("http://{name}/")))
    };
    assert_eq!(ask("api.test"), "name");
    assert_eq!(ask("other.test"), "address");
}

fn a_workload_in_another_namespace(backend: Backend) {
    let namespace = Netns::new();
    // The endpoint exists only inside: upstream sockets have to be made there.
    let server = Server::over(namespace.listen("127.0.0.1:9000"), |connection| {
        connection.serve_http(|request| text(&format!("inside {}", request.target)))
    });
    let cgroup = Cgroup::new();
    let config = format!(
        "capture: {{ cgroups: [{{ path: {}, netns: {} }}] }}\n\
         upstreams: {{ web: {{ hosts: [10.1.2.3, \"fd00:1:2::3\"], endpoints: [\"127.0.0.1:9000\"] }} }}\n",
        cgroup.path().display(),
        namespace.path().display()
    );
    let _proxy = Proxy::start(backend, &config);
    for url in ["http://10.1.2.3/four", "http://[fd00:1:2::3]/six"] {
        let [nsenter, entered, curl] = namespace.wrap("curl");
        let mut command = cgroup.command(nsenter);
        let body = program::succeed(command.args([entered, curl]).args(["-sS", "-m20", url]));
        assert!(body.starts_with("inside /"), "{body}");
    }
    assert_eq!(server.requests().len(), 2);
    // A client bound to an address of the namespace that is not loopback.
    namespace.ip(&["addr", "add", "10.200.9.1/32", "dev", "lo"]);
    let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    command.args([entered, python, "-c".into(), include_str!("get.py").into()]);
    let lines = program::succeed(command.args(["bound", "10.1.2.3", "80", "10.200.9.1"]));
    assert!(lines.contains("inside /bound"), "{lines}");
    let mut outside = Command::new("curl");
    let failed = program::output(outside.args(["-sS", "-m1", "http://127.0.0.1:9000/"]));
    assert!(
        !failed.status.success(),
        "nothing of this is in the test's own namespace"
    );
}

fn keep_alive_through_capture(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    let mut curl = cgroup.command("curl");
    let body = program::succeed(curl.args(["-sS", "-m20", "http://10.1.2.3/[1-20]"]));
    assert_eq!(body.matches('/').count(), 20);
    assert_eq!(server.connections(), 1);
    // All but the first, be it that the connection was dialled to see who speaks.
    eventually("they are counted", Duration::from_secs(5), || {
        proxy.metric("ambassador_pool_reuse_total", &[("upstream", "web")]) == 19.0
    });
}
