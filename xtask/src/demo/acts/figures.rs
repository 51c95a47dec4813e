//! When the circuit breaker changed, and what all of it came to.

use super::outage::Outage;
use super::recovery::Recovery;
use super::{Stage, UPSTREAM, expect};
use crate::demo::admin::Metrics;
use crate::demo::paint::time;
use crate::demo::timeline::Change;
use crate::workspace::Failure;

/// Shows them. `before` is what was counted before the upstream got flaky.
pub fn play(
    stage: &Stage,
    before: &Metrics,
    outage: &Outage,
    recovery: &Recovery,
    changes: &[Change],
) -> Result<(), Failure> {
    let Stage { scene, paint, .. } = stage;
    paint.title("The circuit, by ambassador_breaker_transitions_total");
    let mut events: Vec<_> = changes
        .iter()
        .map(|change| (change.at, change.to))
        .collect();
    events.push((outage.began, "        the upstream stops answering"));
    events.push((recovery.began, "        the upstream is back"));
    events.sort_by_key(|(at, _)| *at);
    for (at, what) in events {
        let passed = at.saturating_duration_since(outage.began);
        println!("  {:>5.2} s  {what}", passed.as_secs_f64());
    }
    let words: Vec<_> = changes.iter().map(|change| change.to).collect();
    expect(words.ends_with(&["half-open", "closed"]), || {
        format!("the breaker went through {words:?}")
    })?;

    let after = scene.admin().metrics()?;
    let grown = |name: &str, more: &[(&str, &str)]| {
        let labels: Vec<_> = more.iter().copied().chain([UPSTREAM]).collect();
        after.sum(name, &labels) - before.sum(name, &labels)
    };
    paint.title("Figures, from the flaky upstream on");
    let requests = "ambassador_requests_total";
    paint.row("requests", grown(requests, &[]));
    paint.row("answered 200", grown(requests, &[("status", "200")]));
    paint.row("tried again", grown("ambassador_retries_total", &[]));
    paint.row(
        "answered `circuit-open`",
        grown(requests, &[("reason", "circuit-open")]),
    );
    paint.row(
        "median of an answer while it was open",
        time(outage.fast_failure),
    );
    paint.row("probes", recovery.probes);
    let closed = changes
        .last()
        .map(|change| change.at.saturating_duration_since(recovery.began));
    paint.row(
        "from the upstream's return to closed",
        time(closed.unwrap_or_default()),
    );
    Ok(())
}
