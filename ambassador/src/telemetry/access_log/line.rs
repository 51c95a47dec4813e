//! One line, formatted without allocation but for the buffer it ends up in.

use std::io::Write;
use std::time::Duration;

use super::super::record::{Description, FaultSet, Passage, RelayRecord, RequestRecord};
use crate::clock::{Instant, calendar};
use crate::printable;

/// What a line records: a request or a relayed connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogRecord<'a> {
    /// A request.
    Request {
        /// What is known of it.
        record: &'a RequestRecord,
        /// It was dropped before it was answered whole.
        cancelled: bool,
    },
    /// A relayed connection.
    Relay(&'a RelayRecord),
}

/// The part of a line that is copied while what it tells of goes on. Values are kept
/// escaped: a JSON member with its comma each.
#[derive(Debug, Default)]
pub(crate) struct Line {
    members: Vec<u8>,
    /// It is written whatever comes of what it tells of.
    is_sampled: bool,
}

/// Values longer than this are cut: a line has a bounded size.
const VALUE_BYTES_MAX: usize = 2 * 1024;

/// What a record does not hold itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// Wall time at the end, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The monotonic clock at the end.
    pub ended: Instant,
}

impl<'a> LogRecord<'a> {
    /// From where to where it went.
    pub(super) fn passage(self) -> &'a Passage {
        match self {
            Self::Request { record, .. } => &record.passage,
            Self::Relay(record) => &record.passage,
        }
    }
}

impl Line {
    /// An empty line over a buffer that was used before.
    pub(super) fn reusing(mut members: Vec<u8>, is_sampled: bool) -> Self {
        members.clear();
        Self {
            members,
            is_sampled,
        }
    }

    /// Whether it is written whatever comes of what it tells of.
    pub(super) fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The buffer, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.members
    }

    /// Copies what only the log shows of a request.
    pub(crate) fn describe(&mut self, description: Description<'_>) {
        self.members.clear();
        member(&mut self.members, "method", description.method);
        member(&mut self.members, "authority", description.authority);
        member(&mut self.members, "path", description.path);
        member(&mut self.members, "request_id", description.request_id);
        self.describe_peer(description.peer_id);
    }

    /// Adds who the client is by its certificate, where it has shown one.
    pub(crate) fn describe_peer(&mut self, id: &[u8]) {
        if !id.is_empty() {
            member(&mut self.members, "peer_id", id);
        }
    }

    /// Copies what the log shows of a request of which no more is known.
    pub(crate) fn describe_sender(&mut self, method: &str, peer_id: &[u8]) {
        self.members.clear();
        member(&mut self.members, "method", method.as_bytes());
        self.describe_peer(peer_id);
    }

    /// Adds what the reason alone does not say; `method` is that of a request
    /// that nothing else is known of.
    pub(crate) fn explain(&mut self, method: &str, detail: &str) {
        if self.members.is_empty() {
            member(&mut self.members, "method", method.as_bytes());
        }
        self.detail(detail);
    }

    /// Adds what the outcome alone does not say.
    pub(crate) fn detail(&mut self, detail: &str) {
        member(&mut self.members, "detail", detail.as_bytes());
    }

    /// Adds the server name that a TLS client asks for.
    pub(crate) fn describe_tls(&mut self, server_name: &str) {
        member(&mut self.members, "server_name", server_name.as_bytes());
    }

    /// Appends the whole line to `out`.
    pub(super) fn format(&self, out: &mut Vec<u8>, logged: LogRecord<'_>, at: Circumstances<'_>) {
        let passage = logged.passage();
        let duration = at.ended.saturating_duration_since(passage.started);
        out.extend_from_slice(b"{\"time\":\"");
        timestamp(out, at.unix_ms);
        out.extend_from_slice(b"\",");
        member(out, "listener", at.listener.as_bytes());
        member(out, "upstream", at.upstream.as_bytes());
        match logged {
            LogRecord::Request { record, cancelled } => {
                self.request(out, record, cancelled, duration)
            }
            LogRecord::Relay(record) => self.relay(out, record, duration),
        }
        ends(out, passage);
    }

    /// What only a request has.
    fn request(
        &self,
        out: &mut Vec<u8>,
        record: &RequestRecord,
        cancelled: bool,
        duration: Duration,
    ) {
        member(out, "protocol", record.protocol.as_str().as_bytes());
        // What is refused before its head was read is not described.
        if !self.members.starts_with(b"\"method\"") {
            member(out, "method", record.method.as_str().as_bytes());
        }
        out.extend_from_slice(&self.members);
        put(out, format_args!("\"status\":{},", record.status.get()));
        if let Some(status) = record.grpc_status.get() {
            member(out, "grpc_status", status.as_str().as_bytes());
        }
        if let Some(reason) = record.reason {
            member(out, "reason", reason.as_str().as_bytes());
        }
        if let Some(outcome) = record.tunnel {
            member(out, "outcome", outcome.as_str().as_bytes());
        }
        if cancelled {
            out.extend_from_slice(b"\"cancelled\":true,");
        }
        put(
            out,
            format_args!(
                "\"duration_ms\":{},\"overhead_ms\":{},\"attempts\":{},\"reused\":{},",
                Milliseconds(duration),
                Milliseconds(record.overhead.get().min(duration)),
                record.attempts.get(),
                record.reused.get(),
            ),
        );
        let elsewhere = record.elsewhere.borrow();
        if let Some(last) = record.passage.endpoint.get()
            && !elsewhere.is_empty()
        {
            out.extend_from_slice(b"\"endpoints\":[");
            for endpoint in &*elsewhere {
                put(out, format_args!("\"{endpoint}\","));
            }
            put(out, format_args!("\"{last}\"],"));
        }
    }

    /// What only a relayed connection has.
    fn relay(&self, out: &mut Vec<u8>, record: &RelayRecord, duration: Duration) {
        member(out, "protocol", record.protocol.as_str().as_bytes());
        out.extend_from_slice(&self.members);
        member(out, "outcome", record.outcome.as_str().as_bytes());
        let duration = Milliseconds(duration);
        put(out, format_args!("\"duration_ms\":{duration},"));
    }
}

/// Faults, addresses and bytes, with which every line ends.
fn ends(out: &mut Vec<u8>, passage: &Passage) {
    for (number, kind) in passage.faults.get().iter().enumerate() {
        let before = if number == 0 { "\"fault\":\"" } else { "," };
        put(out, format_args!("{before}{}", kind.as_str()));
    }
    if passage.faults.get() != FaultSet::default() {
        out.extend_from_slice(b"\",");
    }
    if let Some(endpoint) = passage.endpoint.get() {
        put(out, format_args!("\"endpoint\":\"{endpoint}\","));
    }
    if let Some(tls) = passage.tls.get() {
        member(out, "tls_version", tls.version.as_str().as_bytes());
        member(out, "tls_group", tls.group.as_str().as_bytes());
        member(out, "tls_cipher", tls.cipher.as_str().as_bytes());
        put(
            out,
            format_args!("\"tls_resumed\":{},", tls.resumption.as_str()),
        );
    }
    if let Some(original) = passage.original {
        put(
            out,
            format_args!("\"original_destination\":\"{original}\","),
        );
    }
    if let Some(client) = passage.client {
        put(out, format_args!("\"client\":\"{client}\","));
    }
    let (bytes_in, bytes_out) = (passage.bytes_in.get(), passage.bytes_out.get());
    put(
        out,
        format_args!("\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}}}\n"),
    );
}

/// Shown with microseconds: `1.203`.
struct Milliseconds(Duration);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = self.0.as_micros();
        write!(f, "{}.{:03}", us / 1_000, us % 1_000)
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

/// `"name":"value",` with nothing in it that a terminal obeys or that does not
/// show; bytes that are no UTF-8 become U+FFFD.
fn member(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(out, format_args!("\"{name}\":\""));
    let value = &value[..value.len().min(VALUE_BYTES_MAX)];
    for chunk in value.utf8_chunks() {
        printable::push_json(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",");
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(out: &mut Vec<u8>, unix_ms: u64) {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = calendar::date(days);
    put(
        out,
        format_args!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1_000 % 60,
            ms % 1_000
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::super::super::labels::{
        Direction, FaultKind, GrpcStatus, ReasonLabel, RelayProtocol, TcpOutcome,
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
            record.is_tried_at(EndpointAddr("10.1.2.4:80".parse().unwrap()));
            line.get("endpoints").cloned()
        };
        assert_eq!(endpoints(), None);
        let both = serde_json::json!(["10.1.2.3:80", "10.1.2.4:80"]);
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
}
