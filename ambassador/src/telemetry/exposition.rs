//! Counters as text: Prometheus' format, or OpenMetrics 1.0 where asked for.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cells::{Snapshot, UpstreamCells};
use super::histogram::Histogram;
use super::labels::{AttemptOutcome, Direction, DroppedAccept, FaultKind, ShedCause, TcpOutcome};
use super::process::Process;
use super::registry::{Registry, UpstreamIndex};

/// Which text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Slots of the token table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CaptureSlots {
    /// In use now.
    pub used: u64,
    /// Taken back so far.
    pub reclaimed: u64,
}

/// What is counted outside the shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extras {
    /// Connects by the kernel's verdict, where capture is on.
    pub captured_connects: Vec<(&'static str, u64)>,
    /// Slots of the token table, where capture is on.
    pub capture_slots: Option<CaptureSlots>,
    /// Memory by what it is.
    pub memory: Vec<(&'static str, u64)>,
    /// The backend of the shards, for `ambassador_build_info`.
    pub backend: &'static str,
}

impl Format {
    /// The format that an `Accept` header asks for.
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of the process. `staleness` is the age of the oldest shard's copy.
pub(crate) fn render(
    format: Format,
    snapshot: &Snapshot,
    staleness: Duration,
    registry: &Registry,
    extras: &Extras,
) -> String {
    let mut text = Text {
        out: String::with_capacity(16 * 1024),
        format,
    };
    let names = registry.upstream_names();
    upstreams(&mut text, snapshot, &names);
    shards(&mut text, snapshot, registry);
    capture(&mut text, extras);
    control(&mut text, staleness, registry);
    build(&mut text, extras.backend);
    text.gauge(
        "ambassador_memory_bytes",
        "Memory: held in all, of that for connections, and the limit where there is one.",
    );
    for (kind, bytes) in &extras.memory {
        text.sample("ambassador_memory_bytes", &[("kind", *kind)], bytes);
    }
    process(&mut text, &Process::read());
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

fn upstreams(text: &mut Text, snapshot: &Snapshot, names: &BTreeMap<UpstreamIndex, Arc<str>>) {
    let cells: Vec<(&str, &UpstreamCells)> = snapshot
        .upstreams()
        .filter_map(|(index, cells)| Some((&**names.get(&index)?, cells)))
        .collect();

    text.counter("ambassador_requests", "Requests answered or given up.");
    for (name, cells) in &cells {
        for (key, count) in cells.requests() {
            let status = key.status_label();
            let labels = [
                ("upstream", *name),
                ("method", key.method),
                ("status", &status),
                ("reason", key.reason),
            ];
            text.total("ambassador_requests", &labels, count);
        }
    }
    text.histograms(
        "ambassador_request_duration_seconds",
        "From the complete request head to the end of the response.",
        &cells,
        UpstreamCells::duration,
    );
    text.histograms(
        "ambassador_overhead_seconds",
        "The part of a request's duration that was spent in this process.",
        &cells,
        UpstreamCells::overhead,
    );
    text.counter("ambassador_upstream_attempts", "Tries by how they ended.");
    for (name, cells) in &cells {
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
    for (name, cells) in &cells {
        for (cause, count) in cells.retries() {
            let labels = [("upstream", *name), ("cause", cause)];
            text.total("ambassador_retries", &labels, count);
        }
    }
    text.counter(
        "ambassador_tcp_connections",
        "Relayed connections and tunnels by how they ended.",
    );
    for (name, cells) in &cells {
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
    for (name, cells) in &cells {
        for direction in Direction::ALL {
            let labels = [("upstream", *name), ("direction", direction.as_str())];
            text.total("ambassador_bytes", &labels, cells.bytes(*direction));
        }
    }
    text.counter(
        "ambassador_faults_injected",
        "Faults injected into requests and connections on purpose.",
    );
    for (name, cells) in &cells {
        for kind in FaultKind::ALL {
            let labels = [("upstream", *name), ("kind", kind.as_str())];
            text.total_if_any("ambassador_faults_injected", &labels, cells.faults(*kind));
        }
    }
    text.gauge(
        "ambassador_pool_connections",
        "Connections to the upstream: open, of those idle; and requests waiting for one.",
    );
    for (name, cells) in &cells {
        let pool = cells.pool();
        for (state, count) in [
            ("open", pool.open),
            ("idle", pool.idle),
            ("pending", pool.pending),
        ] {
            let labels = [("upstream", *name), ("state", state)];
            text.sample("ambassador_pool_connections", &labels, count);
        }
    }
    text.gauge(
        "ambassador_breaker_state",
        "The circuit breaker of the upstream: 0 closed, 1 half open, 2 open.",
    );
    for (name, cells) in &cells {
        let labels = [("upstream", *name)];
        text.sample("ambassador_breaker_state", &labels, cells.breaker().state);
    }
    text.counter(
        "ambassador_breaker_transitions",
        "How often the circuit breaker has changed.",
    );
    for (name, cells) in &cells {
        let breaker = cells.breaker();
        for (to, count) in [
            ("open", breaker.opened),
            ("half-open", breaker.half_opened),
            ("closed", breaker.closed),
        ] {
            let labels = [("upstream", *name), ("to", to)];
            text.total("ambassador_breaker_transitions", &labels, count);
        }
    }
    text.gauge(
        "ambassador_concurrency_limit",
        "Requests that may be in flight to the upstream, where that is adaptive.",
    );
    for (name, cells) in &cells {
        if let Some(limit) = cells.concurrency_limit() {
            let labels = [("upstream", *name)];
            text.sample("ambassador_concurrency_limit", &labels, limit);
        }
    }
    text.counter(
        "ambassador_pool_reuse",
        "Requests sent over a connection that had carried one before.",
    );
    for (name, cells) in &cells {
        let labels = [("upstream", *name)];
        text.total("ambassador_pool_reuse", &labels, cells.pool_reuse());
    }
}

fn shards(text: &mut Text, snapshot: &Snapshot, registry: &Registry) {
    text.gauge(
        "ambassador_connections",
        "Open connections from applications.",
    );
    for (index, name) in registry.listener_names() {
        let open = snapshot.connections(index);
        text.sample("ambassador_connections", &[("listener", &name)], open);
    }
    text.counter(
        "ambassador_dropped_accepts",
        "Connections reset right after they were accepted.",
    );
    for cause in DroppedAccept::ALL {
        let labels = [("cause", cause.as_str())];
        let count = snapshot.dropped_accepts(*cause);
        text.total("ambassador_dropped_accepts", &labels, count);
    }
    text.counter(
        "ambassador_shed_connections",
        "Connections of applications ended for the sake of others.",
    );
    for cause in ShedCause::ALL {
        let labels = [("cause", cause.as_str())];
        text.total(
            "ambassador_shed_connections",
            &labels,
            snapshot.shed(*cause),
        );
    }
    text.counter(
        "ambassador_task_panics",
        "Panics caught on the shards; each ended one connection at most.",
    );
    text.total("ambassador_task_panics", &[], snapshot.task_panics());
}

fn capture(text: &mut Text, extras: &Extras) {
    if !extras.captured_connects.is_empty() {
        text.counter(
            "ambassador_captured_connects",
            "Connects of captured cgroups by verdict, counted in the kernel.",
        );
        for (verdict, count) in &extras.captured_connects {
            let labels = [("verdict", *verdict)];
            text.total("ambassador_captured_connects", &labels, count);
        }
    }
    if let Some(slots) = extras.capture_slots {
        text.gauge(
            "ambassador_capture_slots",
            "Slots of the token table in use.",
        );
        text.sample("ambassador_capture_slots", &[], slots.used);
        text.counter(
            "ambassador_capture_slots_reclaimed",
            "Slots of the token table that were taken back because nobody used them any more.",
        );
        text.total("ambassador_capture_slots_reclaimed", &[], slots.reclaimed);
    }
}

fn control(text: &mut Text, staleness: Duration, registry: &Registry) {
    let counters = &registry.control;
    for (name, help, count) in [
        (
            "ambassador_config_reloads",
            "Configurations taken over after the first.",
            &counters.config_reloads,
        ),
        (
            "ambassador_config_reload_failures",
            "Configurations refused.",
            &counters.config_reload_failures,
        ),
        (
            "ambassador_access_log_dropped_lines",
            "Access log lines lost to a full buffer or a failed write.",
            &counters.access_log_dropped,
        ),
    ] {
        text.counter(name, help);
        text.total(name, &[], count.load(Ordering::Relaxed));
    }
    text.gauge(
        "ambassador_config_last_reload_successful",
        "1 where the configuration that was read last is in force, 0 where it was refused.",
    );
    let successful = u8::from(!counters.config_refused.load(Ordering::Relaxed));
    text.sample("ambassador_config_last_reload_successful", &[], successful);
    text.gauge(
        "ambassador_config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken over, in seconds since 1970.",
    );
    let loaded_at = counters.config_loaded_at.load(Ordering::Relaxed);
    text.sample(
        "ambassador_config_last_reload_success_timestamp_seconds",
        &[],
        loaded_at,
    );
    text.counter(
        "ambassador_dns_failures",
        "Failed resolutions; the last good answer stays.",
    );
    for (name, count) in registry.dns_failures() {
        text.total("ambassador_dns_failures", &[("upstream", &name)], count);
    }
    text.gauge(
        "ambassador_shard_staleness_seconds",
        "Age of the oldest shard's figures: over a second where one does not answer.",
    );
    let age = staleness.as_secs_f64();
    text.sample("ambassador_shard_staleness_seconds", &[], age);
}

fn build(text: &mut Text, backend: &str) {
    text.gauge(
        "ambassador_build_info",
        "Always 1; the labels say what runs.",
    );
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("backend", backend)];
    text.sample("ambassador_build_info", &labels, 1);
}

fn process(text: &mut Text, process: &Process) {
    text.counter("process_cpu_seconds", "User and system time.");
    text.total("process_cpu_seconds", &[], process.cpu_seconds);
    let gauges: [(&str, &str, &dyn Display); 6] = [
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            &process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space.",
            &process.virtual_bytes,
        ),
        ("process_open_fds", "Open descriptors.", &process.open_fds),
        ("process_max_fds", "Descriptors allowed.", &process.max_fds),
        ("process_threads", "Threads.", &process.threads),
        (
            "process_start_time_seconds",
            "Start, in seconds since 1970.",
            &process.start_seconds,
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
}

/// The text so far.
struct Text {
    out: String,
    format: Format,
}

impl Text {
    /// Opens a counter; `name` comes without `_total`, which OpenMetrics leaves
    /// out of the family's name and Prometheus does not.
    fn counter(&mut self, name: &str, help: &str) {
        let suffix = match self.format {
            Format::Prometheus => "_total",
            Format::OpenMetrics => "",
        };
        self.put(format_args!(
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} counter\n"
        ));
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    fn total(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        self.sample("_total", labels, value);
    }

    fn total_if_any(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        if value > 0 {
            self.total(name, labels, value);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\""));
            for c in value.chars() {
                match c {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '\n' => self.out.push_str("\\n"),
                    _ => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        cells: &[(&str, &UpstreamCells)],
        of: fn(&UpstreamCells) -> &Histogram,
    ) {
        self.put(format_args!(
            "# HELP {name} {help}\n# TYPE {name} histogram\n"
        ));
        let bucket_name = format!("{name}_bucket");
        for (upstream, cells) in cells {
            let (histogram, count) = (of(cells), of(cells).count());
            if count == 0 {
                continue;
            }
            for (bound, below) in histogram.cumulative() {
                let le = bound.as_secs_f64().to_string();
                self.sample(&bucket_name, &[("upstream", upstream), ("le", &le)], below);
            }
            self.sample(
                &bucket_name,
                &[("upstream", upstream), ("le", "+Inf")],
                count,
            );
            self.out.push_str(name);
            self.sample("_count", &[("upstream", upstream)], count);
            self.out.push_str(name);
            let sum = histogram.sum().as_secs_f64();
            self.sample("_sum", &[("upstream", upstream)], sum);
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("a String takes every write");
    }
}

#[cfg(test)]
mod tests;
