//! The access log of a scenario: what it says is what the metrics count.

use std::sync::{Arc, Mutex};

use crate::telemetry::access_log::Sink;
use crate::telemetry::{AttemptOutcome, Direction, Registry, Snapshot, TcpOutcome};

/// One line.
pub(crate) type Line = serde_json::Value;

/// The lines so far.
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

/// An empty one, and where it is written.
pub(super) fn begin(registry: Arc<Registry>) -> (Sink, Log) {
    let (sink, buffer) = Sink::kept(registry);
    (sink, Log(buffer))
}

impl Log {
    /// The lines so far.
    pub(super) fn lines(&self) -> Vec<Line> {
        let buffer = self.0.lock().expect("nobody panics in between");
        let lines = buffer.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let parse = |line| serde_json::from_slice(line).expect("it is JSON");
        lines.map(parse).collect()
    }

    /// Each request, try, relayed connection and byte is told once, and counted once.
    pub(super) fn agrees_with(&self, counted: &Snapshot) {
        let lines = self.lines();
        let mut told: Vec<_> = lines.iter().filter_map(request).collect();
        let upstreams: Vec<_> = counted.upstreams().map(|(_, cells)| cells).collect();
        let mut requests: Vec<(u64, String)> = Vec::new();
        for (key, count) in upstreams.iter().flat_map(|cells| cells.requests()) {
            let reason = key.reason.map_or("", |reason| reason.as_str());
            let key = (u64::from(key.status), reason.to_owned());
            requests.extend(std::iter::repeat_n(key, count as usize));
        }
        told.sort_unstable();
        requests.sort_unstable();
        assert_eq!(told, requests, "requests as they are told and counted");

        let sum = |name: &str| -> u64 { lines.iter().filter_map(|line| line[name].as_u64()).sum() };
        let tries = AttemptOutcome::ALL.iter();
        let tries = tries.flat_map(|outcome| upstreams.iter().map(|up| up.attempts(*outcome)));
        assert_eq!(sum("attempts"), tries.sum::<u64>(), "tries");
        for (name, way) in [
            ("bytes_in", Direction::Sent),
            ("bytes_out", Direction::Received),
        ] {
            let bytes = upstreams.iter().map(|up| up.bytes(way));
            assert_eq!(sum(name), bytes.sum::<u64>(), "{name}");
        }
        for outcome in TcpOutcome::ALL {
            let ended = lines
                .iter()
                .filter(|line| line["outcome"] == outcome.as_str());
            let relays = upstreams.iter().map(|up| up.tcp_connections(*outcome));
            assert_eq!(ended.count() as u64, relays.sum::<u64>(), "{outcome:?}");
        }
    }
}

/// The status and the reason of a request; `None`: it is a relayed connection.
fn request(line: &Line) -> Option<(u64, String)> {
    let reason = line["reason"].as_str().unwrap_or_default();
    Some((line["status"].as_u64()?, reason.to_owned()))
}
