//! SIGTERM: work in flight finishes, new work is not taken, the end is a 0.

use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(
    work_in_flight_finishes,
    an_idle_proxy_ends_at_once,
    idle_connections_close_at_once_and_busy_ones_with_their_answer,
    the_deadline_cuts_what_does_not_finish,
    a_second_signal_cuts_the_delay_and_no_request,
);

const SOON: Duration = Duration::from_secs(10);

fn work_in_flight_finishes(backend: Backend) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::http(move |_| {
        let _ = wait
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(20));
        text("finished")
    });
    let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    eventually("it takes no more", SOON, || {
        proxy.admin_status("/readyz") != Some(200) || Client::try_connect(listen).is_none()
    });
    go.send(()).expect("the server waits");
    assert_eq!(client.response("GET").text(), "finished");
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn an_idle_proxy_ends_at_once(backend: Backend) {
    let server = Server::ok();
    let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 200);
    proxy.signal(libc::SIGTERM);
    assert_eq!(
        proxy.wait(Duration::from_millis(1500)).code(),
        Some(0),
        "well before the deadline"
    );
    assert!(client.is_ended());
    eventually("upstream connections ended", SOON, || {
        server.open_connections() == 0
    });
}

fn idle_connections_close_at_once_and_busy_ones_with_their_answer(backend: Backend) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::http(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one user");
            wait.recv_timeout(SOON).expect("it is told to go on");
        }
        text("done")
    });
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "");
    // One shard, so that what one connection sees holds for the other.
    let mut proxy = Proxy::start(backend, &format!("workers: 1\n{config}"));
    let (mut busy, mut idle) = (Client::connect(listen), Client::connect(listen));
    busy.send(get("/slow"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    let before = idle.get("/");
    assert_eq!((before.status, before.field("connection")), (200, None));
    proxy.signal(libc::SIGTERM);
    assert!(idle.is_ended(), "it has nothing to wait for");
    go.send(()).expect("the server waits");
    let answer = busy.response("GET");
    assert_eq!(answer.text(), "done");
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(busy.is_ended());
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn a_second_signal_cuts_the_delay_and_no_request(backend: Backend) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::http(move |_| {
        let wait = wait.lock().expect("one user");
        let _ = wait.recv_timeout(Duration::from_secs(20));
        text("finished")
    });
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "").replace("drain_timeout: 2s", "");
    let mut proxy = Proxy::start(backend, &format!("drain_delay: 20s\n{config}"));
    let mut client = Client::connect(listen);
    client.send(get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    eventually("it is told", SOON, || {
        proxy.admin_status("/readyz") != Some(200)
    });
    assert!(Client::try_connect(listen).is_some(), "it serves on");
    proxy.signal(libc::SIGTERM);
    eventually("it takes no more", SOON, || {
        Client::try_connect(listen).is_none()
    });
    // Longer than an end that hangs is given beyond its time.
    std::thread::sleep(Duration::from_millis(1_200));
    go.send(()).expect("the server waits");
    assert_eq!(client.response("GET").text(), "finished");
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn the_deadline_cuts_what_does_not_finish(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        let mut byte = [0];
        connection.read(&mut byte).map(drop)
    });
    let (mut proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    assert_eq!(
        proxy.wait(SOON).code(),
        Some(0),
        "drain_timeout is 2 s here"
    );
    assert!(
        client
            .try_response("GET")
            .is_none_or(|answer| answer.status == 503)
    );
}
