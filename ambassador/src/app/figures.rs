//! What the admin API and `exec --summary` show of a running proxy.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;
use crate::config;
use crate::config::checked::{Checked, Policy};
use crate::control::{AskShard, CircuitInfo, ResilienceInfo, Source, UpstreamInfo};
use crate::policy::breaker::Force;
use crate::policy::outlier::Fitness;
use crate::proxy::context::Context;
use crate::proxy::generation::Generation;
use crate::ring::Remote;
use crate::route::settings::{Endpoints, Policies, Protocol, Upstream};
use crate::shard;
use crate::telemetry::{Call, CallQuery, Direction, Registry, Snapshot, TcpOutcome};
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::{Endpoint, Published};
use crate::upstream::shared::Shared;

/// Asks a shard, once it runs: the closure gives the way to it then.
pub(super) struct ShardQuestions<R>(pub R);

impl<R: Fn() -> Option<Remote> + Send + Sync> ShardQuestions<R> {
    fn ask<T: Send + 'static>(
        &self,
        reply: oneshot::Sender<T>,
        answer: impl FnOnce(&Context) -> T + Send + 'static,
    ) {
        let Self(remote) = self;
        let Some(remote) = remote() else {
            return;
        };
        shard::tell_to(&remote, move |context| {
            // The asker may have given up.
            let _ = reply.send(answer(context));
        });
    }
}

impl<R: Fn() -> Option<Remote> + Send + Sync> AskShard for ShardQuestions<R> {
    fn counters(&self, reply: oneshot::Sender<Snapshot>) {
        self.ask(reply, Context::snapshot);
    }

    fn failures(&self, query: CallQuery, reply: oneshot::Sender<Vec<Call>>) {
        self.ask(reply, move |context| context.telemetry.failures(&query));
    }
}

/// Where the value of a policy stands in the file.
pub(super) fn origin(checked: &Checked, upstream: &str, key: &str) -> Option<String> {
    let mut upstreams = checked.routes.upstreams.iter();
    let index = upstreams.position(|it| *it.name == *upstream)?;
    let mut policies = checked.policies.get(index)?.iter();
    let within = |policy: &&Policy| {
        let below = policy.key.strip_prefix(key);
        below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
    };
    let policy = policies.find(within)?;
    Some(policy.origin.to_string())
}

/// Every upstream as it is now.
pub(super) fn upstreams(generation: &Generation) -> Vec<UpstreamInfo> {
    let now = clock::now();
    let credentials = generation.credentials();
    let credentials: HashMap<u32, _> = credentials
        .map(|(_, shared, credential)| (shared.id, credential))
        .collect();
    let placeholders = generation.placeholders();
    let placeholders: HashMap<u32, _> = placeholders
        .map(|(_, shared, placeholders)| (shared.id, placeholders))
        .collect();
    let seen = |at: Namespace, list: &Published| {
        let views = list.views(now).into_iter();
        views.map(move |view| (at, view))
    };
    let own = |shared: &Shared| seen(Namespace::default(), &shared.endpoints);
    let named = generation.targets().map(|(upstream, shared)| {
        let (source, endpoints) = match &upstream.endpoints {
            Endpoints::Static(_) => (Source::Static, own(shared).collect()),
            Endpoints::Dns { .. } => {
                let others = shared.other_namespaces.all().into_iter();
                let others = others.flat_map(|(at, there)| seen(at, &there.endpoints));
                (Source::Dns, own(shared).chain(others).collect())
            }
            Endpoints::Original => (Source::Original, Vec::new()),
        };
        UpstreamInfo {
            name: upstream.name.to_string(),
            credential: credentials.get(&shared.id).map(|it| it.view(now)),
            placeholders: placeholders
                .get(&shared.id)
                .map_or_else(Vec::new, |placeholders| placeholders.views(now)),
            source,
            protocol: protocol(upstream.protocol),
            policies: config::policies_of(upstream),
            resilience: resilience(shared, &upstream.policies),
            endpoints,
        }
    });
    let policies = &generation.table.settings().adopted;
    let adopted = generation.adopted().into_iter().map(|view| UpstreamInfo {
        name: view.name.to_string(),
        credential: None,
        placeholders: Vec::new(),
        policies: Default::default(),
        resilience: resilience(&view.shared, policies),
        source: Source::Adopted,
        protocol: protocol(Protocol::Auto),
        endpoints: Vec::new(),
    });
    named.chain(adopted).collect()
}

fn resilience(shared: &Shared, policies: &Policies) -> ResilienceInfo {
    let now = clock::now();
    let healths = shared.health_by_namespace();
    let circuits = healths.iter().map(|(namespace, health)| {
        let breaker = &health.breaker;
        let circuit = CircuitInfo {
            state: breaker.state(),
            failures: breaker.failures(&policies.circuit_breaker, now),
            refuses_for: breaker.refuses_for(now),
        };
        (*namespace, circuit)
    });
    let limits = healths
        .iter()
        .filter_map(|(_, health)| health.concurrency.limit(&policies.concurrency));
    ResilienceInfo {
        circuits: circuits.collect(),
        forced: shared.health.breaker.forced(),
        budget: shared.retry_budget.spent(now),
        in_flight: shared.requests.count(),
        concurrency_limit: limits.min(),
    }
}

/// How long credentials are still valid, by upstream, where that has an end.
pub(super) fn credential_expiry(generation: &Generation) -> Vec<(Arc<str>, Duration)> {
    let now = clock::now();
    let credentials = generation.credentials();
    let left = credentials.filter_map(|(upstream, _, credential)| {
        Some((Arc::clone(&upstream.name), credential.expires_in(now)?))
    });
    left.collect()
}

/// The upstreams whose endpoints are checked.
pub(super) fn checked(
    generation: &Generation,
) -> impl Iterator<Item = (&Arc<Upstream>, &Arc<Shared>)> {
    generation.targets().filter(|(upstream, _)| {
        upstream.endpoints != Endpoints::Original && upstream.policies.health_check.grpc.is_some()
    })
}

/// How many endpoints are unhealthy, by upstream, where they are checked.
pub(super) fn unhealthy_endpoints(generation: &Generation) -> Vec<(Arc<str>, usize)> {
    let counted = checked(generation).map(|(upstream, shared)| {
        let endpoints = shared.endpoints.current();
        let is_unhealthy = |one: &&Endpoint| one.health.fitness() == Fitness::Unhealthy;
        let count = endpoints.iter().filter(is_unhealthy).count();
        (Arc::clone(&upstream.name), count)
    });
    counted.collect()
}

/// Sets the circuit breaker of an upstream, an adopted one too.
pub(super) fn force_breaker(generation: &Generation, name: &str, force: Force) -> bool {
    let named = generation
        .targets()
        .find(|(upstream, _)| &*upstream.name == name);
    let shared = match named {
        Some((_, shared)) => Some(Arc::clone(shared)),
        None => {
            let adopted = generation.adopted().into_iter();
            let mut of_name = adopted.filter(|view| &*view.name == name);
            of_name.next().map(|view| view.shared)
        }
    };
    match shared {
        Some(shared) => {
            shared.force(force);
            true
        }
        None => false,
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    }
}

/// What was done per upstream, as a table; `None`: nothing was.
pub(super) fn summary(
    sum: &Snapshot,
    registry: &Registry,
    generation: &Generation,
) -> Option<String> {
    let mut text = String::from(
        "upstream                 requests   reused  tcp conns        sent    received    p50 ms    p99 ms\n",
    );
    let mut rows = 0;
    let names = registry.upstream_names();
    for (index, cells) in sum.upstreams() {
        let name = names.get(&index).map_or("?", |name| name);
        let requests: u64 = cells.requests().map(|(_, count)| count).sum();
        let connections: u64 = TcpOutcome::ALL
            .iter()
            .map(|outcome| cells.tcp_connections(*outcome))
            .sum();
        if requests + connections == 0 {
            continue;
        }
        rows += 1;
        let ms = |share| {
            let quantile = cells.duration().quantile(share);
            quantile.map_or_else(
                || "-".into(),
                |took| format!("{:.2}", took.as_secs_f64() * 1e3),
            )
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<24} {requests:>8} {:>8} {connections:>10} {:>11} {:>11} {:>9} {:>9}",
            cells.pool_reuse(),
            cells.bytes(Direction::Sent),
            cells.bytes(Direction::Received),
            ms(0.5),
            ms(0.99),
        );
    }
    // Dialled for a guess alone, one was not used.
    let adopted = generation.adopted().into_iter();
    for adopted in adopted.filter(|adopted| adopted.requests > 0) {
        let _ = writeln!(
            text,
            "  {}: {} requests and connections",
            adopted.name, adopted.requests
        );
    }
    (rows > 0).then_some(text)
}
