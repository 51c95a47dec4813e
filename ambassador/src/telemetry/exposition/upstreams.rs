//! What is counted of each upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::cells::{Snapshot, UpstreamCells};
use super::super::labels::{
    AttemptOutcome, BreakerState, Direction, FaultKind, GrpcStatus, PoolState, ReasonLabel,
    RetryCause, TcpOutcome,
};
use super::super::registry::UpstreamIndex;
use super::text::Text;

/// Each with its name.
type Named<'a> = [(&'a str, &'a UpstreamCells)];

pub(super) fn upstreams(
    text: &mut Text,
    snapshot: &Snapshot,
    names: &BTreeMap<UpstreamIndex, Arc<str>>,
) {
    let cells: Vec<(&str, &UpstreamCells)> = snapshot
        .upstreams()
        .filter_map(|(index, cells)| Some((&**names.get(&index)?, cells)))
        .collect();
    requests(text, &cells);
    tries(text, &cells);
    connections(text, &cells);
    pool(text, &cells);
    breaker(text, &cells);
    limit_and_reuse(text, &cells);
}

fn requests(text: &mut Text, cells: &Named<'_>) {
    text.counter("ambassador_requests", "Requests answered or given up.");
    for (name, cells) in cells {
        for (key, count) in cells.requests() {
            let status = key.status_label();
            let labels = [
                ("upstream", *name),
                ("method", key.method.as_str()),
                ("status", &status),
                ("reason", key.reason.map_or("", ReasonLabel::as_str)),
                (
                    "grpc_status",
                    key.grpc_status.map_or("", GrpcStatus::as_str),
                ),
            ];
            // Only calls have the last one.
            let labels = match key.grpc_status {
                Some(_) => &labels[..],
                None => &labels[..4],
            };
            text.total("ambassador_requests", labels, count);
        }
    }
    text.histograms(
        "ambassador_request_duration_seconds",
        "From the complete request head to the end of the response.",
        cells,
        UpstreamCells::duration,
    );
    text.histograms(
        "ambassador_overhead_seconds",
        "The part of a request's duration that was spent in this process.",
        cells,
        UpstreamCells::overhead,
    );
}

fn tries(text: &mut Text, cells: &Named<'_>) {
    text.counter("ambassador_upstream_attempts", "Tries by how they ended.");
    for (name, cells) in cells {
        for outcome in AttemptOutcome::ALL {
            let labels = [("upstream", *name), ("outcome", outcome.as_str())];
            text.total_if_any(
                "ambassador_upstream_attempts",
                &labels,
                cells.attempts(*outcome),
            );
        }
    }
    text.counter("ambassador_retries", "Tries after the first.");
    for (name, cells) in cells {
        for cause in RetryCause::ALL {
            let labels = [("upstream", *name), ("cause", cause.as_str())];
            text.total_if_any("ambassador_retries", &labels, cells.retries(*cause));
        }
    }
}

fn connections(text: &mut Text, cells: &Named<'_>) {
    text.counter(
        "ambassador_tcp_connections",
        "Relayed connections and tunnels by how they ended.",
    );
    for (name, cells) in cells {
        for outcome in TcpOutcome::ALL {
            let labels = [("upstream", *name), ("outcome", outcome.as_str())];
            text.total_if_any(
                "ambassador_tcp_connections",
                &labels,
                cells.tcp_connections(*outcome),
            );
        }
    }
    text.counter(
        "ambassador_bytes",
        "Bytes that the application has sent and received, heads included.",
    );
    for (name, cells) in cells {
        for direction in Direction::ALL {
            let labels = [("upstream", *name), ("direction", direction.as_str())];
            text.total("ambassador_bytes", &labels, cells.bytes(*direction));
        }
    }
    text.counter(
        "ambassador_faults_injected",
        "Faults injected into requests and connections on purpose.",
    );
    for (name, cells) in cells {
        for kind in FaultKind::ALL {
            let labels = [("upstream", *name), ("kind", kind.as_str())];
            text.total_if_any("ambassador_faults_injected", &labels, cells.faults(*kind));
        }
    }
}

fn pool(text: &mut Text, cells: &Named<'_>) {
    text.gauge(
        "ambassador_pool_connections",
        "Connections to the upstream: open, of those idle; and requests waiting for one.",
    );
    for (name, cells) in cells {
        let pool = cells.pool();
        for state in PoolState::ALL {
            let labels = [("upstream", *name), ("state", state.as_str())];
            text.sample("ambassador_pool_connections", &labels, pool.count(*state));
        }
    }
}

fn breaker(text: &mut Text, cells: &Named<'_>) {
    text.gauge(
        "ambassador_breaker_state",
        "The circuit breaker of the upstream: 0 closed, 1 half open, 2 open.",
    );
    for (name, cells) in cells {
        let labels = [("upstream", *name)];
        text.sample("ambassador_breaker_state", &labels, cells.breaker().state);
    }
    text.counter(
        "ambassador_breaker_transitions",
        "How often the circuit breaker has changed.",
    );
    for (name, cells) in cells {
        let breaker = cells.breaker();
        for to in BreakerState::ALL {
            let labels = [("upstream", *name), ("to", to.as_str())];
            text.total(
                "ambassador_breaker_transitions",
                &labels,
                breaker.transitions(*to),
            );
        }
    }
}

fn limit_and_reuse(text: &mut Text, cells: &Named<'_>) {
    text.gauge(
        "ambassador_concurrency_limit",
        "Requests that may be in flight to the upstream, where that is adaptive.",
    );
    for (name, cells) in cells {
        if let Some(limit) = cells.concurrency_limit() {
            let labels = [("upstream", *name)];
            text.sample("ambassador_concurrency_limit", &labels, limit);
        }
    }
    text.counter(
        "ambassador_pool_reuse",
        "Requests sent over a connection that had carried one before.",
    );
    for (name, cells) in cells {
        let labels = [("upstream", *name)];
        text.total("ambassador_pool_reuse", &labels, cells.pool_reuse());
    }
}
