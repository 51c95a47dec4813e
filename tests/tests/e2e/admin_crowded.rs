//! Nobody keeps others away from the admin API.

use std::net::TcpStream;
use std::time::Duration;

use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, os};

on_both_backends!(
    health_is_answered_while_others_say_nothing,
    health_is_answered_while_others_do_not_read,
);

/// More than there are places.
const CROWD: usize = 200;

#[track_caller]
fn is_healthy(proxy: &Proxy) {
    for path in ["/livez", "/readyz", "/metrics"].repeat(5) {
        let status = proxy.admin_status(path);
        // 503: a shard of a busy machine has had no turn for a second.
        let busy = path == "/readyz" && status == Some(503);
        assert!(busy || status == Some(200), "{path}: {status:?}");
    }
    let ready = || proxy.admin_status("/readyz") == Some(200);
    eventually("it is ready", Duration::from_secs(20), ready);
}

fn health_is_answered_while_others_say_nothing(backend: Backend) {
    let server = Server::ok();
    let (proxy, _) = Proxy::in_front_of(backend, server.address());
    let connect = |_| TcpStream::connect(proxy.admin()).expect("it listens");
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(connect).collect();
    is_healthy(&proxy);
    // The places went to those who came later.
    let newest = crowd.pop().expect("it is there");
    let oldest = crowd.swap_remove(0);
    assert!(Client::over(oldest).is_ended());
    let mut newest = Client::over(newest);
    newest.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(newest.response("GET").status, 200);
}

fn health_is_answered_while_others_do_not_read(backend: Backend) {
    let server = Server::ok();
    let (proxy, _) = Proxy::in_front_of(backend, server.address());
    is_healthy(&proxy);
    let before = proxy.open_files();
    let asks = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(250);
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let stream = os::connect_with_small_buffers(proxy.admin()).expect("it listens");
            // Some have had to leave before they were done.
            let _ = Client::over(stream.try_clone().expect("a socket")).try_send(&asks);
            stream
        })
        .collect();
    is_healthy(&proxy);
    // Those who still have a place and do not read lose it.
    eventually("they are gone", Duration::from_secs(20), || {
        proxy.open_files() <= before
    });
    drop(crowd);
}
