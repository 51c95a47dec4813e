//! Counters as text: Prometheus' format, or OpenMetrics 1.0 where asked for.

mod text;
mod upstreams;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ambassador_ebpf::Verdict;

use self::text::Text;
use self::upstreams::upstreams;
use super::HandshakeCount;
use super::cells::Snapshot;
use super::labels::{BackendLabel, DroppedAccept, FloodCause, FloodPeer, MemoryKind, ShedCause};
use super::process::Process;
use super::registry::Registry;

pub(crate) use self::text::Format;

/// Slots of the token table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CaptureSlots {
    /// In use now.
    pub used: u64,
    /// Taken back so far.
    pub reclaimed: u64,
}

/// What is counted outside the shards.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Extras {
    /// Connects by the kernel's verdict, where capture is on.
    pub captured_connects: Vec<(Verdict, u64)>,
    /// Slots of the token table, where capture is on.
    pub capture_slots: Option<CaptureSlots>,
    /// Memory by what it is.
    pub memory: Vec<(MemoryKind, u64)>,
    /// Certificates and the seconds until they end, by what they are for.
    pub certificates: Vec<(String, i64)>,
    /// How TLS handshakes went, by the label and name of an upstream or listener.
    pub handshakes: Vec<(&'static str, String, Vec<HandshakeCount>)>,
    /// How long the credential of an upstream is still valid, where that has an end.
    pub credential_expiry: Vec<(Arc<str>, Duration)>,
    /// How many endpoints of an upstream are unhealthy, where they are checked.
    pub unhealthy_endpoints: Vec<(Arc<str>, usize)>,
    /// The backend of the shards, for `ambassador_build_info`.
    pub backend: BackendLabel,
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
    tls(&mut text, extras);
    control(&mut text, staleness, registry);
    text.gauge(
        "ambassador_credential_expiry_seconds",
        "How long the credential of the upstream is still valid, where that has an end.",
    );
    for (name, left) in &extras.credential_expiry {
        let labels = [("upstream", &**name)];
        let left = left.as_secs_f64();
        text.sample("ambassador_credential_expiry_seconds", &labels, left);
    }
    text.gauge(
        "ambassador_unhealthy_endpoints",
        "Endpoints that checks find unhealthy, where they are checked.",
    );
    for (name, count) in &extras.unhealthy_endpoints {
        text.sample(
            "ambassador_unhealthy_endpoints",
            &[("upstream", name)],
            count,
        );
    }
    build(&mut text, extras.backend);
    text.gauge(
        "ambassador_memory_bytes",
        "Memory: held in all, of that for connections, and the limit where there is one.",
    );
    for (kind, bytes) in &extras.memory {
        text.sample("ambassador_memory_bytes", &[("kind", kind.as_str())], bytes);
    }
    process(&mut text, &Process::read());
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
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
        "ambassador_http2_floods",
        "HTTP/2 connections ended for a flood.",
    );
    for peer in FloodPeer::ALL {
        for cause in FloodCause::ALL {
            let labels = [("peer", peer.as_str()), ("cause", cause.as_str())];
            let count = snapshot.floods().get(*peer, *cause);
            text.total("ambassador_http2_floods", &labels, count);
        }
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
            let labels = [("verdict", verdict.as_str())];
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

fn tls(text: &mut Text, extras: &Extras) {
    if !extras.handshakes.is_empty() {
        text.counter(
            "ambassador_tls_handshakes",
            "TLS handshakes, by how they ended and what was agreed upon.",
        );
    }
    for (label, name, counts) in &extras.handshakes {
        for HandshakeCount {
            outcome,
            agreed,
            count,
        } in counts
        {
            let (version, group, resumed) = match agreed {
                Some((version, group, resumption)) => {
                    (version.as_str(), group.as_str(), resumption.as_str())
                }
                None => ("", "", ""),
            };
            let labels = [
                (*label, name.as_str()),
                ("outcome", outcome.as_str()),
                ("version", version),
                ("group", group),
                ("resumed", resumed),
            ];
            text.total("ambassador_tls_handshakes", &labels, count);
        }
    }
    if !extras.certificates.is_empty() {
        text.gauge(
            "ambassador_certificate_expiry_seconds",
            "Seconds until a certificate in use ends; below 0 once it has.",
        );
    }
    for (name, seconds) in &extras.certificates {
        let labels = [("name", name.as_str())];
        text.sample("ambassador_certificate_expiry_seconds", &labels, seconds);
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
            "ambassador_certificate_reload_failures",
            "Changed certificates, keys and lists refused; the old ones stay.",
            &counters.certificate_reload_failures,
        ),
        (
            "ambassador_command_runner_deaths",
            "Processes that run commands for credentials that ended by themselves.",
            &counters.command_runner_deaths,
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
    text.counter(
        "ambassador_credential_refreshes",
        "Credentials of upstreams fetched, by how that went.",
    );
    for (name, outcome, count) in registry.credential_refreshes() {
        let labels = [("upstream", &*name), ("outcome", outcome.as_str())];
        text.total("ambassador_credential_refreshes", &labels, count);
    }
    text.counter(
        "ambassador_health_checks",
        "Checks of endpoints (`health_check`), by what they found.",
    );
    for (name, result, count) in registry.health_checks() {
        let labels = [("upstream", &*name), ("result", result.as_str())];
        text.total("ambassador_health_checks", &labels, count);
    }
    text.gauge(
        "ambassador_shard_staleness_seconds",
        "Age of the oldest shard's figures: over a second where one does not answer.",
    );
    let age = staleness.as_secs_f64();
    text.sample("ambassador_shard_staleness_seconds", &[], age);
}

fn build(text: &mut Text, backend: BackendLabel) {
    text.gauge(
        "ambassador_build_info",
        "Always 1; the labels say what runs.",
    );
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("backend", backend.as_str()),
    ];
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

#[cfg(test)]
mod tests;
