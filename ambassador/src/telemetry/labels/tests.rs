//! Every value that a label can have stands in docs/observability.md, with what the
//! code says of it. `AMBASSADOR_WRITE_REFERENCE=1` writes it there.

use std::fmt::Write as _;

use ambassador_ebpf::Verdict;

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
const HEADING: &str = "## Label values\n";

/// Labels that are names of the configuration, or numbers.
pub(in crate::telemetry) const OPEN: [&str; 6] =
    ["upstream", "listener", "status", "le", "version", "name"];

/// Where a label, or a field of the log, has which values.
pub(in crate::telemetry) struct Values {
    /// The metric; none for a field of the log.
    pub metric: Option<&'static str>,
    pub label: &'static str,
    /// Each with what it means.
    pub values: Vec<(&'static str, &'static str)>,
}

macro_rules! values {
    ($metric:expr, $label:literal, $name:ident) => {
        Values {
            metric: $metric,
            label: $label,
            values: $name::ALL
                .iter()
                .map(|value| (value.as_str(), value.meaning()))
                .collect(),
        }
    };
}

/// All of them, in the order of the page.
pub(in crate::telemetry) fn all() -> Vec<Values> {
    let requests = Some("ambassador_requests_total");
    vec![
        values!(requests, "method", MethodLabel),
        values!(requests, "reason", ReasonLabel),
        values!(requests, "grpc_status", GrpcStatus),
        values!(
            Some("ambassador_upstream_attempts_total"),
            "outcome",
            AttemptOutcome
        ),
        values!(Some("ambassador_retries_total"), "cause", RetryCause),
        values!(
            Some("ambassador_breaker_transitions_total"),
            "to",
            BreakerState
        ),
        values!(
            Some("ambassador_tcp_connections_total"),
            "outcome",
            TcpOutcome
        ),
        values!(Some("ambassador_faults_injected_total"), "kind", FaultKind),
        values!(Some("ambassador_bytes_total"), "direction", Direction),
        values!(Some("ambassador_pool_connections"), "state", PoolState),
        values!(
            Some("ambassador_shed_connections_total"),
            "cause",
            ShedCause
        ),
        values!(Some("ambassador_http2_floods_total"), "cause", FloodCause),
        values!(Some("ambassador_http2_floods_total"), "peer", FloodPeer),
        values!(
            Some("ambassador_dropped_accepts_total"),
            "cause",
            DroppedAccept
        ),
        values!(
            Some("ambassador_credential_refreshes_total"),
            "outcome",
            CredentialOutcome
        ),
        values!(
            Some("ambassador_health_checks_total"),
            "result",
            HealthCheckResult
        ),
        values!(Some("ambassador_memory_bytes"), "kind", MemoryKind),
        Values {
            metric: Some("ambassador_captured_connects_total"),
            label: "verdict",
            values: Verdict::ALL
                .iter()
                .map(|verdict| (verdict.as_str(), meaning_of(*verdict)))
                .collect(),
        },
        values!(
            Some("ambassador_tls_handshakes_total"),
            "outcome",
            TlsOutcome
        ),
        values!(
            Some("ambassador_tls_handshakes_total"),
            "version",
            TlsVersion
        ),
        values!(Some("ambassador_tls_handshakes_total"), "group", TlsGroup),
        Values {
            metric: Some("ambassador_tls_handshakes_total"),
            label: "resumed",
            values: vec![
                ("true", "An earlier session was resumed."),
                ("false", "A session was agreed upon anew."),
            ],
        },
        values!(Some("ambassador_build_info"), "backend", BackendLabel),
        values!(None, "tls_cipher", TlsCipher),
        values!(None, "protocol", RequestProtocol),
        values!(None, "protocol", RelayProtocol),
    ]
}

fn meaning_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Captured => "Sent to the proxy.",
        Verdict::Bypassed => "Out of scope: it went straight.",
        Verdict::Passthrough => "No upstream claims it, and `unmatched` lets it go straight.",
        Verdict::Refused => "Refused by `unmatched: refuse`.",
        Verdict::TableFull => "Hardly a slot was left; `on_failure` decided.",
        Verdict::ProxyDown => "No proxy served; `on_failure` decided.",
        Verdict::Own => "The proxy's own.",
        Verdict::DeviceBound => "The socket was bound to a device; `on_failure` decided.",
        Verdict::ForgedToken => "It named a token that it was not given: refused.",
        Verdict::QuicRefused => "QUIC, refused by `quic: refuse`.",
        Verdict::Canary => "The proxy's own check.",
        Verdict::CanaryFailed => {
            "The proxy's own check, not captured; the first of each start is one."
        }
        Verdict::CircuitOpen => {
            "Refused by `kernel_fail_fast`, and counted nowhere else: the circuit was open."
        }
        Verdict::OverQuota => "The cgroup had its share of slots; `on_failure` decided.",
    }
}

/// The section of the page. What the values of `reason` mean stands in a page of their
/// own, with their statuses.
fn section() -> String {
    let mut text = format!(
        "{HEADING}\nThis is every value of a label or log field that is not a name of the \
         configuration or a number. `reason` has the values of [reasons.md](reasons.md), and is empty \
         for the upstream's own replies. The log's `outcome` has the values of \
         `ambassador_tcp_connections_total`, its `fault` those of \
         `ambassador_faults_injected_total`.\n\n| label | value | meaning |\n|---|---|---|\n"
    );
    for Values {
        metric,
        label,
        values,
    } in all()
    {
        if label == "reason" {
            continue;
        }
        let of = metric.map_or("the log".to_owned(), |metric| format!("`{metric}`"));
        for alike in values.chunk_by(|(_, one), (_, next)| one == next) {
            let words: Vec<String> = alike.iter().map(|(word, _)| format!("`{word}`")).collect();
            let (words, meaning) = (words.join(", "), alike[0].1.trim());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {of}: `{label}` | {words} | {meaning} |");
        }
    }
    text.push('\n');
    text
}

#[test]
fn every_value_is_in_the_documents() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let start = page.find(HEADING).expect("it has the section");
    let length = page[start + 3..].find("## ").expect("others follow") + 3;
    let expected = section();
    if std::env::var_os("AMBASSADOR_WRITE_REFERENCE").is_some() {
        let page = [&page[..start], &expected, &page[start + length..]].concat();
        return std::fs::write(PAGE, page).unwrap();
    }
    assert_eq!(
        page[start..start + length],
        expected,
        "AMBASSADOR_WRITE_REFERENCE=1 cargo test -p ambassador telemetry:: writes it"
    );
}

#[test]
fn a_value_means_one_thing() {
    for Values {
        metric,
        label,
        values,
    } in all()
    {
        let words: std::collections::HashSet<_> = values.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), values.len(), "{metric:?} {label}");
        assert!(values.iter().all(|(_, meaning)| meaning.ends_with('.')));
    }
}
