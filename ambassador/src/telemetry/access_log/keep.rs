//! What is logged whatever the sample says.

use std::time::Duration;

use super::super::labels::{GrpcStatus, TcpOutcome};
use super::super::record::RequestRecord;
use super::line::LogRecord;

/// Requests and relayed connections of which none is left out by the sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Those that have failed.
    pub failed: bool,
    /// Those that were tried more than once.
    pub retried: bool,
    /// Those that took at least as long.
    pub slow: Option<Duration>,
}

impl Keep {
    /// Whether any may be kept.
    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }

    /// Whether this one is, which took so long.
    pub(super) fn keeps(self, logged: LogRecord<'_>, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took >= slow)
            || self.failed && has_failed(logged)
            || self.retried && is_retried(logged)
    }
}

/// Whether it did not go as its caller meant it to: it has a reason, was cancelled or has
/// no whole answer, a status of 500 and above, a code that is a server's fault; or was
/// relayed and not closed in order.
pub(in crate::telemetry) fn has_failed(logged: LogRecord<'_>) -> bool {
    match logged {
        LogRecord::Request { record, cancelled } => {
            cancelled
                || record.reason.is_some()
                || !(100..500).contains(&record.status.get())
                || record.tunnel.is_some_and(|it| it != TcpOutcome::Closed)
                || is_fault_of_server(record)
        }
        LogRecord::Relay(record) => record.outcome != TcpOutcome::Closed,
    }
}

/// The codes that OpenTelemetry's conventions for gRPC count as errors of a server.
fn is_fault_of_server(record: &RequestRecord) -> bool {
    matches!(
        record.grpc_status.get(),
        Some(
            GrpcStatus::Unknown
                | GrpcStatus::DeadlineExceeded
                | GrpcStatus::Unimplemented
                | GrpcStatus::Internal
                | GrpcStatus::Unavailable
                | GrpcStatus::DataLoss
        )
    )
}

fn is_retried(logged: LogRecord<'_>) -> bool {
    match logged {
        LogRecord::Request { record, .. } => record.attempts.get() > 1,
        LogRecord::Relay(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::labels::{ReasonLabel, RelayProtocol};
    use super::super::super::record::{Passage, RelayRecord};
    use super::super::super::registry::ListenerIndex;
    use super::*;
    use crate::clock::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn passage() -> Passage {
        Passage::new(ListenerIndex::CAPTURE, Instant::now())
    }

    /// Answered with this status at the first try.
    fn answered(status: u16) -> RequestRecord {
        let record = RequestRecord::new(passage());
        record.status.set(status);
        record.attempts.set(1);
        record
    }

    fn keeps(keep: Keep, record: &RequestRecord) -> bool {
        let logged = LogRecord::Request {
            record,
            cancelled: false,
        };
        keep.keeps(logged, MS)
    }

    #[test]
    fn what_failed_is_kept() {
        let keep = Keep {
            failed: true,
            ..Keep::default()
        };
        for (status, is_kept) in [
            (200, false),
            (404, false),
            (500, true),
            (599, true),
            (0, true),
        ] {
            assert_eq!(keeps(keep, &answered(status)), is_kept, "{status}");
        }
        let mut refused = answered(429);
        assert!(!keeps(keep, &refused));
        refused.reason = Some(ReasonLabel::RateLimited);
        assert!(keeps(keep, &refused));
        let call = answered(200);
        call.grpc_status.set(Some(GrpcStatus::NotFound));
        assert!(!keeps(keep, &call));
        call.grpc_status.set(Some(GrpcStatus::Unavailable));
        assert!(keeps(keep, &call) && !keeps(Keep::default(), &call));
        let left = LogRecord::Request {
            record: &answered(200),
            cancelled: true,
        };
        assert!(keep.keeps(left, MS));
        for (outcome, is_kept) in [
            (TcpOutcome::Closed, false),
            (TcpOutcome::UpstreamReset, true),
        ] {
            let relay = RelayRecord {
                passage: passage(),
                protocol: RelayProtocol::Tcp,
                outcome,
            };
            assert_eq!(keep.keeps(LogRecord::Relay(&relay), MS), is_kept);
        }
    }

    #[test]
    fn what_was_retried_or_slow_is_kept() {
        let retried = Keep {
            retried: true,
            ..Keep::default()
        };
        let record = answered(200);
        assert!(!keeps(retried, &record));
        record.attempts.set(2);
        assert!(keeps(retried, &record));
        let slow = |slow| Keep {
            slow: Some(slow),
            ..Keep::default()
        };
        assert!(keeps(slow(MS), &record) && !keeps(slow(2 * MS), &record));
        assert!(slow(MS).is_any() && !Keep::default().is_any());
    }
}
