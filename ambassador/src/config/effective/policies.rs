//! The policies in effect, key by key as the file writes them: what `explain`
//! lists and what `/config` shows.

use serde_json::{Value, json};

use super::time;
use crate::config::raw;
use crate::config::values::{Moment, Propagation};
use crate::http::trace::Formats;
use crate::policy::balance::{Key, LoadBalancing};
use crate::policy::breaker::{self, Ratio, Trip};
use crate::policy::concurrency;
use crate::policy::fault::Settings;
use crate::policy::hedge::{self, After};
use crate::policy::limits::{Pool, Timeouts};
use crate::policy::outlier;
use crate::policy::rate_limit;
use crate::policy::retry::Retry;
use crate::policy::statuses::Statuses;
use crate::route::settings::{Policies, Protocol};

/// Groups and keys that mean nothing where no requests are seen.
const OF_REQUESTS: &[&str] = &[
    "timeouts.first_byte",
    "timeouts.per_try",
    "timeouts.request",
    "timeouts.head",
    "timeouts.min_rate",
    "retry.on",
    "retry.elsewhere",
    "retry.methods",
    "retry.idempotency_header",
    "retry.body_limit",
    "retry.honor_retry_after",
    "circuit_breaker.failure_statuses",
    "rate_limit",
    "hedge.",
    "concurrency.",
    "max_hops",
];

/// A key, as `pool.max_idle`, and its value.
pub(in crate::config) type Entry = (&'static str, Value);

/// Every key but those of headers, in the order of the reference. Those that
/// mean nothing to the protocol are left out.
pub(in crate::config) fn entries(protocol: Protocol, policies: &Policies) -> Vec<Entry> {
    let mut entries = Vec::new();
    pool(&policies.pool, &mut entries);
    timeouts(&policies.timeouts, &mut entries);
    retry(&policies.retry, &mut entries);
    circuit_breaker(&policies.circuit_breaker, &mut entries);
    rate_limit(policies.rate_limit.as_ref(), &mut entries);
    entries.push(load_balancing(&policies.load_balancing));
    entries.extend(policies.zone.as_deref().map(|zone| ("zone", zone.into())));
    outlier(&policies.outlier, &mut entries);
    entries.extend(hedge(&policies.hedge));
    concurrency(&policies.concurrency, &mut entries);
    let hops = policies.hops.max;
    entries.push(("max_hops", hops.map_or("off".into(), |max| max.into())));
    fault(policies.fault.as_deref(), &mut entries);
    let formats = policies.tracing.map(|tracing| tracing.formats);
    entries.extend(formats.map(|formats| ("propagate", propagate(formats))));
    if protocol == Protocol::Tcp {
        let of_requests = |key: &str| OF_REQUESTS.iter().any(|start| key.starts_with(start));
        entries.retain(|(key, _)| !of_requests(key));
    }
    entries
}

/// The groups as mappings.
pub(super) fn groups(entries: Vec<Entry>) -> serde_json::Map<String, Value> {
    let mut groups = serde_json::Map::new();
    for (key, value) in entries {
        let (group, rest) = key.split_once('.').unwrap_or((key, ""));
        let mut at = groups.entry(group).or_insert(Value::Null);
        for name in rest.split('.').filter(|name| !name.is_empty()) {
            at = &mut at[name];
        }
        *at = value;
    }
    groups
}

/// A value in one line of text.
pub(in crate::config) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn pool(pool: &Pool, entries: &mut Vec<Entry>) {
    let caps = [
        ("pool.max_connections", pool.max_connections),
        ("pool.max_pending", Some(pool.max_pending)),
        ("pool.max_requests", pool.max_requests),
    ];
    entries.extend(
        caps.into_iter()
            .filter_map(|(key, cap)| Some((key, cap?.into()))),
    );
    entries.extend([
        ("pool.max_idle", pool.max_idle.into()),
        ("pool.min_idle", pool.min_idle.into()),
        ("pool.idle_timeout", time(pool.idle_timeout).into()),
        ("pool.max_lifetime", time(pool.max_lifetime).into()),
    ]);
}

fn timeouts(timeouts: &Timeouts, entries: &mut Vec<Entry>) {
    let limit = |limit: Option<_>| limit.map_or("none".into(), |limit| time(limit).into());
    entries.extend([
        ("timeouts.connect", time(timeouts.connect).into()),
        ("timeouts.first_byte", limit(timeouts.first_byte)),
        ("timeouts.per_try", limit(timeouts.per_try)),
        ("timeouts.request", limit(timeouts.request)),
        ("timeouts.idle", time(timeouts.idle).into()),
        ("timeouts.tunnel", time(timeouts.tunnel).into()),
        ("timeouts.head", time(timeouts.head).into()),
        (
            "timeouts.min_rate",
            timeouts.min_rate.map_or("off".into(), |rate| {
                format!("{}/s", size(rate.0.get().into())).into()
            }),
        ),
        (
            "tcp_keepalive",
            timeouts
                .keep_alive
                .map_or("off".into(), |silence| time(silence).into()),
        ),
    ]);
}

fn retry(retry: &Retry, entries: &mut Vec<Entry>) {
    let causes = [
        ("connect-failure", retry.on_connect_failure),
        ("reset", retry.on_reset),
    ];
    let causes = causes.into_iter().filter(|(_, is_cause)| *is_cause);
    let mut on: Vec<Value> = causes.map(|(cause, _)| cause.into()).collect();
    on.extend(statuses(&retry.on_statuses));
    let methods: Vec<&str> = retry.methods.names().collect();
    let budget = &retry.budget;
    entries.extend([
        ("retry.attempts", retry.attempts.into()),
        ("retry.on", on.into()),
        ("retry.elsewhere", raw::Switch::word(retry.elsewhere).into()),
        ("retry.methods", methods.into()),
        (
            "retry.idempotency_header",
            (*retry.idempotency_header).into(),
        ),
        ("retry.base", time(retry.base).into()),
        ("retry.cap", time(retry.cap).into()),
        ("retry.budget.ratio", super::percent(budget.ratio).into()),
        ("retry.budget.min_per_second", budget.min_per_second.into()),
        ("retry.body_limit", size(retry.body_limit).into()),
        ("retry.honor_retry_after", retry.honor_retry_after.into()),
    ]);
}

fn circuit_breaker(breaker: &breaker::Settings, entries: &mut Vec<Entry>) {
    // What the form of threshold that is not in effect would say is left out.
    let consecutive: Value = match breaker.trip {
        Trip::Never => {
            entries.push(("circuit_breaker.failures", "off".into()));
            "off".into()
        }
        Trip::Rolling {
            failures,
            window,
            ratio,
        } => {
            let share = |ratio: Ratio| super::percent(ratio.share());
            entries.extend([
                ("circuit_breaker.failures", failures.into()),
                (
                    "circuit_breaker.ratio",
                    ratio.map_or_else(|| "off".into(), share).into(),
                ),
                ("circuit_breaker.window", time(window).into()),
            ]);
            "off".into()
        }
        Trip::Consecutive(failures) => failures.into(),
    };
    entries.extend([
        ("circuit_breaker.sleep", time(breaker.sleep).into()),
        ("circuit_breaker.consecutive", consecutive),
        (
            "circuit_breaker.failure_statuses",
            statuses(&breaker.failure_statuses).into(),
        ),
        (
            "circuit_breaker.kernel_fail_fast",
            raw::Switch::word(breaker.kernel_fail_fast).into(),
        ),
    ]);
}

fn rate_limit(limit: Option<&rate_limit::Settings>, entries: &mut Vec<Entry>) {
    let Some(limit) = limit else {
        entries.push(("rate_limit", "off".into()));
        return;
    };
    let rate = limit.requests_per_second;
    // 100, not 100.0.
    let rate = match rate.fract() == 0.0 {
        true => json!(rate as u64),
        false => json!(rate),
    };
    entries.extend([
        ("rate_limit.requests_per_second", rate),
        ("rate_limit.burst", limit.burst.into()),
        (
            "rate_limit.on_limit",
            raw::OnLimit::word(limit.on_limit).into(),
        ),
    ]);
}

fn load_balancing(load_balancing: &LoadBalancing) -> Entry {
    match load_balancing {
        LoadBalancing::RingHash(Key::Header(name)) => {
            ("load_balancing.ring_hash.header", (**name).into())
        }
        LoadBalancing::RingHash(source) => {
            let word = raw::HashSource::word(source.clone());
            ("load_balancing.ring_hash.source", word.into())
        }
        word => (
            "load_balancing",
            raw::LoadBalancing::word(word.clone()).into(),
        ),
    }
}

fn outlier(outlier: &outlier::Settings, entries: &mut Vec<Entry>) {
    let off = || "off".into();
    entries.extend([
        (
            "outlier.consecutive",
            outlier.consecutive.map_or_else(off, Value::from),
        ),
        (
            "outlier.success_rate",
            raw::Switch::word(outlier.success_rate).into(),
        ),
        ("outlier.interval", time(outlier.interval).into()),
        ("outlier.base_ejection", time(outlier.base_ejection).into()),
        (
            "outlier.max_ejected",
            super::percent(outlier.max_ejected).into(),
        ),
    ]);
}

fn hedge(hedge: &hedge::Settings) -> [Entry; 2] {
    let after = match hedge.after {
        After::Off => "off".to_owned(),
        After::P95 => "p95".to_owned(),
        After::Time(after) => time(after),
    };
    let budget = super::percent(hedge.budget);
    [
        ("hedge.after", after.into()),
        ("hedge.budget", budget.into()),
    ]
}

fn concurrency(concurrency: &concurrency::Settings, entries: &mut Vec<Entry>) {
    let adaptive = raw::Adaptive::word(concurrency.adaptive);
    entries.extend([
        ("concurrency.adaptive", adaptive.into()),
        ("concurrency.min", concurrency.min.into()),
        ("concurrency.max", concurrency.max.into()),
    ]);
}

fn fault(fault: Option<&Settings>, entries: &mut Vec<Entry>) {
    let Some(fault) = fault else {
        entries.push(("fault", "off".into()));
        return;
    };
    if let Some(abort) = &fault.abort {
        entries.extend([
            ("fault.abort.status", abort.status.into()),
            ("fault.abort.share", super::percent(abort.share).into()),
        ]);
    }
    if let Some(delay) = &fault.delay {
        entries.extend([
            ("fault.delay.for", time(delay.wait).into()),
            ("fault.delay.share", super::percent(delay.share).into()),
        ]);
    }
    entries.push(("fault.reset", super::percent(fault.reset).into()));
    if let Some(header) = fault.header.as_deref() {
        entries.push(("fault.header", header.into()));
    }
    if let Some(until) = fault.until {
        entries.push(("fault.until", Moment::text(until).into()));
    }
}

/// A list of words, or `off`.
pub(super) fn propagate(formats: Formats) -> Value {
    match Propagation::words(formats) {
        words if words.is_empty() => "off".into(),
        words => words.into(),
    }
}

/// Single ones as numbers, ranges as text.
fn statuses(statuses: &Statuses) -> Vec<Value> {
    let written = statuses.to_string();
    let ranges = written.split(", ").filter(|range| !range.is_empty());
    let single = |range: &str| range.parse::<u16>().map(Value::from);
    ranges
        .map(|range| single(range).unwrap_or_else(|_| range.into()))
        .collect()
}

/// A size as the file writes it, in the largest unit that holds it whole.
pub(in crate::config) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units
        .iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}
