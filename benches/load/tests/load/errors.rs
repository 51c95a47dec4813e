//! What goes wrong is told, told apart, and ends.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketType};

use crate::program::{read_request, run, server, try_run};

const SHORT: &str = "--closed --connections 2 --size 3 --seconds 0.2";

#[test]
fn wrong_answers_are_counted_by_kind() {
    for (answer, kind) in [
        ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour", "length"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nfour",
            "surplus",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\non", "closed"),
        ("SSH-2.0-x\r\n\r\n", "malformed"),
    ] {
        let address = server(move |mut stream| {
            if read_request(&mut stream) {
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let report = run(address, SHORT);
        assert_eq!(report["requests"], 0, "{report}");
        assert!(report["errors_total"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(report["errors"][kind], report["errors_total"], "{report}");
    }
}

#[test]
fn where_nobody_listens_there_is_no_run() {
    // Bound, so that the port is nobody else's, and not listening.
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    net::bind(&socket, &any).unwrap();
    let address = net::getsockname(&socket).unwrap().try_into().unwrap();
    let output = try_run(address, SHORT);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("0 of 2 connections opened"), "{stderr}");
    assert!(stderr.contains("refused"), "{stderr}");
    // A connection per request: each fails, and the run is an honest one.
    let report = run(address, &format!("{SHORT} --new-connections"));
    assert_eq!(report["errors"]["connect"], report["errors_total"]);
    // Two places that rest 10 ms after each failure.
    let errors = report["errors_total"].as_u64().unwrap();
    assert!((2..=42).contains(&errors), "{report}");
}

#[test]
fn a_silent_server_saturates_and_does_not_hang() {
    let address = server(|mut stream| while read_request(&mut stream) {});
    let begun = Instant::now();
    let line = "--rate 1000 --connections 2 --size 64 --seconds 2";
    let report = run(address, line);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(report["requests"], 0);
    // Two are asked, a second's worth waits, and the rest finds no room.
    assert_eq!(report["errors"]["unfinished"], 1002, "{report}");
    assert_eq!(report["errors"]["overflow"], 998);
    let open = &report["open_loop"];
    assert_eq!(open["saturated"], true);
    assert_eq!(open["overflowed"], 998);
    assert_eq!(open["queue_peak"], 1000);
}

#[test]
fn a_stall_delays_all_that_was_due_meanwhile() {
    let stalled = AtomicBool::new(false);
    let begun = Instant::now();
    let address = server(move |mut stream| {
        while read_request(&mut stream) {
            let due = begun.elapsed() > Duration::from_millis(500);
            if due && !stalled.swap(true, Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx");
        }
    });
    let line = "--rate 500 --connections 1 --size 1 --seconds 2";
    let report = run(address, line);
    assert_eq!(report["requests"], 1000, "{report}");
    assert_eq!(report["errors_total"], 0);
    // One request stalled. A quarter was due while it did.
    let p90 = report["latency"]["us"]["p90"].as_f64().unwrap();
    assert!(p90 > 200_000.0, "{report}");
    assert!(report["open_loop"]["queue_peak"].as_u64().unwrap() >= 200);
}
