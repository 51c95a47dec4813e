//! Many of everything.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, eventually, on_both_backends, os, program,
};

use crate::capture_scope::{inside, world};

on_both_backends!(
    ten_thousand_connections_over_five_thousand_destinations,
    a_thousand_idle_connections,
    what_a_burst_took_is_given_back,
);

/// Every destination answers with the address that was called; prints how many
/// answers named another one.
pub const MANY: &str = "import asyncio,socket\n\
    async def ask(i):\n\
    \x20n=i%5000; host='10.1.%d.%d'%(n//250,n%250+1)\n\
    \x20r,w=await asyncio.wait_for(asyncio.open_connection(host,80),30)\n\
    \x20peer=w.get_extra_info('peername')[0]\n\
    \x20w.write(b'GET / HTTP/1.1\\r\\nHost: same.test\\r\\nConnection: close\\r\\n\\r\\n')\n\
    \x20body=(await asyncio.wait_for(r.read(),30)).split(b'\\r\\n\\r\\n')[1].decode()\n\
    \x20w.close(); return body==host and peer==host\n\
    async def worker(q,out):\n\
    \x20while q:\n\
    \x20\x20out.append(await ask(q.pop()))\n\
    async def main():\n\
    \x20q=list(range(10000)); out=[]\n\
    \x20await asyncio.gather(*[worker(q,out) for _ in range(64)])\n\
    \x20print(len(out),out.count(False))\n\
    asyncio.run(main())\n";

fn ten_thousand_connections_over_five_thousand_destinations(backend: Backend) {
    os::raise_open_files().expect("a soft limit can be raised");
    let namespace = world(&["10.1.0.0/16"]);
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        let called = connection.local_address().ip().to_string();
        connection.serve_http(|_| text(&called))
    });
    let cgroup = Cgroup::new();
    // No endpoints: each is dialled at its original destination. Idle
    // connections to 5,000 of them would only fill the server with threads.
    let config = "upstreams: { web: { hosts: [10.1.0.0/16], pool: { max_connections: 1000, max_pending: 1000, idle_timeout: 1s, max_idle: 32 } } }\n";
    let proxy = inside(backend, &namespace, &cgroup, config);
    let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    let said = program::succeed(command.args([entered, python, "-c".into(), MANY.into()]));
    assert_eq!(said.trim(), "10000 0", "answers, wrong ones");
    assert!(proxy.metric("ambassador_capture_slots", &[]) >= 5000.0);
}

fn a_thousand_idle_connections(backend: Backend) {
    os::raise_open_files().expect("a soft limit can be raised");
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    // The buffers of the shards come with the first connections.
    for _ in 0..4 {
        assert_eq!(Client::connect(listen).get("/").status, 200);
    }
    let before = proxy.anonymous_bytes();
    let opened: Vec<TcpStream> = (0..1000)
        .map(|_| TcpStream::connect(listen).expect("it listens"))
        .collect();
    let open = [("listener", "egress")];
    eventually("all were accepted", Duration::from_secs(20), || {
        proxy.metric("ambassador_connections", &open) >= 1000.0
    });
    let idle = proxy.anonymous_bytes().saturating_sub(before) / 1000;
    let mut used: Vec<Client> = opened.into_iter().map(Client::over).collect();
    for client in &mut used {
        assert_eq!(client.get("/").status, 200);
    }
    let after = proxy.anonymous_bytes().saturating_sub(before) / 1000;
    println!(
        "{backend:?}: {} KiB private at rest; {idle} bytes per idle connection, {after} after one request each",
        before / 1024
    );
    assert!(idle < 16 * 1024, "{idle} bytes per idle connection");
    assert!(
        after < 32 * 1024,
        "{after} bytes per connection after a request"
    );
    drop(used);
    eventually("none is left", Duration::from_secs(20), || {
        proxy.metric("ambassador_connections", &open) == 0.0
    });
}

fn what_a_burst_took_is_given_back(backend: Backend) {
    os::raise_open_files().expect("a soft limit can be raised");
    // It answers nothing; the kernel accepts for it.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is left");
    server.set_nonblocking(true).expect("it is a socket");
    let (proxy, listen) = Proxy::in_front_of_with(
        backend,
        server.local_addr().expect("it is bound"),
        "pool: { max_connections: 1000 }\nretry: { attempts: 1 }\n\
             circuit_breaker: { failures: off }",
    );
    let in_use = || proxy.metric("ambassador_pool_connections", &[("state", "open")]);
    let during = |requests: usize| {
        let mut clients: Vec<Client> = (0..requests).map(|_| Client::connect(listen)).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
        }
        eventually("all are sent on", Duration::from_secs(20), || {
            in_use() == requests as f64
        });
        let memory = proxy.anonymous_bytes();
        // They close before they answer. Whatever else may dial this port, which
        // was another test's before, is closed too.
        eventually("none is left", Duration::from_secs(20), || {
            while server.accept().is_ok() {}
            in_use() == 0.0
        });
        memory
    };
    // The buffers of the shards come with the first requests.
    for _ in 0..4 {
        during(64);
    }
    let before = proxy.anonymous_bytes();
    let burst = during(1000);
    assert!(burst > before + (3 << 20), "{before} at rest, {burst}");
    eventually("it is as small as before", Duration::from_secs(20), || {
        proxy.anonymous_bytes() < before + (1 << 20)
    });
}
