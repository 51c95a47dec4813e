//! Every way to generate load, against our own upstream.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::program::{Upstream, histogram, load, run};

#[track_caller]
fn assert_clean(report: &serde_json::Value) -> u64 {
    assert_eq!(report["errors_total"], 0, "{report}");
    let requests = report["requests"].as_u64().expect("a number");
    assert!(requests > 0, "{report}");
    assert_eq!(histogram(&report["latency"]).len(), requests);
    requests
}

#[test]
fn a_closed_loop_keeps_its_connections() {
    let upstream = Upstream::http();
    let line = "--closed --connections 8 --size 1024 --seconds 1 --warmup 0.1";
    let report = run(upstream.address, line);
    let requests = assert_clean(&report);
    let rate = report["requests_per_second"].as_f64().unwrap();
    assert!((rate - requests as f64).abs() < 1.0, "{report}");
    // Little's law: each connection is always in a request, and only one.
    let mean_seconds = report["latency"]["us"]["mean"].as_f64().unwrap() / 1e6;
    assert!((rate * mean_seconds - 8.0).abs() < 2.0, "{report}");
    assert_eq!(report["reconnects"], 0);
    assert!(report.get("connect_call").is_none());
    assert!(report.get("open_loop").is_none());
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let (http, tcp) = (Upstream::http(), Upstream::tcp());
    for size in [1, 64, 1024, 65_536, 1_048_576, 16 << 20] {
        let line = format!("--closed --connections 2 --size {size} --seconds 0.3");
        assert_clean(&run(http.address, &line));
        assert_clean(&run(tcp.address, &format!("{line} --tcp")));
    }
}

#[test]
fn an_open_loop_asks_as_often_as_it_is_told() {
    let (http, tcp) = (Upstream::http(), Upstream::tcp());
    let line = "--rate 1000 --connections 16 --size 64 --seconds 0.5 --warmup 0.1";
    let tcp_line = format!("{line} --tcp");
    for (address, line) in [(http.address, line), (tcp.address, &tcp_line)] {
        let report = run(address, line);
        assert_eq!(assert_clean(&report), 500);
        let open = &report["open_loop"];
        assert_eq!(open["rate"], 1000);
        assert_eq!(open["saturated"], false);
        assert_eq!(histogram(&open["start_delay"]).len(), 500);
    }
}

#[test]
fn the_part_that_counts_is_announced() {
    let upstream = Upstream::http();
    for how in ["--closed", "--rate 1"] {
        let line = format!("{how} --connections 1 --size 64 --seconds 0.5 --warmup 0.5");
        let begun = Instant::now();
        let mut generator = load(&["run", "--announce", "--to", &upstream.address.to_string()])
            .args(line.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(generator.stdout.take().unwrap()).lines();
        let said: Vec<_> = lines.map(|line| (line.unwrap(), begun.elapsed())).collect();
        assert!(generator.wait().unwrap().success());
        let [(begin, at_begin), (end, at_end), (report, _)] = said.try_into().unwrap();
        assert_eq!((begin.as_str(), end.as_str()), ("begin", "end"));
        assert!(at_begin >= Duration::from_millis(500), "{at_begin:?}");
        assert!(at_end >= Duration::from_secs(1), "{at_end:?}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["errors_total"], 0);
    }
}

#[test]
fn a_connection_per_request_is_timed() {
    let upstream = Upstream::http();
    for load in ["--closed", "--rate 500"] {
        for how in ["", "--blocking-connect", "--close fin"] {
            let line =
                format!("{load} {how} --new-connections --connections 4 --size 64 --seconds 0.2");
            let report = run(upstream.address, &line);
            let requests = assert_clean(&report);
            let calls = histogram(&report["connect_call"]);
            let established = histogram(&report["established"]);
            // A request at either edge may be within while its connect is not.
            assert!(calls.len().abs_diff(requests) <= 4, "{line}: {report}");
            assert!(established.len().abs_diff(requests) <= 4, "{line}");
            assert!(established.mean() >= calls.mean(), "{line}");
            assert_eq!(report["reconnects"], 0);
        }
    }
}

#[test]
fn a_connection_that_the_upstream_closes_is_opened_again() {
    let upstream = Upstream::http();
    let report = load(&["run", "--to", &upstream.address.to_string()])
        .args(["--closed", "--connections", "2", "--size", "64"])
        .args(["--seconds", "0.2", "--header", "connection: close"])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&report.stdout).unwrap();
    let requests = assert_clean(&report);
    let reconnects = report["reconnects"].as_u64().unwrap();
    assert!(reconnects >= requests - 2, "{report}");
}

#[test]
fn wrk_and_h2load_measure_the_same_upstream() {
    let output = load(&["crosscheck", "--connections", "4", "--size", "64"])
        .args(["--seconds", "1", "--rounds", "1"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(table.lines().count(), 4, "{table}");
}
