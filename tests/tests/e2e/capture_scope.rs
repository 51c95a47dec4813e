//! What is captured, what is left alone, and what is refused.

use ambassador_tests::proxy::Launch;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Cgroup, Netns, Proxy, Server, on_both_backends, program};

use crate::capture::{claim, get};

on_both_backends!(
    loopback_is_left_alone,
    excluded_destinations_are_left_alone,
    ports_limit_the_scope,
    unmatched_is_relayed_to_where_it_was_going,
    unmatched_can_be_adopted,
    unmatched_can_pass_through,
    unmatched_can_be_refused,
    udp_is_untouched,
    sockets_made_before_attaching_are_untouched,
    a_device_bound_socket_is_left_alone,
    two_proxies_on_one_cgroup,
);

/// A namespace whose loopback has these addresses, so that they can be called
/// for real.
pub fn world(addresses: &[&str]) -> Netns {
    let namespace = Netns::new();
    for address in addresses {
        namespace.ip(&["route", "add", "local", address, "dev", "lo"]);
    }
    namespace
}

/// A server that says whether the request came through the proxy.
pub fn witness(namespace: &Netns) -> Server {
    Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| {
            let proxied = request.field("x-request-id").is_some();
            text(if proxied { "proxied" } else { "direct" })
        })
    })
}

/// Starts a proxy for a workload of `cgroup` and `namespace`; `config` goes on
/// within `capture`.
pub fn inside(backend: Backend, namespace: &Netns, cgroup: &Cgroup, config: &str) -> Proxy {
    let config = format!(
        "capture:\n  cgroups: [{{ path: {}, netns: {} }}]\n{config}",
        cgroup.path().display(),
        namespace.path().display()
    );
    Proxy::start(backend, &config)
}

/// curl inside both.
pub fn curl(namespace: &Netns, cgroup: &Cgroup, url: &str) -> std::process::Output {
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = cgroup.command(nsenter);
    program::output(command.args([entered, curl]).args(["-sS", "-m10", url]))
}

fn captured(proxy: &Proxy) -> f64 {
    proxy.metric(
        "ambassador_captured_connects_total",
        &[("verdict", "captured")],
    )
}

fn loopback_is_left_alone(backend: Backend) {
    let direct = Server::http(|request| text(request.field("x-request-id").unwrap_or("direct")));
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &direct));
    assert_eq!(
        get(
            &cgroup,
            "blocking",
            "127.0.0.1",
            direct.address().port(),
            &[]
        )
        .1,
        "direct"
    );
    assert_ne!(get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1, "direct");
}

fn excluded_destinations_are_left_alone(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let direct = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| text(request.field("x-request-id").unwrap_or("direct")))
    });
    let cgroup = Cgroup::new();
    let proxy = inside(
        backend,
        &namespace,
        &cgroup,
        "  exclude: { cidrs: [10.1.2.0/24] }\n\
         upstreams: { web: { hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] } }\n",
    );
    let before = captured(&proxy);
    let body = curl(&namespace, &cgroup, "http://10.1.2.3/").stdout;
    assert_eq!(
        (body.as_slice(), captured(&proxy)),
        (&b"direct"[..], before)
    );
    let body = curl(&namespace, &cgroup, "http://10.1.3.3/").stdout;
    assert_ne!(body, b"direct");
    assert_eq!(direct.requests().len(), 2);
}

fn ports_limit_the_scope(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let answer = |connection: &mut ambassador_tests::Connection| {
        connection.serve_http(|request| text(request.field("x-request-id").unwrap_or("direct")))
    };
    let _eighty = Server::over(namespace.listen("0.0.0.0:80"), answer);
    let _other = Server::over(namespace.listen("0.0.0.0:81"), answer);
    let cgroup = Cgroup::new();
    let _proxy = inside(
        backend,
        &namespace,
        &cgroup,
        "  include: { ports: [80] }\nupstreams: { web: { hosts: [10.1.0.0/16] } }\n",
    );
    assert_ne!(
        curl(&namespace, &cgroup, "http://10.1.3.3:80/").stdout,
        b"direct"
    );
    assert_eq!(
        curl(&namespace, &cgroup, "http://10.1.3.3:81/").stdout,
        b"direct"
    );
}

fn unmatched_is_relayed_to_where_it_was_going(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        let called = connection.local_address().to_string();
        connection.serve_http(|_| text(&called))
    });
    let cgroup = Cgroup::new();
    let proxy = inside(backend, &namespace, &cgroup, "  unmatched: proxy\n");
    assert_eq!(
        curl(&namespace, &cgroup, "http://10.1.7.7/").stdout,
        b"10.1.7.7:80"
    );
    proxy.expect_metric(
        "ambassador_requests_total",
        &[("upstream", "unmatched")],
        1.0,
    );
    assert_eq!(server.connections(), 1);
}

fn unmatched_can_be_adopted(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let cgroup = Cgroup::new();
    let proxy = inside(backend, &namespace, &cgroup, "  unmatched: adopt\n");
    assert_eq!(curl(&namespace, &cgroup, "http://10.1.7.7/").stdout, b"ok");
    proxy.expect_metric("ambassador_requests_total", &[("upstream", "adopted")], 1.0);
    assert_eq!(proxy.upstream("10.1.7.7")["source"], "adopted");
}

fn unmatched_can_pass_through(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| text(request.field("x-request-id").unwrap_or("direct")))
    });
    let cgroup = Cgroup::new();
    let _proxy = inside(
        backend,
        &namespace,
        &cgroup,
        "  unmatched: passthrough\nupstreams: { web: { hosts: [10.1.2.3], endpoints: [\"127.0.0.1:80\"] } }\n",
    );
    assert_eq!(
        curl(&namespace, &cgroup, "http://10.1.7.7/").stdout,
        b"direct"
    );
    assert_ne!(
        curl(&namespace, &cgroup, "http://10.1.2.3/").stdout,
        b"direct"
    );
}

fn unmatched_can_be_refused(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let config = format!(
        "capture: {{ cgroups: [{}], unmatched: refuse }}\n{}",
        cgroup.path().display(),
        claim("10.1.2.3", &server)
    );
    let proxy = Proxy::start(backend, &config);
    assert_eq!(get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1, "ok");
    let refused = program::output(
        cgroup
            .command("curl")
            .args(["-sS", "-m5", "http://10.1.7.7/"]),
    );
    assert_eq!(refused.status.code(), Some(7), "ECONNREFUSED: {refused:?}");
    assert!(
        proxy.metric(
            "ambassador_captured_connects_total",
            &[("verdict", "refused")]
        ) >= 1.0
    );
}

fn udp_is_untouched(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(backend, &cgroup, &claim("127.0.0.1/32, 10.1.2.3", &server));
    let script = "import socket\n\
        a=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); a.bind(('127.0.0.1',0)); a.settimeout(10)\n\
        b=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); b.connect(a.getsockname()); b.send(b'hi')\n\
        data,peer=a.recvfrom(9); assert data==b'hi' and peer==b.getsockname()\n\
        c=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
        try:\n\
        \x20c.connect(('10.1.2.3',443)); assert c.getpeername()==('10.1.2.3',443)\n\
        except OSError as e: assert e.errno in (101,113), e\n";
    program::succeed(cgroup.command(program::PYTHON).args(["-c", script]));
}

fn sockets_made_before_attaching_are_untouched(backend: Backend) {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| text(request.field("x-request-id").unwrap_or("direct")))
    });
    // Made outside, moved inside before the proxy is there: still not of the cgroup.
    let script = "import socket,sys,http.client\n\
        s=socket.socket(); e=http.client.HTTPConnection('10.1.2.3',80); e.connect()\n\
        print('made',flush=True); sys.stdin.readline()\n\
        s.settimeout(20); s.connect(('10.1.2.3',80))\n\
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n\
        print(s.recv(9999).split(b'\\r\\n\\r\\n')[1].decode(),flush=True)\n\
        e.request('GET','/'); print(e.getresponse().read().decode(),flush=True)\n\
        n=http.client.HTTPConnection('10.1.2.3',80); n.request('GET','/')\n\
        print(n.getresponse().read().decode(),flush=True)\n";
    let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
    let mut child = std::process::Command::new(nsenter)
        .args([entered, python, "-c".into(), script.into()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "made");
    let cgroup = Cgroup::new();
    cgroup.adopt(child.id());
    let config = "upstreams: { web: { hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] } }\n";
    let _proxy = inside(backend, &namespace, &cgroup, config);
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"go\n")
        .expect("it reads");
    assert_eq!(line(), "direct", "a socket made elsewhere");
    assert_eq!(line(), "direct", "an established connection");
    assert_ne!(line(), "direct", "a socket made inside");
    child.wait().expect("it ends");
    assert_eq!(server.requests().len(), 3);
}

fn a_device_bound_socket_is_left_alone(backend: Backend) {
    let (near, far) = (Netns::new(), Netns::new());
    near.connect("10.201.1.1/24", &far, "10.201.1.2/24");
    let _server = Server::over(far.listen("10.201.1.2:80"), |connection| {
        connection.serve_http(|request| text(request.field("x-request-id").unwrap_or("direct")))
    });
    let cgroup = Cgroup::new();
    let config = "upstreams: { web: { hosts: [10.201.1.2] } }\n";
    let _proxy = inside(backend, &near, &cgroup, config);
    let script = "import socket,os\n\
        dev=[n for i,n in socket.if_nameindex() if n!='lo'][0]\n\
        s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,25,dev.encode()); s.settimeout(10)\n\
        s.connect(('10.201.1.2',80)); s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n\
        print(s.recv(9999).split(b'\\r\\n\\r\\n')[1].decode())\n";
    let [nsenter, entered, python] = near.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    let body = program::succeed(command.args([entered, python, "-c".into(), script.into()]));
    assert_eq!(body.trim(), "direct");
    assert_ne!(curl(&near, &cgroup, "http://10.201.1.2/").stdout, b"direct");
}

fn two_proxies_on_one_cgroup(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let first = Proxy::capturing(backend, &cgroup, &claim("10.1.2.3", &server));
    // Its canary lands at the first: it lives, and is not ready.
    let second = Proxy::spawn(
        backend,
        &claim("10.1.2.3", &server),
        Launch {
            arguments: vec!["--cgroup".into(), cgroup.path().display().to_string()],
            ..Launch::default()
        },
    );
    let soon = std::time::Duration::from_secs(10);
    ambassador_tests::eventually("the second lives", soon, || {
        second.admin_status("/livez") == Some(200)
    });
    assert_eq!(second.admin_status("/readyz"), Some(503));
    for _ in 0..10 {
        assert_eq!(get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1, "ok");
    }
    let served = |proxy: &Proxy| proxy.metric("ambassador_requests_total", &[("status", "200")]);
    // Each request by exactly one of them.
    ambassador_tests::eventually("ten were served", std::time::Duration::from_secs(5), || {
        served(&first) + served(&second) == 10.0
    });
    drop(second);
    assert_eq!(get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1, "ok");
}
