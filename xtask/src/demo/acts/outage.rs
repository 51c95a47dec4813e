//! The upstream dies: the circuit opens, and callers are told at once.

use std::time::{Duration, Instant};

use super::{Stage, UPSTREAM, count, expect};
use crate::demo::paint::time;
use crate::demo::upstream::Script;
use crate::demo::{DESTINATION, curl};
use crate::workspace::Failure;

/// Calls after which the circuit must have opened; it does after the second.
const CALLS_MAX: usize = 5;

/// Calls while it is open, for the median.
const CALLS_WHILE_OPEN: usize = 200;

/// What was seen of it.
pub struct Outage {
    /// When the upstream stopped answering.
    pub began: Instant,
    /// The median of a call that was answered at once.
    pub fast_failure: Duration,
}

/// Calls until one is answered without the upstream, then many more.
pub fn play(stage: &Stage) -> Result<Outage, Failure> {
    let Stage {
        scene,
        upstream,
        paint,
    } = stage;
    paint.title("3. An outage, and callers who do not wait for it");
    println!("The upstream still takes requests. It answers none.\n");
    upstream.play(Script::Silent);
    let began = Instant::now();
    open(stage)?;

    let seen_before = upstream.requests();
    let url = format!("http://{DESTINATION}/hello");
    println!();
    paint.command(&format!("curl -i {url}"));
    let shown = curl::shown(scene.command("curl"), &["-i", &url])?;
    paint.bad(shown.replace('\r', "").trim_end());
    println!();
    let many = format!("{url}?[1-{CALLS_WHILE_OPEN}]");
    paint.command(&format!("curl '{many}'"));
    let answers = stage.calls(&[&many])?;
    let fast = count(&answers, 503, "circuit-open");
    let seen = upstream.requests() - seen_before;
    let fast_failure = curl::median(&answers);
    paint.row("answered `circuit-open`", fast);
    paint.row("median, as curl saw it", time(fast_failure));
    paint.row("requests that the upstream saw", seen);
    let admin = scene.admin();
    println!();
    paint.command(&format!("curl http://{}/upstreams", admin.address()));
    println!(
        "... \"circuit_breaker\": {} ...",
        admin.breaker(UPSTREAM.1)?
    );
    expect((fast, seen) == (CALLS_WHILE_OPEN, 0), || {
        format!("{fast} calls of {CALLS_WHILE_OPEN} were refused, and the upstream saw {seen}")
    })?;
    Ok(Outage {
        began,
        fast_failure,
    })
}

/// Calls, one after the other, until the circuit is open.
fn open(stage: &Stage) -> Result<(), Failure> {
    let url = format!("http://{DESTINATION}/hello");
    println!("  call  tries  curl waited  answer");
    let mut failed = 0;
    for call in 1..=CALLS_MAX {
        let seen_before = stage.upstream.requests();
        for answer in stage.calls(&[&url])? {
            let tries = stage.upstream.requests() - seen_before;
            println!(
                "  {call:>4}  {tries:>5}  {:>11}  {} {}",
                time(answer.time),
                answer.status,
                answer.reason
            );
            if answer.reason == "circuit-open" && tries == 0 {
                println!("\n{failed} failed tries in a row have opened the circuit.");
                return Ok(());
            }
            failed += tries;
        }
    }
    expect(false, || {
        format!("after {CALLS_MAX} calls the circuit is not open")
    })
}
