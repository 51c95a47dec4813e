//! Whose the time is that tries take which another one makes good.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::server::{Connection, response, text};
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

use crate::tls_upstream::{free, line};

on_both_backends!(tries_that_give_way_are_no_time_of_the_proxy);

/// How long the upstream thinks about the first try.
const THINKS: Duration = Duration::from_millis(500);

fn tries_that_give_way_are_no_time_of_the_proxy(backend: Backend) {
    let reset = |connection: &mut Connection| connection.reset();
    let refuse = |connection: &mut Connection| {
        connection.write(response("503 Service Unavailable", "", "later"))
    };
    let ignore = |connection: &mut Connection| {
        // Until its caller has gone.
        connection.read(&mut [0; 64]).map(|_| ())
    };
    let hedge = format!("hedge: {{ after: {}ms, budget: 100% }}", THINKS.as_millis());
    gives_way(backend, THINKS, reset, "");
    gives_way(backend, THINKS, refuse, "");
    gives_way(backend, Duration::ZERO, ignore, &hedge);
}

fn gives_way(
    backend: Backend,
    thinks: Duration,
    first: fn(&mut Connection) -> std::io::Result<()>,
    more: &str,
) {
    let requests = AtomicUsize::new(0);
    let server = Server::start(move |connection| {
        while let Some(request) = connection.request()? {
            connection.record(&request);
            if requests.fetch_add(1, Ordering::Relaxed) == 0 {
                std::thread::sleep(thinks);
                return first(connection);
            }
            connection.write(text("here"))?;
        }
        Ok(())
    });
    let listen = free();
    let proxy = Proxy::start(
        backend,
        &format!(
            "listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
             upstreams:\n  web:\n    endpoints: [\"{}\"]\n    \
             retry: {{ base: 1ms }}\n    {more}\n\
             telemetry: {{ access_log: {{ path: stdout }} }}\n",
            server.address()
        ),
    );
    assert_eq!(Client::connect(listen).get("/web/slow").status, 200);
    let line = line(&proxy, "/web/slow");
    let of = |name: &str| Duration::from_secs_f64(line[name].as_f64().unwrap_or_default() / 1e3);
    assert_eq!(line["attempts"], 2, "{line}");
    assert!(of("duration_ms") >= THINKS, "{line}");
    assert!(
        of("overhead_ms") < of("duration_ms") - THINKS * 9 / 10,
        "{line}"
    );
}
