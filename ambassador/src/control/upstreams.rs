//! `/upstreams`: what is configured or adopted, with its figures.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::policy::breaker::{Force, State};
use crate::policy::budget::Spent;
use crate::telemetry::{
    AttemptOutcome, Direction, Histogram, Registry, RetryCause, Snapshot, TcpOutcome, UpstreamCells,
};
use crate::upstream::credential::CredentialView;
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::EndpointView;

/// One upstream as the program knows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamInfo {
    /// Its name; an adopted one is named after its authority or address.
    pub name: String,
    /// Where its endpoints come from.
    pub source: Source,
    /// `auto`, `http1` or `tcp`.
    pub protocol: &'static str,
    /// Its policies as the file would write them; empty where they are those of
    /// all adopted ones.
    pub policies: Map<String, Value>,
    /// What is known of its credential, where it has one.
    pub credential: Option<CredentialView>,
    /// The same of what stands in for its placeholders, by their names.
    pub placeholders: Vec<(String, CredentialView)>,
    /// What is known of how well it does.
    pub resilience: ResilienceInfo,
    /// Where its requests go now; empty for the original destination. A name may
    /// mean others in each namespace.
    pub endpoints: Vec<(Namespace, EndpointView)>,
}

/// What keeps an upstream and its callers from hurting each other, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResilienceInfo {
    /// What its circuit breaker does, by the namespace whose callers it is for: one
    /// for all, and one for each that knows its name by itself.
    pub circuits: Vec<(Namespace, CircuitInfo)>,
    /// How an operator has set that.
    pub forced: Force,
    /// Requests of the last ten seconds, and those of their tries that were not
    /// the first: what the budget of retries is reckoned from.
    pub budget: Spent,
    /// Requests in flight.
    pub in_flight: u32,
    /// How many may be, where that is adaptive.
    pub concurrency_limit: Option<u32>,
}

/// What a circuit breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CircuitInfo {
    /// With tries.
    pub state: State,
    /// Failures that count towards the threshold.
    pub failures: u32,
    /// How long it still refuses, where that will end by itself.
    pub refuses_for: Option<Duration>,
}

/// Where the endpoints of an upstream come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Addresses in the file.
    Static,
    /// A name, resolved again and again.
    Dns,
    /// The original destination of each connection.
    Original,
    /// Not in the file; its figures are in `adopted`.
    Adopted,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Static => "endpoints",
            Self::Dns => "dns",
            Self::Original => "original",
            Self::Adopted => "adopted",
        }
    }
}

/// The document. Upstreams come in the order given; then `unmatched`, `adopted`
/// and those that left the configuration and are still in use, where they have
/// figures.
pub(super) fn document(known: &[UpstreamInfo], sum: &Snapshot, registry: &Registry) -> Value {
    let names = registry.upstream_names();
    let figures_of = |name: &str| {
        sum.upstreams().find_map(|(index, cells)| {
            let found = names.get(&index)?;
            (**found == *name).then_some(cells)
        })
    };
    let mut list = Vec::new();
    for info in known {
        let mut entry = Map::new();
        entry.insert("name".into(), json!(info.name));
        entry.insert("source".into(), json!(info.source.as_str()));
        entry.insert("protocol".into(), json!(info.protocol));
        let endpoints: Vec<_> = info.endpoints.iter().map(endpoint).collect();
        entry.insert("endpoints".into(), endpoints.into());
        if !info.policies.is_empty() {
            entry.insert("policies".into(), info.policies.clone().into());
        }
        if let Some(view) = &info.credential {
            entry.insert("credential".into(), credential(view));
        }
        if !info.placeholders.is_empty() {
            let placeholders = info.placeholders.iter().map(placeholder);
            entry.insert("placeholders".into(), placeholders.collect());
        }
        resilience(&mut entry, &info.resilience);
        if info.source != Source::Adopted {
            let none = UpstreamCells::default();
            figures(&mut entry, figures_of(&info.name).unwrap_or(&none));
        }
        list.push(Value::Object(entry));
    }
    let listed: HashSet<&str> = known
        .iter()
        .filter(|info| info.source != Source::Adopted)
        .map(|info| info.name.as_str())
        .collect();
    for (index, cells) in sum.upstreams() {
        let Some(name) = names.get(&index) else {
            continue;
        };
        if !listed.contains(&**name) {
            let mut entry = Map::new();
            entry.insert("name".into(), json!(**name));
            figures(&mut entry, cells);
            list.push(Value::Object(entry));
        }
    }
    json!({ "upstreams": list })
}

fn resilience(entry: &mut Map<String, Value>, info: &ResilienceInfo) {
    let forced = match info.forced {
        Force::Open => "open",
        Force::Closed => "close",
        Force::Auto => "auto",
    };
    // The first of the worst.
    let worst = info.circuits.iter().rev();
    let worst = worst.max_by_key(|(_, circuit)| circuit.state as u8);
    let mut state = worst.map(|(_, worst)| circuit(worst)).unwrap_or_default();
    state.insert("forced".into(), json!(forced));
    if info.circuits.len() > 1 {
        let one = |(namespace, of): &(Namespace, CircuitInfo)| {
            let mut one = circuit(of);
            one.insert("namespace".into(), json!(namespace.0));
            Value::Object(one)
        };
        state.insert("namespaces".into(), info.circuits.iter().map(one).collect());
    }
    let budget = json!({
        "requests": info.budget.requests,
        "retries": info.budget.extra,
    });
    entry.insert("circuit_breaker".into(), Value::Object(state));
    entry.insert("retry_budget".into(), budget);
    entry.insert("in_flight".into(), json!(info.in_flight));
    if let Some(limit) = info.concurrency_limit {
        entry.insert("concurrency_limit".into(), json!(limit));
    }
}

fn credential(view: &CredentialView) -> Value {
    json!({
        "kind": view.kind,
        "state": view.state.as_str(),
        "expires_in_seconds": view.expires_in.map(|left| left.as_secs()),
        "last_failure": view.failure.as_deref(),
    })
}

fn placeholder((name, view): &(String, CredentialView)) -> Value {
    json!({
        "name": name,
        "state": view.state.as_str(),
        "last_failure": view.failure.as_deref(),
    })
}

fn circuit(info: &CircuitInfo) -> Map<String, Value> {
    let refuses_for = info.refuses_for.map(|left| left.as_secs_f64());
    let entries = [
        ("state", json!(info.state.as_str())),
        ("failures", json!(info.failures)),
        ("refuses_for_seconds", json!(refuses_for)),
    ];
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn endpoint((namespace, view): &(Namespace, EndpointView)) -> Value {
    let seconds = |left: Duration| (left.as_secs_f64() * 1e3).round() / 1e3;
    json!({
        "address": view.address.to_string(),
        "namespace": namespace.0,
        "weight": view.weight,
        "zone": view.zone.as_deref(),
        "ejected": view.ejected_for.is_some(),
        "ejected_for_seconds": view.ejected_for.map(seconds),
        "avoided_for_seconds": view.avoided_for.map(seconds),
        "unhealthy": view.is_unhealthy,
        "consecutive_failures": view.consecutive_failures,
    })
}

fn figures(entry: &mut Map<String, Value>, cells: &UpstreamCells) {
    let requests = cells.requests();
    let total: u64 = requests.clone().map(|(_, count)| count).sum();
    let errors: u64 = requests
        .filter(|(key, _)| key.is_error())
        .map(|(_, count)| count)
        .sum();
    let pool = cells.pool();
    let nonzero = |pairs: Vec<(&'static str, u64)>| -> Value {
        let pairs = pairs.into_iter().filter(|(_, count)| *count > 0);
        pairs
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect::<Map<_, _>>()
            .into()
    };
    let attempts = AttemptOutcome::ALL
        .iter()
        .map(|outcome| (outcome.as_str(), cells.attempts(*outcome)));
    let tcp = TcpOutcome::ALL
        .iter()
        .map(|outcome| (outcome.as_str(), cells.tcp_connections(*outcome)));
    let retries = RetryCause::ALL
        .iter()
        .map(|cause| (cause.as_str(), cells.retries(*cause)));
    for (name, value) in [
        ("requests", json!(total)),
        ("errors", json!(errors)),
        ("attempts", nonzero(attempts.collect())),
        ("retries", nonzero(retries.collect())),
        ("tcp_connections", nonzero(tcp.collect())),
        (
            "pool",
            json!({
                "open": pool.open, "idle": pool.idle, "pending": pool.pending,
                "reused": cells.pool_reuse(),
            }),
        ),
        (
            "bytes",
            json!({
                "sent": cells.bytes(Direction::Sent),
                "received": cells.bytes(Direction::Received),
            }),
        ),
        ("latency_ms", percentiles(cells.duration())),
        ("overhead_ms", percentiles(cells.overhead())),
    ] {
        entry.insert(name.into(), value);
    }
}

fn percentiles(histogram: &Histogram) -> Value {
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let at = |share| histogram.quantile(share).map(ms);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99) })
}
