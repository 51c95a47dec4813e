use super::super::super::journal::{Step, TryStep};
use super::super::super::labels::{
    AttemptOutcome, Direction, FaultKind, GrpcStatus, ReasonLabel, RelayProtocol, TcpOutcome,
};
use super::super::super::registry::ListenerIndex;
use super::super::FIELDS;
use super::*;
use crate::addr::{EndpointAddr, OriginalDst};

/// To 10.1.2.3:80, begun now.
fn passage() -> Passage {
    let mut passage = Passage::new(ListenerIndex::CAPTURE, Instant::now());
    passage.endpoint = Some(EndpointAddr("10.1.2.3:80".parse().unwrap())).into();
    passage
}

/// The line of what lasted 1.203 ms.
fn parsed(line: &Line, logged: LogRecord<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    let circumstances = Circumstances {
        upstream: "shop",
        listener: "capture",
        unix_ms: 1_709_210_096_789,
        ended: logged.passage().started + Duration::from_micros(1_203),
    };
    line.format(&mut out, logged, circumstances);
    assert_eq!(out.pop(), Some(b'\n'));
    let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    for name in parsed.as_object().unwrap().keys() {
        assert!(FIELDS.contains(&name.as_str()), "{name}");
    }
    parsed
}

fn formatted(describe: Description<'_>, cancelled: bool) -> serde_json::Value {
    let mut record = RequestRecord::new(passage());
    record.status.set(503);
    record.reason = Some(ReasonLabel::NoEndpoint);
    record.attempts.set(1);
    let mut line = Line::default();
    line.describe(describe);
    let record = &record;
    parsed(&line, LogRecord::Request { record, cancelled })
}

#[test]
fn a_line_is_json_whatever_the_client_sent() {
    let line = formatted(
        Description {
            method: b"GET",
            authority: b"shop.example",
            path: b"/a\"b\\c\x01\xff?q",
            request_id: b"7",
            peer_id: b"",
        },
        false,
    );
    assert_eq!(line["time"], "2024-02-29T12:34:56.789Z");
    assert_eq!(line["path"], "/a\"b\\c\u{1}\u{fffd}?q");
    assert_eq!(line["status"], 503);
    assert_eq!(line["reason"], "no-endpoint");
    assert_eq!(line["duration_ms"], 1.203);
    assert_eq!(line["endpoint"], "10.1.2.3:80");
    assert_eq!(line["protocol"], "http1");
    assert_eq!((line.get("cancelled"), line.get("outcome")), (None, None));
}

#[test]
fn a_call_says_how_it_ended() {
    let record = RequestRecord::new(passage());
    let logged = LogRecord::Request {
        record: &record,
        cancelled: false,
    };
    assert_eq!(parsed(&Line::default(), logged).get("grpc_status"), None);
    record.grpc_status.set(Some(GrpcStatus::NotFound));
    let line = parsed(&Line::default(), logged);
    assert_eq!(line["grpc_status"], "not-found");
}

#[test]
fn a_line_moves_no_terminal() {
    let id = "\u{9b}31m \x7f \u{202e}gnp.exe \u{2028}\u{2029} \u{feff} é \u{1f600}";
    let describe = Description {
        request_id: id.as_bytes(),
        ..Description::default()
    };
    let mut line = Line::default();
    line.describe(describe);
    let text = String::from_utf8(line.into_buffer()).unwrap();
    assert!(text.chars().all(printable::is_visible), "{text:?}");
    assert!(text.contains("é \u{1f600}"), "{text}");
    assert_eq!(formatted(describe, false)["request_id"], id);
}

#[test]
fn a_relayed_connection_is_a_line_with_the_same_names() {
    let mut passage = passage();
    passage.original = Some(OriginalDst("192.0.2.7:443".parse().unwrap()));
    passage.client = Some("127.0.0.1:40312".parse().unwrap());
    passage.count(Direction::Sent, 5);
    passage.count(Direction::Received, 70);
    let mut line = Line::default();
    line.describe_tls("shop.example");
    let relay = RelayRecord {
        passage,
        protocol: RelayProtocol::Tls,
        outcome: TcpOutcome::UpstreamReset,
    };
    let expected = serde_json::json!({
        "time": "2024-02-29T12:34:56.789Z",
        "listener": "capture",
        "upstream": "shop",
        "protocol": "tls",
        "server_name": "shop.example",
        "outcome": "upstream-reset",
        "duration_ms": 1.203,
        "endpoint": "10.1.2.3:80",
        "original_destination": "192.0.2.7:443",
        "client": "127.0.0.1:40312",
        "bytes_in": 5,
        "bytes_out": 70,
    });
    assert_eq!(parsed(&line, LogRecord::Relay(&relay)), expected);
}

#[test]
fn a_tunnel_says_how_it_ended() {
    let mut record = RequestRecord::new(passage());
    record.status.set(101);
    record.tunnel = Some(TcpOutcome::ClientReset);
    let logged = LogRecord::Request {
        record: &record,
        cancelled: false,
    };
    let line = parsed(&Line::default(), logged);
    assert_eq!(
        (&line["status"], &line["outcome"]),
        (&101.into(), &"client-reset".into())
    );
}

#[test]
fn a_cancelled_request_says_so() {
    assert_eq!(formatted(Description::default(), true)["cancelled"], true);
}

#[test]
fn where_it_was_tried_is_told_of_several_tries() {
    let record = RequestRecord::new(passage());
    let endpoints = || {
        let logged = LogRecord::Request {
            record: &record,
            cancelled: false,
        };
        let line = parsed(&Line::default(), logged);
        line.get("endpoints").cloned()
    };
    let ends_at = |endpoint: &str| {
        record.passage.journal.add(Step::Try(TryStep {
            endpoint: EndpointAddr(endpoint.parse().unwrap()),
            began: record.passage.started,
            sent: None,
            reused: false,
            head: None,
            ended: record.passage.started,
            outcome: AttemptOutcome::ConnectFailed,
        }));
    };
    assert_eq!(endpoints(), None);
    ends_at("10.1.2.4:80");
    assert_eq!(endpoints(), None);
    ends_at("10.1.2.3:80");
    let both = serde_json::json!(["10.1.2.4:80", "10.1.2.3:80"]);
    assert_eq!(endpoints(), Some(both));
}

#[test]
fn injected_faults_are_named() {
    for (kinds, expected) in [
        (&[][..], None),
        (&[FaultKind::Delay], Some("delay")),
        (&[FaultKind::Abort, FaultKind::Delay], Some("delay,abort")),
    ] {
        let record = RequestRecord::new(passage());
        kinds
            .iter()
            .for_each(|kind| record.passage.add_fault(*kind));
        let logged = LogRecord::Request {
            record: &record,
            cancelled: false,
        };
        let line = parsed(&Line::default(), logged);
        let fault = line.get("fault").map(|fault| fault.as_str().unwrap());
        assert_eq!(fault, expected);
    }
}

#[test]
fn a_long_value_is_cut() {
    let path = vec![b'a'; 70_000];
    let line = formatted(
        Description {
            path: &path,
            ..Description::default()
        },
        false,
    );
    assert_eq!(line["path"].as_str().unwrap().len(), VALUE_BYTES_MAX);
}

#[test]
fn dates_follow_the_calendar() {
    for (unix_ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_219_199_999, "2026-11-20T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        let mut out = Vec::new();
        timestamp(&mut out, unix_ms);
        assert_eq!(str::from_utf8(&out).unwrap(), text);
    }
}
