use std::collections::HashSet;

use super::super::cells::Cells;
use super::super::floods::FloodCounts;
use super::super::labels::tests::{OPEN, all};
use super::super::labels::{
    AttemptOutcome, BackendLabel, CredentialOutcome, Direction, FaultKind, GrpcStatus,
    HealthCheckResult, MemoryKind, MethodLabel, ReasonLabel, RetryCause, TcpOutcome, TlsGroup,
    TlsOutcome, TlsVersion,
};
use super::super::record::{Passage, RequestRecord};
use super::super::registry::{ListenerIndex, UpstreamIndex};
use super::super::{HandshakeCount, Resumption};
use super::*;
use ambassador_ebpf::Verdict;

use crate::clock::Instant;

/// One of everything that can be counted, each label with each of its values.
fn rendered(format: Format) -> String {
    let registry = Registry::default();
    let shop = registry.upstream("sh\"op");
    CredentialOutcome::ALL
        .iter()
        .for_each(|outcome| registry.credential_refresh(shop, *outcome));
    HealthCheckResult::ALL
        .iter()
        .for_each(|result| registry.health_check(shop, *result));
    registry.dns_failure(shop);
    registry.control.reloaded(1_700_000_000);
    let cells = Cells::default();
    for (method, reason) in MethodLabel::ALL.iter().zip(reasons()) {
        request(&cells, shop, *method, reason);
    }
    for reason in reasons() {
        request(&cells, shop, MethodLabel::Get, reason);
    }
    let calls = registry.upstream("calls");
    for status in GrpcStatus::ALL {
        let record = record(calls);
        record.grpc_status.set(Some(*status));
        cells.request(&record, record.passage.started);
    }
    AttemptOutcome::ALL
        .iter()
        .for_each(|outcome| cells.attempt(shop, *outcome));
    RetryCause::ALL
        .iter()
        .for_each(|cause| cells.retry(shop, *cause));
    TcpOutcome::ALL
        .iter()
        .for_each(|outcome| cells.tcp_connection(shop, *outcome));
    FaultKind::ALL
        .iter()
        .for_each(|kind| cells.fault(shop, *kind));
    cells.bytes(shop, Direction::Sent, 11);
    cells.pool(shop, |pool| pool.idle = 2);
    cells.pool_reuse(shop);
    cells.connection_opened(ListenerIndex::CAPTURE);
    let mut floods = FloodCounts::default();
    floods.count(FloodPeer::Caller, FloodCause::PeerResets);
    floods.count(FloodPeer::Caller, FloodCause::PeerResets);
    cells.floods(floods);
    cells.task_panics(4);
    let extras = Extras {
        certificates: vec![("upstreams.shop.tls".to_owned(), -5)],
        handshakes: vec![("upstream", "shop".to_owned(), handshakes())],
        memory: MemoryKind::ALL.iter().map(|kind| (*kind, 7)).collect(),
        captured_connects: Verdict::ALL.map(|verdict| (verdict, 3)).to_vec(),
        capture_slots: Some(CaptureSlots {
            used: 5,
            reclaimed: 6,
        }),
        credential_expiry: vec![("shop".into(), Duration::from_secs(90))],
        unhealthy_endpoints: vec![("shop".into(), 2)],
        backend: BackendLabel::Epoll,
    };
    let staleness = Duration::from_millis(1_500);
    render(format, &cells.snapshot(), staleness, &registry, &extras)
}

fn reasons() -> impl Iterator<Item = Option<ReasonLabel>> {
    let known = ReasonLabel::ALL.iter().copied().map(Some);
    known.chain([None])
}

/// A request of 3 ms, 30 us of them spent here.
fn request(
    cells: &Cells,
    upstream: UpstreamIndex,
    method: MethodLabel,
    reason: Option<ReasonLabel>,
) {
    let mut record = record(upstream);
    record.method = method;
    record.status.set(503);
    record.reason = reason;
    record.overhead.set(Duration::from_micros(30));
    let ended = record.passage.started + Duration::from_millis(3);
    cells.request(&record, ended);
}

fn record(upstream: UpstreamIndex) -> RequestRecord {
    let passage = Passage::new(ListenerIndex::CAPTURE, Instant::now());
    let mut record = RequestRecord::new(passage);
    record.passage.upstream = upstream;
    record
}

/// Some with every result that there is.
fn handshakes() -> Vec<HandshakeCount> {
    let failed = TlsOutcome::ALL.iter().map(|outcome| (*outcome, None));
    let completed = TlsVersion::ALL.iter().flat_map(|version| {
        TlsGroup::ALL.iter().flat_map(|group| {
            [Resumption::Full, Resumption::Resumed].map(|resumption| {
                let agreed = (*version, *group, resumption);
                (TlsOutcome::Completed, Some(agreed))
            })
        })
    });
    let counts = failed.chain(completed);
    let counts = counts.map(|(outcome, agreed)| HandshakeCount {
        outcome,
        agreed,
        count: 8,
    });
    counts.collect()
}

#[test]
fn every_metric_of_the_contract_is_there() {
    let text = rendered(Format::Prometheus);
    for line in [
        r#"ambassador_memory_bytes{kind="held"} 7"#,
        r#"ambassador_requests_total{upstream="sh\"op",method="GET",status="503",reason="no-endpoint"} 2"#,
        r#"ambassador_request_duration_seconds_bucket{upstream="sh\"op",le="0.0025"} 0"#,
        r#"ambassador_request_duration_seconds_bucket{upstream="sh\"op",le="0.005"} 31"#,
        r#"ambassador_request_duration_seconds_bucket{upstream="sh\"op",le="+Inf"} 31"#,
        r#"ambassador_request_duration_seconds_count{upstream="sh\"op"} 31"#,
        r#"ambassador_request_duration_seconds_sum{upstream="sh\"op"} 0.093"#,
        r#"ambassador_overhead_seconds_sum{upstream="sh\"op"} 0.00093"#,
        r#"ambassador_upstream_attempts_total{upstream="sh\"op",outcome="response"} 1"#,
        r#"ambassador_retries_total{upstream="sh\"op",cause="reset"} 1"#,
        r#"ambassador_tcp_connections_total{upstream="sh\"op",outcome="closed"} 1"#,
        r#"ambassador_bytes_total{upstream="sh\"op",direction="sent"} 11"#,
        r#"ambassador_pool_connections{upstream="sh\"op",state="idle"} 2"#,
        r#"ambassador_pool_reuse_total{upstream="sh\"op"} 1"#,
        r#"ambassador_connections{listener="capture"} 1"#,
        r#"ambassador_captured_connects_total{verdict="captured"} 3"#,
        r#"ambassador_http2_floods_total{peer="caller",cause="peer-resets"} 2"#,
        r#"ambassador_http2_floods_total{peer="upstream",cause="header-list"} 0"#,
        "ambassador_task_panics_total 4",
        r#"ambassador_tls_handshakes_total{upstream="shop",outcome="completed",version="1.3",group="X25519MLKEM768",resumed="true"} 8"#,
        r#"ambassador_tls_handshakes_total{upstream="shop",outcome="wrong-name",version="",group="",resumed=""} 8"#,
        r#"ambassador_certificate_expiry_seconds{name="upstreams.shop.tls"} -5"#,
        "ambassador_certificate_reload_failures_total 0",
        "ambassador_command_runner_deaths_total 0",
        "ambassador_config_reloads_total 1",
        "ambassador_config_reload_failures_total 0",
        "ambassador_config_last_reload_successful 1",
        "ambassador_config_last_reload_success_timestamp_seconds 1700000000",
        r#"ambassador_dns_failures_total{upstream="sh\"op"} 1"#,
        r#"ambassador_credential_refreshes_total{upstream="sh\"op",outcome="failed"} 1"#,
        r#"ambassador_credential_expiry_seconds{upstream="shop"} 90"#,
        r#"ambassador_health_checks_total{upstream="sh\"op",result="not-serving"} 1"#,
        r#"ambassador_unhealthy_endpoints{upstream="shop"} 2"#,
        "ambassador_capture_slots 5",
        "ambassador_capture_slots_reclaimed_total 6",
        r#"ambassador_dropped_accepts_total{cause="unknown-token"} 0"#,
        "ambassador_shard_staleness_seconds 1.5",
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}\n{text}");
    }
    assert!(text.contains("ambassador_build_info{version=\""));
    assert!(text.contains("\nprocess_resident_memory_bytes "));
}

/// `{a="b",c="d"}` without escapes in it.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = line.split_once('{') else {
        return Vec::new();
    };
    let (labels, _) = labels.rsplit_once('}').unwrap();
    let pairs = labels
        .split("\",")
        .map(|pair| pair.split_once("=\"").unwrap());
    pairs
        .map(|(label, value)| (label, value.trim_end_matches('"')))
        .collect()
}

#[test]
fn no_label_has_a_value_that_the_documents_do_not_have() {
    let text = rendered(Format::Prometheus);
    let known = all();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for (label, value) in labels(line) {
            let metric = line.split('{').next();
            let mut of_metric = known.iter();
            let of_metric = of_metric.find(|it| it.metric == metric && it.label == label);
            match of_metric {
                Some(_) if label == "reason" && value.is_empty() => {}
                // Nothing was agreed upon.
                Some(_)
                    if metric == Some("ambassador_tls_handshakes_total") && value.is_empty() => {}
                Some(it) => assert!(it.values.iter().any(|(word, _)| *word == value), "{line}"),
                None => assert!(OPEN.contains(&label), "{label} of {line}"),
            }
        }
    }
    // And each is there, but for the other backend.
    for values in known.iter().filter(|it| it.label != "backend") {
        let Some(metric) = values.metric else {
            continue;
        };
        for (value, _) in &values.values {
            let pair = format!("{}=\"{value}\"", values.label);
            let mut lines = text.lines().filter(|line| line.starts_with(metric));
            assert!(lines.any(|line| line.contains(&pair)), "{metric} {pair}");
        }
    }
}

#[test]
fn open_metrics_names_families_without_total_and_ends() {
    let text = rendered(Format::OpenMetrics);
    assert!(text.contains("# TYPE ambassador_requests counter\n"));
    assert!(text.contains("\nambassador_requests_total{"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_series_occurs_once_and_follows_its_own_family() {
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = rendered(format);
        let (mut families, mut series) = (HashSet::new(), HashSet::new());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(family), "{name} under {family}");
                assert!(series.insert(name), "{name} twice");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}

#[test]
fn the_format_follows_accept() {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted(accept), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
}
