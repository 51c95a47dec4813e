//! A changed file, while requests are in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Cgroup, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, ports,
};

use crate::capture::get;

matrix!(
    a_reload_under_load_fails_no_request,
    a_changed_file_is_seen_without_a_signal,
    a_bad_file_changes_nothing,
    work_in_flight_finishes_where_it_started,
    an_upstream_that_is_gone_keeps_no_connection,
);

on_both_backends!(
    a_swapped_link_is_seen_as_of_a_config_map,
    what_needs_a_restart_is_refused,
    claims_of_captured_destinations_follow,
);

/// Nothing takes nearly as long, but on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn a_reload_under_load_fails_no_request(column: Column) {
    let (one, two) = (
        column.server(|_| Answer::ok("one")),
        column.server(|_| Answer::ok("two")),
    );
    let listen = listen();
    let configs = [
        one_upstream(listen, one.address(), ""),
        one_upstream(listen, two.address(), ""),
    ];
    let proxy = Proxy::start(column, &configs[0]);
    let (stop, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, failed) = (Arc::clone(&stop), Arc::clone(&failed));
            std::thread::spawn(move || {
                let mut client = column.connect(listen);
                let mut count = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    if client.get("/").status != 200 {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    count += 1;
                    if count.is_multiple_of(50) {
                        client = column.connect(listen);
                    }
                }
                count
            })
        })
        .collect();
    for round in 1..=10 {
        proxy.rewrite_config(&configs[round % 2]);
        proxy.signal(libc::SIGHUP);
        eventually("it was reloaded", SOON, || {
            proxy.metric("ambassador_config_reloads_total", &[]) >= round as f64
        });
    }
    stop.store(true, Ordering::Relaxed);
    let total: usize = workers
        .into_iter()
        .map(|worker| worker.join().expect("no panic"))
        .sum();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {total}");
    assert!(!one.requests().is_empty() && !two.requests().is_empty());
}

fn a_changed_file_is_seen_without_a_signal(column: Column) {
    let (one, two) = (
        column.server(|_| Answer::ok("one")),
        column.server(|_| Answer::ok("two")),
    );
    let listen = listen();
    let proxy = Proxy::start(column, &one_upstream(listen, one.address(), ""));
    let mut client = column.connect(listen);
    assert_eq!(client.get("/").text(), "one");
    proxy.rewrite_config(&one_upstream(listen, two.address(), ""));
    eventually("the new upstream answers", SOON, || {
        client.get("/").text() == "two"
    });
}

/// The file is a link through `..data`, which is replaced as a whole.
fn a_swapped_link_is_seen_as_of_a_config_map(backend: Backend) {
    use std::os::unix::fs::symlink;
    let (one, two) = (Server::http(|_| text("one")), Server::http(|_| text("two")));
    let listen = listen();
    let scratch = ambassador_tests::proxy::Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    let admin = format!("admin: {{ listen: \"127.0.0.1:{}\" }}\n", ports::free());
    for (version, server) in [("v1", &one), ("v2", &two)] {
        std::fs::create_dir(path(version)).expect("writable");
        let config = format!("{admin}{}", one_upstream(listen, server.address(), ""));
        std::fs::write(path(version).join("a.yaml"), config).expect("writable");
    }
    symlink("v1", path("..data")).expect("writable");
    symlink("..data/a.yaml", path("a.yaml")).expect("writable");
    let mut child = Running::start(
        ambassador_tests::proxy::ambassador(backend)
            .args(["run", "--config"])
            .arg(path("a.yaml")),
    );
    let said = |wanted: &str| {
        Client::try_connect(listen).is_some_and(|mut client| client.get("/").text() == wanted)
    };
    eventually("the first version answers", SOON, || said("one"));
    symlink("v2", path("..new")).expect("writable");
    std::fs::rename(path("..new"), path("..data")).expect("writable");
    eventually("the second version answers", SOON, || said("two"));
    ambassador_tests::os::kill(child.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(child.wait(SOON).code(), Some(0));
}

fn a_bad_file_changes_nothing(column: Column) {
    let server = column.ok();
    let listen = listen();
    let proxy = Proxy::start(column, &one_upstream(listen, server.address(), ""));
    proxy.rewrite_config("upstreams: { web: { endpointz: [] } }\n");
    proxy.signal(libc::SIGHUP);
    eventually("the failure is counted", SOON, || {
        proxy.metric("ambassador_config_reload_failures_total", &[]) >= 1.0
    });
    assert!(
        proxy.log().contains("endpointz"),
        "the mistake is in the log"
    );
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
}

fn what_needs_a_restart_is_refused(backend: Backend) {
    let server = Server::ok();
    let listen = listen();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &format!("workers: 1\n{config}"));
    proxy.rewrite_config(&format!("workers: 2\n{config}"));
    proxy.signal(libc::SIGHUP);
    eventually("it is refused", SOON, || {
        proxy.metric("ambassador_config_reload_failures_total", &[]) >= 1.0
    });
    assert!(proxy.log().contains("needs a restart"), "{}", proxy.log());
}

fn work_in_flight_finishes_where_it_started(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = column.server(move |_| {
        let _ = wait
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(20));
        Answer::ok("slow")
    });
    let quick = column.server(|_| Answer::ok("quick"));
    let listen = listen();
    let proxy = Proxy::start(column, &one_upstream(listen, slow.address(), ""));
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it is in flight", SOON, || slow.requests().len() == 1);
    proxy.rewrite_config(&one_upstream(listen, quick.address(), ""));
    proxy.signal(libc::SIGHUP);
    // Until then a new request would wait behind the slow one.
    eventually("it is reloaded", SOON, || {
        proxy.metric("ambassador_config_reloads_total", &[]) >= 1.0
    });
    eventually("new work goes elsewhere", SOON, || {
        column.connect(listen).get("/").text() == "quick"
    });
    go.send(()).expect("the server waits");
    assert_eq!(client.answer().text(), "slow");
    assert_eq!(client.get("/").text(), "quick");
}

fn claims_of_captured_destinations_follow(backend: Backend) {
    let (one, two) = (Server::http(|_| text("one")), Server::http(|_| text("two")));
    let cgroup = Cgroup::new();
    let config = |one: &Server, two: &Server| {
        format!(
            "capture: {{ cgroups: [{}], unmatched: refuse }}\nupstreams:\n  \
             a: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }}\n  \
             b: {{ hosts: [10.1.2.4], endpoints: [\"{}\"] }}\n",
            cgroup.path().display(),
            one.address(),
            two.address()
        )
    };
    let proxy = Proxy::start(backend, &config(&one, &two));
    assert_eq!(get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1, "one");
    proxy.rewrite_config(&config(&two, &one));
    proxy.signal(libc::SIGHUP);
    eventually("the destination means the other", SOON, || {
        get(&cgroup, "blocking", "10.1.2.3", 80, &[]).1 == "two"
    });
}

fn an_upstream_that_is_gone_keeps_no_connection(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.server(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one user");
            wait.recv_timeout(SOON).expect("it is told to go on");
        }
        Answer::ok("done")
    });
    let listen = listen();
    let listener = format!(
        "listeners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
         upstreams:\n  other: {{ endpoints: [\"127.0.0.1:1\"] }}\n"
    );
    // Where requests may share a connection, each has one of its own.
    let gone = format!(
        "  web: {{ endpoints: [\"{}\"], http2: {{ max_streams: 1 }} }}\n",
        server.address()
    );
    let proxy = Proxy::start(column, &format!("{listener}{gone}"));
    let (mut slow, mut quick) = (column.connect(listen), column.connect(listen));
    let call = Call::get("/slow").field("X-Upstream-Host", "web");
    slow.send(&call);
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    assert_eq!(quick.get("/").text(), "done");
    assert_eq!(server.open_connections(), 2);
    proxy.rewrite_config(&listener);
    proxy.signal(libc::SIGHUP);
    eventually("the idle one closed", SOON, || {
        server.open_connections() == 1
    });
    go.send(()).expect("the server waits");
    assert_eq!(slow.answer().text(), "done");
    eventually("the other one too", SOON, || server.open_connections() == 0);
    assert_eq!(quick.get("/").status, 404);
    let labels = [("upstream", "web"), ("state", "idle")];
    assert_eq!(proxy.metric("ambassador_pool_connections", &labels), 0.0);
}
