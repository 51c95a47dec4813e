//! A token address is worth its upstream's credentials: nobody borrows one.

use std::process::Command;

use ambassador_tests::{Backend, Cgroup, Netns, Proxy, Server, on_both_backends, program};

use crate::capture::{claim, get};

on_both_backends!(
    a_captured_process_cannot_call_a_token,
    an_uncaptured_process_cannot_call_a_token,
    a_neighbour_namespace_cannot_call_a_token,
);

/// Prints the address and port that a captured socket was really sent to: the
/// kernel's own list of connections shows them, getpeername does not. Other
/// connections may have the same local port, but lead to no token: those begin
/// with 127.64 and fd7f:656d, which the list has word by word from the end.
const FIND_TOKEN: &str = "import socket\n\
    s=socket.create_connection((HOST,80),10)\n\
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'); s.recv(999)\n\
    port='%04X' % s.getsockname()[1]\n\
    rows=[l.split() for f in ('tcp','tcp6') for l in open('/proc/net/'+f).readlines()[1:]]\n\
    token=lambda r: r[2][4:8]=='407F' or r[2].startswith('6D657FFD')\n\
    row=[r for r in rows if r[1].endswith(':'+port) and token(r)][0]\n\
    h,p=row[2].split(':')\n\
    raw=b''.join(bytes.fromhex(h[i:i+8])[::-1] for i in range(0,len(h),8))\n\
    print(socket.inet_ntop(socket.AF_INET if len(raw)==4 else socket.AF_INET6,raw),int(p,16))\n";

/// Ends with `refused` unless something answers at the token.
const TRY_TOKEN: &str = "import socket,sys\n\
    try:\n\
    \x20s=socket.create_connection((sys.argv[1],int(sys.argv[2])),5)\n\
    \x20s.settimeout(5); s.sendall(b'GET / HTTP/1.1\\r\\nHost: web.test\\r\\n\\r\\n')\n\
    \x20print('answered' if s.recv(999) else 'refused')\n\
    except OSError: print('refused')\n";

fn find_token(cgroup: &Cgroup, host: &str) -> (String, String) {
    let script = FIND_TOKEN.replace("HOST", &format!("'{host}'"));
    let line = program::succeed(cgroup.command(program::PYTHON).args(["-c", &script]));
    let (address, port) = line.trim().split_once(' ').expect("address and port");
    assert_ne!(address, host, "it was captured");
    (address.to_owned(), port.to_owned())
}

fn a_captured_process_cannot_call_a_token(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(
        backend,
        &cgroup,
        &claim("10.1.2.3, \"fd00:1:2::3\"", &server),
    );
    for host in ["10.1.2.3", "fd00:1:2::3"] {
        let (address, port) = find_token(&cgroup, host);
        let mut attempt = cgroup.command(program::PYTHON);
        let said = program::succeed(attempt.args(["-c", TRY_TOKEN, &address, &port]));
        assert_eq!(said.trim(), "refused", "{address}");
    }
    assert_eq!(
        get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1,
        "ok",
        "honest clients go on"
    );
}

fn an_uncaptured_process_cannot_call_a_token(backend: Backend) {
    let server = Server::ok();
    let (cgroup, other) = (Cgroup::new(), Cgroup::new());
    let _proxy = Proxy::capturing(
        backend,
        &cgroup,
        &claim("10.1.2.3, \"fd00:1:2::3\"", &server),
    );
    for host in ["10.1.2.3", "fd00:1:2::3"] {
        let (address, port) = find_token(&cgroup, host);
        let before = server.requests().len();
        let mut attempt = other.command(program::PYTHON);
        let said = program::succeed(attempt.args(["-c", TRY_TOKEN, &address, &port]));
        assert_eq!(
            (said.trim(), server.requests().len()),
            ("refused", before),
            "{address}"
        );
    }
}

fn a_neighbour_namespace_cannot_call_a_token(backend: Backend) {
    let (home, neighbour) = (Netns::new(), Netns::new());
    home.connect("fd99::1/64", &neighbour, "fd99::2/64");
    let server = Server::over(home.listen("127.0.0.1:9000"), |connection| {
        connection.serve_http(|_| ambassador_tests::server::text("ok"))
    });
    let cgroup = Cgroup::new();
    let config = format!(
        "capture: {{ cgroups: [{{ path: {}, netns: {} }}] }}\n\
         upstreams: {{ web: {{ hosts: [\"fd00:1:2::3\"], endpoints: [\"127.0.0.1:9000\"] }} }}\n",
        cgroup.path().display(),
        home.path().display()
    );
    let _proxy = Proxy::start(backend, &config);
    let script = FIND_TOKEN.replace("HOST", "'fd00:1:2::3'");
    let [nsenter, entered, python] = home.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    let line = program::succeed(command.args([entered, python, "-c".into(), script]));
    let (address, port) = line.trim().split_once(' ').expect("address and port");
    let before = server.requests().len();
    // The neighbour routes the token's address to the workload's namespace.
    neighbour.ip(&[
        "-6",
        "route",
        "add",
        &format!("{address}/128"),
        "via",
        "fd99::1",
    ]);
    let [nsenter, entered, python] = neighbour.wrap(program::PYTHON);
    let mut attempt = Command::new(nsenter);
    let said =
        program::succeed(attempt.args([entered.as_str(), &python, "-c", TRY_TOKEN, address, port]));
    assert_eq!(
        (said.trim(), server.requests().len()),
        ("refused", before),
        "{address}"
    );
}
