//! SIGTERM: work in flight finishes, new work is not taken, the end is a 0.

use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Answer, Call, Column, Proxy, eventually, matrix, ports};

matrix!(
    work_in_flight_finishes,
    an_idle_proxy_ends_at_once,
    idle_connections_close_at_once_and_busy_ones_with_their_answer,
    the_deadline_cuts_what_does_not_finish,
    a_second_signal_cuts_the_delay_and_no_request,
);

const SOON: Duration = Duration::from_secs(10);

fn work_in_flight_finishes(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.server(move |_| {
        let _ = wait
            .lock()
            .expect("one user")
            .recv_timeout(Duration::from_secs(20));
        Answer::ok("finished")
    });
    let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    eventually("it takes no more", SOON, || {
        proxy.admin_status("/readyz") != Some(200) || column.try_connect(listen).is_none()
    });
    go.send(()).expect("the server waits");
    assert_eq!(client.answer().text(), "finished");
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn an_idle_proxy_ends_at_once(column: Column) {
    let server = column.ok();
    let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
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

fn idle_connections_close_at_once_and_busy_ones_with_their_answer(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.server(move |request| {
        if request.target == "/slow" {
            let wait = wait.lock().expect("one user");
            wait.recv_timeout(SOON).expect("it is told to go on");
        }
        Answer::ok("done")
    });
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "");
    // One shard, so that what one connection sees holds for the other.
    let mut proxy = Proxy::start(column, &format!("workers: 1\n{config}"));
    let (mut busy, mut idle) = (column.connect(listen), column.connect(listen));
    busy.send(&Call::get("/slow"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    let before = idle.get("/");
    assert_eq!((before.status, before.field("connection")), (200, None));
    assert!(!idle.is_told_of_end(&before));
    proxy.signal(libc::SIGTERM);
    assert!(idle.is_ended(), "it has nothing to wait for");
    go.send(()).expect("the server waits");
    let answer = busy.answer();
    assert_eq!(answer.text(), "done");
    assert!(busy.is_told_of_end(&answer));
    assert!(busy.is_ended());
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn a_second_signal_cuts_the_delay_and_no_request(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.server(move |_| {
        let wait = wait.lock().expect("one user");
        let _ = wait.recv_timeout(Duration::from_secs(20));
        Answer::ok("finished")
    });
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "").replace("drain_timeout: 2s", "");
    let mut proxy = Proxy::start(column, &format!("drain_delay: 20s\n{config}"));
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    eventually("it is told", SOON, || {
        proxy.admin_status("/readyz") != Some(200)
    });
    assert!(column.try_connect(listen).is_some(), "it serves on");
    proxy.signal(libc::SIGTERM);
    eventually("it takes no more", SOON, || {
        column.try_connect(listen).is_none()
    });
    // Longer than an end that hangs is given beyond its time.
    std::thread::sleep(Duration::from_millis(1_200));
    go.send(()).expect("the server waits");
    assert_eq!(client.answer().text(), "finished");
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

fn the_deadline_cuts_what_does_not_finish(column: Column) {
    let server = column.silent();
    let (mut proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it is in flight", SOON, || server.requests().len() == 1);
    proxy.signal(libc::SIGTERM);
    assert_eq!(
        proxy.wait(SOON).code(),
        Some(0),
        "drain_timeout is 2 s here"
    );
    assert!(
        client
            .try_answer()
            .is_none_or(|answer| answer.status == 503)
    );
}
