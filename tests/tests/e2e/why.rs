//! `ambassador why`, and `/failures` behind it: what happened to a request that has
//! failed.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::proxy::binary;
use ambassador_tests::{Answer, Call, Column, Proxy, eventually, matrix, ports, program};
use serde_json::Value;

matrix!(
    every_try_is_told_with_what_was_decided,
    a_rule_is_told_with_its_place_in_the_file,
    what_went_well_is_not_kept,
    a_caller_that_leaves_is_told_of,
    what_was_never_sent_is_told_of,
    the_newest_failures_of_a_url_come_first,
);

const SOON: Duration = Duration::from_secs(10);

/// A GET for the upstream `web` with this request id.
fn asked(request_id: &str) -> Call {
    let call = Call::get("/pay?token=secret").to("client.test");
    let call = call.field("X-Upstream-Host", "web");
    call.field("X-Request-Id", request_id)
}

/// What `ambassador why --json` says of one failure.
fn why(proxy: &Proxy, asked: &str) -> Value {
    let admin = proxy.admin().to_string();
    let mut command = Command::new(binary());
    let output = program::succeed(command.args(["why", "--json", "--admin", &admin, asked]));
    let document: Value = serde_json::from_str(&output).expect("it is JSON");
    document["failures"][0].clone()
}

/// The same for people.
fn told(proxy: &Proxy, asked: &str) -> String {
    let admin = proxy.admin().to_string();
    program::succeed(Command::new(binary()).args(["why", "--admin", &admin, asked]))
}

/// The kinds of its steps, and how its tries ended.
fn steps(failure: &Value) -> Vec<String> {
    let steps = failure["steps"].as_array().expect("a list");
    let word = |step: &Value, name: &str| step[name].as_str().unwrap_or("-").to_owned();
    let of = |step: &Value| match word(step, "step").as_str() {
        "try" => format!("try: {}", word(step, "outcome")),
        "again" => format!("again: {}", word(step, "cause")),
        other => format!("{other}: {}", word(step, "rule")),
    };
    steps.iter().map(of).collect()
}

/// Its steps follow each other.
fn expect_order(failure: &Value) {
    let steps = failure["steps"].as_array().expect("a list");
    let at = |step: &Value| step["at_ms"].as_f64().expect("a moment");
    assert!(steps.is_sorted_by_key(at), "{failure}");
    for step in steps.iter().filter(|step| step["step"] == "try") {
        let names = ["at_ms", "sent_ms", "head_ms", "ended_ms"];
        let moments = names.iter().filter_map(|name| step[name].as_f64());
        assert!(moments.is_sorted(), "{failure}");
    }
}

fn every_try_is_told_with_what_was_decided(column: Column) {
    let asked_for = AtomicUsize::new(0);
    let server = column.script(move |exchange| {
        exchange.request()?;
        match asked_for.fetch_add(1, Ordering::SeqCst) {
            0 => exchange.reset(),
            _ => exchange.send(&Answer::status(503).body("not now")),
        }
    });
    let quick = "retry: { base: 1ms, budget: { ratio: 100%, min_per_second: 1000 } }";
    let more = format!("{quick}\ncircuit_breaker: {{ failures: off }}");
    let (proxy, listen) = column.in_front_of(&server, &more);
    assert_eq!(column.connect(listen).call(&asked("seven")).status, 503);

    let failure = why(&proxy, "seven");
    let expected = [
        "try: upstream-reset",
        "again: reset",
        "try: response",
        "again: 503",
        "try: response",
        "stop: retry.attempts",
    ];
    assert_eq!(steps(&failure), expected, "{failure}");
    expect_order(&failure);
    let endpoint = server.address().to_string();
    for step in failure["steps"].as_array().into_iter().flatten() {
        if step["step"] == "try" {
            assert_eq!(step["endpoint"], endpoint, "{failure}");
            assert!(step["sent_ms"].is_number(), "{failure}");
        }
    }
    assert_eq!(failure["steps"][2]["status"], 503, "{failure}");
    assert_eq!(failure["request_id"], "seven");
    assert_eq!(failure["upstream"], "web");
    assert_eq!(failure["attempts"], 3);
    assert_eq!(failure["protocol"], column.client.name());
    // What may be a secret is not shown.
    assert_eq!(failure["path"], "/pay?…");

    let text = told(&proxy, "seven");
    for words in ["try 3", "answered 503", "all tries have been made", "seven"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

fn a_rule_is_told_with_its_place_in_the_file(column: Column) {
    let server = column.server(|_| Answer::status(503));
    let (proxy, listen) = column.in_front_of(&server, "retry: { attempts: 1 }");
    assert_eq!(column.connect(listen).call(&asked("one")).status, 503);
    let failure = why(&proxy, "one");
    assert_eq!(steps(&failure), ["try: response", "stop: retry.attempts"]);
    let file = std::fs::read_to_string(proxy.config_file()).expect("there is one");
    let line = file.lines().position(|line| line.contains("attempts: 1"));
    let line = line.expect("it is in the file") + 1;
    assert_eq!(
        failure["steps"][1]["from"],
        format!("upstream, line {line}")
    );
    // What may have arrived is not sent twice.
    let call = Call::post("/pay", "7").to("client.test");
    let call = call.field("X-Upstream-Host", "web");
    let call = call.field("X-Request-Id", "post");
    let (proxy, listen) = column.in_front_of(&server, "");
    assert_eq!(column.connect(listen).call(&call).status, 503);
    let failure = why(&proxy, "post");
    assert_eq!(steps(&failure), ["try: response", "stop: retry.methods"]);
    assert_eq!(failure["steps"][1]["from"], "built in");
}

fn what_went_well_is_not_kept(column: Column) {
    let server = column.server(|request| match request.target.as_str() {
        "/gone" => Answer::status(404),
        _ => Answer::ok("ok"),
    });
    let (proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    assert_eq!(client.call(&asked("well")).status, 200);
    assert_eq!(client.get("/gone").status, 404);
    let all: Value = serde_json::from_str(&proxy.admin_get("/failures")).expect("it is JSON");
    assert_eq!(all["failures"], Value::Array(Vec::new()));
    let admin = proxy.admin().to_string();
    let mut command = Command::new(binary());
    let output = program::output(command.args(["why", "--admin", &admin, "well"]));
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("no failure with the request id well"),
        "{words}"
    );
}

fn a_caller_that_leaves_is_told_of(column: Column) {
    let server = column.silent();
    let (proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    client.send(&asked("left"));
    eventually("it has arrived", SOON, || server.requests().len() == 1);
    client.leave();
    let labels = [("upstream", "web"), ("reason", "client-gone")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
    let failure = why(&proxy, "left");
    assert_eq!(failure["reason"], "client-gone");
    assert_eq!(steps(&failure), ["try: cancelled"]);
}

fn what_was_never_sent_is_told_of(column: Column) {
    let nobody = ports::free();
    let (proxy, listen) = Proxy::in_front_of_with(
        column,
        ([127, 0, 0, 1], nobody).into(),
        "retry: { attempts: 1 }\ncircuit_breaker: { failures: 1, sleep: 1h }",
    );
    let mut client = column.connect(listen);
    assert_eq!(client.call(&asked("refused")).status, 502);
    let failure = why(&proxy, "refused");
    assert_eq!(failure["reason"], "connect-failed");
    assert_eq!(failure["explanation"]["at_fault"][0], "the upstream");
    assert_eq!(steps(&failure)[0], "try: connect-failed");
    assert_eq!(failure["steps"][0]["sent_ms"], Value::Null);
    assert_eq!(client.call(&asked("open")).status, 503);
    let failure = why(&proxy, "open");
    assert_eq!(failure["reason"], "circuit-open");
    assert_eq!(steps(&failure), [""; 0]);
    let stray = Call::get("/").to("nobody.test");
    let stray = stray.field("X-Request-Id", "stray");
    assert_eq!(client.call(&stray).status, 404);
    assert_eq!(why(&proxy, "stray")["reason"], "no-route");
}

fn the_newest_failures_of_a_url_come_first(column: Column) {
    let server = column.server(|_| Answer::status(500));
    let (proxy, listen) = column.in_front_of(&server, "circuit_breaker: { failures: off }");
    let mut client = column.connect(listen);
    for id in ["1", "2", "3"] {
        assert_eq!(client.call(&asked(id)).status, 500);
    }
    assert_eq!(why(&proxy, "http://client.test/pay")["request_id"], "3");
    let admin = proxy.admin().to_string();
    let mut command = Command::new(binary());
    let url = "http://client.test:80/pay?whatever";
    let output = command.args(["why", "--json", "--max", "2", "--admin", &admin, url]);
    let document: Value = serde_json::from_str(&program::succeed(output)).expect("JSON");
    let ids = document["failures"].as_array().expect("a list").iter();
    let ids: Vec<_> = ids.map(|failure| failure["request_id"].as_str()).collect();
    assert_eq!(ids, [Some("3"), Some("2")]);
}
