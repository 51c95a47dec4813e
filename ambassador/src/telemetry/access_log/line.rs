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
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    members: Vec<u8>,
    /// It is written whatever comes of what it tells of.
    is_sampled: bool,
}

/// Values longer than this are cut: a line has a bounded size.
const VALUE_BYTES_MAX: usize = 2 * 1024;

/// What a record does not hold itself.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) struct Circumstances<'a> {
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

    /// One of which these are the members.
    pub(in crate::telemetry) fn of(members: &[u8]) -> Self {
        Self {
            members: members.to_vec(),
            is_sampled: false,
        }
    }

    /// What was described.
    pub(in crate::telemetry) fn members(&self) -> &[u8] {
        &self.members
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
    pub(in crate::telemetry) fn format(
        &self,
        out: &mut Vec<u8>,
        logged: LogRecord<'_>,
        at: Circumstances<'_>,
    ) {
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
        if let [first, others @ ..] = &*record.passage.journal.endpoints()
            && !others.is_empty()
        {
            put(out, format_args!("\"endpoints\":[\"{first}\""));
            for endpoint in others {
                put(out, format_args!(",\"{endpoint}\""));
            }
            out.extend_from_slice(b"],");
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

/// Whether one of the members has exactly this value.
pub(in crate::telemetry) fn has_member(members: &[u8], name: &str, value: &[u8]) -> bool {
    let mut wanted = Vec::new();
    member(&mut wanted, name, value);
    memchr::memmem::find(members, &wanted).is_some()
}

/// Whether the path among the members is this one, whatever its query is.
pub(in crate::telemetry) fn has_path(members: &[u8], path: &[u8]) -> bool {
    let mut wanted = Vec::new();
    member(&mut wanted, "path", path);
    // What closes the string, and the comma.
    wanted.truncate(wanted.len() - 2);
    let Some(at) = memchr::memmem::find(members, &wanted) else {
        return false;
    };
    matches!(members.get(at + wanted.len()), Some(b'"' | b'?'))
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
mod tests;
